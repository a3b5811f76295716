//! Every key of shared data, with anything that another filter in the same VM scope may write there. The first byte
//! selects the key.

use engine::endpoint::GONE_AFTER_S;
use engine::policy::Request;
use engine::rng::Rng;
use engine::time::Time;
use engine::{Balancer, Decision, ProbeShard};
use evenkeel::discovery::discovered;
use evenkeel::sharing::counts::Counts;
use evenkeel::sharing::retired_counters::RetiredCounters;
use evenkeel::sharing::snapshot::Snapshot;
use evenkeel::sharing::{peers, scaling, seen_clusters, worker_report};

use super::input::{Input, within};

/// The configuration that the tests of `sharing` use, so that the golden bytes are valid here.
const CONFIG: &[u8] = br#"{"prometheus":{"cluster":"p"},"upstreams":[{"cluster":"web","autoscale":{},
    "signals":[{"name":"queue","query":"q","max":100}],"endpoints":{"static":["10.0.0.1:80","10.0.0.2:80"]}}]}"#;
const NOW: Time = Time(6_000_000_000);
/// Maximum memory per byte read: a map entry for the shortest record.
const FACTOR: usize = 40;

/// Asserts that a decoded value survives encoding and decoding.
fn round<T: PartialEq + core::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let read = within(bytes.len(), FACTOR, || decode(bytes))?;
    let written = encode(&read);
    assert_eq!(decode(&written).as_ref(), Some(&read), "what is written is read as the same");
    Some(read)
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.byte() % 8;
    let bytes = input.0;
    let mut engine = engine();
    match kind {
        0 => {
            if let Some(mut counts) = round(bytes, Counts::decode, Counts::encode) {
                counts.merge(&counts.clone());
                counts.grow_old();
                counts.keep_the_most_used();
                let _any = counts.unmatched();
            }
        }
        1 => _ = round(bytes, RetiredCounters::decode, RetiredCounters::encode),
        2 => {
            if let Some(mut snapshot) = round(bytes, Snapshot::decode, Snapshot::encode) {
                snapshot.not_after(NOW);
                snapshot.retain(&engine);
                snapshot.apply(&mut engine);
            }
        }
        3 => {
            let encode = |all: &Vec<_>| discovered::encode(all.iter().map(|(key, source)| (*key, source)));
            for (_, source) in round(bytes, discovered::decode, encode).unwrap_or_default() {
                assert!(source.found.len() <= config::MAX_ENDPOINTS);
                assert!(
                    source.found.iter().all(|found| found.weight.is_none_or(|w| (1e-6..=1e6).contains(&w)))
                );
            }
        }
        4 => {
            let seen =
                round(bytes, seen_clusters::decode, |seen| seen_clusters::encode(seen)).unwrap_or_default();
            assert!(seen.len() <= 256);
        }
        5 => {
            let (shard, _) = peers::merge(&mut engine, 1, [(2, bytes)].into_iter(), NOW);
            assert!(shard.workers <= 2 && shard.rank <= shard.workers);
            let _written = worker_report::published(bytes);
        }
        6 => scaling::apply(bytes, &mut engine, NOW),
        _ => {
            scaling::apply_slots([bytes, bytes].into_iter(), &mut engine);
            let _written = scaling::slots_written(bytes);
        }
    }
    decides(&mut engine);
}

fn engine() -> Balancer {
    thread_local! {
        static CONFIG_READ: config::Config = config::parse(CONFIG).expect("a configuration");
    }
    CONFIG_READ.with(|config| Balancer::new(config, Time(1_000_000_000)))
}

/// Asserts that decisions stay within the fleet, and that this worker's own report can be read.
fn decides(engine: &mut Balancer) {
    let mut rng = Rng::new(5);
    for second in 0..3 {
        let now = Time(NOW.0 + second * 1_000_000_000);
        engine.tick(ProbeShard::ALONE, now);
        for _ in 0..4 {
            match engine.pick(0, Request::wanting(2), now, &mut rng) {
                Decision::Steer(candidates) => {
                    let first = candidates.first().expect("a candidate");
                    assert!(first < 2, "endpoint {first} of 2");
                    let handle = engine.started(0, first, now).expect("known");
                    engine.finished(&handle, now);
                }
                Decision::Fallback => {}
                other => panic!("{other:?}"),
            }
        }
        for index in 0..2 {
            let view = engine.upstream(0).and_then(|web| web.endpoint(index)).expect("a member");
            assert!(view.share.is_finite() && view.share >= 0.0, "share {}", view.share);
        }
    }
    let report = worker_report::encode(engine, true, NOW);
    let mut peer = self::engine();
    peer.forget_others(NOW);
    assert!(worker_report::merge(&report, false, &mut peer).is_some(), "what this worker writes can be read");
    // The reports of a worker that is gone expire.
    engine.forget_others(Time(NOW.0 + (GONE_AFTER_S as u64 + 60) * 1_000_000_000));
}
