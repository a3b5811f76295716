//! Rows as a table for people.

use comfy_table::{CellAlignment, Table, presets};

use crate::scenario::Measure;
use crate::suite::{Figure, Row};

/// One line a row: milliseconds (failed), shares, seconds. The whole run's lesser percentiles only if `full`.
pub fn render(rows: &[Row], contenders: &[&str], full: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([&["p99 ms (failed)"], contenders].concat());
    for row in rows {
        if row.minor && !full {
            continue;
        }
        let name = if row.label.is_empty() { row.scenario.into() } else { format!("  {}", row.label) };
        table.add_row(std::iter::once(name).chain(row.figures.iter().map(|f| cell(row.what, f))));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn cell(what: Measure, figure: &Figure) -> String {
    match (what, figure.failed) {
        (Measure::Latency(_), Some(failed)) if failed > 0.0 => {
            format!("{} ({failed:.0})", milliseconds(figure.value))
        }
        (Measure::Latency(_) | Measure::Task(_), _) => milliseconds(figure.value),
        (Measure::Recovery(_), _) if figure.value.is_infinite() => "never".into(),
        (Measure::Recovery(_), _) => format!("{:.1}", figure.value),
        _ => format!("{:.3}", figure.value),
    }
}

fn milliseconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}
