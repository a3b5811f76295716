//! Versions, priorities and zones: each endpoint's share, whatever happens to the others.

use std::collections::BTreeMap;

use engine::policy::Request;
use engine::rng::{Rng, mix};
use engine::time::Time;
use engine::{Balancer, Decision, Failure, Outcome, ProbeShard};
use proptest::collection::vec;
use proptest::prelude::*;

const POLICIES: [&str; 9] = [
    "adaptive",
    "least_request",
    "round_robin",
    "peak_ewma",
    "weighted_score",
    "weighted_round_robin",
    "random",
    "ip_hash",
    "consistent_hash",
];

/// An endpoint: zone, priority, version.
type Place = (&'static str, u32, &'static str);

/// An engine, a clock, and the fault of each endpoint.
struct Scene {
    engine: Balancer,
    places: Vec<Place>,
    failing: Vec<bool>,
    failure: Failure,
    /// Response time of each endpoint, s.
    takes: Vec<f64>,
    now: Time,
    rng: Rng,
}

impl Scene {
    fn new(places: &[Place], endpoints: &str) -> Scene {
        let endpoint = |(i, (zone, priority, version)): (usize, &Place)| {
            format!(
                r#"{{"address":"10.0.0.{i}:80","zone":"{zone}","priority":{priority},"version":"{version}"}}"#
            )
        };
        let list: Vec<String> = (1..).zip(places).map(endpoint).collect();
        let json = format!(
            r#"{{"upstreams":[{{"cluster":"web",{endpoints}"endpoints":{{"static":[{}]}}}}]}}"#,
            list.join(",")
        );
        let now = Time::from_secs_f64(1e9);
        let config = config::parse(json.as_bytes()).unwrap_or_else(|f| panic!("{json}: {f:?}"));
        Scene {
            engine: Balancer::new(&config, now),
            places: places.to_vec(),
            failing: vec![false; places.len()],
            failure: Failure::Refused,
            takes: vec![0.02; places.len()],
            now,
            rng: Rng::new(3),
        }
    }

    fn pass(&mut self, seconds: f64) {
        self.now = self.now.after_secs(seconds);
        self.engine.tick(ProbeShard::ALONE, self.now);
    }

    fn named(&mut self, request: Request) -> Vec<usize> {
        match self.engine.pick(0, request, self.now, &mut self.rng) {
            Decision::Steer(named) => named.as_slice().iter().map(|i| *i as usize).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// One request, 10 ms after the previous one, answered before the next.
    fn serve(&mut self, key: Option<u64>) -> usize {
        let to = self.named(Request { key, want: 1 })[0];
        let handle = self.engine.started(0, to as u32, self.now).unwrap();
        let outcome = if self.failing[to] { Outcome::Failed(self.failure) } else { Outcome::Good };
        let end = self.now.after_secs(if self.failing[to] { 0.001 } else { self.takes[to] });
        self.engine.record_response(&handle, outcome, end);
        self.engine.finished(&handle, end);
        self.pass(0.01);
        to
    }

    fn version(&mut self, key: u64) -> &'static str {
        let to = self.serve(Some(key));
        self.places[to].2
    }

    /// Number of `requests` that each place got.
    fn counts(&mut self, requests: usize) -> BTreeMap<Place, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            let to = self.serve(None);
            *counts.entry(self.places[to]).or_default() += 1;
        }
        counts
    }

    fn make(&mut self, failing: bool, who: impl Fn(&Place) -> bool) {
        for (flag, place) in self.failing.iter_mut().zip(&self.places) {
            if who(place) {
                *flag = failing;
            }
        }
    }
}

fn policy(name: &str) -> String {
    let affinity = if name == "consistent_hash" { r#","affinity":{"header":"x-user"}"# } else { "" };
    format!(r#""policy":"{name}"{affinity},"#)
}

fn share(counts: &BTreeMap<Place, usize>, of: impl Fn(&Place) -> bool) -> f64 {
    let all: usize = counts.values().sum();
    counts.iter().filter(|(place, _)| of(place)).map(|(_, n)| *n).sum::<usize>() as f64 / all.max(1) as f64
}

const SPLIT: &str = r#""split":{"v1":80,"v2":20},"#;
const CANARY: [Place; 6] =
    [("", 0, "v1"), ("", 0, "v1"), ("", 0, "v1"), ("", 0, "v1"), ("", 0, "v2"), ("", 0, "v3")];

#[test]
fn versions_get_their_shares_under_every_policy_and_the_unnamed_nothing() {
    for name in POLICIES {
        let counts = Scene::new(&CANARY, &format!("{}{SPLIT}", policy(name))).counts(2_000);
        let canary = share(&counts, |p| p.2 == "v2");
        assert!((canary - 0.2).abs() < 0.005, "{name}: {counts:?}");
        assert_eq!(share(&counts, |p| p.2 == "v3"), 0.0, "{name}: {counts:?}");
    }
}

#[test]
fn a_version_that_is_gone_leaves_its_share_to_the_others_and_takes_it_back() {
    let mut scene = Scene::new(&CANARY, &format!(r#""health":{{"ejection":"2s"}},{SPLIT}"#));
    scene.counts(200);
    scene.make(true, |p| p.2 == "v2");
    scene.counts(100);
    let while_gone = scene.counts(1_000);
    assert!(share(&while_gone, |p| p.2 == "v2") < 0.02, "probes alone: {while_gone:?}");
    scene.make(false, |p| p.2 == "v2");
    scene.counts(500);
    let back = scene.counts(2_000);
    assert!((share(&back, |p| p.2 == "v2") - 0.2).abs() < 0.005, "{back:?}");
}

#[test]
fn a_key_keeps_its_version_while_endpoints_of_the_version_come_and_go() {
    for name in ["adaptive", "consistent_hash"] {
        let header = if name == "adaptive" { r#""affinity":{"header":"x-user"},"# } else { "" };
        let mut scene = Scene::new(&CANARY, &format!("{}{header}{SPLIT}", policy(name)));
        let keys: Vec<u64> = (0..500).map(mix).collect();
        let versions: Vec<&str> = keys.iter().map(|key| scene.version(*key)).collect();
        let canary = versions.iter().filter(|v| **v == "v2").count();
        assert!((70..130).contains(&canary), "{canary} of 500");
        scene.make(true, |p| p.2 == "v1");
        scene.failing[0] = false;
        scene.failing[1] = false;
        scene.counts(50);
        for (key, version) in keys.iter().zip(&versions) {
            let to = scene.named(Request { key: Some(*key), want: 1 })[0];
            // Only the version: a due probe may take any request of its own version.
            assert_eq!(scene.places[to].2, *version, "{name}");
        }
    }
}

#[test]
fn versions_do_not_depend_on_where_the_ring_puts_a_key() {
    let places: Vec<Place> = (0..10).map(|_| ("", 0, "v1")).chain((0..10).map(|_| ("", 0, "v2"))).collect();
    let mut scene = Scene::new(
        &places,
        r#""policy":"consistent_hash","affinity":{"header":"x"},"split":{"v1":50,"v2":50},"#,
    );
    let mut counts = vec![0; 20];
    for key in 0..4000u64 {
        counts[scene.named(Request { key: Some(mix(key)), want: 1 })[0]] += 1;
    }
    assert!(counts.iter().all(|n| (120..300).contains(n)), "{counts:?}");
}

#[test]
fn priority_one_is_used_as_far_as_priority_zero_is_short() {
    let places: [Place; 6] = [("", 0, ""), ("", 0, ""), ("", 0, ""), ("", 0, ""), ("", 1, ""), ("", 1, "")];
    for name in POLICIES {
        let endpoints = format!(r#"{}"health":{{"ejection":"1h","max_ejected_percent":100}},"#, policy(name));
        // The share of priority 0 is min(1, 1.4 · healthy / 4): all with one lost, 70 % with two lost, none with all
        // lost.
        for (lost, expected) in [(0, 0.0), (1, 0.0), (2, 0.3), (3, 0.65), (4, 1.0)] {
            let mut scene = Scene::new(&places, &endpoints);
            scene.counts(50);
            (0..lost).for_each(|i| scene.failing[i] = true);
            scene.counts(300);
            let counts = scene.counts(2_000);
            let second = share(&counts, |p| p.1 == 1);
            assert!((second - expected).abs() < 0.04, "{name}, {lost} lost: {second}, {counts:?}");
        }
    }
}

#[test]
fn levels_are_used_in_their_order_up_to_the_last() {
    let places: [Place; 4] = [("", 0, ""), ("", 7, ""), ("", 100, ""), ("", 128, "")];
    let mut scene = Scene::new(&places, r#""health":{"ejection":"1s","max_ejected_percent":100},"#);
    for (failing, priority) in [(0, 7), (1, 100), (2, 128)] {
        scene.failing[failing] = true;
        scene.counts(100);
        let counts = scene.counts(500);
        assert!(share(&counts, |p| p.1 == priority) > 0.95, "{priority}: {counts:?}");
    }
    scene.make(false, |_| true);
    scene.counts(1000);
    let counts = scene.counts(500);
    assert_eq!(share(&counts, |p| p.1 == 0), 1.0, "{counts:?}");
}

const ZONES: [Place; 6] = [("a", 0, ""), ("a", 0, ""), ("a", 0, ""), ("b", 0, ""), ("b", 0, ""), ("", 0, "")];
const LOCAL: &str = r#""zone":{"local":"a"},"#;

#[test]
fn the_local_zone_gets_everything_while_it_is_well_and_idle_zones_are_not_explored() {
    for name in POLICIES {
        let mut scene = Scene::new(&ZONES, &format!("{}{LOCAL}", policy(name)));
        scene.takes[3..].fill(0.15);
        // Two minutes, in which exploration would have reached an idle zone.
        let counts = scene.counts(12_000);
        assert_eq!(share(&counts, |p| p.0 == "a"), 1.0, "{name}: {counts:?}");
    }
}

#[test]
fn a_zone_that_is_lost_is_left_within_a_second_and_gets_its_traffic_back() {
    for name in POLICIES {
        // More than half of the fleet, so that neither the ejection limit nor panic mode may keep it in traffic.
        let places: [Place; 5] = [("a", 0, ""), ("a", 0, ""), ("a", 0, ""), ("b", 0, ""), ("b", 0, "")];
        let endpoints = format!(r#"{}"health":{{"ejection":"3s"}},{LOCAL}"#, policy(name));
        let mut scene = Scene::new(&places, &endpoints);
        scene.counts(300);
        scene.make(true, |p| p.0 == "a");
        let first = scene.counts(100);
        let then = scene.counts(500);
        assert!(share(&first, |p| p.0 == "a") < 0.5, "{name}: {first:?}");
        assert!(share(&then, |p| p.0 == "a") < 0.05, "{name}: probes alone: {then:?}");
        scene.make(false, |p| p.0 == "a");
        scene.counts(800);
        let back = scene.counts(500);
        assert!(share(&back, |p| p.0 == "a") > 0.98, "{name}: {back:?}");
    }
}

#[test]
fn a_zone_that_hangs_is_left_before_any_time_out() {
    let mut scene = Scene::new(&ZONES, LOCAL);
    scene.counts(100);
    let mut local = Vec::new();
    for _ in 0..200 {
        let to = scene.named(Request::wanting(1))[0];
        let handle = scene.engine.started(0, to as u32, scene.now).unwrap();
        let hangs = ZONES[to].0 == "a";
        local.push(hangs);
        if !hangs {
            let end = scene.now.after_secs(0.02);
            scene.engine.record_response(&handle, Outcome::Good, end);
            scene.engine.finished(&handle, end);
        }
        scene.pass(0.01);
    }
    let late = local[100..].iter().filter(|hangs| **hangs).count();
    assert!(local[..8].iter().all(|hangs| *hangs), "at first nothing is known");
    assert!(late < 3, "{late} of 100 in the second second");
}

#[test]
fn a_fault_of_all_zones_moves_next_to_nothing() {
    let mut scene = Scene::new(&ZONES, LOCAL);
    scene.failure = Failure::Status5xx;
    scene.counts(300);
    let mut rng = Rng::new(8);
    let mut local = 0;
    for _ in 0..3_000 {
        let fails = rng.unit() < 0.5;
        scene.failing.fill(fails);
        let to = scene.serve(None);
        local += usize::from(scene.places[to].0 == "a");
    }
    assert!(local > 2_500, "{local} of 3000 stayed");
}

#[test]
fn a_zone_and_a_priority_stay_panic_free_while_others_can_carry_everything() {
    // One of three local endpoints is left: below the panic threshold, but the other zones have room for the rest.
    let mut scene = Scene::new(&ZONES, &format!(r#""health":{{"ejection":"1h"}},{LOCAL}"#));
    scene.counts(50);
    scene.failing[0] = true;
    scene.failing[1] = true;
    scene.counts(100);
    let counts = scene.counts(1_000);
    // 1.4 · 1/3 of the traffic stays.
    assert!((share(&counts, |p| p.0 == "a") - 0.467).abs() < 0.04, "{counts:?}");
    assert!(scene.engine.upstream(0).unwrap().parts().all(|p| !p.panic));
}

#[test]
fn a_retry_has_somewhere_else_to_go() {
    let places: [Place; 3] = [("a", 0, "v1"), ("b", 0, "v1"), ("a", 0, "v2")];
    let mut scene = Scene::new(&places, &format!(r#"{LOCAL}"split":{{"v1":1}},"#));
    assert_eq!(scene.named(Request::wanting(2)), [0, 1], "the other zone of its version");
    let mut scene = Scene::new(&places, &format!(r#"{LOCAL}"split":{{"v1":1,"v2":1000}},"#));
    let named = scene.named(Request::wanting(3));
    assert_eq!(named.len(), 3, "another version rather than nobody: {named:?}");
}

#[test]
fn a_retry_leaves_the_zone_as_soon_as_the_zone_fails() {
    let mut scene = Scene::new(&ZONES, LOCAL);
    scene.counts(20);
    let named = scene.named(Request::wanting(2));
    assert!(named.iter().all(|i| ZONES[*i].0 == "a"), "{named:?}");
    scene.make(true, |p| p.0 == "a");
    scene.serve(None);
    for _ in 0..20 {
        let named = scene.named(Request::wanting(2));
        assert_eq!(named.len(), 2);
        assert!(ZONES[named[1]].0 != "a", "{named:?}");
    }
}

fn any_place() -> impl Strategy<Value = Place> {
    let zone = prop_oneof![Just("a"), Just("b"), Just("")];
    let version = prop_oneof![Just("v1"), Just("v2"), Just("")];
    (zone, 0u32..4, version)
}

proptest! {
    #![proptest_config(crate::seeded(150))]

    /// While the first tier is healthy and idle, no other endpoint is chosen.
    #[test]
    fn only_the_first_tier_is_used_without_need(
        places in vec(any_place(), 1..12),
        name in prop::sample::select(&POLICIES[..]),
        keys in vec(any::<Option<u64>>(), 1..60),
    ) {
        let mut scene = Scene::new(&places, &format!("{}{LOCAL}", policy(name)));
        let first = places.iter().map(|(zone, priority, _)| (*priority, *zone != "a")).min();
        for key in keys {
            let to = scene.serve(key);
            let (zone, priority, _) = places[to];
            prop_assert_eq!(Some((priority, zone != "a")), first, "{:?}", places);
        }
    }

    /// Whatever fails, some endpoint is named, each at most once, and never one whose version has no share.
    #[test]
    fn an_endpoint_is_always_named(
        places in vec(any_place(), 1..12),
        name in prop::sample::select(&POLICIES[..]),
        steps in vec((any::<Option<u64>>(), any::<prop::sample::Index>(), any::<bool>()), 1..120),
        split: bool,
    ) {
        let has = |version| places.iter().any(|p| p.2 == version);
        let split = split && has("v1") && has("v2");
        let shares = if split { SPLIT } else { "" };
        let mut scene = Scene::new(&places, &format!("{}{LOCAL}{shares}", policy(name)));
        for (key, who, failing) in steps {
            *who.get_mut(&mut scene.failing) = failing;
            let named = scene.named(Request { key, want: 8 });
            prop_assert!((1..named.len()).all(|n| !named[..n].contains(&named[n])), "{named:?}");
            prop_assert!(!split || named.iter().all(|i| !places[*i].2.is_empty()), "{named:?}");
            scene.serve(key);
        }
    }
}
