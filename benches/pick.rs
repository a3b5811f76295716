//! The cost of a decision and of a tick: `cargo bench --bench pick`, or with a policy's name for only that one.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use engine::policy::Request;
use engine::rng::Rng;
use engine::time::Time;
use engine::{Balancer, Decision, Outcome, ProbeShard};

const POLICIES: [&str; 10] = [
    "adaptive",
    "peak_ewma",
    "least_request",
    "weighted_score",
    "least_signal",
    "weighted_round_robin",
    "round_robin",
    "random",
    "ip_hash",
    "consistent_hash",
];
/// Number of endpoints per decision.
const WANT: usize = 2;

/// An engine whose endpoints differ in weight, latency and requests in flight.
fn engine(policy: &str, endpoints: usize) -> (Balancer, Time) {
    let list: Vec<String> = (0..endpoints)
        .map(|i| {
            let weight = 1 + i % 3;
            format!(r#"{{"address":"10.{}.{}.{}:80","weight":{weight}}}"#, i >> 16, (i >> 8) & 255, i & 255)
        })
        .collect();
    let affinity = if policy == "consistent_hash" { r#","affinity":{"source_ip":true}"# } else { "" };
    let signals = r#""signals":[{"name":"depth","query":"depth"}]"#;
    let json = format!(
        r#"{{"prometheus":{{"cluster":"p"}},"upstreams":[{{"cluster":"*","policy":"{policy}",{signals}{affinity},
             "endpoints":{{"static":[{}]}}}}]}}"#,
        list.join(",")
    );
    let mut now = Time::from_secs_f64(1e9);
    let config = config::parse(json.as_bytes()).expect("accepted");
    let mut engine = Balancer::new(&config, now);
    let mut rng = Rng::new(1);
    for index in 0..endpoints as u32 {
        for request in 0..4 {
            let handle = engine.started(0, index, now).expect("a handle");
            let then = now.after_secs(0.01 + 0.02 * rng.unit());
            // The last stays in flight.
            if request < 3 {
                engine.record_response(&handle, Outcome::Good, then);
                engine.finished(&handle, then);
            }
        }
    }
    now = now.after_secs(0.1);
    engine.tick(ProbeShard::ALONE, now);
    (engine, now)
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for policy in POLICIES {
        for endpoints in [10, 10_000] {
            let (mut engine, now) = engine(policy, endpoints);
            let mut rng = Rng::new(2);
            group.bench_function(BenchmarkId::new(policy, endpoints), |bencher| {
                bencher.iter(|| {
                    let request = Request { key: Some(rng.next_u64()), want: WANT };
                    let decision = engine.pick(0, black_box(request), now, &mut rng);
                    assert!(matches!(decision, Decision::Steer(_)));
                    decision
                });
            });
        }
    }
}

fn tick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick");
    for policy in POLICIES {
        let (mut engine, mut now) = engine(policy, 10_000);
        group.bench_function(BenchmarkId::new(policy, 10_000), |bencher| {
            bencher.iter(|| {
                now = now.after_secs(0.5);
                engine.tick(ProbeShard::ALONE, now);
            });
        });
    }
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
}

criterion_group! { name = benches; config = short(); targets = pick, tick }
criterion_main!(benches);
