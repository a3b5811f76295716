//! A real Envoy; needs `make setup`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Config, Envoy, Filter, Policy};
use crate::backend::{self, Backend};
use crate::http;
use crate::load::Load;

async fn backends(count: usize) -> Result<Vec<Backend>> {
    let quick =
        backend::Config { median: Duration::from_millis(2), record_requests: true, ..Default::default() };
    Backend::start_many(count, quick).await
}

fn addresses(backends: &[Backend]) -> Vec<std::net::SocketAddr> {
    backends.iter().map(Backend::address).collect()
}

#[tokio::test]
async fn every_built_in_policy_reaches_every_endpoint() -> Result<()> {
    let backends = backends(3).await?;
    for policy in [
        Policy::RoundRobin,
        Policy::LeastRequest,
        Policy::LeastRequestWithOutlierDetection,
        Policy::OrcaWeighted,
        Policy::evenkeel(),
    ] {
        let envoy = Envoy::start(Config::single(addresses(&backends), policy.clone())).await?;
        let load = Load { target: envoy.address(), duration: Duration::from_secs(1), ..Load::default() };
        let summary = load.run().await?.summary();
        assert_eq!(summary.failed, 0, "{policy:?}: {summary:?}");
        assert_eq!(summary.by_backend.len(), 3, "{policy:?}: {summary:?}");
        assert_eq!(envoy.stat("cluster.web.upstream_rq_total").await?, summary.requests);
    }
    Ok(())
}

#[tokio::test]
async fn the_steering_header_picks_the_host_and_is_not_passed_on() -> Result<()> {
    let backends = backends(3).await?;
    let stateful = Policy::StatefulSession { header: "x-session".to_owned() };
    let mut config = Config::single(addresses(&backends), stateful);
    config.filters = vec![Filter::stateful_session("x-session")];
    let by_session = Envoy::start(config).await?;
    let by_override = Envoy::start(Config::single(addresses(&backends), Policy::evenkeel())).await?;

    for backend in &backends {
        let name = backend.address().to_string();
        let encoded = base64(&name);
        for (envoy, header, value) in
            [(&by_override, "x-evenkeel-endpoint", &name), (&by_session, "x-session", &encoded)]
        {
            let answer = http::send(envoy.address(), hyper::Method::GET, "/", &[(header, value)], "").await?;
            assert_eq!(answer.header("x-backend"), Some(name.as_str()), "by {header}");
            assert_eq!(answer.header(header), None);
        }
        for request in backend.requests() {
            assert!(!request.headers.contains_key("x-evenkeel-endpoint"), "{request:?}");
            assert!(!request.headers.contains_key("x-session"), "{request:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn listeners_and_endpoints_are_replaced_and_bad_ones_refused() -> Result<()> {
    let backends = backends(2).await?;
    let config = Config { dynamic: true, ..Config::single(addresses(&backends[..1]), Policy::RoundRobin) };
    let mut envoy = Envoy::start(config).await?;
    let lua = |code: &str| {
        Filter(json!({
            "name": "envoy.filters.http.lua",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                "default_source_code": { "inline_string": code },
            },
        }))
    };
    let mark = "function envoy_on_response(handle) handle:headers():add('x-mark', 'new') end";
    envoy.reload(vec![lua(mark)]).await?;
    let marked = || async { http::get(envoy.address(), "/").await.ok()?.header("x-mark").map(str::to_owned) };
    crate::wait::until("the new listener", Duration::from_secs(10), marked).await?;

    let error = envoy.reload(vec![lua("function (")]).await.unwrap_err().to_string();
    assert!(error.contains("script load error"), "{error}");
    assert_eq!(http::get(envoy.address(), "/").await?.header("x-mark"), Some("new"), "the old one serves on");

    envoy.set_endpoints("web", addresses(&backends)).await?;
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        seen.extend(http::get(envoy.address(), "/").await?.header("x-backend").map(str::to_owned));
    }
    assert_eq!(seen.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_failure_to_start_shows_the_reason() -> Result<()> {
    let backends = backends(1).await?;
    let mut config = Config::single(addresses(&backends), Policy::RoundRobin);
    config.filters = vec![Filter(json!({ "name": "no.such.filter" }))];
    let error = format!("{:#}", Envoy::start(config).await.unwrap_err());
    assert!(error.contains("no.such.filter"), "{error}");
    Ok(())
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| {
        let bits =
            bytes.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - bytes.len()));
        (0..4)
            .map(move |index| match index <= bytes.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * index) & 63) as usize]),
                false => '=',
            })
            .collect::<String>()
    };
    text.as_bytes().chunks(3).map(group).collect()
}
