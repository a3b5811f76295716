//! Durations: a decimal number and a unit, as in `"250ms"`, `"1.5s"`, `"2m"`, `"1h"`.

use core::ops::RangeInclusive;
use core::time::Duration;

use crate::constraints::Constraint;
use crate::node::{Node, did_you_mean};
use crate::tree::Tree;

/// The nanoseconds of each unit.
const UNITS: [(&str, u64); 4] =
    [("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

impl Node<'_> {
    /// Reads a duration within `range`.
    pub fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.ask(|| Constraint::Duration(*range.start(), *range.end()));
        let allowed = || {
            let (low, high) = (shown(*range.start()), shown(*range.end()));
            format!("a duration such as \"250ms\", \"5s\" or \"2m\", from {low} to {high}")
        };
        let text = match self.tree() {
            Tree::Text(text) => text,
            Tree::Number(number) => {
                let meant = meant(&number.to_string(), &range);
                self.mistyped(&allowed(), meant.as_deref().map(did_you_mean));
                return None;
            }
            _ => {
                self.mistyped(&allowed(), None);
                return None;
            }
        };
        let value = parse(text);
        match value {
            Some(value) if range.contains(&value) => return Some(value),
            Some(_) => self.refuse(&allowed(), None),
            None => self.refuse(&allowed(), meant(text, &range).as_deref().map(did_you_mean)),
        }
        None
    }
}

/// `text` as a duration, exact to the nanosecond.
fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (number, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 9 || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(*nanos)?;
    let fraction = match fraction {
        "" => 0,
        _ => part_of(*nanos, fraction.parse().ok()?, 10u64.pow(fraction.len() as u32)),
    };
    Some(Duration::from_nanos(whole.checked_add(fraction)?))
}

/// `part` of `of` parts of a unit, rounded down. Hours and minutes can be divided by any of these, and only of shorter
/// units is the product small.
fn part_of(unit: u64, part: u64, of: u64) -> u64 {
    if unit.is_multiple_of(of) { part * (unit / of) } else { part * unit / of }
}

/// The likely meaning of a duration with a missing unit, a blank, a capital letter or several parts: seconds, or
/// milliseconds where seconds are too long.
fn meant(text: &str, range: &RangeInclusive<Duration>) -> Option<String> {
    let tidy: String = text.to_ascii_lowercase().split_whitespace().collect();
    let guesses = ["", "s", "ms"].map(|unit| format!("{tidy}{unit}"));
    let whole = sum_of_parts(&tidy).map(shown);
    let mut guesses = guesses.into_iter().chain(whole);
    guesses.find(|guess| parse(guess).is_some_and(|value| range.contains(&value)))
}

/// A duration in parts, as Go and Prometheus write it: `1m30s`.
fn sum_of_parts(mut text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    while !text.is_empty() {
        let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
        let (_, rest) = text.split_at_checked(unit)?;
        let end = unit + rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (part, rest) = text.split_at_checked(end)?;
        sum = sum.checked_add(parse(part)?)?;
        text = rest;
    }
    (!sum.is_zero()).then_some(sum)
}

/// `duration` in the largest unit that needs no fraction, otherwise in milliseconds with one: it reads back unchanged.
pub(crate) fn shown(duration: Duration) -> String {
    // Nothing that is read lasts for centuries.
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".into();
    }
    let fitting = UNITS.iter().rev().find(|(_, unit)| nanos.is_multiple_of(*unit));
    fitting.map_or_else(
        || format!("{}.{:06}", nanos / 1_000_000, nanos % 1_000_000).trim_end_matches('0').to_owned() + "ms",
        |(name, unit)| format!("{}{name}", nanos / unit),
    )
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_number_and_a_unit_are_read_exactly() {
        for (text, nanos) in [
            ("250ms", 250_000_000),
            ("5s", 5_000_000_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("0s", 0),
            ("1.5s", 1_500_000_000),
            ("0.25ms", 250_000),
            ("0.1s", 100_000_000),
            ("0.000000001s", 1),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "5",
            "s",
            ".5s",
            "5.s",
            "-5s",
            "+5s",
            "5 s",
            " 5s",
            "5S",
            "5sec",
            "1m30s",
            "1e3s",
            "5us",
            "５s",
            "1.2.3s",
            "99999999999999999999h",
            "999999999h",
            "1.0000000001s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn likely_slips_are_guessed() {
        let range = Duration::from_millis(100)..=Duration::from_secs(3600);
        assert_eq!(meant("5", &range).as_deref(), Some("5s"));
        assert_eq!(meant("5 S", &range).as_deref(), Some("5s"));
        assert_eq!(meant("5000", &range).as_deref(), Some("5000ms"));
        assert_eq!(meant("9000000", &range), None);
        assert_eq!(meant("soon", &range), None);
    }

    #[test]
    fn bounds_are_shown_in_their_largest_unit() {
        for text in ["0s", "100ms", "1s", "90s", "2m", "1h", "0.25ms", "1000.000001ms"] {
            assert_eq!(parse(text).map(shown).as_deref(), Some(text));
        }
    }
}
