//! The first contender compared with the others: its distance from the oracle, and where it loses.

use crate::scenario::Measure;
use crate::suite::Results;

/// Envoy's own policies, of which the best is taken for each scenario.
const BUILT_IN: &[&str] =
    &["round_robin", "random", "least_request", "least_request+od", "orca+od", "orca-eager+od"];
/// Ratio up to which a difference is noise.
const NOISE: f64 = 1.05;
/// Difference in failed requests up to which it is noise.
const NOISE_FAILED: f64 = 1.0;

/// The verdict in a few lines of text.
pub fn lines(results: &Results, contenders: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    let place = |name: &str| contenders.iter().position(|c| *c == name);
    if let Some(oracle) = place("oracle") {
        let means = (0..contenders.len()).filter(|c| *c != oracle).map(|c| {
            let mean = geometric_mean_ratio(results, c, oracle);
            format!("{} {mean:.2}", contenders[c])
        });
        lines
            .push(format!("p99 over the oracle's, geometric mean: {}", means.collect::<Vec<_>>().join(", ")));
    }
    let built_in: Vec<usize> = BUILT_IN.iter().filter_map(|name| place(name)).collect();
    if let Some(first) = place("adaptive") {
        for (label, against) in
            [("the best built-in", built_in), ("Prequal", place("prequal").into_iter().collect())]
        {
            let losses = losses(results, first, &against);
            if !against.is_empty() {
                let losses = if losses.is_empty() { "nowhere".into() } else { losses.join(", ") };
                lines.push(format!("adaptive worse than {label}: {losses}"));
            }
        }
    }
    lines
}

fn geometric_mean_ratio(results: &Results, contender: usize, oracle: usize) -> f64 {
    let whole = results.rows.iter().filter(|r| r.label.is_empty());
    let logs: Vec<f64> = whole.map(|r| (r.figures[contender].value / r.figures[oracle].value).ln()).collect();
    (logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp()
}

/// Rows in which the first contender loses. The best of the others is the fastest among those that fail least, because
/// failing more is not excused by speed.
fn losses(results: &Results, first: usize, against: &[usize]) -> Vec<String> {
    let latencies = results.rows.iter().filter(|r| !r.minor && matches!(r.what, Measure::Latency(_)));
    let mut found = Vec::new();
    for row in latencies {
        let failed = |c: usize| row.figures[c].failed.unwrap_or(0.0);
        let fewest = against.iter().map(|c| failed(*c)).fold(f64::INFINITY, f64::min);
        let best = against.iter().filter(|c| failed(**c) <= fewest + NOISE_FAILED);
        let best = best.map(|c| row.figures[*c].value).fold(f64::INFINITY, f64::min);
        let own = row.figures[first].value;
        let name = if row.label.is_empty() {
            row.scenario.into()
        } else {
            format!("{} {}", row.scenario, row.label)
        };
        if failed(first) > fewest + NOISE_FAILED {
            found.push(format!("{name} ({:.0} failed, not {fewest:.0})", failed(first)));
        } else if own > best * NOISE {
            found.push(format!("{name} ({own:.0} ms, not {best:.0})"));
        }
    }
    found
}
