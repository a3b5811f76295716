//! The manifests for Istio and Envoy Gateway. No cluster is at hand: each is held against the types of its custom resources,
//! the plugin's configuration in it goes through the filter's parser, and what it makes of a proxy's configuration is built as
//! the platform would build it, loaded into the real Envoy, and sees real requests.

mod crds;
mod envoy_gateway;
mod envoy_gateway_module;
mod istio;
mod live;
mod proxy;

use std::path::PathBuf;

use serde_json::Value;
use testbed::anyhow::{Context, Result, ensure};

use crate::shipped;

/// A file with manifests.
struct Shipped {
    path: PathBuf,
    manifests: Vec<Value>,
}

impl Shipped {
    fn kind(&self, kind: &str) -> Vec<&Value> {
        self.manifests.iter().filter(|manifest| manifest["kind"] == kind).collect()
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// The files of one platform, a folder under `envoy/`.
fn files_of(platform: &str) -> Result<Vec<Shipped>> {
    let folder = shipped::folder().join(platform);
    let mut files = Vec::new();
    for path in shipped::files(&["yaml", "yml"])?.into_iter().filter(|path| path.starts_with(&folder)) {
        let manifests = shipped::documents(&path)?;
        ensure!(manifests.iter().all(|manifest| manifest["kind"].is_string()), "{}", path.display());
        files.push(Shipped { path, manifests });
    }
    ensure!(!files.is_empty(), "nothing in {}", folder.display());
    Ok(files)
}

/// The configuration that the filter gets from this manifest, parsed.
fn plugin_of(json: &Value) -> Result<config::Config> {
    config::parse(json.to_string().as_bytes())
        .map_err(|faults| testbed::anyhow::anyhow!("{faults:#?}"))
        .context("refused by the filter")
}

/// One manifest of the kind that configures the plugin, by whichever name it has in this version of the platform.
#[test]
fn every_plugin_configuration_is_accepted() -> Result<()> {
    let mut plugins = 0;
    for file in files_of("istio")?.iter().chain(&files_of("envoy-gateway")?) {
        for manifest in &file.manifests {
            let mut found: Vec<&Value> =
                vec![&manifest["spec"]["pluginConfig"], &manifest["spec"]["wasm"]["pluginConfig"]];
            found.push(&manifest["spec"]["wasm"][0]["config"]);
            found.push(&manifest["spec"]["dynamicModule"][0]["config"]);
            for json in found.into_iter().filter(|json| json.is_object()) {
                plugin_of(json).with_context(|| file.name())?;
                plugins += 1;
            }
        }
    }
    assert_eq!(plugins, files_of("istio")?.len() + files_of("envoy-gateway")?.len());
    Ok(())
}

/// Istio's agent answers 403 for a plugin that is to fail closed or to be reloaded, for as long as its image cannot be had; Envoy
/// Gateway fails requests unless it is told otherwise. And a proxy that starts with a configuration that the filter refuses
/// would answer 500.
#[test]
fn a_plugin_that_cannot_be_had_or_is_refused_fails_no_request() -> Result<()> {
    let mut plugins = 0;
    for file in files_of("istio")?.iter().chain(&files_of("envoy-gateway")?) {
        for manifest in &file.manifests {
            let spec = &manifest["spec"];
            let istio = if spec["pluginConfig"].is_object() { spec } else { &spec["wasm"] };
            if istio["pluginConfig"].is_object() {
                assert_eq!(istio["failStrategy"], "FAIL_OPEN", "{}", file.name());
                let asked = serde_json::json!({ "name": "EVENKEEL_ON_REFUSED_CONFIGURATION", "value": "stand_aside" });
                let environment = istio["vmConfig"]["env"].as_array();
                assert!(environment.is_some_and(|all| all.contains(&asked)), "{}", file.name());
                plugins += 1;
            } else if let Some(wasm) = spec["wasm"].as_array() {
                assert!(wasm.iter().all(|plugin| plugin["failOpen"] == true), "{}", file.name());
                plugins += 1;
            } else if let Some(modules) = spec["dynamicModules"].as_array() {
                // Envoy goes without a module that it cannot fetch; where one is missing in a file it refuses the listener.
                let remote = |module: &Value| {
                    module["source"]["type"] == "Remote" && module["source"].get("local").is_none()
                };
                assert!(modules.iter().all(remote), "{}", file.name());
                let asked = serde_json::json!({ "name": "EVENKEEL_ON_REFUSED_CONFIGURATION", "value": "stand_aside" });
                let container = &spec["provider"]["kubernetes"]["envoyDeployment"]["container"];
                assert!(
                    container["env"].as_array().is_some_and(|all| all.contains(&asked)),
                    "{}",
                    file.name()
                );
                plugins += 1;
            }
        }
        // What comments advise is copied, too.
        let text = shipped::text(&file.path)?;
        for line in text.lines().filter(|line| line.contains("FAIL_RELOAD") || line.contains("FAIL_CLOSE")) {
            assert!(line.contains("With FAIL_RELOAD or FAIL_CLOSE the proxy"), "{}: {line}", file.name());
        }
    }
    assert_eq!(plugins, files_of("istio")?.len() + files_of("envoy-gateway")?.len());
    Ok(())
}

/// What `make platforms` replaced in a file, as its page tells, is there: the page is about the files of today.
#[test]
fn what_runs_on_the_real_platforms_replaces_lines_that_are_there() -> Result<()> {
    let page = shipped::text(&testbed::tools::root().join("docs/platforms/results.md"))?;
    let mut replaced = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("- in `")) {
        let (file, rest) = line.split_once("`: `").context("a file")?;
        let (old, _) = rest.split_once("` by `").context("two texts")?;
        let text = shipped::text(&shipped::folder().join(file))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        ensure!(words.join(" ").contains(old), "{file} has no {old:?}");
        replaced += 1;
    }
    ensure!(replaced > 0, "the page tells of nothing");
    Ok(())
}
