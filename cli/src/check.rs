//! Checks files: what goes to standard output and to standard error, and the exit status.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use config::{Config, Role, effective, legible, parse, parse_upstream, role, without_effect};
use serde_json::Value;

use crate::find::{self, Found, Plugin};
use crate::{bootstrap, envoy_gateway, istio};

/// The exit status if all is well.
pub const FINE: u8 = 0;
/// The exit status if a configuration has a fault.
pub const FAULTY: u8 = 1;
/// The exit status if there is no configuration to check.
pub const UNREADABLE: u8 = 2;

/// The result of a check.
#[derive(Debug, Default)]
pub struct Report {
    /// Text for standard output.
    pub output: String,
    /// Text for standard error.
    pub complaints: String,
    /// [`FINE`], [`FAULTY`] or [`UNREADABLE`].
    pub status: u8,
}

impl Report {
    fn complain(&mut self, status: u8, line: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.complaints, "{line}");
        self.status = self.status.max(status);
    }
}

/// Checks files, folders and standard input (`-`): each by itself, then the manifests of all of them together.
pub fn all(paths: &[PathBuf], show_effective: bool) -> Report {
    let mut report = Report::default();
    let mut manifests = Vec::new();
    for path in paths {
        if path.is_dir() {
            folder(path, show_effective, &mut manifests, &mut report);
        } else {
            file(path, show_effective, &mut manifests, &mut report);
        }
    }
    beside_each_other(&manifests, &mut report);
    report
}

/// Checks `text` as if it were a file.
pub fn documents(text: &str) -> Report {
    let mut report = Report::default();
    let mut manifests = Vec::new();
    read_out("text", find::plugins(text.as_bytes()), false, &mut manifests, &mut report);
    beside_each_other(&manifests, &mut report);
    report
}

/// Reports rules and services that collide with evenkeel's manifests.
fn beside_each_other(manifests: &[(String, Value)], report: &mut Report) {
    for collision in istio::collisions(manifests) {
        let status = if collision.costs_requests { FAULTY } else { FINE };
        report.complain(status, &collision.text);
    }
    for collision in envoy_gateway::collisions(manifests) {
        report.complain(FAULTY, &collision);
    }
}

fn file(path: &Path, show_effective: bool, manifests: &mut Vec<(String, Value)>, report: &mut Report) {
    let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let found = read(path).and_then(|bytes| find::plugins(&bytes));
    read_out(&name, found, show_effective, manifests, report);
}

fn read_out(
    name: &str,
    found: Result<Found>,
    show_effective: bool,
    manifests: &mut Vec<(String, Value)>,
    report: &mut Report,
) {
    match found {
        Err(error) => report.complain(UNREADABLE, &format!("{name}: {error:#}")),
        Ok(found) => {
            // A rule or a service is checked together with a plugin in another file.
            let matters = |document: &Value| istio::matters(document) || envoy_gateway::matters(document);
            if found.plugins.is_empty() && !found.documents.iter().any(matters) {
                let text = format!("{name}: contains no configuration of evenkeel");
                report.complain(UNREADABLE, &text);
            }
            plugins(name, &found, show_effective, report);
            manifests.extend(found.documents.into_iter().map(|document| (name.to_owned(), document)));
        }
    }
}

/// Checks the YAML and JSON files below a folder. Those that have nothing to do with evenkeel are skipped.
fn folder(path: &Path, show_effective: bool, manifests: &mut Vec<(String, Value)>, report: &mut Report) {
    let name = path.display();
    let mut files = Vec::new();
    if let Err(error) = collect(path, &mut files) {
        return report.complain(UNREADABLE, &format!("{name}: {error:#}"));
    }
    files.sort();
    let mut checked = 0;
    for file in files {
        let name = file.display().to_string();
        let bytes = read(&file);
        let is_ours = bytes.as_ref().is_ok_and(|bytes| find::is_our_yaml(bytes));
        match bytes.and_then(|bytes| find::plugins(&bytes)) {
            Err(error) if is_ours => {
                checked += 1;
                report.complain(FAULTY, &format!("{name}: {error:#}"));
            }
            // Possibly a template: not a fault, but reported.
            Err(error) => report.complain(FINE, &format!("{name}: passed over: {error:#}")),
            Ok(mut found) => {
                let (documents, unread) = (&found.documents, found.unread);
                found.plugins.retain(|plugin| {
                    let why_not = match documents.first() {
                        _ if !plugin.place.is_empty() => return true,
                        Some(document) if find::looks_ours(document) => return true,
                        Some(document) if find::is_meant_for_us(document) => of_others(&plugin.json),
                        None if unread && find::names_us(&plugin.json) => return true,
                        None if unread => Some(why_unread(&plugin.json)),
                        _ => return false,
                    };
                    if let Some(why) = &why_not {
                        report.complain(FINE, &format!("{name}: passed over: {why}"));
                    }
                    why_not.is_none()
                });
                checked += found.plugins.len();
                plugins(&name, &found, show_effective, report);
                manifests.extend(found.documents.into_iter().map(|document| (name.clone(), document)));
            }
        }
    }
    if checked == 0 {
        report.complain(UNREADABLE, &format!("{name}: contains no configuration of evenkeel"));
    }
}

/// The outermost field that shows that this is for another program: it is like none of evenkeel's.
fn of_others(json: &[u8]) -> Option<String> {
    let outermost = |path: &str| path.rfind(['.', '[']) == Some(1) && path != "$.upstream";
    let mut faults = parse(json).err().into_iter().flatten();
    let strange = faults
        .find(|fault| fault.found == "unknown field" && fault.hint.is_none() && outermost(&fault.path))?;
    Some(format!("{}: {}", strange.path, strange.found))
}

/// Why this is no JSON, in the filter's words.
fn why_unread(json: &[u8]) -> String {
    let fault = parse(json).err().and_then(|faults| faults.into_iter().next());
    fault.map_or_else(
        || "invalid JSON".into(),
        |fault| fault.found.strip_prefix("found ").unwrap_or(&fault.found).to_owned(),
    )
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let entry = entry.context("cannot be read")?;
        let (path, kind) = (entry.path(), entry.file_type().context("cannot be read")?);
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        // Links to folders are not followed, because they may form a cycle.
        if kind.is_dir() && !hidden {
            collect(&path, found)?;
        } else if !kind.is_dir() && path.is_file() && matches!(ending, "yaml" | "yml" | "json") {
            found.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot be read")?;
        return Ok(bytes);
    }
    std::fs::read(path).context("cannot be read")
}

fn plugins(name: &str, found: &Found, show_effective: bool, report: &mut Report) {
    for note in &found.notes {
        report.complain(FINE, &format!("{name}, {note}"));
    }
    for plugin in &found.plugins {
        let place =
            if plugin.place.is_empty() { name.to_owned() } else { format!("{name}, {}", plugin.place) };
        if let Some(fault) = &plugin.fault {
            report.complain(FAULTY, &format!("{place}: configuration refused: {fault}"));
            continue;
        }
        let document = found.documents.get(plugin.document).unwrap_or(&Value::Null);
        if plugin.native && role(&plugin.json) == Role::Upstream {
            let text = "$.role: the native module works among the listener's filters only";
            report.complain(FAULTY, &format!("{place}: configuration refused: {text}"));
            continue;
        }
        check(&place, plugin, document, show_effective, report);
    }
}

/// Checks one configuration: the lines are those of Envoy's log after the file's name, with faults that only the rest
/// of the file shows.
fn check(place: &str, plugin: &Plugin, document: &Value, show_effective: bool, report: &mut Report) {
    let json = plugin.json.as_slice();
    let read = match role(json) {
        Role::Downstream => parse(json).map(Some),
        Role::Upstream => parse_upstream(json).map(|()| None),
    };
    match read {
        Ok(None) => report.output += &format!("{place}: ok\n"),
        Ok(Some(config)) => {
            for path in without_effect(&config) {
                let text = format!("{place}: {path} is accepted but has no effect with these settings");
                report.complain(FINE, &text);
            }
            let mut missing_in_envoy = bootstrap::missing_in_envoy(&config, document);
            // The module names the endpoint by a call, unless it is told to write a header.
            if !plugin.native || legible(json).header_named {
                missing_in_envoy.extend(bootstrap::unfollowed(&config, document));
            }
            for stranger in &missing_in_envoy {
                report.complain(FAULTY, &format!("{place}: {stranger}"));
            }
            if show_effective {
                report.output += &written(&config);
            } else if missing_in_envoy.is_empty() {
                report.output += &format!("{place}: ok\n");
            }
        }
        Err(faults) => {
            for fault in faults {
                report.complain(FAULTY, &format!("{place}: configuration refused: {fault}"));
            }
        }
    }
}

fn written(config: &Config) -> String {
    // A tree of text and numbers can always be written.
    serde_json::to_string_pretty(&effective(config)).unwrap_or_default() + "\n"
}
