//! The meaning of each field, from `fields.txt`, so that schema and documentation use the same words.

use std::collections::BTreeMap;

use super::explore::{Places, split};

const FIELDS: &str = include_str!("fields.txt");
const DEFAULT: &str = "default: ";

/// The description of a field, in Markdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// The default, if it is not a plain value.
    pub default: Option<&'static str>,
    /// The meaning.
    pub meaning: &'static str,
}

/// The descriptions of all fields, by path.
pub struct Descriptions(BTreeMap<&'static str, Described>);

impl Descriptions {
    /// Reads the file.
    pub fn new() -> Self {
        Descriptions(read(FIELDS))
    }

    /// The description of the field at `path`.
    pub fn of(&self, path: &str) -> Option<Described> {
        self.0.get(path).copied()
    }
}

/// The faults of the file: fields without a description, and descriptions without a field.
pub fn faults(places: &Places) -> Vec<String> {
    let descriptions = Descriptions::new();
    let is_field = |path: &&String| split(path).is_some_and(|(_, step)| step != "[]");
    let undescribed = places.keys().filter(is_field).filter(|path| descriptions.of(path).is_none());
    let missing_in_envoy = descriptions.0.keys().filter(|path| !places.contains_key(**path));
    undescribed
        .map(|path| format!("{path} is not described"))
        .chain(missing_in_envoy.map(|path| format!("{path} is described, but is not a field")))
        .collect()
}

/// Reads the entries after the introduction, separated by blank lines: path, optional default, meaning.
fn read(text: &'static str) -> BTreeMap<&'static str, Described> {
    let mut read = BTreeMap::new();
    for entry in text.split("\n\n").skip(1) {
        let Some((path, said)) = entry.trim().split_once('\n') else { continue };
        let (default, meaning) = match said.strip_prefix(DEFAULT).and_then(|said| said.split_once('\n')) {
            Some((default, meaning)) => (Some(default), meaning),
            None => (None, said),
        };
        read.insert(path, Described { default, meaning });
    }
    read
}

/// Markdown as an editor shows it: links without targets.
pub fn bare(markdown: &str) -> String {
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
    use super::super::explore::places;
    use super::*;

    #[test]
    fn every_field_is_described_and_nothing_else() {
        assert_eq!(faults(&places()), [""; 0]);
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_named() {
        let mut places = places();
        let moved = places.remove("$.mode").unwrap_or_default();
        places.insert("$.mood".into(), moved);
        assert_eq!(faults(&places), ["$.mood is not described", "$.mode is described, but is not a field"]);
    }

    #[test]
    fn an_entry_is_a_path_perhaps_a_default_and_a_meaning() {
        let read = read("What this is.\n\n$.a\ndefault: none\nfirst\n\n$.b\nsecond\n");
        assert_eq!(read["$.a"], Described { default: Some("none"), meaning: "first" });
        assert_eq!(read["$.b"], Described { default: None, meaning: "second" });
    }

    #[test]
    fn links_are_shown_without_their_targets() {
        assert_eq!(bare("a [link](#there), [not one], and [two](x)"), "a link, [not one], and two");
    }
}
