//! The status page's counts equal those of the backends.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::envoy::Filter;
use testbed::http::{self, Answer, Method};
use testbed::serde_json::{Value, json};
use testbed::wait::until;
use testbed::{envoy, tokio, tools};

use crate::scene::{Scene, Stage, received};

fn stage(concurrency: u32) -> Stage {
    Stage {
        plugin: json!({ "status": { "path": "/_evenkeel" } }),
        proxy: envoy::Config { dynamic: true, concurrency, ..envoy::Config::default() },
        ..Stage::default()
    }
}

async fn status(at: SocketAddr) -> Result<Value> {
    http::get(at, "/_evenkeel/status.json").await?.json()
}

/// A count per endpoint, by address.
fn counted(status: &Value, what: &str) -> BTreeMap<String, u64> {
    let endpoints = status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let pair = |e: &Value| Some((e["address"].as_str()?.to_owned(), e[what].as_u64()?));
    endpoints.iter().filter_map(pair).collect()
}

fn truth(scene: &Scene) -> BTreeMap<String, u64> {
    let addresses = scene.backends.iter().map(|backend| backend.address().to_string());
    addresses.zip(received(&scene.backends)).collect()
}

/// Waits until the page's counts equal those of the backends.
async fn agrees(scene: &Scene) -> Result<Value> {
    let at = scene.envoy().address();
    let equal = until("counts that agree", Duration::from_secs(8), async || {
        let now = status(at).await.ok()?;
        // Another worker may have reported while requests were in flight.
        let in_flight = counted(&now, "in_flight").values().sum::<u64>();
        (counted(&now, "requests") == truth(scene) && in_flight == 0).then_some(now)
    });
    let Ok(now) = equal.await else {
        let now = status(at).await?;
        panic!("the page: {:?}\nthe backends: {:?}", counted(&now, "requests"), truth(scene));
    };
    assert_eq!(counted(&now, "picks"), truth(scene), "nothing was retried, so picks are requests");
    let shares = now["upstreams"][0]["endpoints"].as_array().context("endpoints")?;
    let shares: f64 = shares.iter().filter_map(|e| e["share"].as_f64()).sum();
    assert!((shares - 1.0).abs() < 1e-3, "{shares}");
    Ok(now)
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_equal_the_backends_with_any_number_of_workers() -> Result<()> {
    for workers in [1, 2, 4] {
        let scene = stage(workers).open().await?;
        let wave = scene.wave(1.5).await?;
        assert_eq!((wave.summary.failed, wave.strangers), (0, 0));
        let now = agrees(&scene).await?;
        assert!((1..=u64::from(workers)).contains(&now["workers"].as_u64().context("workers")?), "{now}");
        assert_eq!(now["upstreams"][0]["decisions"]["fallback"], json!(0));
        check_metrics(&scene).await?;
    }
    Ok(())
}

/// Asserts that `promtool` has no complaints and that the metrics have the same counts.
async fn check_metrics(scene: &Scene) -> Result<()> {
    let answer = http::get(scene.envoy().address(), "/_evenkeel/metrics").await?;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let mut promtool = Command::new(tools::promtool()?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    promtool.stdin.take().context("a pipe")?.write_all(text.as_bytes())?;
    let output = promtool.wait_with_output()?;
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    // Another worker may answer, whose reports from the others are slightly old.
    until("the same counts as text", Duration::from_secs(8), async || {
        let text = http::get(scene.envoy().address(), "/_evenkeel/metrics").await.ok()?.text();
        let line = |(address, requests): (String, u64)| {
            format!(
                "evenkeel_endpoint_requests_total{{upstream=\"web\",endpoint=\"{address}\"}} {requests}\n"
            )
        };
        truth(scene).into_iter().all(|counted| text.contains(&line(counted))).then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_go_on_over_reloads() -> Result<()> {
    let mut scene = stage(2).open().await?;
    let load = scene.load(6.0).start().await?;
    for slow_start in ["10s", "11s", "12s"] {
        let upstream = json!({ "slow_start": slow_start });
        let configuration = stage(2).configuration(&scene.backends, &upstream);
        scene.envoy_mut().reload(vec![Filter::evenkeel(&configuration)?]).await?;
        // New connections use the new configuration while the load goes on under the old one.
        let fresh = scene.wave(0.5).await?;
        assert_eq!((fresh.summary.failed, fresh.strangers), (0, 0));
    }
    assert_eq!(load.finish().await.summary().failed, 0);
    let now = agrees(&scene).await?;
    assert!(
        now["uptime_s"].as_f64().context("uptime")? > 1.5,
        "the process's, not the configuration's: {now}"
    );
    Ok(())
}

async fn ask(at: SocketAddr, method: Method, path: &str) -> Result<Answer> {
    http::send(at, method, path, &[("x-evenkeel-endpoint", "10.9.9.9:1")], "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_as_a_browser_needs_it() -> Result<()> {
    let scene = stage(1).open().await?;
    let at = scene.envoy().address();
    for (method, path, status, content_type) in [
        (Method::GET, "/_evenkeel", 200, "text/html; charset=utf-8"),
        (Method::GET, "/_evenkeel/?a=b", 200, "text/html; charset=utf-8"),
        (Method::HEAD, "/_evenkeel", 200, "text/html; charset=utf-8"),
        (Method::GET, "/_evenkeel/status.json?x", 200, "application/json; charset=utf-8"),
        (Method::HEAD, "/_evenkeel/status.json", 200, "application/json; charset=utf-8"),
        (Method::GET, "/_evenkeel/config.json", 200, "application/json; charset=utf-8"),
        (Method::GET, "/_evenkeel/other", 404, "text/plain; charset=utf-8"),
        (Method::POST, "/_evenkeel", 405, "text/plain; charset=utf-8"),
        (Method::DELETE, "/_evenkeel/status.json", 405, "text/plain; charset=utf-8"),
    ] {
        let answer = ask(at, method.clone(), path).await?;
        let what = format!("{method} {path}: {answer:?}");
        assert_eq!(answer.status.as_u16(), status, "{what}");
        let types: Vec<_> = answer.headers.get_all("content-type").iter().collect();
        assert_eq!(types, [content_type], "{what}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{what}");
        let policy = answer.header("content-security-policy").context("a policy")?;
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{what}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{what}");
        assert_eq!(answer.body.is_empty(), method == Method::HEAD, "{what}");
        assert!(answer.body.len() < 100_000, "{} bytes", answer.body.len());
    }
    assert_eq!(received(&scene.backends).iter().sum::<u64>(), 0, "none of these went on");
    // Paths that only share the prefix are proxied like any request.
    assert_eq!(ask(at, Method::GET, "/_evenkeelx").await?.status.as_u16(), 200);
    assert_eq!(received(&scene.backends).iter().sum::<u64>(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere() -> Result<()> {
    let secret = "s3cr3t-b34r3r";
    let mut stage = stage(1);
    // The answer echoes the request, as a careless proxy's error page does.
    stage.plugin["prometheus"] = json!({
        "cluster": "nowhere", "interval": "1s", "timeout": "500ms", "headers": { "authorization": secret }
    });
    stage.upstream["signals"] = json!([{ "name": "queue", "query": "up" }]);
    let scene = stage.open().await?;
    scene.wave(1.0).await?;
    let at = scene.envoy().address();
    until("a poll that failed", Duration::from_secs(15), async || {
        let now = status(at).await.ok()?;
        (now["prometheus"]["failures"].as_u64()? > 0).then_some(())
    })
    .await?;
    for path in ["", "/status.json", "/config.json", "/metrics"] {
        let text = http::get(at, &format!("/_evenkeel{path}")).await?.text();
        assert!(!text.contains(secret), "{path}: {text}");
    }
    let config = http::get(at, "/_evenkeel/config.json").await?.text();
    assert!(config.contains("authorization"), "{config}");
    assert_eq!(scene.logged(secret), 0);
    Ok(())
}

/// CPU time that a process has used, ms.
fn used_ms(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
    // In hundredths of a second, as on every Linux.
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) * 10.0)
}

/// Prints the CPU time that a request to each path costs Envoy, with a thousand endpoints and two workers.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test --release --test e2e -- --ignored --nocapture what_a_status"]
async fn what_a_status_request_costs() -> Result<()> {
    let mut scene = stage(2).open().await?;
    let real: Vec<String> = scene.backends.iter().map(|backend| backend.address().to_string()).collect();
    let more = (0..1000 - real.len()).map(|at| format!("10.9.{}.{}:8080", at / 250, at % 250 + 1));
    let everybody: Vec<String> = real.into_iter().chain(more).collect();
    let configuration = json!({
        "mode": "observe", "status": { "path": "/_evenkeel" },
        "upstreams": [{ "cluster": "web", "endpoints": { "static": everybody },
            "signals": [{ "name": "cpu", "query": "cpu" }] }],
        "prometheus": { "cluster": "nowhere" }
    });
    scene.envoy_mut().reload(vec![Filter::evenkeel(&configuration)?]).await?;
    scene.wave(3.0).await?;
    let (at, process) = (scene.envoy().address(), scene.envoy_mut().process().id());
    let mut baseline = 0.0;
    for path in ["/nothing", "", "/status.json", "/metrics", "/config.json"] {
        for round in 0..2 {
            let (before, begun) = (used_ms(process)?, testbed::clock::now());
            let mut bytes = 0;
            for _ in 0..200 {
                bytes = http::get(at, &format!("/_evenkeel{path}")).await?.body.len();
            }
            let each = (used_ms(process)? - before) / 200.0;
            let wall = begun.elapsed().as_secs_f64() * 5.0;
            if path == "/nothing" {
                baseline = each;
            }
            if round == 1 {
                println!(
                    "{path:12} {bytes:8} bytes, {each:.2} ms of processor time ({:.2} more than a 404), {wall:.2} ms in all",
                    each - baseline
                );
            }
        }
    }
    Ok(())
}
