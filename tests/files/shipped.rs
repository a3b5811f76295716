//! The files under `envoy/`, found rather than listed, so that a new one is checked too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testbed::anyhow::{Context, Result, ensure};

/// The folder of everything that users load.
pub fn folder() -> PathBuf {
    testbed::tools::root().join("envoy")
}

/// Every file in it with one of these extensions, sorted.
pub fn files(endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(&folder(), endings, &mut found)?;
    found.sort();
    ensure!(!found.is_empty(), "no file ends with {endings:?} in {}", folder().display());
    Ok(found)
}

fn collect(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, endings, found)?;
        } else if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)) {
            found.push(path);
        }
    }
    Ok(())
}

pub fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A YAML file with its anchors resolved; several documents become an array.
pub fn yaml(path: &Path) -> Result<Value> {
    let mut documents = documents(path)?;
    Ok(if documents.len() == 1 { documents.remove(0) } else { Value::Array(documents) })
}

/// The documents of a YAML file.
pub fn documents(path: &Path) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(&text(path)?).with_context(|| format!("{} is not YAML", path.display()))
}

/// Collects every object in `value`, outermost first.
pub fn objects<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(members) => {
            found.push(value);
            members.values().for_each(|member| objects(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| objects(item, found)),
        _ => {}
    }
}

/// Runs a program; returns its output, or an error with that output if it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(said)
}
