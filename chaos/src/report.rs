//! The table of results, on the screen and in a document.

use std::path::Path;

use testbed::anyhow::{Context, Result};
use testbed::table::{self, milliseconds};

use crate::trial::Outcome;

const HEADER: [&str; 9] =
    ["fault", "requests", "failed with", "alone", "p50 with", "alone", "p99 with", "alone", "verdict"];

fn row(outcome: &Outcome) -> Vec<String> {
    let ms = |percentile| {
        [&outcome.with, &outcome.alone].map(|summary| milliseconds(summary.percentile_ms(percentile)))
    };
    let ([fast_with, fast_alone], [slow_with, slow_alone]) = (ms(50.0), ms(99.0));
    let verdict = if outcome.complaints.is_empty() { "holds" } else { "FAILS" };
    vec![
        outcome.name.to_owned(),
        format!("2 × {}", outcome.with.requests.max(outcome.alone.requests)),
        outcome.with.failed.to_string(),
        outcome.alone.failed.to_string(),
        fast_with,
        fast_alone,
        slow_with,
        slow_alone,
        verdict.to_owned(),
    ]
}

/// The table for the terminal.
pub fn screen(outcomes: &[Outcome]) -> String {
    table::render(&HEADER, &outcomes.iter().map(row).collect::<Vec<_>>())
}

/// The table for a document.
pub fn markdown(outcomes: &[Outcome]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(HEADER.iter().map(ToString::to_string).collect());
    text += "|---|--:|--:|--:|--:|--:|--:|--:|---|\n";
    outcomes.iter().for_each(|outcome| text += &line(row(outcome)));
    text
}

/// Replaces the text between `<!-- section -->` and `<!-- /section -->` of a file.
pub fn write(file: &Path, section: &str, text: &str) -> Result<()> {
    let whole = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let new = replaced(&whole, section, text);
    let new = new.with_context(|| format!("{}: no section {section}", file.display()))?;
    Ok(std::fs::write(file, new)?)
}

fn replaced(whole: &str, section: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {section} -->"), format!("<!-- /{section} -->"));
    let (before, rest) = whole.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn a_section_is_replaced_and_the_rest_stays() {
        let whole = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        let new = replaced(whole, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb\n");
        assert_eq!(replaced(&new, "x", "new"), Some(new));
        assert_eq!(replaced(whole, "y", "new"), None);
    }
}
