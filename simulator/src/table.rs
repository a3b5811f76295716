//! Rows as a table for people.

use comfy_table::{CellAlignment, Table, presets};

use crate::scenario::Measure;
use crate::suite::{Figure, Row};

/// Differences of so many failed requests are noise.
const NOISE_FAILED: f64 = 2.0;

/// What a table shows, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// The whole run's lesser percentiles too.
    pub full: bool,
    /// Of all contenders but the first only what differs from it by more than noise, and no line without any.
    pub differences: bool,
    /// As Markdown.
    pub markdown: bool,
}

/// One line a row: milliseconds (failed), shares, seconds.
pub fn render(rows: &[Row], contenders: &[&str], style: &Style) -> String {
    let mut table = Table::new();
    table.load_style(if style.markdown { presets::ASCII_MARKDOWN } else { presets::NOTHING });
    table.set_header([&["p99 ms (failed)"], contenders].concat());
    for row in rows {
        if row.minor && !style.full {
            continue;
        }
        let name = match (row.label, style.differences) {
            ("", _) => row.scenario.into(),
            // Markdown takes no notice of leading blanks.
            (label, false) if style.markdown => format!("… {label}"),
            (label, false) => format!("  {label}"),
            // The scenario's own line may be left out.
            (label, true) => format!("{}: {label}", row.scenario),
        };
        let Some((first, rest)) = row.figures.split_first() else { continue };
        let same = |figure: &Figure| style.differences && alike(row.what, figure, first);
        if style.differences && rest.iter().all(same) {
            continue;
        }
        let shown = |figure: &Figure| if same(figure) { "·".into() } else { cell(row.what, figure) };
        let cells = std::iter::once(cell(row.what, first)).chain(rest.iter().map(shown));
        table.add_row(std::iter::once(name).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Whether two figures differ by no more than noise: the medians by little, or within each other's range over the
/// seeds.
pub(crate) fn alike(what: Measure, a: &Figure, b: &Figure) -> bool {
    let little = what.little(a.value.min(b.value));
    let within = |x: f64, of: &Figure| (of.range.0..=of.range.1).contains(&x);
    let overlap = within(a.value, b) && within(b.value, a);
    (a.value == b.value || (a.value - b.value).abs() <= little || overlap) && !failures_differ(a, b)
}

/// Whether two figures differ in failures by more than noise.
pub(crate) fn failures_differ(a: &Figure, b: &Figure) -> bool {
    (a.failed.unwrap_or(0.0) - b.failed.unwrap_or(0.0)).abs() > NOISE_FAILED
}

/// A figure as it is shown.
pub(crate) fn cell(what: Measure, figure: &Figure) -> String {
    match (what, figure.failed) {
        (Measure::Latency(_), Some(failed)) if failed > 0.0 => {
            format!("{} ({failed:.0})", milliseconds(figure.value))
        }
        (Measure::Latency(_) | Measure::Task(_), _) => milliseconds(figure.value),
        (Measure::Recovery(_), _) if figure.value.is_infinite() => "never".into(),
        (Measure::Recovery(_) | Measure::Replicas, _) => format!("{:.1}", figure.value),
        _ => format!("{:.3}", figure.value),
    }
}

fn milliseconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}
