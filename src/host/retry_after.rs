//! The pause that an answer asks for with `retry-after`.

use crate::host::Bytes;
use engine::time::Time;

const TOO_MANY: u32 = 429;
const UNAVAILABLE: u32 = 503;

/// The pause that an answer with this status asks for, seconds, if it does; `header` reads its `retry-after`, `wall` the
/// wall-clock time.
pub(crate) fn pause_asked_for(
    status: u32,
    header: impl FnOnce() -> Option<Bytes>,
    wall: impl FnOnce() -> Time,
) -> Option<f64> {
    let asks = matches!(status, TOO_MANY | UNAVAILABLE);
    let value = if asks { header() } else { None };
    retry_after(&value?, wall())
}

/// Seconds, from a number or a date (RFC 9110, 10.2.3). Callers bound them.
#[inline(never)]
fn retry_after(value: &[u8], now: Time) -> Option<f64> {
    let value = core::str::from_utf8(value.get(..64).unwrap_or(value)).ok()?.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // Nine digits exceed any hold time.
        return Some(value.get(..9.min(value.len()))?.parse::<u32>().ok()?.into());
    }
    let at = date(value)?;
    Some((at - now.0 as f64 * 1e-9).max(0.0))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that senders may generate.
fn date(text: &str) -> Option<f64> {
    let mut parts = text.split_once(',')?.1.strip_prefix(' ')?.split(' ');
    let mut next = || parts.next();
    let number = |text: &str, digits: usize| {
        let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        if plain { text.parse::<i64>().ok() } else { None }
    };
    let day = number(next()?, 2).filter(|day| (1..=31).contains(day))?;
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let name = next()?;
    let month = (1i64..).zip(months).find(|(_, month)| *month == name)?.0;
    let year = number(next()?, 4)?;
    let mut clock = next()?.split(':').map(|part| number(part, 2));
    let mut unit = || clock.next().flatten();
    let (hour, minute, second) = (unit()?, unit()?, unit()?);
    if next() != Some("GMT") || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970, counted in years that begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) as f64)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn reads_seconds_and_dates() {
        let now = Time::from_secs_f64(784_111_777.0);
        for (value, seconds) in [
            ("0", 0.0),
            ("120", 120.0),
            (" 7 ", 7.0),
            ("99999999999999999999", 999_999_999.0),
            ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
            ("Sun, 06 Nov 1994 08:49:07 GMT", 0.0),
            ("Thu, 29 Feb 1996 00:00:00 GMT", 825_552_000.0 - 784_111_777.0),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800.0 - 784_111_777.0),
        ] {
            assert_eq!(retry_after(value.as_bytes(), now), Some(seconds), "{value}");
        }
        for value in [
            "",
            "-1",
            "1.5",
            "soon",
            "Sun, 06 Nov 1994",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "\u{7f}",
        ] {
            assert_eq!(retry_after(value.as_bytes(), now), None, "{value}");
        }
        assert_eq!(retry_after(&[0xFF; 200], now), None);
    }
}
