//! The JSON Schema of the plugin's configuration, made of what its reader asks.
//!
//! Nothing of it is written down a second time: `explore` puts values of every kind wherever the reader looks and notes
//! what it asks there, defaults are those of the effective configuration, and `described` has what each field means. The
//! tables of `docs/configuration.md` are made of the same ([`mod@reference`]). Whatever the filter accepts, the schema accepts; the reverse holds as far as a
//! schema can say it, and `contradictions` adds what one field forbids another.

mod contradictions;
mod defaults;
mod described;
mod explore;
pub mod reference;
mod write;

use anyhow::{Result, ensure};

/// Where the schema is kept, from the root of the repository.
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
