//! The guard's findings, as figures and as a sentence.

use serde::Serialize;

use engine::guard::{Change, Estimates, FailureEstimate, Finding, Guard, QuantileEstimate};
use engine::time::Time;

/// The state of a cluster's guard.
#[derive(Clone, Debug, Serialize)]
pub struct GuardReport {
    /// The finding and its figures as a sentence.
    pub sentence: String,
    /// The verdict on steering: `open`, `better`, `mixed`, `worse`.
    pub verdict: &'static str,
    /// Whether nothing is steered because harm was found.
    pub aside: bool,
    /// The rest of that pause, seconds.
    pub aside_s: Option<f64>,
    /// Number of times that it has stepped aside.
    pub asides: u32,
    /// The percentage of requests left to Envoy, as configured.
    pub holdout_percent: f64,
    /// The counts of both arms since midnight UTC.
    pub today: Today,
}

/// The counts of both arms.
#[derive(Clone, Debug, Serialize)]
pub struct Today {
    /// Steered requests.
    pub steered: u64,
    /// Requests left to Envoy.
    pub held_out: u64,
    /// Latencies of requests that did not fail.
    pub quantiles: Vec<Quantile>,
    /// Failures.
    pub failures: Failures,
}

/// A latency quantile of both arms.
#[derive(Clone, Debug, Serialize)]
pub struct Quantile {
    /// The quantile, 0..=1.
    pub quantile: f64,
    /// Its value among steered requests, milliseconds.
    pub steered_ms: Option<f64>,
    /// Its value among requests left to Envoy, milliseconds.
    pub held_out_ms: Option<f64>,
    /// Steered over held out, minus 1; `None` while there are too few requests.
    pub change: Option<f64>,
    /// The lower bound of `change`, at 95 %.
    pub low: Option<f64>,
    /// The upper bound of `change`, at 95 %.
    pub high: Option<f64>,
}

/// Failures in both arms.
#[derive(Clone, Debug, Serialize)]
pub struct Failures {
    /// Failures of steered requests.
    pub steered: u64,
    /// Failures of requests left to Envoy.
    pub held_out: u64,
    /// Estimated number of failures that steering has avoided; negative for harm.
    pub avoided: f64,
    /// The lower bound of `avoided`, at 95 %.
    pub low: f64,
    /// The upper bound of `avoided`, at 95 %.
    pub high: f64,
}

fn short(value: f64) -> f64 {
    if value.is_finite() { (value * 1e4).round() / 1e4 } else { 0.0 }
}

impl GuardReport {
    /// The state of `guard`.
    #[inline(never)]
    pub fn of(guard: &Guard, now: Time) -> GuardReport {
        let Estimates { steered, held_out, quantiles, failures } = guard.estimates();
        let left_s = guard.aside_until.seconds_since(now);
        let quantile = |q: &QuantileEstimate| Quantile {
            quantile: q.part,
            steered_ms: q.steered_s.map(|s| short(s * 1e3)),
            held_out_ms: q.held_out_s.map(|s| short(s * 1e3)),
            change: q.change.map(|c| short(c.estimate)),
            low: q.change.map(|c| short(c.low)),
            high: q.change.map(|c| short(c.high)),
        };
        GuardReport {
            sentence: sentence(guard, now),
            verdict: guard.finding.name(),
            aside: guard.is_aside(),
            aside_s: guard.is_aside().then_some(short(left_s)),
            asides: guard.asides,
            holdout_percent: short(guard.holdout * 100.0),
            today: Today {
                steered,
                held_out,
                quantiles: quantiles.iter().map(quantile).collect(),
                failures: Failures {
                    steered: failures.steered,
                    held_out: failures.held_out,
                    avoided: short(failures.avoided),
                    low: short(failures.low),
                    high: short(failures.high),
                },
            },
        }
    }
}

/// The finding of `guard` as a sentence.
#[inline(never)]
pub fn sentence(guard: &Guard, now: Time) -> String {
    let found = figures(&guard.estimates());
    match (guard.is_aside(), guard.finding) {
        (true, _) => {
            let minutes = (guard.aside_until.seconds_since(now) / 60.0).ceil();
            format!(
                "steering was significantly worse than Envoy's own policy, so every request is left to Envoy for another {minutes} min: {found}"
            )
        }
        (_, Finding::Better) => format!("steering is significantly better: {found}"),
        (_, Finding::Mixed) => {
            format!("steering is significantly better in some figures and worse in others: {found}")
        }
        (_, Finding::Worse) => format!("steering is significantly worse: {found}"),
        (_, Finding::Open) => format!("no significant difference yet: {found}"),
    }
}

/// The figures of the day that ends.
#[inline(never)]
pub fn day(guard: &Guard) -> String {
    figures(&guard.estimates())
}

/// Today's figures, as far as there are enough requests for them.
#[inline(never)]
fn figures(of: &Estimates) -> String {
    let mut parts: Vec<String> = of.quantiles.iter().filter_map(latency).collect();
    if parts.is_empty() {
        parts.push("latency: too few requests".into());
    }
    parts.push(failures(&of.failures));
    format!("{} today, of {} requests left to Envoy", parts.join(", "), of.held_out)
}

#[inline(never)]
fn latency(of: &QuantileEstimate) -> Option<String> {
    let Change { estimate, low, high } = of.change?;
    let name = format!("p{:.0}", 100.0 * of.part);
    let same = low <= 0.0 && high >= 0.0;
    // The bound closer to zero comes first.
    let (near, far) = if high < 0.0 { (high, low) } else { (low, high) };
    let bounds = format!("95 %: {} to {}", percent(near), percent(far));
    Some(match same {
        true => format!("{name} no difference ({bounds})"),
        false => format!("{name} {} % ({bounds})", percent(estimate)),
    })
}

/// A change in percent, with its sign.
fn percent(change: f64) -> String {
    let whole = (100.0 * change).round();
    match whole {
        _ if whole < 0.0 => format!("\u{2212}{:.0}", -whole),
        _ if whole > 0.0 => format!("+{whole:.0}"),
        _ => "0".into(),
    }
}

#[inline(never)]
fn failures(of: &FailureEstimate) -> String {
    match of {
        FailureEstimate { steered: 0, held_out: 0, .. } => "no failures".into(),
        _ if of.low > 0.0 => format!("{:.0} failures avoided", of.avoided),
        _ if of.high < 0.0 => format!("{:.0} more failures", -of.avoided),
        _ => "no difference in failures".into(),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use engine::guard::Arm;
    use engine::guard::histogram::bucket_of;

    #[test]
    fn sentence_matches_the_figures() {
        let now = Time(1_800_000_000 * 1_000_000_000);
        let mut guard = Guard::new(0.1, now);
        assert_eq!(
            sentence(&guard, now),
            "no significant difference yet: latency: too few requests, no failures today, of 0 requests left to Envoy"
        );
        for n in 0..100_000u64 {
            let ms = n % 100 + 1;
            let held = n % 10 == 3;
            let arm = if held { Arm::HeldOut } else { Arm::Steered };
            let ms = if held { (n / 10 % 100 + 1) * 2 } else { ms };
            guard.today.count(arm, (n % 1000 != 3).then(|| bucket_of(ms * 1_000_000)));
        }
        guard.finding = Finding::Better;
        let text = sentence(&guard, now);
        assert_eq!(
            text,
            "steering is significantly better: p50 \u{2212}51 % (95 %: \u{2212}48 to \u{2212}53), p90 \u{2212}50 % (95 %: \u{2212}49 to \u{2212}51), \
             p99 \u{2212}50 % (95 %: \u{2212}50 to \u{2212}50), 900 failures avoided today, of 10000 requests left to Envoy"
        );
        guard.aside_until = now.after_secs(540.0);
        assert!(sentence(&guard, now).contains("for another 9 min"));
        assert_eq!(GuardReport::of(&guard, now).aside_s, Some(540.0));
    }
}
