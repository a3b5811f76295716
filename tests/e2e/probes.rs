//! Out-of-band probes through a real Envoy: each reaches its endpoint, and they replace probing with users' requests.

use std::collections::BTreeMap;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{Backend, Behaviour};
use testbed::serde_json::json;
use testbed::{clock, envoy, tokio};

use crate::scene::{RATE, Scene, Stage};

const PATH: &str = "/healthz";
const RETURN: Duration = Duration::from_secs(30);

async fn probing(follow: bool) -> Result<Scene> {
    let probe = json!({ "path": PATH, "interval": "300ms" });
    let upstream = json!({ "slow_start": "0s", "health": { "ejection": "3s", "probe": probe } });
    let proxy = envoy::Config { concurrency: 2, ..envoy::Config::default() };
    Stage { upstream, proxy, follow, ..Stage::default() }.open().await
}

/// Probes and other requests that a backend has received.
fn seen(backend: &Backend) -> (usize, usize) {
    let requests = backend.requests();
    let probes = requests.iter().filter(|request| request.path == PATH).count();
    (probes, requests.len() - probes)
}

async fn users_are_spared_while_probes_fail(scene: Scene, broken: Behaviour) -> Result<()> {
    let well = scene.backends[0].behaviour();
    scene.wave(2.0).await?;
    scene.backends[0].set(broken);
    scene.wave(2.0).await?;
    let before = seen(&scene.backends[0]);
    let wave = scene.wave(6.0).await?;
    assert_eq!(wave.summary.failed, 0, "{broken}: {:?}", wave.summary.statuses);
    let after = seen(&scene.backends[0]);
    assert_eq!(after.1, before.1, "{broken}: a user's request found out");
    if !matches!(broken, Behaviour::Refuse) {
        assert!(after.0 - before.0 >= 10, "{broken}: {} probes in 6 s", after.0 - before.0);
    }
    scene.backends[0].set(well);
    let deadline = clock::now() + RETURN;
    while scene.wave(1.0).await?.share(0) < 0.1 {
        assert!(clock::now() < deadline, "{broken}: healed, but not back");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_endpoint_is_asked_by_probes_alone() -> Result<()> {
    users_are_spared_while_probes_fail(probing(false).await?, Behaviour::FAIL_FAST).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_endpoint_is_asked_by_probes_alone() -> Result<()> {
    users_are_spared_while_probes_fail(probing(true).await?, Behaviour::Refuse).await
}

/// At low traffic every endpoint is probed, and each probe reaches the endpoint that it names.
#[tokio::test(flavor = "multi_thread")]
async fn the_silent_are_asked_and_each_probe_comes_to_its_endpoint() -> Result<()> {
    let scene = probing(true).await?;
    let mut load = scene.load(5.0);
    load.rate = RATE / 100.0;
    scene.wave_of(load).await?;
    for backend in &scene.backends {
        let requests = backend.requests();
        let probes: Vec<_> = requests.iter().filter(|request| request.path == PATH).collect();
        assert!(probes.len() >= 5, "{} probes", probes.len());
        let hosts: BTreeMap<&str, usize> = probes.iter().fold(BTreeMap::new(), |mut hosts, probe| {
            *hosts.entry(probe.headers["host"].as_str()).or_default() += 1;
            hosts
        });
        assert_eq!(hosts.keys().copied().collect::<Vec<_>>(), [backend.address().to_string()]);
    }
    Ok(())
}
