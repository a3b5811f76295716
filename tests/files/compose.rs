//! The Compose file follows its schema, and what it mounts exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, ensure};
use testbed::backend::{Behaviour, parse_schedule};
use testbed::{tempfile, tools};

use crate::{envoy, shipped};

/// The Compose file as Compose reads it: anchors resolved, variables at their defaults.
fn compose() -> Result<Value> {
    let path = shipped::folder().join("docker-compose.yaml");
    let with_defaults = interpolate(&shipped::text(&path)?);
    serde_saphyr::from_str(&with_defaults).with_context(|| path.display().to_string())
}

/// Replaces `${NAME:-default}` by the default.
fn interpolate(text: &str) -> String {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').expect("a variable ends with }");
        filled += variable.split_once(":-").expect("every variable has a default").1;
        filled += rest;
    }
    filled
}

/// Validates against the schema; the error says what it does not allow.
fn check(compose: &Value) -> Result<()> {
    let mut schema: Value = serde_json::from_str(&shipped::text(&tools::compose_schema()?)?)?;
    // Newer than the schema: https://github.com/compose-spec/compose-spec/blob/main/04-version-and-name.md
    schema["properties"]["name"] = json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$" });
    let volume = "/definitions/service/properties/volumes/items/oneOf/1/properties/bind/properties";
    schema.pointer_mut(volume).context("the long form of a volume")?["create_host_path"] =
        json!({ "type": "boolean" });
    let validator =
        jsonschema::validator_for(&schema).map_err(|error| testbed::anyhow::anyhow!("{error}"))?;
    let faults: Vec<String> =
        validator.iter_errors(compose).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
    ensure!(faults.is_empty(), "{faults:#?}");
    Ok(())
}

fn services(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    compose["services"].as_object().into_iter().flatten()
}

/// Sources and targets of a service's bind mounts from this repository.
fn mounts(service: &Value) -> Vec<(PathBuf, String)> {
    let volumes = service["volumes"].as_array().into_iter().flatten();
    let text = |volume: &Value, name: &str| volume[name].as_str().unwrap_or_default().to_owned();
    volumes.map(|volume| (shipped::folder().join(text(volume, "source")), text(volume, "target"))).collect()
}

#[test]
fn it_follows_the_schema() -> Result<()> {
    check(&compose()?)
}

#[test]
fn the_schema_notices_faults() -> Result<()> {
    for (pointer, wrong) in [
        ("/services/envoy/ports", json!("10000:10000")),
        ("/services/envoy", json!({ "imgae": "envoy" })),
        ("/networks/demo/ipam/config", json!({ "subnet": "172.31.254.0/24" })),
    ] {
        let mut compose = compose()?;
        *compose.pointer_mut(pointer).with_context(|| pointer.to_owned())? = wrong;
        assert!(check(&compose).is_err(), "{pointer}");
    }
    Ok(())
}

#[test]
fn images_are_built_here_or_pinned() -> Result<()> {
    let compose = compose()?;
    for (name, service) in services(&compose) {
        match service.get("build") {
            Some(build) => {
                let context = shipped::folder().join(build["context"].as_str().context("context")?);
                let dockerfile = context.join(build["dockerfile"].as_str().context("dockerfile")?);
                let stage = format!(" AS {}\n", build["target"].as_str().context("target")?);
                assert!(shipped::text(&dockerfile)?.contains(&stage), "{name}: no stage{stage}");
            }
            // Built by another service.
            None if service["pull_policy"] == "never" => {
                assert!(
                    services(&compose)
                        .any(|(_, other)| other["image"] == service["image"] && other["build"].is_object())
                );
            }
            None => {
                let image = service["image"].as_str().context("image")?;
                let tag = image.rsplit_once(':').with_context(|| format!("{name}: {image} has no tag"))?.1;
                let full = tag.trim_start_matches('v').split('.').count() == 3;
                assert!(full && tag.contains(|c: char| c.is_ascii_digit()), "{name}: {image} is not pinned");
            }
        }
    }
    Ok(())
}

/// A current Docker refuses concurrent builds that export the same tag, which made the first start fail.
#[test]
fn each_image_is_built_by_one_service() -> Result<()> {
    let compose = compose()?;
    let mut built = BTreeSet::new();
    for (name, service) in services(&compose).filter(|(_, service)| service["build"].is_object()) {
        assert!(built.insert(service["image"].to_string()), "{name} builds {} again", service["image"]);
    }
    assert_eq!(built.len(), 2, "{built:?}");
    Ok(())
}

/// A misspelt file would be created as a directory, `down` would leave anonymous volumes behind, and load that starts
/// before Envoy listens would report false failures.
#[test]
fn nothing_is_made_on_the_host_and_load_waits_for_envoy() -> Result<()> {
    let compose = compose()?;
    for (name, service) in services(&compose) {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            assert_eq!(volume["bind"]["create_host_path"], false, "{name}: {volume}");
            assert_eq!(volume["read_only"], true, "{name}: {volume}");
            // Only the owner may be able to read a checkout.
            assert!(service["user"] == "root" || service["environment"]["ENVOY_UID"] == "0", "{name}");
        }
    }
    for (name, data) in [("prometheus", "/prometheus"), ("alertmanager", "/alertmanager")] {
        assert_eq!(compose["services"][name]["tmpfs"][0], data);
    }
    assert!(compose["services"]["envoy"]["healthcheck"]["test"].is_array());
    assert_eq!(compose["services"]["load"]["depends_on"]["envoy"]["condition"], "service_healthy");
    let watched =
        mounts(&compose["services"]["envoy"]).into_iter().any(|(_, target)| target == "/etc/envoy/eds");
    assert!(watched, "envoy-discovery.yaml finds no endpoints");
    Ok(())
}

/// Ports and network are configurable: no published port or address is hard-coded.
#[test]
fn ports_and_the_network_can_be_chosen() -> Result<()> {
    let text = shipped::text(&shipped::folder().join("docker-compose.yaml"))?;
    let chosen = |text: &str| -> Result<Value> {
        let text = text.replace("${DEMO_NETWORK:-172.31.254}", "10.99.99");
        Ok(serde_saphyr::from_str(&interpolate(&text.replace("PORT:-", "PORT:-1")))?)
    };
    let compose = chosen(&text)?;
    assert_eq!(compose["networks"]["demo"]["ipam"]["config"][0]["subnet"], "10.99.99.0/24");
    for (name, service) in services(&compose) {
        for port in service["ports"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(port.starts_with("127.0.0.1:1"), "{name}: {port}");
            let host = port.split(':').nth(1).and_then(|port| port.parse::<u32>().ok());
            assert!(host.is_some_and(|port| port > 10_000), "{name}: {port} stands fast");
        }
        if let Some(own) = service["networks"]["demo"]["ipv4_address"].as_str() {
            assert!(own.starts_with("10.99.99."), "{name}: {own}");
        }
        if service["environment"]["NETWORK"].is_string() {
            assert_eq!(service["environment"]["NETWORK"], "10.99.99", "{name}");
        }
    }
    Ok(())
}

/// Runs the envoy service's own command with a directory in place of the container's root, and checks that every
/// address in the files that Envoy reads, including the watched endpoints, is in the chosen network.
#[test]
fn every_address_that_envoy_reads_is_of_the_chosen_network() -> Result<()> {
    let compose = compose()?;
    let command = compose["services"]["envoy"]["command"][2].as_str().context("a script")?.replace("$$", "$");
    for network in ["172.31.254", "10.99.99"] {
        let root = tempfile::tempdir()?;
        let at = |path: &str| root.path().join(path);
        for folder in ["shipped", "etc/envoy/eds", "tmp"] {
            fs::create_dir_all(at(folder))?;
        }
        // First /tmp, because the root is in it.
        let moved = |text: &str| {
            ["/tmp", "/shipped", "/etc/envoy"].iter().fold(text.to_owned(), |text, folder| {
                text.replace(folder, &format!("{}{folder}", root.path().display()))
            })
        };
        let read = shipped::text(&shipped::folder().join("envoy-discovery.yaml"))?;
        fs::write(at("shipped/envoy.yaml"), moved(&read))?;
        fs::copy(shipped::folder().join("eds/web.yaml"), at("etc/envoy/eds/web.yaml"))?;
        let script = moved(&command.replace("exec envoy ", "true "));
        shipped::run(Command::new("sh").args(["-ec", &script]).env("NETWORK", network))?;
        let read = shipped::text(&at("tmp/envoy.yaml"))?;
        let watched = read.split("path_config_source: { path: ").nth(1).context("a file that is watched")?;
        let watched = PathBuf::from(watched.split(" }").next().context("its path")?);
        let both = read + &shipped::text(&watched)?;
        assert!(both.contains(&format!("address: {network}.11,")), "{both}");
        assert!(network == "172.31.254" || !both.contains("172.31.254."), "{both}");
    }
    Ok(())
}

#[test]
fn the_images_have_the_versions_that_are_tested() -> Result<()> {
    let dockerfile = shipped::text(&shipped::folder().join("Dockerfile"))?;
    let value = |file: &str, name: &str| -> Result<String> {
        let text = shipped::text(&tools::root().join(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
        Ok(line.trim_matches([' ', '=', '"']).to_owned())
    };
    for image in [
        format!("envoyproxy/envoy:v{} ", value("scripts/versions.env", "ENVOY_VERSION=")?),
        format!("rust:{}-", value("rust-toolchain.toml", "channel")?),
    ] {
        assert!(dockerfile.contains(&image), "{image}");
    }
    Ok(())
}

#[test]
fn what_is_mounted_is_there_and_is_tested() -> Result<()> {
    let compose = compose()?;
    let tested = envoy::bootstraps()?;
    let mut mounted = 0;
    for (name, service) in services(&compose) {
        for (source, target) in mounts(service) {
            let source =
                source.canonicalize().with_context(|| format!("{name} mounts {}", source.display()))?;
            if target.ends_with("envoy.yaml") {
                assert!(
                    tested.iter().any(|path| path.canonicalize().is_ok_and(|path| path == source)),
                    "{name}"
                );
            }
            mounted += 1;
        }
    }
    ensure!(mounted >= 5, "{mounted} mounts");
    Ok(())
}

#[test]
fn paths_in_the_mounted_files_lead_somewhere() -> Result<()> {
    let compose = compose()?;
    let grafana = &compose["services"]["grafana"];
    let targets: BTreeSet<String> = mounts(grafana).into_iter().map(|(_, target)| target).collect();
    let providers = shipped::yaml(&shipped::folder().join("grafana/provisioning/dashboards/evenkeel.yaml"))?;
    let dashboards = providers["providers"][0]["options"]["path"].as_str().context("path")?;
    assert!(targets.contains(dashboards), "{dashboards} is not among {targets:?}");
    let home =
        grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().context("home")?;
    let home = home.strip_prefix("/etc/").context("under /etc")?;
    assert!(shipped::folder().join(home).is_file(), "{home}");

    let prometheus = mounts(&compose["services"]["prometheus"]);
    for rules in shipped::yaml(&shipped::folder().join("prometheus/prometheus.yml"))?["rule_files"]
        .as_array()
        .context("rule_files")?
    {
        let path = format!("/etc/prometheus/{}", rules.as_str().context("a path")?);
        assert!(prometheus.iter().any(|(_, target)| *target == path), "{path} is not mounted");
    }
    Ok(())
}

#[test]
fn backends_understand_how_they_shall_behave() -> Result<()> {
    let compose = compose()?;
    let (mut behaviours, mut schedules) = (0, 0);
    for (name, service) in services(&compose) {
        let command = service["command"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let command: Vec<&str> = command.collect();
        for flag in command.windows(2) {
            match flag[0] {
                "--behaviour" => {
                    flag[1].parse::<Behaviour>().with_context(|| name.clone())?;
                    behaviours += 1;
                }
                "--schedule" => {
                    parse_schedule(flag[1]).with_context(|| name.clone())?;
                    schedules += 1;
                }
                _ => {}
            }
        }
    }
    ensure!(behaviours >= 1 && schedules >= 2, "{behaviours} and {schedules}");
    Ok(())
}

/// Backends, Envoy's clusters and Prometheus' targets have the same addresses.
#[test]
fn demo_files_name_the_same_backends() -> Result<()> {
    let compose = compose()?;
    let mut listening = BTreeSet::new();
    for (name, service) in services(&compose) {
        let Some(command) = service["command"].as_array() else { continue };
        let Some(flag) = command.iter().position(|word| word == "--listen") else { continue };
        let address = command[flag + 1].as_str().context("an address")?;
        let own = service["networks"]["demo"]["ipv4_address"].as_str().context("ipv4_address")?;
        assert_eq!(address, format!("{own}:8080"), "{name}");
        listening.insert(address.to_owned());
    }
    ensure!(listening.len() == 6, "{listening:?}");

    let prometheus = shipped::yaml(&shipped::folder().join("prometheus/prometheus.yml"))?;
    let jobs = prometheus["scrape_configs"].as_array().context("scrape_configs")?;
    let web = jobs.iter().find(|job| job["job_name"] == "web").context("job web")?;
    let groups = web["static_configs"].as_array().context("static_configs")?;
    let mut scraped = BTreeSet::new();
    for group in groups {
        let address = group["targets"][0].as_str().context("a target")?.to_owned();
        let name = group["labels"]["backend"].as_str().context("backend")?;
        let service = &compose["services"][name];
        assert!(service.to_string().contains(&address), "{name} is not {address}");
        scraped.insert(address);
    }
    assert_eq!(scraped, listening);

    for path in envoy::bootstraps()? {
        let text = shipped::text(&path)?;
        if !text.contains("\"static\": [") {
            continue;
        }
        for address in &listening {
            assert!(text.contains(&format!("\"{address}\"")), "{}: {address}", path.display());
        }
    }
    Ok(())
}
