//! A real backend over real sockets.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Backend, Behaviour, Config, Kind};
use crate::{clock, http, wait};

const PATIENCE: Duration = Duration::from_secs(10);

fn quick() -> Config {
    Config { median: Duration::from_millis(5), sigma: 0.0, ..Config::default() }
}

async fn status(backend: &Backend) -> Result<u16> {
    Ok(http::get(backend.address(), "/").await?.status.as_u16())
}

/// Starts `count` requests and waits until the backend has received them all.
async fn busy(backend: &Backend, count: u64) -> Result<Vec<tokio::task::JoinHandle<Result<http::Answer>>>> {
    let address = backend.address();
    let before = backend.counts().received;
    let calls = (0..count).map(|_| tokio::spawn(async move { http::get(address, "/").await })).collect();
    wait::until("the requests", PATIENCE, || {
        let all = backend.counts().received == before + count;
        async move { all.then_some(()) }
    })
    .await?;
    Ok(calls)
}

#[tokio::test]
async fn backend_names_itself_and_counts() -> Result<()> {
    let backend = Backend::start(Config { record_requests: true, ..quick() }).await?;
    let answer =
        http::send(backend.address(), hyper::Method::POST, "/a?b=c", &[("X-Who", "me")], "hello").await?;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-backend"), Some(backend.address().to_string().as_str()));
    let seen = backend.requests();
    assert_eq!(seen[0].path, "/a?b=c");
    assert_eq!(seen[0].headers["x-who"], "me");
    assert_eq!(backend.counts().received, 1);
    assert_eq!(backend.counts().answered[&200], 1);
    assert_eq!(backend.counts().in_flight, 0);
    Ok(())
}

#[tokio::test]
async fn a_request_says_how_much_work_it_is_and_a_slower_backend_takes_longer() -> Result<()> {
    let backend = Backend::start(Config { slowness: 3.0, ..quick() }).await?;
    for (path, ms) in [("/", 15), ("/work/20ms", 60), ("/work/1us", 0), ("/work/much", 15)] {
        http::get(backend.address(), path).await?;
        let work = backend.work().pop().unwrap_or_default();
        assert_eq!(work.as_millis(), ms, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_part_of_the_requests_fails_at_once() -> Result<()> {
    for (ratio, failed) in [(0.0, 0), (0.5, 40), (1.0, 80)] {
        let behaviour = Behaviour::FailSome { status: 429, ratio };
        let backend = Backend::start(Config { behaviour, ..quick() }).await?;
        for _ in 0..80 {
            status(&backend).await?;
        }
        let answered = backend.counts().answered;
        // Binomial with a standard deviation of 4.5; five of them.
        let found = answered.get(&429).copied().unwrap_or(0);
        assert!(found.abs_diff(failed) <= if failed == 40 { 22 } else { 0 }, "{ratio}: {answered:?}");
        assert_eq!(backend.work().len() as u64, 80 - found, "no work for those");
    }
    Ok(())
}

#[tokio::test]
async fn requests_beyond_the_slots_queue_and_then_are_refused() -> Result<()> {
    let slow = Config { median: Duration::from_millis(300), sigma: 0.0, slots: 1, ..Config::default() };
    let backend = Backend::start(Config { kind: Kind::Service { queue: Some(1) }, ..slow }).await?;
    let calls = busy(&backend, 2).await?;
    assert_eq!(backend.counts().in_flight, 2);
    assert_eq!(backend.counts().queued, 1);
    assert_eq!(status(&backend).await?, 503);
    for call in calls {
        assert_eq!(call.await??.status, 200);
    }
    assert_eq!(backend.counts().queued, 0);
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_back() -> Result<()> {
    let backend = Backend::start(Config { behaviour: Behaviour::BlackHole, ..quick() }).await?;
    let calls = busy(&backend, 3).await?;
    assert_eq!(backend.counts().in_flight, 3);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    wait::until("the places", PATIENCE, || {
        let none = backend.counts().in_flight == 0;
        async move { none.then_some(()) }
    })
    .await?;
    assert!(backend.counts().answered.is_empty());
    Ok(())
}

#[tokio::test]
async fn faults_are_switched_while_it_runs() -> Result<()> {
    let backend = Backend::start(quick()).await?;
    assert_eq!(status(&backend).await?, 200);

    backend.set(Behaviour::FAIL_FAST);
    assert_eq!(status(&backend).await?, 503);
    backend.set(Behaviour::FailFast { status: 429, after: Duration::ZERO });
    assert_eq!(status(&backend).await?, 429);
    backend.set(Behaviour::ErrorRatio(1.0));
    assert_eq!(status(&backend).await?, 500);

    backend.set(Behaviour::Reset);
    let error = format!("{:#}", status(&backend).await.unwrap_err());
    assert!(error.contains("reset") || error.contains("closed"), "{error}");

    backend.set(Behaviour::Slow(20.0));
    let start = clock::now();
    assert_eq!(status(&backend).await?, 200);
    assert!(clock::now() - start >= Duration::from_millis(100));

    backend.set(Behaviour::Healthy);
    assert_eq!(status(&backend).await?, 200);
    Ok(())
}

#[tokio::test]
async fn refusing_closes_the_port_and_cuts_what_is_open() -> Result<()> {
    let backend = Backend::start(Config { median: Duration::from_secs(60), ..quick() }).await?;
    let calls = busy(&backend, 2).await?;
    backend.set(Behaviour::Refuse);
    for call in calls {
        assert!(call.await?.is_err(), "cut");
    }
    let address = backend.address();
    wait::until("refusal", PATIENCE, || async move {
        let error = TcpStream::connect(address).await.err()?;
        (error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    })
    .await?;
    backend.set(Behaviour::FAIL_FAST);
    wait::until("the port's return", PATIENCE, || async { status(&backend).await.ok() }).await?;
    Ok(())
}

#[tokio::test]
async fn a_worker_accepts_at_once_and_only_its_queue_shows() -> Result<()> {
    let slow = Config { median: Duration::from_millis(200), sigma: 0.0, slots: 1, ..Config::default() };
    let backend = Backend::start(Config { kind: Kind::Worker { queue: 2 }, ..slow }).await?;
    assert_eq!(status(&backend).await?, 202);
    wait::until("the first task's start", PATIENCE, || {
        let started = backend.counts().queued == 0;
        async move { started.then_some(()) }
    })
    .await?;
    assert_eq!(status(&backend).await?, 202);
    assert_eq!(status(&backend).await?, 202);
    assert_eq!(status(&backend).await?, 503, "the queue is full");
    let metrics = http::get(backend.address(), "/metrics").await?.text();
    assert!(metrics.contains("task_queue_depth 2"), "{metrics}");
    let tasks = wait::until("the tasks' end", PATIENCE, || {
        let tasks = backend.finished_tasks();
        async move { (tasks.len() == 3).then_some(tasks) }
    })
    .await?;
    assert!(tasks[2].sojourn >= Duration::from_millis(400), "two tasks stood before it: {:?}", tasks[2]);
    Ok(())
}

#[tokio::test]
async fn the_metrics_have_the_users_names() -> Result<()> {
    let backend = Backend::start(quick()).await?;
    status(&backend).await?;
    backend.set(Behaviour::FAIL_FAST);
    status(&backend).await?;
    let answer = http::get(backend.address(), "/metrics").await?;
    let text = answer.text();
    for line in [
        "# TYPE http_inflight_requests gauge",
        "http_inflight_requests 0",
        "# TYPE http_request_duration_seconds histogram",
        "http_request_duration_seconds_count 2",
        "http_requests_total{status=\"200\"} 1",
        "http_requests_total{status=\"503\"} 1",
        "task_queue_depth 0",
        "process_cpu_seconds_total 0.005",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn grpc_status_comes_in_headers_or_in_trailers_over_h2c() -> Result<()> {
    let backend =
        Backend::start(Config { behaviour: Behaviour::Grpc { status: 14, in_trailers: false }, ..quick() })
            .await?;
    let answer = http::get(backend.address(), "/").await?;
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, Some("14")));

    backend.set(Behaviour::Grpc { status: 13, in_trailers: true });
    let stream = TokioIo::new(TcpStream::connect(backend.address()).await?);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
    tokio::spawn(connection);
    let request = Request::get(format!("http://{}/", backend.address())).body(Empty::<Bytes>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?;
    assert_eq!(body.trailers().and_then(|trailers| trailers.get("grpc-status")).unwrap(), "13");
    Ok(())
}
