//! Endpoints that join, drain and die while a real Envoy serves; evenkeel discovers them from Envoy or from Prometheus
//! alone.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{Backend, Behaviour};
use testbed::envoy::{self, Cluster, EndpointState, Policy};
use testbed::load::Load;
use testbed::prometheus::{self, Prometheus};
use testbed::serde_json::{Value, json};
use testbed::{tokio, wait};

use crate::scene::{RATE, Scene, Stage, received};

/// Poll interval for Envoy's hosts.
const POLL: Duration = Duration::from_millis(500);
/// Time for two polls, including jitter, the control plane's file and a busy machine.
const TWO_POLLS: Duration = Duration::from_secs(2);

/// Upstream members with these endpoint sources.
fn upstream(endpoints: Value) -> Value {
    json!({ "endpoints": endpoints, "slow_start": "1s", "health": { "ejection": "3s" } })
}

/// Opens a scene with `backends` endpoints, which Envoy gets over EDS and evenkeel from Envoy alone; retries as
/// shipped.
async fn open(concurrency: u32, backends: usize) -> Result<Scene> {
    Stage {
        backends,
        upstream: upstream(json!({ "envoy_admin": { "cluster": "envoy_admin", "interval": "500ms" } })),
        proxy: envoy::Config {
            concurrency,
            retries: Some((1, "connect-failure,refused-stream".to_owned())),
            admin_cluster: true,
            dynamic: true,
            ..envoy::Config::default()
        },
        ..Stage::default()
    }
    .open()
    .await
}

fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().map(Backend::address).collect()
}

/// Waits until `backend` has received more than `before` requests.
async fn used(backend: &Backend, before: u64) -> Result<()> {
    wait::until("a request to the newcomer", TWO_POLLS, || async move {
        (backend.counts().received > before).then_some(())
    })
    .await
}

/// Waits until `backend` has received nothing for two polls.
async fn left_alone(backend: &Backend) -> Result<()> {
    let mut last = (backend.counts().received, testbed::clock::now());
    wait::until("peace for the one that is draining", 4 * TWO_POLLS, || {
        let received = backend.counts().received;
        if received != last.0 {
            last = (received, testbed::clock::now());
        }
        let quiet = last.1.elapsed() > 2 * POLL;
        async move { quiet.then_some(()) }
    })
    .await
}

async fn endpoints_come_drain_and_die(concurrency: u32) -> Result<()> {
    let mut scene = open(concurrency, 7).await?;
    let known = addresses(&scene.backends);
    scene.envoy_mut().set_endpoints("web", known[..5].to_vec()).await?;
    let load = scene.load(60.0).start().await?;
    used(&scene.backends[0], 20).await?;
    left_alone(&scene.backends[5]).await?;

    let before = scene.backends[5].counts().received;
    scene.envoy_mut().set_endpoints("web", known[..6].to_vec()).await?;
    used(&scene.backends[5], before).await?;

    let mut members: Vec<EndpointState> = known[..6].iter().copied().map(EndpointState::new).collect();
    members[0].health = "DRAINING";
    scene.envoy_mut().set_members("web", members).await?;
    left_alone(&scene.backends[0]).await?;
    scene.envoy_mut().set_endpoints("web", known[1..6].to_vec()).await?;
    let before = load.report().summary();
    assert_eq!(before.failed, 0, "nobody fails because somebody joins or drains: {:?}", before.statuses);

    // A crash, of which the control plane learns at once, and a replacement.
    scene.backends[1].set(Behaviour::Refuse);
    let newcomer = scene.backends[6].counts().received;
    scene.envoy_mut().set_endpoints("web", known[2..].to_vec()).await?;
    used(&scene.backends[6], newcomer).await?;
    let (before, crashed) = (received(&scene.backends), load.report().summary().failed);
    let sum = |counts: &[u64]| counts.iter().sum::<u64>();
    wait::until("two hundred requests more", 4 * TWO_POLLS, || {
        let done = sum(&received(&scene.backends)) > sum(&before) + 200;
        async move { done.then_some(()) }
    })
    .await?;
    let (end, after) = (load.report().summary(), received(&scene.backends));
    assert_eq!(end.failed, crashed, "{:?}", end.statuses);
    assert!(crashed <= 8, "those that were on their way: {crashed}, {:?}", end.statuses);
    assert_eq!((after[0], after[1]), (before[0], before[1]), "who is gone is left alone");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_come_drain_and_die_with_one_worker() -> Result<()> {
    endpoints_come_drain_and_die(1).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "between the other two; make test-envoys has it"]
async fn endpoints_come_drain_and_die_with_two_workers() -> Result<()> {
    endpoints_come_drain_and_die(2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_come_drain_and_die_with_four_workers() -> Result<()> {
    endpoints_come_drain_and_die(4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_unhealthy_in_envoy_gets_nothing() -> Result<()> {
    let mut scene = open(2, 4).await?;
    let known = addresses(&scene.backends);
    let load = scene.load(60.0).start().await?;
    used(&scene.backends[0], 20).await?;
    let members = |health| {
        let mut members: Vec<EndpointState> = known.iter().copied().map(EndpointState::new).collect();
        members[0].health = health;
        members
    };
    for health in ["UNHEALTHY", "DEGRADED", "DRAINING"] {
        scene.envoy_mut().set_members("web", members(health)).await?;
        left_alone(&scene.backends[0]).await?;
        let before = scene.backends[0].counts().received;
        scene.envoy_mut().set_members("web", members("HEALTHY")).await?;
        used(&scene.backends[0], before).await?;
    }
    let summary = load.report().summary();
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_alone_finds_the_endpoints_of_several_upstreams() -> Result<()> {
    let config = || Stage::default().backend;
    let api = Backend::start_many(3, config()).await?;
    let other = Backend::start_many(2, config()).await?;
    let cluster = |name: &str, prefix: &str, backends: &[Backend]| Cluster {
        prefix: prefix.to_owned(),
        ..Cluster::new(name, addresses(backends), Policy::evenkeel())
    };
    let found =
        |job: &str| upstream(json!({ "prometheus": { "query": format!("up{{job=\"{job}\"}} == 1") } }));
    let named = |cluster: &str, mut upstream: Value| {
        upstream["cluster"] = json!(cluster);
        upstream
    };
    // The scene's own backends are `web`; its Prometheus starts once their addresses are known.
    let web = Backend::start_many(3, config()).await?;
    // The last endpoint of each is only in Envoy's cluster: its requests were not steered.
    let jobs = [("web", &web), ("api", &api)].map(|(job, backends)| {
        let (_, scraped) = backends.split_last().expect("backends");
        (job.to_owned(), addresses(scraped))
    });
    let scraping =
        prometheus::Config { jobs: jobs.into(), scrape_interval: POLL, ..prometheus::Config::default() };
    let prometheus = Prometheus::start(&scraping).await?;
    let fixed: Vec<String> = addresses(&other)[..1].iter().map(SocketAddr::to_string).collect();
    let scene = Stage {
        plugin: json!({
            "prometheus": { "cluster": "prometheus", "interval": "500ms" },
            "upstreams": [
                named("site", found("web")),
                named("api", found("api")),
                named("*", upstream(json!({ "static": fixed }))),
            ],
        }),
        proxy: envoy::Config {
            clusters: vec![
                cluster("site", "/site", &web),
                cluster("api", "/api", &api),
                cluster("other", "/other", &other),
            ],
            services: vec![("prometheus".to_owned(), prometheus.address())],
            ..envoy::Config::default()
        },
        ..Stage::default()
    }
    .open()
    .await?;
    wait::until("scrapes of everybody", Duration::from_secs(30), || async {
        (prometheus.query("up == 1").await.ok()?.len() == 4).then_some(())
    })
    .await?;
    let ask = async |path: &str| {
        let load = Load { path: path.to_owned(), rate: RATE, ..scene.load(1.5) };
        scene.wave_of(load).await
    };
    for (path, backends) in [("/site", &web), ("/api", &api)] {
        // The next poll finds them.
        ask(path).await?;
        let before = received(backends);
        let wave = ask(path).await?;
        assert_eq!(wave.summary.failed, 0, "{path}: {:?}", wave.summary.statuses);
        let each: Vec<u64> =
            received(backends).iter().zip(before).map(|(after, before)| after - before).collect();
        let (stranger, found) = each.split_last().expect("backends");
        assert!(
            found.iter().all(|count| *count > 20) && *stranger < 10,
            "{path}: {each:?}\n{}",
            scene.envoy().log_tail(25)
        );
    }
    // One entry for the unlisted rest, with one of the two endpoints.
    let wave = ask("/other").await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    let counts = received(&other);
    assert!(counts[0] > 150 && counts[1] < 10, "{counts:?}");
    Ok(())
}

/// Resident memory of Envoy, KiB.
fn resident(scene: &mut Scene) -> Result<u64> {
    let id = scene.envoy_mut().process().id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0))
}

/// Replaces all ten endpoints thirty times, two at a time: new ones join, old ones drain and go. Takes about seven
/// minutes; `make trials` prints the outcome.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn thirty_rolling_replacements_cost_nothing() -> Result<()> {
    let mut scene = open(2, 10).await?;
    let mut fleet = std::mem::take(&mut scene.backends);
    let load = scene.load(1200.0).start().await?;
    used(&fleet[0], 20).await?;
    let mut figures = Vec::new();
    for round in 0..30 {
        for _ in 0..5 {
            let newcomers = Backend::start_many(2, Stage::default().backend).await?;
            let old: Vec<Backend> = fleet.drain(..2).collect();
            fleet.extend(newcomers);
            let staying = addresses(&fleet).into_iter().map(EndpointState::new);
            let leaving = |health| {
                addresses(&old)
                    .into_iter()
                    .map(move |address| EndpointState { health, ..EndpointState::new(address) })
            };
            let all = |health| staying.clone().chain(leaving(health)).collect::<Vec<_>>();
            scene.envoy_mut().set_members("web", all("HEALTHY")).await?;
            for newcomer in &fleet[8..] {
                used(newcomer, 0).await?;
            }
            scene.envoy_mut().set_members("web", all("DRAINING")).await?;
            for leaver in &old {
                left_alone(leaver).await?;
            }
            scene.envoy_mut().set_members("web", staying.collect()).await?;
        }
        let (kib, stats) = (resident(&mut scene)?, scene.envoy().stats().await?.len());
        let summary = load.report().summary();
        println!(
            "round {round}: {} requests, {} failed, {kib} KiB, {stats} stats",
            summary.requests, summary.failed
        );
        figures.push((kib, stats));
    }
    let summary = load.report().summary();
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    let (early, late) = (figures[9], figures[29]);
    assert!(
        late.0 as f64 <= 1.05 * early.0 as f64,
        "memory in KiB after 10 and 30 rounds: {early:?}, {late:?}"
    );
    assert!(late.1 <= early.1 + 5, "stats after 10 and 30 rounds: {early:?}, {late:?}");
    Ok(())
}
