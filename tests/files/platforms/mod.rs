//! The manifests for Istio and Envoy Gateway, tested without a Kubernetes cluster: each is checked against the types of
//! its custom resources, its plugin configuration goes through the filter's parser, and the proxy configuration that
//! the platform would make of it is built, loaded into the real Envoy and sent real requests.

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

/// A file of manifests.
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

/// The parsed plugin configuration of this manifest.
fn plugin_of(json: &Value) -> Result<config::Config> {
    config::parse(json.to_string().as_bytes())
        .map_err(|faults| testbed::anyhow::anyhow!("{faults:#?}"))
        .context("refused by the filter")
}

/// Each file has one manifest that configures the plugin, of the kind that this version of the platform has.
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

/// Istio's agent answers 403 while it cannot get the image of a plugin that fails closed or reloads; Envoy Gateway
/// fails requests unless told otherwise. And a proxy that starts with a configuration that the filter refuses would
/// answer 500.
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
                // Envoy goes without a module that it cannot fetch, but refuses a listener whose module file is
                // missing.
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
        // Advice in comments is copied, too.
        let text = shipped::text(&file.path)?;
        for line in text.lines().filter(|line| line.contains("FAIL_RELOAD") || line.contains("FAIL_CLOSE")) {
            assert!(line.contains("With FAIL_RELOAD or FAIL_CLOSE the proxy"), "{}: {line}", file.name());
        }
    }
    assert_eq!(plugins, files_of("istio")?.len() + files_of("envoy-gateway")?.len());
    Ok(())
}

/// Every line that `make platforms` replaces, as its page says, exists: the page matches the current files.
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
