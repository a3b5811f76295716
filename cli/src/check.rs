//! One file checked: what goes to standard output, what to standard error, and the status.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result};
use evenkeel::config::{Config, Role, effective, parse, parse_upstream, role, without_effect};

use crate::find;

/// All is well.
pub const FINE: u8 = 0;
/// A configuration has a fault.
pub const FAULTY: u8 = 1;
/// There is no configuration to check.
pub const UNREADABLE: u8 = 2;

/// What is to be said of a file.
#[derive(Debug, Default)]
pub struct Report {
    /// For standard output.
    pub output: String,
    /// For standard error.
    pub complaints: String,
    /// [`FINE`], [`FAULTY`] or [`UNREADABLE`].
    pub status: u8,
}

/// Checks a file, or standard input where the path is `-`.
pub fn file(path: &Path, show_effective: bool) -> Report {
    let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let plugins = read(path).and_then(|bytes| find::plugins(&bytes));
    let mut report = Report::default();
    match plugins {
        Err(error) => {
            // Writing to a String cannot fail.
            let _ = writeln!(report.complaints, "{name}: {error:#}");
            report.status = UNREADABLE;
        }
        Ok(plugins) => {
            for plugin in plugins {
                let place =
                    if plugin.place.is_empty() { name.clone() } else { format!("{name}, {}", plugin.place) };
                check(&place, &plugin.json, show_effective, &mut report);
            }
        }
    }
    report
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot be read")?;
        return Ok(bytes);
    }
    std::fs::read(path).context("cannot be read")
}

/// The lines are those of the filter in Envoy's log, behind the name of the file.
fn check(place: &str, json: &[u8], show_effective: bool, report: &mut Report) {
    let read = match role(json) {
        Role::Downstream => parse(json).map(Some),
        Role::Upstream => parse_upstream(json).map(|()| None),
    };
    match read {
        Ok(None) => report.output += &format!("{place}: ok\n"),
        Ok(Some(config)) => {
            for path in without_effect(&config) {
                let _ = writeln!(
                    report.complaints,
                    "{place}: {path} is accepted but has no effect in this version"
                );
            }
            report.output += &if show_effective { written(&config) } else { format!("{place}: ok\n") };
        }
        Err(faults) => {
            for fault in faults {
                let _ = writeln!(report.complaints, "{place}: configuration refused: {fault}");
            }
            report.status = report.status.max(FAULTY);
        }
    }
}

fn written(config: &Config) -> String {
    // A tree of text and numbers has nothing that could not be written.
    serde_json::to_string_pretty(&effective(config)).unwrap_or_default() + "\n"
}
