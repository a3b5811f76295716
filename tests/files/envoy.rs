//! Every Envoy configuration, loaded into the real Envoy, which starts the filter in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use config::{Role, Via};
use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, bail, ensure};
use testbed::{tempfile, tools};

use crate::shipped;

/// Path of the filter in the shipped configurations.
pub const IN_CONTAINER: &str = "/etc/envoy/evenkeel.wasm";
/// Path that they watch for a separately configured filter (ECDS).
const WATCHED: &str = "/etc/envoy/evenkeel.yaml";
const WASM_FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// The bootstraps with the Wasm filter among the YAML files; those with the native module are tested separately.
pub fn bootstraps() -> Result<Vec<PathBuf>> {
    let mut bootstraps = Vec::new();
    for path in shipped::files(&["yaml", "yml"])? {
        if shipped::yaml(&path)?.get("static_resources").is_some() && !crate::module::is_for_it(&path)? {
            bootstraps.push(path);
        }
    }
    Ok(bootstraps)
}

/// The plugin configurations in an Envoy configuration, as the filter gets them.
fn plugins(config: &Value) -> Result<Vec<String>> {
    let mut objects = Vec::new();
    shipped::objects(config, &mut objects);
    let filters = objects.into_iter().filter(|object| object["@type"] == WASM_FILTER);
    filters.map(|filter| plugin(&filter["config"]["configuration"])).collect()
}

fn plugin(configuration: &Value) -> Result<String> {
    match configuration["@type"].as_str() {
        Some("type.googleapis.com/google.protobuf.StringValue") => {
            configuration["value"].as_str().map(str::to_owned).context("a StringValue without a string")
        }
        Some("type.googleapis.com/google.protobuf.Struct") => Ok(configuration["value"].to_string()),
        other => bail!("a plugin configuration of type {other:?}"),
    }
}

/// Output of `envoy --mode validate` for this configuration, with the container's path replaced by the built filter.
pub fn validate(config: &str) -> Result<String> {
    let apart = config.contains(WATCHED);
    ensure!(
        apart || config.contains(IN_CONTAINER),
        "the filter is neither at {IN_CONTAINER} nor at {WATCHED}"
    );
    let wasm = tools::wasm()?;
    let directory = tempfile::tempdir()?;
    let watched = directory.path().join("evenkeel.json");
    fs::write(&watched, filter_apart()?.replace(IN_CONTAINER, wasm.to_str().context("a path in UTF-8")?))?;
    let config = config.replace(WATCHED, watched.to_str().context("a path in UTF-8")?);
    let path = directory.path().join("envoy.yaml");
    let config = config.replace(IN_CONTAINER, wasm.to_str().context("a path in UTF-8")?);
    // Envoy checks that watched files exist.
    let watched = shipped::folder().join("eds");
    let config = config.replace("/etc/envoy/eds", watched.to_str().context("a path in UTF-8")?);
    fs::write(&path, config)?;
    let mut command = Command::new(tools::envoy()?);
    command.args(["--mode", "validate", "--log-level", "warn", "-c"]).arg(path);
    // A part of a page may have the native module in it.
    command.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", tools::module()?.parent().context("a folder")?);
    if apart {
        // A node that watches for configuration needs a name.
        command.args(["--service-node", "docs", "--service-cluster", "docs"]);
    }
    shipped::run(&mut command)
}

/// The filter of the first shipped configuration, as a watched file.
fn filter_apart() -> Result<String> {
    let bootstrap = shipped::yaml(&shipped::folder().join("envoy.yaml"))?;
    let mut objects = Vec::new();
    shipped::objects(&bootstrap, &mut objects);
    let filter = objects.into_iter().find(|object| object["@type"] == WASM_FILTER).context("no filter")?;
    let kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    let resource = json!({ "@type": kind, "name": "evenkeel", "typed_config": filter });
    Ok(json!({ "resources": [resource] }).to_string())
}

/// The same for a configuration that a test has assembled.
pub fn loads(config: &Value) -> Result<String> {
    validate(&config.to_string())
}

#[test]
fn every_configuration_loads_with_the_filter_in_it() -> Result<()> {
    let bootstraps = bootstraps()?;
    ensure!(bootstraps.len() >= 2, "{bootstraps:?}");
    for path in bootstraps {
        let said = validate(&shipped::text(&path)?).with_context(|| path.display().to_string())?;
        assert!(said.contains("OK"), "{}: {said}", path.display());
        // Envoy reports deprecated and ignored fields at this level.
        assert!(!said.to_lowercase().contains("deprecated"), "{}: {said}", path.display());
    }
    Ok(())
}

#[test]
fn a_plugin_configuration_with_a_fault_does_not_load() -> Result<()> {
    for path in bootstraps()? {
        let config = shipped::text(&path)?.replace("\"upstreams\"", "\"upstream\"");
        let error = format!("{:#}", validate(&config).unwrap_err());
        assert!(error.contains("Unable to create Wasm plugin evenkeel"), "{error}");
    }
    Ok(())
}

#[test]
fn every_plugin_configuration_is_one() -> Result<()> {
    for path in bootstraps()? {
        let config = shipped::yaml(&path)?;
        let plugins = plugins(&config)?;
        let (upstream, steering): (Vec<_>, Vec<_>) =
            plugins.into_iter().partition(|plugin| config::role(plugin.as_bytes()) == Role::Upstream);
        for plugin in &upstream {
            config::parse_upstream(plugin.as_bytes())
                .unwrap_or_else(|faults| panic!("{}: {faults:#?}", path.display()));
        }
        assert_eq!(steering.len(), 1, "{}", path.display());
        shares_its_vm(&config).with_context(|| path.display().to_string())?;
        for plugin in steering {
            let parsed = config::parse(plugin.as_bytes())
                .unwrap_or_else(|faults| panic!("{}: {faults:#?}", path.display()));
            agrees_with_its_surroundings(&parsed, &config, &path)?;
        }
    }
    Ok(())
}

/// Asserts that all places of the filter share one VM: separate VMs would not share data.
fn shares_its_vm(config: &Value) -> Result<()> {
    let mut objects = Vec::new();
    shipped::objects(config, &mut objects);
    let mut vms = objects.iter().filter(|object| object["@type"] == WASM_FILTER);
    let first = vms.next().context("no filter")?;
    ensure!(vms.all(|other| other["config"]["vm_config"] == first["config"]["vm_config"]));
    Ok(())
}

/// Asserts that the clusters named by the plugin exist and have its endpoints: Envoy ignores any other.
pub fn agrees_with_its_surroundings(plugin: &config::Config, config: &Value, path: &Path) -> Result<()> {
    let clusters = config["static_resources"]["clusters"].as_array().context("no clusters")?;
    let cluster = |name: &str| {
        let found = clusters.iter().find(|cluster| cluster["name"] == name);
        found.with_context(|| format!("{}: no cluster {name}", path.display()))
    };
    if let Some(prometheus) = &plugin.prometheus {
        cluster(&prometheus.cluster)?;
    }
    for upstream in &plugin.upstreams {
        if let Some(admin) = &upstream.endpoints.envoy_admin {
            let points_at_it = cluster(&admin.cluster)?["load_assignment"].to_string();
            let port = &config["admin"]["address"]["socket_address"]["port_value"];
            assert!(points_at_it.contains(&format!("\"port_value\":{port}")), "{}", path.display());
        }
        let in_plugin: Vec<String> =
            upstream.endpoints.fixed.iter().map(|endpoint| endpoint.address.to_string()).collect();
        let hides = |cluster: &Value| {
            cluster.to_string().contains(&format!("\"remove\":\"{}\"", plugin.steering.header))
        };
        assert!(
            // The native module names the host by a call.
            crate::module::is_for_it(path)? || hides(cluster(&upstream.cluster)?),
            "{}: the endpoints see {}",
            path.display(),
            plugin.steering.header
        );
        match plugin.steering.via {
            // Envoy's configuration has no endpoints.
            Via::OriginalDst => continue,
            Via::ClusterHeader => {
                for endpoint in &in_plugin {
                    assert!(hides(cluster(endpoint)?), "{}: {endpoint} sees the header", path.display());
                }
            }
            Via::OverrideHost | Via::StatefulSession => {}
        }
        let mut objects = Vec::new();
        shipped::objects(cluster(&upstream.cluster)?, &mut objects);
        let sockets = objects.iter().filter_map(|object| object.get("socket_address"));
        let in_envoy: Vec<String> = sockets
            .map(|socket| {
                format!("{}:{}", socket["address"].as_str().unwrap_or_default(), socket["port_value"])
            })
            .collect();
        assert_eq!(in_plugin, in_envoy, "{}", path.display());
    }
    Ok(())
}

#[test]
fn the_admin_interface_is_on_loopback_and_a_crash_fails_no_request() -> Result<()> {
    for path in bootstraps()? {
        let config = shipped::yaml(&path)?;
        assert_eq!(
            config["admin"]["address"]["socket_address"]["address"],
            "127.0.0.1",
            "{}",
            path.display()
        );
        let mut objects = Vec::new();
        shipped::objects(&config, &mut objects);
        for filter in objects.iter().filter(|object| object["@type"] == WASM_FILTER) {
            let policy = filter["config"]["failure_policy"].as_str();
            assert!(matches!(policy, Some("FAIL_RELOAD" | "FAIL_OPEN")), "{}: {policy:?}", path.display());
        }
    }
    Ok(())
}
