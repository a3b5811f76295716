//! The rows as a text table.

use comfy_table::{CellAlignment, Table, presets};

use crate::scenario::Measure;
use crate::suite::{Figure, Row};

/// Difference in failed requests up to which it is noise.
const NOISE_FAILED: f64 = 2.0;

/// Contents and format of a table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Show the lower percentiles of the whole run as well.
    pub full: bool,
    /// Show only values that differ from the first contender's by more than noise, and no rows without any.
    pub differences: bool,
    /// Format as Markdown.
    pub markdown: bool,
}

/// One line per row: milliseconds (failed), shares, seconds.
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
            // Markdown ignores leading blanks.
            (label, false) if style.markdown => format!("… {label}"),
            (label, false) => format!("  {label}"),
            // The scenario's own row may be missing.
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

/// Whether two figures differ by no more than noise: the medians are close, or each is within the other's range over
/// the seeds.
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

/// Formats a figure.
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
