//! Numbers as they are shown.

/// Three digits behind the point: enough for eyes, and a third of the bytes.
pub(super) fn short(value: f64) -> f64 {
    if value.is_finite() { (value * 1e3).round() / 1e3 } else { 0.0 }
}

/// Six digits behind the point, for ratios and seconds.
pub(super) fn fine(value: f64) -> f64 {
    if value.is_finite() { (value * 1e6).round() / 1e6 } else { 0.0 }
}

/// The number as it is written by hand: not 0.10000000149 for a tenth.
pub(super) fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
