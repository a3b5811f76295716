//! The tables of fields in `docs/configuration.md`: names, values and defaults come from the reader, meanings from
//! `fields.txt`. The prose around them is written by hand.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use config::{Bounds, Constraint};

use super::defaults::Defaults;
use super::described::Descriptions;
use super::explore::{Place, Places, places};
use super::write::longest;

/// The document with the tables, from the root of the repository.
pub const FILE: &str = "docs/configuration.md";
const BEGIN: &str = "<!-- fields of ";
const END: &str = "<!-- end of fields -->";

/// The document with its tables updated. An error if a table is missing or belongs to no object.
pub fn text(document: &str) -> Result<String> {
    super::check(&places())?;
    let writer = Writer { places: places(), defaults: Defaults::new(), descriptions: Descriptions::new() };
    let mut written = String::new();
    let mut shown = BTreeSet::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        written += line;
        written.push('\n');
        let Some(path) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        written += &writer
            .table(path)
            .with_context(|| format!("{FILE} has a table of {path}, which has no fields"))?;
        ensure!(lines.any(|line| line == END), "{FILE}: the table of {path} has no end");
        written += &format!("{END}\n");
        ensure!(shown.insert(path.to_owned()), "{FILE} has two tables of {path}");
    }
    let all = writer.places.keys().filter(|path| writer.fields(path).is_some());
    let missing: Vec<&str> = all.filter(|path| !shown.contains(*path)).map(String::as_str).collect();
    ensure!(
        missing.is_empty(),
        "{FILE} has no table of {}: it wants {BEGIN}PATH --> and {END}",
        missing.join(", ")
    );
    Ok(written)
}

struct Writer {
    places: Places,
    defaults: Defaults,
    descriptions: Descriptions,
}

impl Writer {
    fn fields(&self, path: &str) -> Option<&'static [&'static str]> {
        self.places.get(path)?.questions.iter().find_map(|question| match question {
            Constraint::Object(fields) => Some(*fields),
            _ => None,
        })
    }

    fn table(&self, path: &str) -> Option<String> {
        let mut table = "| field | value | default | meaning |\n|---|---|---|---|\n".to_owned();
        for field in self.fields(path)? {
            let below = format!("{path}.{field}");
            let described = self.descriptions.of(&below)?;
            let default = match (described.default, self.defaults.of(&below)) {
                (Some(words), _) => words.to_owned(),
                (None, Some(value)) => format!("`{value}`"),
                _ if self.places.get(&below)?.required => "required".to_owned(),
                _ => "none".to_owned(),
            };
            let row = [format!("`{field}`"), self.value(&below), default, described.meaning.to_owned()];
            table += &format!("| {} |\n", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
        Some(table)
    }

    /// The allowed values of a place, in words.
    fn value(&self, path: &str) -> String {
        let Some(place) = self.places.get(path) else { return String::new() };
        let mut kinds: Vec<String> =
            place.questions.iter().map(|question| self.kind(path, place, question)).collect();
        kinds.extend(place.null.then(|| "`null`".to_owned()));
        kinds.join(", or ")
    }

    fn kind(&self, path: &str, place: &Place, question: &Constraint) -> String {
        match question {
            Constraint::Object(_) => "object".into(),
            Constraint::Map(most) => {
                format!("object of up to {most} names, each with {}", self.value(&format!("{path}.*")))
            }
            Constraint::Array(most) => {
                let least = if place.not_empty { "1" } else { "up" };
                format!("array of {least} to {most}, each {}", self.value(&format!("{path}[]")))
            }
            Constraint::Boolean => "`true` or `false`".into(),
            Constraint::True => "`true`".into(),
            Constraint::Number(Bounds::FromTo(low, high)) => format!("{low} to {high}"),
            Constraint::Number(Bounds::AboveUpTo(low, high)) => format!("above {low}, at most {high}"),
            Constraint::Number(Bounds::Above(low)) => format!("above {low}"),
            Constraint::Whole(low, high) => format!("{low} to {high}"),
            Constraint::Duration(low, high) => format!("`\"{}\"` to `\"{}\"`", longest(*low), longest(*high)),
            Constraint::Text { allowed, .. } => allowed.clone(),
            Constraint::Choice(names) => {
                names.iter().map(|name| format!("`\"{name}\"`")).collect::<Vec<_>>().join(", ")
            }
            Constraint::Given => "anything".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        Writer { places: places(), defaults: Defaults::new(), descriptions: Descriptions::new() }
    }

    #[test]
    fn row_shows_allowed_values_default_and_meaning() {
        let health = writer().table("$.upstreams[].health").unwrap();
        assert!(
            health.contains("\n| `ejection` | `\"100ms\"` to `\"1h\"` | `\"30s\"` | maximum"),
            "{health}"
        );
        let rules = writer().table("$.upstreams[].rules[]").unwrap();
        assert!(
            rules.contains("| `then` | `\"flag\"`, `\"down_weight\"`, `\"eject\"` | required |"),
            "{rules}"
        );
        assert_eq!(writer().table("$.mode"), None);
    }

    #[test]
    fn a_document_without_all_tables_is_refused() {
        let error = |document: &str| text(document).unwrap_err().to_string();
        assert!(error("# Nothing\n").contains("no table of $, $.debug"));
        assert!(error("<!-- fields of $.mode -->\n<!-- end of fields -->\n").contains("which has no fields"));
        assert!(error("<!-- fields of $.status -->\n").contains("has no end"));
        let twice = "<!-- fields of $.status -->\n<!-- end of fields -->\n".repeat(2);
        assert!(error(&twice).contains("two tables"));
    }
}
