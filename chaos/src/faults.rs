//! The list of faults.

use std::path::Path;
use std::time::Duration;

use testbed::backend::Behaviour;
use testbed::envoy;
use testbed::relay::Wire;
use testbed::serde_json::json;

use crate::deed::Deed;
use crate::lies;
use crate::setting::{Setting, Source};

/// A fault, and the world in which it happens.
#[derive(Clone)]
pub struct Fault {
    /// A short name.
    pub name: &'static str,
    /// The settings of the world.
    pub setting: Setting,
    /// The kind of fault.
    pub deed: Deed,
}

fn fault(name: &'static str, deed: Deed) -> Fault {
    Fault { name, setting: Setting::default(), deed }
}

impl Fault {
    fn with(mut self, change: impl FnOnce(&mut Setting)) -> Self {
        change(&mut self.setting);
        self
    }

    fn with_source(self, source: Source) -> Self {
        self.with(|setting| setting.source = Some(source))
    }

    fn with_proxy(self, change: impl FnOnce(&mut envoy::Config)) -> Self {
        self.with(|setting| change(&mut setting.proxy))
    }
}

/// All faults; `program` is the one that can run as a backend.
pub fn all(program: &Path) -> Vec<Fault> {
    let mut all = endpoints(program);
    all.extend(lines());
    all.extend(protocols());
    all.extend(limits());
    all.extend(sources());
    all.extend(processes());
    all
}

fn endpoints(program: &Path) -> Vec<Fault> {
    let process = |setting: &mut Setting| setting.process = Some(program.to_owned());
    vec![
        fault("kill -9 of a backend", Deed::Kill).with(process),
        fault("a backend stopped (SIGSTOP)", Deed::Stop).with(process),
        fault("503 from one", Deed::One(Behaviour::FAIL_FAST)),
        fault("503 from all", Deed::All(Behaviour::FAIL_FAST)),
        fault("500 from one, a tenth of its answers", Deed::One(Behaviour::ErrorRatio(0.1))),
        fault("one 20 times as slow", Deed::One(Behaviour::Slow(20.0))),
        fault("kill -9 of a backend, with retries", Deed::Kill).with(process).with(retried),
        fault("503 from one, with retries", Deed::One(Behaviour::FAIL_FAST)).with(retried),
    ]
}

/// Retries as in the shipped configuration for idempotent methods.
fn retried(setting: &mut Setting) {
    setting.plugin = json!({ "steering": { "candidates": 3 } });
    setting.proxy.retry(2);
}

fn lines() -> Vec<Fault> {
    let drip = Wire::Drip { bytes: 16, every: Duration::from_millis(150) };
    vec![
        fault("connections refused", Deed::Wire(Wire::Refuse)),
        fault("accepted, and never answered", Deed::Wire(Wire::Hang)),
        fault("the answer drips, 16 bytes in 150 ms", Deed::Wire(drip)),
        fault("reset in the headers", Deed::Wire(Wire::CutHead)),
        fault("reset in the body", Deed::Wire(Wire::CutBody)),
        fault("reset in place of an answer", Deed::One(Behaviour::Reset)),
        fault("a TLS alert in place of HTTP", Deed::Wire(Wire::tls_alert())),
        fault("garbage in place of HTTP", Deed::Wire(Wire::garbage())),
        fault("an answer without end", Deed::Wire(Wire::Endless)),
        fault("a megabyte from each, one of them a black hole", Deed::One(Behaviour::BlackHole)).with(
            |setting| {
                setting.path = "/bytes/1000000".to_owned();
                setting.rate = 20.0;
            },
        ),
    ]
}

fn protocols() -> Vec<Fault> {
    let http2 = |setting: &mut Setting| setting.http2 = true;
    vec![
        fault("HTTP/2: GOAWAY after every answer", Deed::Wire(Wire::GoAway { graceful: true })).with(http2),
        fault("HTTP/2: GOAWAY that answers nothing", Deed::Wire(Wire::GoAway { graceful: false }))
            .with(http2),
        fault("HTTP/2: connections hang", Deed::Wire(Wire::Hang)).with(http2),
        fault("HTTP/2: reset in the body", Deed::Wire(Wire::CutBody)).with(http2),
    ]
}

fn limits() -> Vec<Fault> {
    // 8 ms become 240 ms: 100 requests per second are 24 at a time.
    let thresholds = |limits| json!({ "circuit_breakers": { "thresholds": [limits] } });
    let limited = |name, limits| {
        fault(name, Deed::All(Behaviour::Slow(30.0))).with(|setting| setting.cluster = thresholds(limits))
    };
    let pressed = |name, action, steady| {
        fault(name, Deed::Pressure { steady }).with(|setting| setting.overload = Some(action))
    };
    vec![
        limited("circuit breaker: max_requests 8", json!({ "max_requests": 8 })),
        limited(
            "pool overflow: 4 connections, 2 pending",
            json!({ "max_connections": 4, "max_pending_requests": 2 }),
        ),
        pressed("overload: no keep-alive", "disable_http_keepalive", true),
        pressed("overload: requests turned away", "stop_accepting_requests", false),
        pressed("overload: no new connections", "stop_accepting_connections", false),
    ]
}

fn sources() -> Vec<Fault> {
    let false_ones = |name, deed| fault(name, deed).with_source(Source::FalsePrometheus);
    vec![
        fault("Prometheus killed", Deed::KillPrometheus).with_source(Source::Prometheus),
        fault("Prometheus stopped", Deed::StopPrometheus).with_source(Source::Prometheus),
        false_ones("Prometheus lies", Deed::Lies(|world| lies::numbers(&world.addresses()))),
        false_ones("Prometheus answers 8 MiB and more", Deed::Lies(|world| lies::large(&world.addresses()))),
        false_ones("Prometheus answers without end", Deed::Lies(|_| lies::without_end())),
        fault("the admin interface answers garbage", Deed::Lies(|world| lies::admin(&world.honest)))
            .with_source(Source::FalseAdmin),
    ]
}

fn processes() -> Vec<Fault> {
    vec![
        fault("a new configuration every second", Deed::Flap).with_proxy(|proxy| {
            proxy.dynamic = true;
            proxy.drain = Some(Duration::from_secs(2));
        }),
        fault("a hot restart", Deed::HotRestart).with_proxy(|proxy| {
            proxy.hot_restart = true;
            proxy.drain = Some(Duration::from_secs(2));
        }),
        fault("a worker's VM ended, every four seconds", Deed::EndVm).with(|setting| setting.fuse = true),
        fault("the wall clock steps, by an hour and by seconds", Deed::Clock)
            .with(|setting| setting.clock = true),
    ]
}
