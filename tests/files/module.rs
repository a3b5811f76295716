//! The Envoy configurations with the native module, loaded into the real Envoy together with the built module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::anyhow::{Context, Result, ensure};
use testbed::{tempfile, tools};

use crate::{envoy, shipped};

const FILTER: &str =
    "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter";

/// Whether this file loads the native module.
pub fn is_for_it(path: &Path) -> Result<bool> {
    Ok(shipped::text(path)?.contains(FILTER))
}

/// The Envoy configurations that load it.
pub fn bootstraps() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in shipped::files(&["yaml", "yml"])? {
        if is_for_it(&path)? {
            found.push(path);
        }
    }
    ensure!(!found.is_empty(), "no configuration has the native module");
    Ok(found)
}

fn validate(config: &str) -> Result<String> {
    let module = tools::module()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("envoy.yaml");
    fs::write(&path, config)?;
    let folder = module.parent().context("a folder")?;
    let mut command = Command::new(tools::envoy()?);
    command.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", folder);
    shipped::run(command.args(["--mode", "validate", "--log-level", "warn", "-c"]).arg(path))
}

#[test]
fn every_configuration_loads_with_the_module_in_it() -> Result<()> {
    for path in bootstraps()? {
        let said = validate(&shipped::text(&path)?).with_context(|| path.display().to_string())?;
        assert!(
            said.contains("OK") && !said.to_lowercase().contains("deprecated"),
            "{}: {said}",
            path.display()
        );
    }
    Ok(())
}

#[test]
fn faulty_configuration_is_refused_with_the_filters_messages() -> Result<()> {
    for path in bootstraps()? {
        let config = shipped::text(&path)?.replace("\"upstreams\"", "\"upstream\"");
        let error = format!("{:#}", validate(&config).unwrap_err());
        assert!(error.contains("configuration refused: $.upstream: unknown field"), "{error}");
    }
    Ok(())
}

#[test]
fn every_plugin_configuration_agrees_with_its_surroundings() -> Result<()> {
    for path in bootstraps()? {
        let config = shipped::yaml(&path)?;
        let mut objects = Vec::new();
        shipped::objects(&config, &mut objects);
        let mut filters = objects.iter().filter(|object| object["@type"] == FILTER);
        let (Some(filter), None) = (filters.next(), filters.next()) else {
            panic!("one: {}", path.display())
        };
        assert_eq!(filter["dynamic_module_config"]["name"], "evenkeel");
        assert_eq!(filter["dynamic_module_config"]["do_not_close"], true);
        let text = filter["filter_config"]["value"].as_str().context("a StringValue")?;
        let plugin = config::parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults:#?}"));
        envoy::agrees_with_its_surroundings(&plugin, &config, &path)?;
        assert_eq!(
            config["admin"]["address"]["socket_address"]["address"],
            "127.0.0.1",
            "{}",
            path.display()
        );
    }
    Ok(())
}
