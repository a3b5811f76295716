//! The JSON Schema of the plugin's configuration, made of what its reader asks.
//!
//! Nothing of it is written down a second time: `explore` puts values of every kind wherever the reader looks and notes
//! what it asks there, defaults are those of the effective configuration, and `described` takes the descriptions from the
//! tables of `docs/configuration.md`. Whatever the filter accepts, the schema accepts; the reverse holds as far as a
//! schema can say it, and `contradictions` adds what one field forbids another.

mod contradictions;
mod defaults;
mod described;
mod explore;
mod write;

use anyhow::{Result, ensure};

/// Where the schema is kept, from the root of the repository.
pub const FILE: &str = "envoy/evenkeel.schema.json";

/// The schema as text. An error names every field that has no description.
pub fn text() -> Result<String> {
    let places = explore::places();
    let undescribed = described::missing(&places);
    ensure!(
        undescribed.is_empty(),
        "docs/configuration.md describes no {}: each wants a row of its own, `| `name` | value | default | meaning |`, \
         in the section with the name of what it stands in",
        undescribed.join(", ")
    );
    Ok(serde_json::to_string_pretty(&write::schema(&places))? + "\n")
}
