//! What each part of the policy contributes: where results are worse without it, and where better.

use crate::suite::{Figure, Results, Row};
use crate::table;

/// Number of scenarios named on each side, those with the largest differences; the rest is counted.
const NAMED: usize = 6;

/// Largest difference of a contender from the first one in one scenario.
struct Difference {
    worse: bool,
    size: f64,
    shown: String,
}

/// One line per contender except the first, as Markdown.
pub fn render(results: &Results, contenders: &[&str]) -> String {
    let mut lines = vec![
        "| | p99, geometric mean | worse without it | better without it |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    for (at, name) in contenders.iter().enumerate().skip(1) {
        let differences = differences(results, at);
        lines.push(format!(
            "| `{name}` | {:.2} | {} | {} |",
            mean_ratio(results, at),
            list(&differences, true),
            list(&differences, false)
        ));
    }
    lines.join("\n")
}

/// Geometric mean over the scenarios of the ratio of its p99 to the first contender's.
fn mean_ratio(results: &Results, at: usize) -> f64 {
    let whole: Vec<&Row> = results.rows.iter().filter(|r| r.label.is_empty()).collect();
    let logs: f64 = whole.iter().map(|r| (r.figures[at].value / r.figures[0].value).ln()).sum();
    (logs / whole.len().max(1) as f64).exp()
}

fn differences(results: &Results, at: usize) -> Vec<Difference> {
    let mut found = Vec::new();
    for rows in results.rows.chunk_by(|a, b| a.scenario == b.scenario) {
        let all = rows.iter().filter(|row| !row.minor).filter_map(|row| difference(row, at));
        found.extend(all.max_by(|a, b| a.size.total_cmp(&b.size)));
    }
    found.sort_by(|a, b| b.size.total_cmp(&a.size));
    found
}

fn difference(row: &Row, at: usize) -> Option<Difference> {
    let (whole, without) = (row.figures.first()?, row.figures.get(at)?);
    if table::alike(row.what, whole, without) {
        return None;
    }
    let failures = ratio(without.failed.unwrap_or(0.0), whole.failed.unwrap_or(0.0), 1.0);
    let bad = |figure: &Figure| row.what.badness(figure.value);
    let values = ratio(bad(without), bad(whole), row.what.little(1.0));
    // Failures take precedence: failing sooner is not an improvement.
    let told = if table::failures_differ(whole, without) { failures } else { values };
    let [before, after] = [whole, without].map(|figure| table::cell(row.what, figure));
    let label = if row.label.is_empty() { String::new() } else { format!(" {}", row.label) };
    Some(Difference {
        worse: told > 0.0,
        size: told.abs(),
        shown: format!("{}{label} {before} → {after}", row.scenario),
    })
}

/// Log ratio of `a` to `b`, after adding `least` to both.
fn ratio(a: f64, b: f64, least: f64) -> f64 {
    // Recovery may be infinite.
    let bounded = |x: f64| x.min(1e6) + least;
    (bounded(a) / bounded(b)).ln()
}

fn list(differences: &[Difference], worse: bool) -> String {
    let shown: Vec<&str> =
        differences.iter().filter(|d| d.worse == worse).map(|d| d.shown.as_str()).collect();
    match shown.get(NAMED..) {
        Some(rest) if !rest.is_empty() => {
            format!("{}; and {} more", shown.get(..NAMED).unwrap_or_default().join("; "), rest.len())
        }
        _ if shown.is_empty() => "–".into(),
        _ => shown.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Measure;

    fn row(scenario: &'static str, what: Measure, values: [(f64, f64); 2]) -> Row {
        let figures = values.map(|(value, failed)| Figure {
            value,
            failed: matches!(what, Measure::Latency(_)).then_some(failed),
            range: (value, value),
        });
        Row { scenario, label: "", minor: false, what, figures: figures.into() }
    }

    #[test]
    fn failures_outweigh_speed_and_a_share_is_judged_by_what_it_should_be() {
        let results = Results {
            rows: vec![
                row("fast-errors", Measure::Latency(0.99), [(60.0, 3.0), (50.0, 300.0)]),
                row("two-16x", Measure::Latency(0.99), [(60.0, 0.0), (120.0, 0.0)]),
                row("equal", Measure::Latency(0.99), [(60.0, 0.0), (61.0, 1.0)]),
                row("healed", Measure::Share { of: 0, wanted: 0.1 }, [(0.02, 0.0), (0.09, 0.0)]),
            ],
            courses: Vec::new(),
        };
        let lines = render(&results, &["adaptive", "no-floor"]);
        let line = lines.lines().last().unwrap();
        assert!(line.contains("| fast-errors 60 (3) → 50 (300); two-16x 60 → 120 |"), "{line}");
        assert!(line.ends_with("| healed 0.020 → 0.090 |"), "{line}");
        assert!(!line.contains("equal"), "{line}");
    }
}
