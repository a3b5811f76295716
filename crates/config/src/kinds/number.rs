//! Numbers and their bounds.

use core::fmt;
use core::ops::RangeInclusive;

use crate::constraints::Constraint;
use crate::node::Node;
use crate::tree::Tree;

/// The range of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bounds {
    /// From the first to the second, both included.
    FromTo(f64, f64),
    /// Above the first, up to and including the second.
    AboveUpTo(f64, f64),
    /// Any finite number above this.
    Above(f64),
}

impl Bounds {
    /// From 0 to 100.
    pub const PERCENT: Bounds = Bounds::FromTo(0.0, 100.0);

    fn allow(self, value: f64) -> bool {
        match self {
            Bounds::FromTo(low, high) => (low..=high).contains(&value),
            Bounds::AboveUpTo(low, high) => low < value && value <= high,
            Bounds::Above(low) => low < value && value.is_finite(),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bounds::FromTo(low, high) => write!(f, "a number from {low} to {high}"),
            Bounds::AboveUpTo(low, high) => write!(f, "a number above {low}, at most {high}"),
            Bounds::Above(low) => write!(f, "a number above {low}"),
        }
    }
}

impl Node<'_> {
    /// Reads a number within `bounds`.
    pub fn number(&self, bounds: Bounds) -> Option<f64> {
        self.ask(|| Constraint::Number(bounds));
        let value = self.numeric(&bounds.to_string(), |value| bounds.allow(value))?;
        if bounds.allow(value) {
            return Some(value);
        }
        self.refuse(&bounds.to_string(), None);
        None
    }

    /// Reads a whole number within `range`.
    ///
    /// `3.0` counts as whole: Envoy hands over the numbers of a `google.protobuf.Struct` as doubles.
    pub fn whole(&self, range: RangeInclusive<u32>) -> Option<u32> {
        self.ask(|| Constraint::Whole(*range.start(), *range.end()));
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let bounds = f64::from(*range.start())..=f64::from(*range.end());
        let fits = |value: f64| value.fract() == 0.0 && bounds.contains(&value);
        let value = self.numeric(&allowed, fits)?;
        if fits(value) {
            return Some(value as u32);
        }
        self.refuse(&allowed, None);
        None
    }

    /// Reads a port to connect to, 1..=65535.
    pub fn port(&self) -> Option<u16> {
        self.whole(1..=u32::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
    }

    fn numeric(&self, allowed: &str, fits: impl Fn(f64) -> bool) -> Option<f64> {
        match self.tree() {
            Tree::Number(number) => return number.as_f64(),
            Tree::Text(text) => {
                let bare = text.trim().trim_end_matches('%');
                let meant = bare.parse().ok().filter(|value| fits(*value));
                self.mistyped(allowed, meant.map(|meant| format!("did you mean {meant}?")));
            }
            _ => self.mistyped(allowed, None),
        }
        None
    }
}
