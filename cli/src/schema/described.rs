//! Descriptions of fields, from the tables of `docs/configuration.md`, so that they are written once.

use std::collections::BTreeMap;

use super::explore::{Places, split};

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");
/// The section on what stands at the top.
const TOP: &str = "The top";
/// The section on what is accepted and does nothing.
const IDLE: &str = "## Accepted, without effect";

/// What the documentation says of each field, by section and name.
pub struct Descriptions(BTreeMap<(String, String), String>);

impl Descriptions {
    /// Reads the document.
    pub fn new() -> Self {
        Descriptions(read(DOCUMENT))
    }

    /// What is said of the field at `path`; an item and a free key are told with what they are in.
    pub fn of(&self, path: &str) -> Option<&str> {
        let (parent, name) = split(path)?;
        // The nearest section around it that has a row of this name.
        let mut around = Some(parent);
        while let Some(place) = around {
            let steps: Vec<&str> = place.split('.').map(|step| step.trim_end_matches("[]")).skip(1).collect();
            let titles = match steps.as_slice() {
                [] => vec![TOP.to_owned()],
                ["upstreams", inner @ ..] if !inner.is_empty() => {
                    vec![inner.join("."), format!("### {}", inner.last()?)]
                }
                [one] => vec![format!("## {one}")],
                _ => Vec::new(),
            };
            for title in titles {
                if let Some(text) = self.0.get(&(title, name.to_owned())) {
                    return Some(text);
                }
            }
            // What stands in an object of its own right is not told among its neighbours at the very top.
            around = split(place)
                .map(|(parent, _)| parent)
                .filter(|parent| *parent != "$" && *parent != "$.upstreams[]");
        }
        None
    }
}

/// The fields of `places` that no row describes, those left out that have no effect anyway.
pub fn missing(places: &Places) -> Vec<String> {
    let descriptions = Descriptions::new();
    let idle: Vec<&str> =
        descriptions.0.keys().filter(|(title, _)| title == IDLE).map(|(_, name)| name.as_str()).collect();
    let idle = |path: &str| {
        let path = path.trim_start_matches("$.upstreams[]").trim_start_matches(['$', '.']);
        idle.iter().any(|name| path == *name || path.starts_with(&format!("{name}.")))
    };
    let fields =
        places.keys().filter(|path| split(path).is_some_and(|(_, step)| !matches!(step, "[]" | "*")));
    fields.filter(|path| descriptions.of(path).is_none() && !idle(path)).cloned().collect()
}

/// Rows by section, under the section's title and under its name in code with the level of its heading.
fn read(document: &str) -> BTreeMap<(String, String), String> {
    let mut rows = BTreeMap::new();
    let mut title = String::new();
    for line in document.lines() {
        if let Some(heading) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            title = if heading == TOP { TOP.to_owned() } else { line.trim().to_owned() };
            continue;
        }
        let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else { continue };
        let cells: Vec<&str> = row.split(" | ").collect();
        let ([names, .., meaning], true) = (cells.as_slice(), cells.len() >= 2) else { continue };
        for name in names.split('`').skip(1).step_by(2) {
            let text = bare(meaning);
            let first = rows.entry((title.clone(), name.to_owned()));
            first.or_insert(text);
        }
    }
    rows
}

/// Markdown as an editor shows it: links without their targets.
fn bare(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, after)) = rest.split_once("](") {
        let (Some((ahead, shown)), Some((_, tail))) = (before.rsplit_once('['), after.split_once(')')) else {
            break;
        };
        text += &format!("{ahead}{shown}");
        rest = tail;
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_told_in_the_section_of_what_it_stands_in() {
        let descriptions = Descriptions::new();
        for (path, part) in [
            ("$.mode", "sets no header"),
            ("$.prometheus.interval", "time between polls"),
            ("$.upstreams[].cluster", "no other entry names"),
            ("$.upstreams[].endpoints.static[].weight", "capacity"),
            ("$.upstreams[].health.ejection", "longest pause"),
        ] {
            assert!(descriptions.of(path).unwrap_or_default().contains(part), "{path}");
        }
        assert_eq!(descriptions.of("$.upstreams[].health.no_such_field"), None);
    }

    #[test]
    fn links_are_shown_without_their_targets() {
        assert_eq!(bare("a [link](#there), [not one], and [two](x)"), "a link, [not one], and two");
    }
}
