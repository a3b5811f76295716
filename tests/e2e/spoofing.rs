//! A client cannot choose an endpoint: in no mode, on no route, however it spells the header.
//!
//! Among four equal endpoints the one that clients name gets a quarter of the requests by chance, and all of them if
//! Envoy obeys; so a share below 60 % of forty means that Envoy did not obey (by chance: once in 10⁶).

use testbed::anyhow::Result;
use testbed::backend::Backend;
use testbed::envoy::{self, Cluster, Envoy, Filter, Policy};
use testbed::serde_json::{Value, json};
use testbed::tokio;

use crate::raw;
use crate::scene::{Scene, Stage};

const HEADER: &str = "x-evenkeel-endpoint";
const REQUESTS: u64 = 40;

/// The header lines with which a client may try to name `victim`.
fn attempts(victim: &str) -> Vec<Vec<String>> {
    let coded = base64(victim);
    vec![
        vec![format!("x-evenkeel-endpoint: {victim}")],
        vec![format!("x-evenkeel-endpoint: {victim}"), format!("x-evenkeel-endpoint: {victim}")],
        vec!["x-evenkeel-endpoint: 192.0.2.1:80".into(), format!("x-evenkeel-endpoint: {victim}")],
        vec![format!("x-evenkeel-endpoint: {victim},{victim}")],
        vec![format!("x-evenkeel-endpoint: 192.0.2.1:80, {victim}")],
        vec![format!("X-EvenKeel-Endpoint: {victim}")],
        vec![format!("X-EVENKEEL-ENDPOINT:{victim}"), format!("x-evenkeel-endpoint: {victim}")],
        vec![format!("x-evenkeel-endpoint: {coded}")],
        vec![format!("X-Evenkeel-Endpoint: {coded}"), format!("x-evenkeel-endpoint: {coded}")],
    ]
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(bytes.get(at).copied().unwrap_or(0)));
        let digit = |at: usize| match at <= bytes.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    text.as_bytes().chunks(3).map(group).collect()
}

/// Number of requests with these header lines that reached `victim`.
async fn reached(envoy: &Envoy, path: &str, lines: &[String], victim: &Backend) -> Result<u64> {
    let before = victim.counts().received;
    for _ in 0..REQUESTS {
        let head = raw::get(envoy.address(), path, lines).await?;
        assert_eq!(head.status(), 200, "{lines:?}");
        assert_eq!(head.header(HEADER), None, "{lines:?}");
    }
    Ok(victim.counts().received - before)
}

/// One way of steering, and a route that evenkeel does not balance.
struct Target {
    scene: Scene,
    others: Vec<Backend>,
}

/// Two clusters that would both obey the header; evenkeel balances only the first.
async fn target(mode: &str, via: &str, policy: Policy, filters: Vec<Filter>) -> Result<Target> {
    let mut stage = Stage {
        backends: 4,
        policy: policy.clone(),
        plugin: json!({ "mode": mode, "steering": { "via": via } }),
        upstream: Value::Null,
        proxy: envoy::Config { filters, ..envoy::Config::default() },
        ..Stage::default()
    };
    let others = Backend::start_many(4, stage.backend.clone()).await?;
    let mut cluster = Cluster::new("other", others.iter().map(Backend::address).collect(), policy);
    cluster.prefix = "/other".into();
    stage.proxy.clusters.push(cluster);
    Ok(Target { scene: stage.open().await?, others })
}

async fn never_obeyed(mode: &str, via: &str, policy: Policy, filters: Vec<Filter>) -> Result<()> {
    let Target { scene, others } = target(mode, via, policy, filters).await?;
    for (path, fleet) in [("/", &scene.backends), ("/other", &others)] {
        let victim = &fleet[0];
        for lines in attempts(&victim.address().to_string()) {
            let count = reached(scene.envoy(), path, &lines, victim).await?;
            assert!(count < REQUESTS * 6 / 10, "{mode}, {via}, {path}, {lines:?}: {count} of {REQUESTS}");
        }
        let seen = fleet.iter().flat_map(|backend| backend.requests());
        assert!(seen.into_iter().all(|request| !request.headers.contains_key(HEADER)));
    }
    Ok(())
}

fn by_session() -> (Policy, Vec<Filter>) {
    (Policy::StatefulSession { header: HEADER.into() }, vec![Filter::stateful_session(HEADER)])
}

#[tokio::test(flavor = "multi_thread")]
async fn override_host_enforced() -> Result<()> {
    never_obeyed("enforce", "override_host", Policy::evenkeel(), Vec::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn override_host_observed() -> Result<()> {
    never_obeyed("observe", "override_host", Policy::evenkeel(), Vec::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_session_enforced() -> Result<()> {
    let (policy, filters) = by_session();
    never_obeyed("enforce", "stateful_session", policy, filters).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_session_observed() -> Result<()> {
    let (policy, filters) = by_session();
    never_obeyed("observe", "stateful_session", policy, filters).await
}

/// Control: without evenkeel Envoy does obey, so the tests above can fail.
#[tokio::test(flavor = "multi_thread")]
async fn without_evenkeel_clients_steer() -> Result<()> {
    let (policy, filters) = by_session();
    for (policy, filters, coded) in [(Policy::evenkeel(), Vec::new(), false), (policy, filters, true)] {
        let scene = Stage {
            backends: 4,
            policy,
            bare: true,
            proxy: envoy::Config { filters, ..Default::default() },
            ..Stage::default()
        }
        .open()
        .await?;
        let victim = &scene.backends[0];
        let name = victim.address().to_string();
        let value = if coded { base64(&name) } else { name };
        let mut obeyed = 0;
        for _ in 0..REQUESTS {
            let head = raw::get(scene.envoy().address(), "/", &[format!("{HEADER}: {value}")]).await?;
            obeyed += u64::from(head.header("x-backend") == Some(&victim.address().to_string()));
        }
        assert_eq!(obeyed, REQUESTS);
    }
    Ok(())
}
