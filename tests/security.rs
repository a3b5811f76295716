//! Each promise of `SECURITY.md` names existing tests.

use std::fs;
use std::path::Path;

/// The parts of a line in backticks, each with the text up to the next.
fn quoted(line: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = line.split('`').collect();
    parts
        .chunks(2)
        .skip(1)
        .scan(1, |at, _| {
            let found = (parts[*at], parts.get(*at + 1).copied().unwrap_or_default());
            *at += 2;
            Some(found)
        })
        .collect()
}

/// Whether the file has a test of this name: a function, or an entry of a macro that makes one.
fn has_test(text: &str, name: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        !before.ends_with(is_name)
            && !after.starts_with(is_name)
            && (before.trim_end().ends_with("fn") || after.starts_with([',', '\n', ')']))
    })
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md");
    let mut named = 0;
    for line in page.lines() {
        let mut file = None;
        for (quote, after) in quoted(line) {
            if quote.ends_with(".rs") && after.trim_start().starts_with(':') {
                file = Some((
                    quote,
                    fs::read_to_string(root.join(quote)).unwrap_or_else(|error| panic!("{quote}: {error}")),
                ));
            } else if let Some((path, text)) = &file {
                assert!(has_test(text, quote), "{path} has no test {quote}: {line}");
                named += 1;
            }
            // The list of a file's tests ends at other text.
            if !matches!(after.trim(), "" | "," | ":" | ";" | "|" | "; real Envoy:") {
                file = None;
            }
        }
    }
    assert!(named > 60, "only {named} tests are named");
}

#[test]
fn every_row_of_promises_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md");
    let mut inside = false;
    for line in page.lines() {
        inside = line.starts_with('|') && (inside || line.contains("held by"));
        if inside && !line.contains("held by") && !line.starts_with("|---") {
            assert!(line.contains(".rs`: `"), "no test holds it: {line}");
        }
    }
}
