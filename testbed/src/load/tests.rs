//! The generator against real backends.

use std::time::Duration;

use anyhow::Result;

use super::{Arrivals, Load, Outcome};
use crate::backend::{Backend, Behaviour, Config};
use crate::ports;

async fn quick_backend(behaviour: Behaviour) -> Result<Backend> {
    let median = Duration::from_millis(5);
    Backend::start(Config { median, sigma: 0.0, slots: 64, behaviour, ..Config::default() }).await
}

fn load(backend: &Backend) -> Load {
    Load {
        target: backend.address(),
        rate: 200.0,
        duration: Duration::from_secs(1),
        arrivals: Arrivals::Even,
        connections: 8,
        ..Load::default()
    }
}

#[tokio::test]
async fn requests_have_the_paths_in_turn() -> Result<()> {
    let backend = Backend::start(Config { slots: 64, record_requests: true, ..Config::default() }).await?;
    let paths = vec!["/work/1ms".to_owned(), "/work/2ms".to_owned()];
    Load { rate: 50.0, paths, ..load(&backend) }.run().await?;
    let seen = backend.requests();
    let firsts = seen.iter().filter(|request| request.path == "/work/1ms").count();
    assert_eq!((seen.len(), firsts), (50, 25));
    Ok(())
}

#[tokio::test]
async fn every_intended_request_is_sent_and_measured() -> Result<()> {
    let backend = quick_backend(Behaviour::Healthy).await?;
    let report = load(&backend).run().await?;
    let summary = report.summary();
    assert_eq!(summary.requests, 200);
    assert_eq!(summary.statuses[&200], 200);
    assert_eq!(backend.counts().received, 200);
    assert_eq!(summary.failed, 0);
    assert!((summary.share(&backend.address().to_string()) - 1.0).abs() < 1e-9);
    assert!(summary.percentile_ms(1.0) >= 5.0, "the work takes 5 ms");
    assert!(report.records.is_sorted_by_key(|record| record.at_us));
    let parts = report.parts(Duration::from_secs(1), 4);
    assert_eq!(parts.iter().map(|part| part.requests).collect::<Vec<_>>(), [49, 50, 50, 50]);
    Ok(())
}

#[tokio::test]
async fn a_stall_shows_in_every_request_that_was_due() -> Result<()> {
    // Nothing moves in the last 400 ms of each second: with a closed loop only the few requests in flight would show
    // it.
    let pause = Behaviour::Pause { length: Duration::from_millis(400), every: Duration::from_secs(1) };
    let backend = quick_backend(pause).await?;
    let report = Load { duration: Duration::from_secs(2), ..load(&backend) }.run().await?;
    let late = report.records.iter().filter(|record| record.latency_us > 50_000).count() as f64;
    let share = late / report.records.len() as f64;
    assert!((0.28..0.45).contains(&share), "a third to four tenths were due in the stall: {share}");
    Ok(())
}

#[tokio::test]
async fn failures_are_distinguished() -> Result<()> {
    let backend = quick_backend(Behaviour::BlackHole).await?;
    let timeout = Duration::from_millis(200);
    let summary = Load { timeout, rate: 50.0, ..load(&backend) }.run().await?.summary();
    assert_eq!((summary.requests, summary.failed, summary.timeouts), (50, 50, 50));
    assert!(
        summary.percentile_ms(50.0) >= 200.0,
        "{:?} {:?}",
        summary.percentile_ms(50.0),
        summary.latency_us.min()
    );

    backend.set(Behaviour::FAIL_FAST);
    let summary = load(&backend).run().await?.summary();
    assert_eq!((summary.failed, summary.statuses[&503]), (200, 200));

    backend.set(Behaviour::Reset);
    let report = Load { rate: 20.0, ..load(&backend) }.run().await?;
    assert!(report.records.iter().all(|record| record.outcome == Outcome::Disconnected));

    let nobody = Load { target: ports::free()?, rate: 20.0, ..Load::default() };
    let report = Load { duration: Duration::from_millis(500), ..nobody }.run().await?;
    assert!(!report.records.is_empty());
    assert!(
        report.records.iter().all(|record| record.outcome == Outcome::Refused && record.outcome.failed())
    );
    Ok(())
}

#[tokio::test]
async fn a_run_can_be_watched() -> Result<()> {
    let backend = quick_backend(Behaviour::Healthy).await?;
    let running = load(&backend).start().await?;
    crate::wait::until("half of the requests", Duration::from_secs(5), || {
        let seen = running.recent(Duration::from_secs(5)).requests;
        async move { (seen >= 100).then_some(()) }
    })
    .await?;
    assert!(running.elapsed() >= Duration::from_millis(400));
    assert_eq!(running.finish().await.summary().requests, 200);
    Ok(())
}

#[test]
fn arrivals_are_seeded_and_keep_the_rate() {
    let load = Load { rate: 500.0, duration: Duration::from_secs(20), ..Load::default() };
    let times: Vec<Duration> = load.schedule().collect();
    assert!((9_600..10_400).contains(&times.len()), "{}", times.len());
    assert_eq!(times, load.schedule().collect::<Vec<_>>());
    let other: Vec<Duration> = Load { seed: 2, ..load }.schedule().collect();
    assert_ne!(times, other);
    // The standard deviation of exponential gaps equals their mean; even gaps have none.
    let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
    assert!((0.93..1.07).contains(&(deviation / mean)), "{}", deviation / mean);
}
