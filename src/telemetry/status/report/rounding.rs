//! Rounding of numbers for display.

/// Three decimals: enough to read, and a third of the bytes.
pub(super) fn short(value: f64) -> f64 {
    if value.is_finite() { (value * 1e3).round() / 1e3 } else { 0.0 }
}

/// Six decimals, for ratios and seconds.
pub(super) fn fine(value: f64) -> f64 {
    if value.is_finite() { (value * 1e6).round() / 1e6 } else { 0.0 }
}

/// The shortest decimal that reads back as `value`: 0.1, not 0.10000000149.
pub(super) fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
