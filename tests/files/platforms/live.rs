//! Requests through the proxies that the manifests make: the endpoint that fails at once gets few, and no endpoint sees
//! the steering header.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, ensure};
use testbed::backend::{self, Backend, Behaviour};
use testbed::load::Load;
use testbed::process::Running;
use testbed::{http, ports, tempfile, tokio, tools, wait};

use super::proxy::Place;
use super::{envoy_gateway, istio, plugin_of};

const PATIENCE: Duration = Duration::from_secs(60);
const HEADER: &str = "x-evenkeel-endpoint";

/// The configuration as shipped, with static endpoints where `endpoints.envoy_admin` has no effect in this version.
fn with_endpoints(configuration: &Value, place: &Place) -> Result<Value> {
    let mut configuration = configuration.clone();
    let idle = config::without_effect(&plugin_of(&configuration)?);
    if idle.iter().any(|path| path.ends_with(".endpoints.envoy_admin")) {
        let endpoints: Vec<String> = place.endpoints.iter().map(ToString::to_string).collect();
        configuration["upstreams"][0]["endpoints"] = json!({ "static": endpoints });
    }
    Ok(configuration)
}

/// A proxy to be started: its name, addresses and configuration.
struct Scene {
    name: String,
    place: Place,
    backends: Vec<Backend>,
    config: Value,
}

/// Starts a real Envoy with this configuration, whose files are in `directory`, and waits until it serves.
async fn serving(name: &str, directory: &Path, config: &Value, ingress: SocketAddr) -> Result<Running> {
    let path = directory.join("envoy.json");
    fs::write(&path, config.to_string().replace(crate::envoy::IN_CONTAINER, &wasm()?))?;
    let mut command = Command::new(tools::envoy()?);
    command.args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warn", "-c"]).arg(&path);
    let envoy = Running::spawn("envoy", command, &directory.join("envoy.log"))?;
    wait::until("the proxy to serve", PATIENCE, || async move {
        (http::get(ingress, "/").await.ok()?.status == 200).then_some(())
    })
    .await
    .with_context(|| format!("{name}\n{}", envoy.log_tail(20)))?;
    Ok(envoy)
}

fn wasm() -> Result<String> {
    Ok(tools::wasm()?.to_str().context("a path in UTF-8")?.to_owned())
}

async fn sees_requests(scene: Scene) -> Result<()> {
    let Scene { name, place, backends, config } = scene;
    let directory = tempfile::tempdir()?;
    let ingress = place.ingress;
    let envoy = serving(&name, directory.path(), &config, ingress).await?;

    let failing = backends[0].address().to_string();
    let load = Load { target: ingress, rate: 100.0, duration: PATIENCE, ..Load::default() }.start().await?;
    // Envoy's own least_request would send it at least a third: the endpoint that fails at once has the fewest in
    // flight.
    let steered = || async {
        let report = load.report();
        let last = report.records.iter().map(|record| record.at_us).max()?;
        let end = Duration::from_micros(last.into());
        let recent = report.between(end.saturating_sub(Duration::from_secs(1)), end);
        (end > Duration::from_secs(1) && recent.share(&failing) < 0.1).then_some(())
    };
    wait::until("the failing endpoint to be spared", PATIENCE, steered)
        .await
        .with_context(|| format!("{name}: {:?}\n{}", load.report().summary(), envoy.log_tail(20)))?;
    let seen = backends.iter().flat_map(Backend::requests);
    let naming = seen.filter(|request| request.headers.contains_key(HEADER)).count();
    assert_eq!(naming, 0, "{name}: endpoints see the header");
    // A client neither chooses its endpoint nor sees the choice. A probe may be due.
    let mut obeyed = 0;
    for _ in 0..20 {
        let answer = http::send(ingress, http::Method::GET, "/", &[(HEADER, &failing)], "").await?;
        assert_eq!(answer.header(HEADER), None, "{name}");
        obeyed += usize::from(answer.header("x-backend") == Some(&failing));
    }
    assert!(obeyed <= 2, "{name}: {obeyed} of 20 requests went where the client wanted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2, crate = "testbed::tokio")]
async fn every_platform_steers_as_shipped() -> Result<()> {
    let failing = backend::Config {
        behaviour: Behaviour::FAIL_FAST,
        record_requests: true,
        ..backend::Config::default()
    };
    let well = backend::Config { record_requests: true, ..backend::Config::default() };
    let mut running = tokio::task::JoinSet::new();
    let istio = istio::complete()?.into_iter().map(|file| (file, true));
    for (file, is_istio) in istio.chain(envoy_gateway::files()?.into_iter().map(|file| (file, false))) {
        let mut backends = Vec::new();
        for config in [&failing, &well, &well] {
            backends.push(Backend::start(config.clone()).await?);
        }
        let place = Place {
            ingress: ports::free()?,
            admin: ports::free()?,
            endpoints: backends.iter().map(Backend::address).collect(),
            // No Prometheus runs here: Envoy has to serve without it.
            prometheus: ports::free()?,
        };
        let config = if is_istio {
            istio::proxy(&file, &with_endpoints(istio::configuration(&file)?, &place)?, &place)?
        } else {
            envoy_gateway::proxy(
                &file,
                &with_endpoints(envoy_gateway::configuration(&file)?, &place)?,
                &place,
            )?
        };
        running.spawn(sees_requests(Scene { name: file.name(), place, backends, config }));
    }
    ensure!(running.len() >= 6, "{}", running.len());
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

/// Istio delivers the plugin over ECDS. A proxy that starts while the image holds no valid module serves without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2, crate = "testbed::tokio")]
async fn a_proxy_of_istio_starts_and_serves_though_the_image_holds_no_module() -> Result<()> {
    let backend = Backend::start(backend::Config::default()).await?;
    for file in istio::complete()? {
        let place = Place {
            ingress: ports::free()?,
            admin: ports::free()?,
            endpoints: vec![backend.address()],
            prometheus: ports::free()?,
        };
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let (mut config, mut delivered) =
            istio::discovering(&file, &place, at("plugin.json").to_str().context("a path")?)?;
        config["node"] = json!({ "id": "this", "cluster": "test" });
        fs::write(at("code.wasm"), b"not a module")?;
        delivered["typed_config"]["config"]["vm_config"]["code"] =
            json!({ "local": { "filename": at("code.wasm") } });
        let answer = json!({ "version_info": "1", "resources": [delivered] });
        fs::write(at("plugin.json"), answer.to_string())?;
        let envoy = serving(&file.name(), directory.path(), &config, place.ingress).await?;
        let told = envoy.log_tail(50);
        ensure!(
            told.contains("Failed to load Wasm code"),
            "{}: not for want of a module: {told}",
            file.name()
        );
    }
    Ok(())
}
