//! Formatting of results: tables, percentiles of histograms, aligned numbers.

use comfy_table::{Cell, CellAlignment, Table, presets};
use hdrhistogram::Histogram;

/// A table whose first column is aligned to the left and the others to the right.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(header.iter().enumerate().map(aligned));
    for row in rows {
        table.add_row(row.iter().enumerate().map(aligned));
    }
    table.to_string()
}

fn aligned(cell: (usize, impl ToString)) -> Cell {
    let side = if cell.0 == 0 { CellAlignment::Left } else { CellAlignment::Right };
    Cell::new(cell.1.to_string()).set_alignment(side)
}

/// A percentile, in milliseconds, of a histogram in microseconds; 0 if it is empty.
pub fn percentile_ms(latency_us: &Histogram<u64>, percentile: f64) -> f64 {
    if latency_us.is_empty() { 0.0 } else { latency_us.value_at_percentile(percentile) as f64 / 1000.0 }
}

/// Milliseconds in readable form: `1.2 ms`, `59 ms`, `2.10 s`; `–` for zero.
pub fn milliseconds(value: f64) -> String {
    match value {
        v if v <= 0.0 => "–".to_owned(),
        v if v < 10.0 => format!("{v:.1} ms"),
        v if v < 1000.0 => format!("{v:.0} ms"),
        v => format!("{:.2} s", v / 1000.0),
    }
}

/// A fraction as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
