//! WebSockets, server-sent events, bidirectional gRPC streams and large bodies through a real Envoy: they work, open
//! streams count as in flight, and latency is the time to the response headers.

use std::time::Duration;

use testbed::anyhow::{Context, Result, ensure};
use testbed::backend::Behaviour;
use testbed::http::{self, Method};
use testbed::serde_json::{Value, json};
use testbed::{envoy, http2, tokio, wait};

use crate::raw::Connection;
use crate::scene::{Scene, Stage, received};

const PATIENCE: Duration = Duration::from_secs(30);
/// Minimum time for which streams are held: ten times the latency allowed meanwhile, a margin that no busy machine uses
/// up.
const HELD: Duration = Duration::from_secs(5);
/// Upper bound of the reported latency, milliseconds; far below `HELD`.
const NOT_THE_STREAM: f64 = 2_000.0;

fn stage(upstream: Value) -> Stage {
    Stage {
        backends: 4,
        strangers: 1,
        plugin: json!({ "status": { "path": "/_evenkeel" } }),
        upstream,
        // No route timeout: streams may last.
        proxy: envoy::Config { route_timeout: Duration::ZERO, ..envoy::Config::default() },
        ..Stage::default()
    }
}

/// The status page's entries of the endpoints.
async fn endpoints(scene: &Scene) -> Result<Vec<Value>> {
    let status = http::get(scene.envoy().address(), "/_evenkeel/status.json").await?.json()?;
    Ok(status["upstreams"][0]["endpoints"].as_array().context("endpoints")?.clone())
}

/// Waits until `count` requests are in flight, both for evenkeel and for the backends.
async fn in_flight(scene: &Scene, count: u64) -> Result<()> {
    wait::until(&format!("{count} in flight"), PATIENCE, || async {
        let told: Option<i64> =
            endpoints(scene).await.ok()?.iter().map(|endpoint| endpoint["in_flight"].as_i64()).sum();
        let real: u64 = scene.backends.iter().map(|backend| backend.counts().in_flight).sum();
        (told == i64::try_from(count).ok() && real == count).then_some(())
    })
    .await
}

async fn latencies_are_those_of_headers(scene: &Scene) -> Result<()> {
    for endpoint in endpoints(scene).await? {
        // Null before the first poll.
        let latency = endpoint["latency_ms"].as_f64().unwrap_or(0.0);
        ensure!(latency < NOT_THE_STREAM, "{endpoint}");
    }
    Ok(())
}

/// A WebSocket text frame with the payload "hello", masked with zeros.
const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";
const UPGRADE: &[&str] = &[
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: ZXZlbiBrZWVsLCBldmVuIQ==",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_counts_as_in_flight_and_not_as_slow() -> Result<()> {
    let scene = stage(json!({})).open().await?;
    let at = scene.envoy().address();
    let before = scene.wave(1.0).await?;
    assert_eq!(before.summary.failed, 0, "{:?}", before.summary.statuses);

    let opened = testbed::clock::now();
    let (mut sockets, mut events, mut downloads) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..4 {
        let mut socket = Connection::open(at).await?;
        assert_eq!(socket.ask("/", UPGRADE).await?.status(), 101);
        sockets.push(socket);
        let mut listener = Connection::open(at).await?;
        let head = listener.ask("/events", &["Accept: text/event-stream"]).await?;
        assert_eq!((head.status(), head.header("content-type")), (200, Some("text/event-stream")));
        events.push(listener);
        // A client that does not read; the body exceeds all buffers on the way.
        let mut download = Connection::open(at).await?;
        assert_eq!(download.ask("/bytes/200000000", &[]).await?.status(), 200);
        downloads.push(download);
    }
    in_flight(&scene, 12).await?;
    let load = scene.wave(3.0).await?;
    assert_eq!((load.summary.failed, load.strangers), (0, 0), "{:?}", load.summary.statuses);
    assert!(load.spread(), "{:?}", load.received);
    wait::until("some time", PATIENCE, || async { (opened.elapsed() > HELD).then_some(()) }).await?;
    in_flight(&scene, 12).await?;
    latencies_are_those_of_headers(&scene).await?;

    for socket in &mut sockets {
        socket.send(HELLO).await?;
        assert_eq!(socket.take(HELLO.len()).await?, HELLO);
    }
    for listener in &mut events {
        for _ in 0..3 {
            listener.until(b"data: tick\n\n").await?;
        }
    }
    drop((sockets, events, downloads));
    in_flight(&scene, 0).await?;
    latencies_are_those_of_headers(&scene).await?;
    let after = scene.wave(1.0).await?;
    assert_eq!((after.summary.failed, after.strangers), (0, 0), "{:?}", after.summary.statuses);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_whole_in_both_directions() -> Result<()> {
    const SIZE: usize = 8 << 20;
    for http2 in [false, true] {
        let scene = Stage { http2, ..stage(json!({})) }.open().await?;
        let at = scene.envoy().address();
        let body = "x".repeat(SIZE);
        for _ in 0..4 {
            let up = http::send(at, Method::POST, "/", &[], &body).await?;
            assert_eq!((up.status.as_u16(), up.header("x-received")), (200, Some(&*SIZE.to_string())));
            let down = http::get(at, &format!("/bytes/{SIZE}")).await?;
            assert_eq!((down.status.as_u16(), down.body.len()), (200, SIZE));
        }
        in_flight(&scene, 0).await?;
        assert_eq!(scene.strangers[0].counts().received, 0, "all were steered");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_stream_in_both_directions() -> Result<()> {
    let scene = Stage { http2: true, ..stage(json!({ "policy": "round_robin" })) }.open().await?;
    let client = http2::Client::open(scene.envoy().address()).await?;
    let mut calls = Vec::new();
    for _ in 0..8 {
        let mut call = client.call("/chat", b"one").await?;
        assert!(call.next().await?.context("an echo")?.ends_with(b"one"));
        calls.push(call);
    }
    in_flight(&scene, 8).await?;
    assert_eq!(received(&scene.backends), [2; 4], "one worker, in turn");
    for round in ["two", "three"] {
        for call in &mut calls {
            call.send(round.as_bytes())?;
            assert!(call.next().await?.context("an echo")?.ends_with(round.as_bytes()));
        }
    }
    for call in calls {
        assert_eq!(call.finish().await?, Some(0));
    }
    in_flight(&scene, 0).await?;
    assert_eq!(scene.strangers[0].counts().received, 0, "all were steered");
    Ok(())
}

/// UNAVAILABLE within HTTP 200, in the headers or in the trailers after some messages, counts like a 503.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_within_http_200_are_ejected_like_503() -> Result<()> {
    let upstream = json!({ "policy": "least_request", "health": { "ejection": "30s" } });
    let scene = Stage { backends: 8, http2: true, ..stage(upstream) }.open().await?;
    // One connection, hence one worker, so that each failing endpoint gets enough requests to be ejected.
    let client = http2::Client::open(scene.envoy().address()).await?;
    let sick = [
        Behaviour::FAIL_FAST,
        Behaviour::Grpc { status: 14, in_trailers: false },
        Behaviour::Grpc { status: 14, in_trailers: true },
    ];
    for (backend, sick) in scene.backends.iter().zip(sick) {
        backend.set(sick);
    }
    wait::until("their ejection", PATIENCE, || async {
        for _ in 0..20 {
            client.unary("/chat", b"hello").await.ok()?;
        }
        let out = |endpoint: &Value| endpoint["state"] == "failed" && endpoint["eligible"] == false;
        endpoints(&scene).await.ok()?.iter().take(3).all(out).then_some(())
    })
    .await?;
    let counts = received(&scene.backends);
    assert!(counts[..3].iter().all(|count| (3..=6).contains(count)), "three failures are enough: {counts:?}");
    let mut good = 0;
    for _ in 0..200 {
        good += usize::from(client.unary("/chat", b"hello").await? == Some(0));
    }
    // The others are probes.
    assert!(good >= 190, "{good} of 200");
    Ok(())
}
