//! Memory of a worker per endpoint, in bytes requested from the allocator: the same on every machine.

use engine::policy::Request;
use engine::rng::Rng;
use engine::time::Time;
use engine::{Balancer, Failure, Outcome, ProbeShard};
use evenkeel::sharing::worker_report;

const ENDPOINTS: u32 = 10_000;

fn at(seconds: f64) -> Time {
    Time::from_secs_f64(1e9 + seconds)
}

fn configured(endpoints: &str) -> config::Config {
    let address = |i: u32| format!(r#""10.0.{}.{}:8080""#, i / 250, i % 250 + 1);
    let list: Vec<String> = (0..ENDPOINTS).map(address).collect();
    let json = format!(
        r#"{{"upstreams":[{{"cluster":"web"{endpoints},"endpoints":{{"static":[{}]}}}}]}}"#,
        list.join(",")
    );
    config::parse(json.as_bytes()).expect("accepted")
}

/// Every endpoint gets requests; every twentieth is slow, and a few fail.
fn live(engine: &mut Balancer, from: f64) {
    let mut rng = Rng::new(5);
    for second in 0..6 {
        let now = from + f64::from(second);
        for index in 0..ENDPOINTS {
            let handle = engine.started(0, index, at(now)).expect("an endpoint");
            let took = if rng.below(20) == 0 { 0.4 } else { 0.02 + 0.01 * rng.unit() };
            let failed = second == 2 && index % 1000 == 7;
            let outcome = if failed { Outcome::Failed(Failure::Reset) } else { Outcome::Good };
            engine.record_response(&handle, outcome, at(now + took));
            engine.finished(&handle, at(now + took));
        }
        engine.pick(0, Request::wanting(2), at(now + 0.5), &mut rng);
        engine.recount(at(now + 0.5));
        engine.tick(ProbeShard::ALONE, at(now + 0.5));
    }
}

/// Bytes per endpoint that a worker still holds at the end, with reports from `others` other workers.
fn bytes_an_endpoint(endpoints: &str, others: usize) -> f64 {
    let config = configured(endpoints);
    let told: Vec<Vec<u8>> = (0..others)
        .map(|_| {
            let mut other = Balancer::new(&config, at(0.0));
            live(&mut other, 0.0);
            worker_report::encode(&other, true, at(6.0))
        })
        .collect();
    let mut kept = None;
    let info = allocation_counter::measure(|| {
        let mut engine = Balancer::new(&config, at(0.0));
        live(&mut engine, 0.0);
        engine.forget_others(at(6.0));
        told.iter().for_each(|slot| worker_report::merge(slot, false, &mut engine).expect("well-formed"));
        engine.tick(ProbeShard::ALONE, at(6.1));
        kept = Some(engine);
    });
    info.bytes_current as f64 / f64::from(ENDPOINTS)
}

#[test]
fn an_endpoint_takes_so_many_bytes_of_a_worker_and_no_more() {
    for (what, endpoints, others, most) in [
        ("adaptive, alone", "", 0, 218.0),
        ("adaptive, beside another worker", "", 1, 261.0),
        ("peak_ewma", r#","policy":"peak_ewma""#, 0, 234.0),
        ("consistent_hash", r#","policy":"consistent_hash","affinity":{"header":"x-user"}"#, 0, 407.0),
        ("weighted_round_robin", r#","policy":"weighted_round_robin""#, 0, 250.0),
    ] {
        let bytes = bytes_an_endpoint(endpoints, others);
        println!("{bytes:.0} bytes an endpoint: {what}");
        assert!(bytes <= most, "{what}: {bytes}");
    }
}
