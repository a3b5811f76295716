//! The JSON Schema of the plugin's configuration, made from what its reader demands.
//!
//! Nothing is written down twice: `explore` puts values of every kind at every place that the reader looks at and
//! records its constraints there, defaults come from the effective configuration, and `described` has the meaning of
//! each field. The tables of `docs/configuration.md` are made from the same ([`mod@reference`]).
//!
//! The schema accepts whatever the filter accepts; the reverse holds as far as a schema can express it, and
//! `contradictions` adds which fields exclude or require each other.

mod contradictions;
mod defaults;
mod described;
mod explore;
pub mod reference;
mod write;

use anyhow::{Result, ensure};

/// The schema's file, from the root of the repository.
pub const FILE: &str = "envoy/evenkeel.schema.json";

/// The schema as text. An error names every field that has no description.
pub fn text() -> Result<String> {
    let places = explore::places();
    check(&places)?;
    Ok(serde_json::to_string_pretty(&write::schema(&places))? + "\n")
}

fn check(places: &explore::Places) -> Result<()> {
    let faults = described::faults(places);
    ensure!(faults.is_empty(), "cli/src/schema/fields.txt: {}", faults.join("; "));
    Ok(())
}
