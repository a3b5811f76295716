//! Golden bytes of every key. If they change, [`VERSION`] has to change, too: otherwise workers of an older filter in
//! the same process misread them.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::counts::{Counts, EndpointCounts, UpstreamCounts};
use super::fake::Shared;
use super::guard::{self, Counted};
use super::lease::{self, Candidate};
use super::retired_counters::RetiredCounters;
use super::seen_clusters::{self, SeenCluster};
use super::slot_id::SlotId;
use super::snapshot::{Fit, PollStats, Samples, Snapshot, Value};
use super::{VERSION, registry, scaling, worker_report};
use crate::discovery::discovered;
use crate::discovery::found::Found;
use crate::discovery::source::{Origin, Source};
use crate::host::Host;
use engine::autoscale::scaler::{Below, Period};
use engine::autoscale::{Division, Scaler, Trend};
use engine::endpoint::{Absence, Absences, AnnouncedHealth, Counters};
use engine::guard::capital::{Capital, EXPERTS};
use engine::guard::{Arm, Arms, Finding, Guard};
use engine::time::Time;
use engine::{Balancer, Failure, Outcome, RetryHint, Totals};

const GOLDEN: &str = include_str!("golden.txt");

fn s(seconds: u64) -> Time {
    Time(seconds * 1_000_000_000)
}

fn engine() -> Balancer {
    let json = br#"{"upstreams":[{"cluster":"web","endpoints":{"static":["10.0.0.1:80"]}}]}"#;
    Balancer::new(&config::parse(json).unwrap(), s(1))
}

/// A report of one failed request, one attempt that failed unseen, and one request in flight.
fn report() -> Vec<u8> {
    let mut engine = engine();
    let failed = engine.started(0, 0, s(2)).unwrap();
    engine.record_response(&failed, Outcome::Failed(Failure::Broken(7)), s(3));
    engine.finished(&failed, s(3));
    let unseen = engine.started(0, 0, s(3)).unwrap();
    engine.record_failed_attempt(&unseen, RetryHint::Unseen, s(3));
    engine.finished(&unseen, s(3));
    engine.started(0, 0, s(4)).unwrap();
    worker_report::encode(&engine, true, s(6))
}

fn counts() -> Counts {
    let mut numbers = Totals::default().to_array();
    numbers.iter_mut().zip(1..).for_each(|(number, at)| *number = at);
    let counters = Counters { requests: 3, failures: 1, picks: 4 };
    let endpoints = [(5, EndpointCounts { counters, recent: 0.5 })].into_iter().collect();
    let web = UpstreamCounts { totals: Totals::from_array(numbers), endpoints };
    Counts { at: s(6), upstreams: [(9, web)].into_iter().collect() }
}

fn workers() -> Vec<u8> {
    let shared = Shared::default();
    registry::update(&shared, "workers", 1, true, s(1000));
    registry::update(&shared, "workers", 2, true, s(1040));
    shared.shared_get("workers").unwrap().0
}

fn held() -> Vec<u8> {
    let shared = Shared::default();
    lease::hold(&shared, "lease", Candidate { id: 1, configuration: 2, since: s(3), busy: true }, s(4));
    shared.shared_get("lease").unwrap().0
}

fn slot() -> Vec<u8> {
    let shared = Shared::default();
    SlotId { id: 1, number: 2 }.write(&shared, "slot", vec![3]).unwrap();
    shared.shared_get("slot/2").unwrap().0
}

fn signals() -> Snapshot {
    let stats = PollStats {
        polls: 1,
        failures: 2,
        last_success: s(3),
        last_error: "no".into(),
        pause_s: 5.0,
        failing: vec![7],
    };
    let fit = Fit { series: 3, matched: 2, problem: "none".into() };
    let samples = Samples { at: s(4), fit, values: vec![Value { endpoint: 1, value: 0.5, age_s: 0.25 }] };
    Snapshot { stats, signals: vec![((8, 9), samples)] }
}

fn source() -> Source {
    let found = |address: &str, condition| Found {
        address: address.parse().unwrap(),
        weight: Some(2.0),
        priority: Some(1),
        zone: "z".into(),
        locality: "l".into(),
        locality_weight: Some(3.0),
        version: "v".into(),
        condition,
    };
    let absence = Absence { address: "10.0.0.2:80".parse().unwrap(), since: s(2), answers: 3 };
    Source {
        found: vec![
            found("10.0.0.1:80", AnnouncedHealth::Serving),
            found("[2001:db8::1]:81", AnnouncedHealth::Draining),
        ],
        last_success: s(1),
        answers: 4,
        failures: 5,
        error: "no".into(),
        outage: false,
        alone: true,
        skipped: 6,
        examples: "e".into(),
        unsteerable: 0.5,
        subsets: true,
        question: 7,
        absences: Absences::reported(vec![absence], 8.0),
        named_any: true,
    }
}

fn scaled() -> Vec<u8> {
    let mut engine = engine();
    engine.upstream_mut(0).unwrap().set_scaler(Scaler {
        shown: Some(0.5),
        desired: Some(2),
        sampled: s(1),
        period: Period { began: s(2), samples: 3, demand: 4.0, known: 5.0 },
        above: 6,
        below: Below { since: s(3), periods: 7, most: 8 },
        trend: Trend::of(vec![9.0]),
        division: Division { loaded: 10, standby: 11 },
    });
    scaling::encode(&engine)
}

fn counted() -> Vec<Counted> {
    let mut arms = Arms::default();
    [Some(7), Some(300), None].into_iter().for_each(|good| arms.count(Arm::Steered, good));
    arms.count(Arm::HeldOut, Some(9));
    vec![Counted { cluster: 8, holdout: 0.25, arms }]
}

fn concluded() -> Guard {
    let mut guard = Guard::new(0.25, s(1));
    (guard.at, guard.today) = (s(2), counted()[0].arms.clone());
    // The logarithms are fixed, because their last bit differs between machines.
    for (evidence, log) in guard.evidence.iter_mut().zip([0.5, -1.5, 2.5, -3.5]) {
        evidence.worse = Capital { logs: [log; EXPERTS], paid_s: 0.25 };
        evidence.better = Capital { logs: [-log; EXPERTS], paid_s: 0.5 };
    }
    (guard.pause_s, guard.asides, guard.finding) = (5.0, 6, Finding::Mixed);
    (guard.aside_until, guard.steers_since) = (s(8), s(7));
    (guard.evidence[0].worse_at, guard.evidence[3].better_at) = (s(1), s(2));
    guard
}

#[test]
fn the_bytes_of_every_key_are_those_of_this_version() {
    let retired = RetiredCounters { founded: s(1), ids: vec![2], counts: counts() };
    let seen = seen_clusters::encode(&[SeenCluster { matches: true, name: "c".into() }]);
    let mut now = format!("version {VERSION}\n");
    for (key, bytes) in [
        ("workers", workers()),
        ("slot", report()),
        ("slot record", slot()),
        ("counts", counts().encode()),
        ("estate", retired.encode()),
        ("lease", held()),
        ("signals", signals().encode()),
        ("fleet", discovered::encode([((8, Origin::Envoy), &source())].into_iter())),
        ("clusters", seen),
        ("capacity", scaling::encode_slots(&engine(), s(6))),
        ("scaling", scaled()),
        ("arms", guard::encode_counted(&counted(), s(6))),
        ("guards", guard::encode([(8, &concluded())].into_iter())),
    ] {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        now.push_str(&format!("{key}: {hex}\n"));
    }
    assert_eq!(now, GOLDEN, "raise VERSION, and put this in the place of golden.txt:\n{now}");
}

/// The bytes of `key`.
fn golden(key: &str) -> Vec<u8> {
    let hex = GOLDEN.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).unwrap();
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn they_are_read_as_what_was_written() {
    assert_eq!(Counts::decode(&golden("counts")), Some(counts()));
    assert_eq!(Snapshot::decode(&golden("signals")), Some(signals()));
    let retired = RetiredCounters::decode(&golden("estate")).unwrap();
    assert_eq!((retired.founded, retired.ids, retired.counts), (s(1), vec![2], counts()));
    assert_eq!(discovered::decode(&golden("fleet")).unwrap(), [((8, Origin::Envoy), source())]);
    assert_eq!(
        seen_clusters::decode(&golden("clusters")).unwrap(),
        [SeenCluster { matches: true, name: "c".into() }]
    );

    assert_eq!(guard::decode_counted(&golden("arms"), |_| true), counted());
    assert_eq!(guard::decode(&golden("guards"), s(9)), [(8, concluded())]);

    let mut peer = engine();
    assert_eq!(worker_report::published(&golden("slot")), Some((s(6), true)));
    peer.forget_others(s(6));
    worker_report::merge(&golden("slot"), true, &mut peer).unwrap();
    let endpoint = peer.upstream(0).and_then(|web| web.endpoint(0)).unwrap();
    assert_eq!(endpoint.others().in_flight.total, 1);
    let failures = endpoint.others_evidence().failures;
    assert_eq!((failures.broke_on, failures.broke_at, failures.latest_at), (7, s(3), s(3)));
    assert_eq!((failures.count, failures.unseen), (1, 1));

    scaling::apply(&golden("scaling"), &mut peer, s(9));
    let scaler = peer.upstream(0).unwrap().scaler();
    assert_eq!((scaler.desired, scaler.above, scaler.below.most), (Some(2), 6, 8));
    let shared = Shared::default();
    shared.put("workers", &golden("workers"));
    assert_eq!(registry::all(&shared, "workers").iter().map(|slot| slot.id).collect::<Vec<_>>(), [2, 1]);
}
