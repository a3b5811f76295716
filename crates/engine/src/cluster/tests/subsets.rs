//! What subsets keep when endpoints come and go and configurations change, and how requests are divided by how they fare.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::Failure;
use crate::cluster::subset::NO_SUBSET;
use crate::rng::Rng;
use crate::settings::Zone;

/// An endpoint of a version, at a priority, in a zone.
fn placed(nth: usize, version: &str, priority: u32, zone: &str) -> Spec {
    Spec { version: version.into(), priority, zone: zone.into(), ..endpoint(nth) }
}

fn split(versions: &[&str]) -> settings::Upstream {
    settings::Upstream {
        split: versions.iter().map(|version| ((*version).to_owned(), 1.0)).collect(),
        ..settings()
    }
}

fn zoned() -> settings::Upstream {
    settings::Upstream { zone: Some(Zone { local: "a".into(), spill_over_percent: 70.0 }), ..settings() }
}

impl Cluster {
    /// So many answers of the endpoint at `index`, all at `seconds`.
    fn answers(&mut self, index: u32, times: usize, failure: Option<Failure>, seconds: f64) {
        let endpoint = self.endpoints.set.reference(index).unwrap();
        (0..times).for_each(|_| self.record_outcome(endpoint, s(seconds), failure, s(seconds)));
    }

    fn takes(&mut self, index: usize, seconds: f64) {
        let latency = &mut self.endpoints.states[index].latency;
        (0..20).for_each(|_| latency.observe(seconds, s(0.0), s(0.0), &Ablation::ALL));
    }

    fn loads(&self) -> Vec<f64> {
        self.subsets.list.iter().map(|subset| (subset.division.load * 1000.0).round() / 1000.0).collect()
    }
}

#[test]
fn a_subset_keeps_what_it_knows_while_others_come_and_go() {
    let specs = [placed(1, "a", 0, ""), placed(2, "b", 0, ""), placed(3, "b", 0, "")];
    let mut cluster = cluster(&split(&["a", "b"]), &specs);
    cluster.answers(1, 20, Some(Failure::TooMany), 0.0);
    cluster.takes(1, 0.3);
    cluster.refresh(s(0.1));
    let known = |cluster: &Cluster| {
        let b = cluster.subsets.list.iter().find(|subset| subset.key.version == 1).unwrap();
        (b.errors.record.failing(s(0.0)) > 0.8, (b.latency.typical * 10.0).round(), b.latency.measured)
    };
    assert_eq!(known(&cluster), (true, 3.0, true));
    // The first subset goes and comes again; one more endpoint of the second.
    cluster.set_fleet(&[specs[1].clone(), specs[2].clone(), placed(4, "b", 0, "")], s(1.0));
    assert_eq!((cluster.subsets.list.len(), known(&cluster)), (1, (true, 3.0, true)));
    cluster.set_fleet(&specs, s(2.0));
    assert_eq!((cluster.subsets.list.len(), known(&cluster)), (2, (true, 3.0, true)));
    // An endpoint whose version has no share is in none, whatever it was before.
    let gone = [placed(1, "c", 0, ""), specs[1].clone(), specs[2].clone()];
    cluster.set_fleet(&gone, s(3.0));
    let index = cluster.endpoints.set.index_of_hash(rng::hash(b"10.0.0.1:80")).unwrap() as usize;
    assert_eq!(cluster.endpoints.states[index].subset, NO_SUBSET);
    assert!(!cluster.endpoints.states[index].eligible);
}

#[test]
fn answers_of_an_endpoint_that_moved_on_excuse_none_of_its_subset() {
    let specs = [placed(1, "a", 0, ""), placed(2, "a", 0, ""), placed(3, "b", 0, "")];
    let mut cluster = cluster(&split(&["a", "b"]), &specs);
    cluster.answers(0, 100, Some(Failure::TooMany), 0.0);
    let usual =
        |cluster: &Cluster| cluster.subsets.list[0].errors.background.usual(|_| true, None, 2).unwrap_or(0.0);
    assert!(usual(&cluster) > 0.5);
    cluster.set_fleet(&[placed(1, "b", 0, ""), specs[1].clone(), specs[2].clone()], s(1.0));
    cluster.answers(1, 20, None, 1.0);
    assert!(usual(&cluster) < 0.5, "{}: all of the second's answers were good", usual(&cluster));
}

#[test]
fn queues_are_learnt_from_near_endpoints_where_there_are_any() {
    let teaches = |specs: &[Spec]| -> Vec<(bool, bool)> {
        let cluster = cluster(&zoned(), specs);
        cluster.subsets.list.iter().map(|subset| (subset.key.remote, subset.teaches)).collect()
    };
    let (near, far) = (placed(1, "", 0, "a"), placed(2, "", 0, "b"));
    assert_eq!(teaches(&[near.clone(), far.clone()]), [(false, true), (true, false)]);
    assert_eq!(teaches(&[far]), [(true, true)]);
    assert_eq!(teaches(&[near, placed(3, "", 1, "b")]), [(false, true), (true, true)], "of its priority");
    // With zones, localities divide nothing.
    let in_locality =
        |name: &str, nth| Spec { locality: name.into(), locality_weight: 1.0, ..placed(nth, "", 0, "a") };
    assert_eq!(teaches(&[in_locality("x", 1), in_locality("y", 2)]).len(), 1);
    assert_eq!(cluster(&settings(), &[in_locality("x", 1), in_locality("y", 2)]).subsets.list.len(), 2);
}

#[test]
fn a_new_configuration_goes_on_with_what_the_subsets_knew() {
    let specs = [placed(1, "a", 0, ""), placed(2, "a", 0, ""), placed(3, "b", 0, ""), placed(4, "b", 0, "")];
    let mut old = cluster(&split(&["a", "b"]), &specs);
    (0..4).for_each(|index| old.takes(index, if index < 2 { 0.1 } else { 0.4 }));
    old.answers(2, 60, Some(Failure::TooMany), 9.0);
    old.answers(3, 60, Some(Failure::TooMany), 9.0);
    old.refresh(s(9.0));
    old.subsets.list[1].division.spill.local_fraction = 0.5;
    // The versions stand in another order, and one more endpoint is there.
    let more = [&specs[..], &[placed(5, "b", 0, "")]].concat();
    let mut new = cluster(&split(&["b", "a"]), &more);
    new.take_over(&mut old, s(5.0));
    let (b, a) = (&new.subsets.list[0], &new.subsets.list[1]);
    assert_eq!([(a.latency.typical * 10.0).round(), (b.latency.typical * 10.0).round()], [1.0, 4.0]);
    assert!(a.latency.measured && b.latency.measured);
    assert!(b.errors.record.failing(s(5.0)) > 0.8 && a.errors.record.failing(s(5.0)) < 0.2);
    assert!(b.errors.record.known(s(20.0)).is_none(), "the clock stepped back meanwhile");
    assert_eq!((b.division.spill.local_fraction, a.division.spill.local_fraction), (0.5, 1.0));
    let usual = |subset: &crate::cluster::subset::Subset| subset.errors.background.usual(|_| true, None, 3);
    assert!(usual(b).is_some_and(|ratio| ratio > 0.5), "{:?}: a fault that all share is known", usual(b));
    assert_eq!(usual(a).unwrap_or(0.0), 0.0);
}

#[test]
fn a_new_configuration_goes_on_where_the_old_one_was() {
    let settings = settings::Upstream { policy: settings::Policy::PeakEwma, ..settings() };
    let mut old = cluster(&settings, &fleet(3));
    old.endpoints.peaks[0].observe(0.4, s(0.0));
    old.capacity.scaler.desired = Some(7);
    // The third leaves while it fails.
    old.make(2, Is::Failed);
    old.set_fleet(&fleet(2), s(1.0));
    let joined = Spec::at("10.9.9.9:80".parse().unwrap());
    let mut new = cluster(&settings, &[fleet(2), vec![joined]].concat());
    new.take_over(&mut old, s(2.0));
    assert_eq!(new.desired_replicas(), Some(7));
    assert!(new.endpoints.peaks[0].estimate(s(2.0)).is_some_and(|peak| peak > 0.3));
    assert_eq!(new.endpoints.states[0].health.joined(), Time::ZERO, "it was there before");
    assert_eq!(new.endpoints.states[2].health.joined(), s(2.0), "it begins slowly");
    new.set_fleet(&fleet(3), s(3.0));
    let third = new.endpoints.set.index_of_hash(rng::hash(b"10.0.0.3:80")).unwrap();
    assert_eq!(
        new.endpoint(third).unwrap().health.state(),
        crate::health::State::Failed,
        "it returns as it left"
    );
}

/// Otherwise what it ejected would be in traffic until its time has passed anew.
#[test]
fn a_rule_that_holds_goes_on_with_a_new_configuration() {
    let with = |above| {
        let lasting = Duration::from_secs(60);
        let value = settings::RuleValue::LatencyMs;
        let rule = settings::Rule { value, above, lasting, action: RuleAction::Eject };
        let other = settings::Rule { action: RuleAction::Flag, ..rule };
        settings::Upstream { rules: if above > 100.0 { vec![rule] } else { vec![other, rule] }, ..settings() }
    };
    let mut old = cluster(&with(100.0), &fleet(3));
    for (index, seconds) in [0.5, 0.01, 0.01].into_iter().enumerate() {
        let latency = &mut old.endpoints.states[index].latency;
        (0..20).for_each(|_| latency.observe(seconds, s(0.0), s(0.0), &Ablation::ALL));
    }
    [0.0, 61.0].into_iter().for_each(|seconds| old.refresh(s(seconds)));
    assert_eq!(old.in_use(), [1, 2]);
    let specs = [endpoint(3), endpoint(1), endpoint(2)];
    for (above, in_use) in [(100.0, vec![0, 2]), (200.0, vec![0, 1, 2])] {
        let mut new = cluster(&with(above), &specs);
        new.take_over(&mut old, s(62.0));
        assert_eq!(new.in_use(), in_use, "{above} ms");
    }
}

#[test]
fn requests_are_drawn_in_proportion_to_the_loads() {
    let specs: Vec<Spec> = (0..3).map(|nth| placed(nth + 1, "", nth as u32, "")).collect();
    let mut cluster = cluster(&settings(), &specs);
    let drawn = |cluster: &Cluster, loads: [f64; 3], keyed: bool| {
        let mut counts = [0.0; 3];
        let mut rng = Rng::new(5);
        for nth in 0..20_000u64 {
            let key = keyed.then(|| rng::mix(nth));
            counts[cluster.subsets.draw(0..3, key, &mut rng).unwrap()] += 1.0 / 20_000.0;
        }
        let near = loads.iter().zip(&counts).all(|(load, part)| (load - part).abs() < 0.02);
        assert!(near, "{loads:?}: {counts:?}, keyed: {keyed}");
    };
    for loads in [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.3, 0.2], [0.7, 0.0, 0.3], [0.6, 0.4, 0.0]] {
        for (subset, load) in cluster.subsets.list.iter_mut().zip(loads) {
            subset.division.load = load;
        }
        drawn(&cluster, loads, false);
        drawn(&cluster, loads, true);
    }
}

/// Two priorities, the first of which owes this many answers since this many seconds, and the second too if both do.
fn silent(owed: u32, seconds: f64, typical: f64, both: bool) -> Vec<f64> {
    let mut cluster = cluster(&settings(), &[placed(1, "", 0, ""), placed(2, "", 1, "")]);
    (0..2).for_each(|index| cluster.takes(index, typical));
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    for index in 0..1 + u32::from(both) {
        (0..owed).for_each(|_| _ = cluster.started(index, s(0.0)));
    }
    cluster.divide(0.0, s(seconds));
    cluster.loads()
}

#[test]
fn what_hangs_as_a_whole_is_left_for_what_lives() {
    assert_eq!(silent(2, 60.0, 0.01, false), [1.0, 0.0], "two may be heavy by chance");
    assert_eq!(silent(3, 0.09, 0.01, false), [1.0, 0.0], "threads pause for a tenth of a second");
    let half = silent(3, 0.3, 0.01, false)[0];
    assert!((0.45..0.55).contains(&half), "{half}: between a tenth and half of a second");
    assert_eq!(silent(3, 0.6, 0.01, false), [0.0, 1.0]);
    // What takes a second by nature is silent after five, and dead after twenty.
    assert_eq!(silent(3, 4.9, 1.0, false), [1.0, 0.0]);
    let half = silent(3, 12.5, 1.0, false)[0];
    assert!((0.45..0.55).contains(&half), "{half}");
    assert_eq!(silent(3, 21.0, 1.0, false), [0.0, 1.0]);
    assert_eq!(silent(3, 60.0, 0.01, true), [1.0, 0.0], "where all hang nothing is gained by leaving");
}

#[test]
fn the_silence_of_one_endpoint_is_not_that_of_its_subset() {
    let mut cluster =
        cluster(&settings(), &[placed(1, "", 0, ""), placed(2, "", 0, ""), placed(3, "", 1, "")]);
    (0..3).for_each(|index| cluster.takes(index, 0.01));
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    // The second has just begun to work; it stands behind the silent one and before it.
    for (silent, lively) in [(0, 1), (1, 0)] {
        (0..4).for_each(|_| _ = cluster.started(silent, s(0.0)));
        cluster.started(lively, s(59.99)).unwrap();
        cluster.divide(0.0, s(60.0));
        assert_eq!(cluster.loads(), [1.0, 0.0], "{silent} is silent");
        cluster.endpoints.states[..2].iter_mut().for_each(|endpoint| endpoint.in_flight = Default::default());
    }
    // One that is out owes whatever it owes.
    (0..4).for_each(|_| _ = cluster.started(0, s(0.0)));
    cluster.endpoints.states[0].eligible = false;
    cluster.divide(0.0, s(60.0));
    assert_eq!(cluster.loads(), [1.0, 0.0]);
}

/// What the first of two priorities keeps where of so many answers of each so many failed.
fn failing(first: usize, second: Option<usize>) -> f64 {
    let mut cluster = limited(&[placed(1, "", 0, ""), placed(2, "", 1, "")], 0, 0);
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    for nth in 0..80 {
        let fails = |of: usize| ((nth * of) % 8 < of).then_some(Failure::TooMany);
        cluster.answers(0, 1, fails(first), 0.1);
        second.into_iter().for_each(|second| cluster.answers(1, 1, fails(second), 0.1));
    }
    cluster.divide(0.0, s(0.1));
    cluster.loads()[0]
}

#[test]
fn what_fails_much_more_than_others_is_left_and_what_fails_alike_is_not() {
    assert_eq!(failing(0, Some(0)), 1.0);
    assert_eq!(failing(1, Some(0)), 1.0, "chance alone makes as much");
    assert_eq!(failing(8, Some(0)), 0.0);
    assert_eq!(failing(8, Some(8)), 1.0, "the fault is common");
    assert_eq!(failing(8, None), 0.0, "the other is believed to be well until its own answers tell");
}

#[test]
fn a_subset_without_a_fit_endpoint_is_no_reason_to_leave() {
    let mut cluster = limited(&[placed(1, "", 0, ""), placed(2, "", 1, "")], 100, 0);
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    cluster.make(1, Is::Failed);
    cluster.eject();
    cluster.answers(0, 80, Some(Failure::TooMany), 0.1);
    cluster.divide(0.0, s(0.1));
    assert_eq!(cluster.loads(), [1.0, 0.0], "failing is better than nothing");
    // Nor does what was lately, once it is past.
    let mut cluster = limited(&[placed(1, "", 0, ""), placed(2, "", 1, "")], 100, 0);
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    cluster.answers(0, 80, Some(Failure::TooMany), 0.1);
    cluster.divide(0.0, s(30.0));
    assert_eq!(cluster.loads(), [1.0, 0.0], "long ago");
}

/// Two zones at two priorities, and what their endpoints owe; each endpoint works on four requests at a time.
struct Zones {
    /// So many requests await an answer of each of the local endpoints, and of the remote one.
    local: [u32; 2],
    remote: u32,
    /// Seconds that an answer takes, and so many times as many of the remote one.
    takes: f64,
    farther: f64,
    /// What the weights are, all alike.
    weight: f64,
    /// Whether it is known that four fill an endpoint.
    found: bool,
    /// The remote endpoint is out.
    out: bool,
    priority: u32,
}

const BUSY: Zones = Zones {
    local: [4, 4],
    remote: 0,
    takes: 10.0,
    farther: 1.0,
    weight: 1.0,
    found: true,
    out: false,
    priority: 0,
};

impl Zones {
    /// What the local zone keeps of its requests after `seconds`.
    fn keeps(&self, seconds: f64) -> f64 {
        let at = |nth, priority, zone| Spec { weight: self.weight, ..placed(nth, "", priority, zone) };
        let specs = [at(1, 0, "a"), at(2, 0, "a"), at(3, self.priority, "b")];
        let mut cluster = cluster(&zoned(), &specs);
        cluster.set_others_slots(Some(crate::estimate::Slots { count: 4.0, found: self.found }));
        (0..3).for_each(|index| {
            cluster.takes(index, if index < 2 { self.takes } else { self.takes * self.farther })
        });
        (0..2).for_each(|_| cluster.refresh(s(0.0)));
        cluster.endpoints.states[2].eligible = !self.out;
        for (index, requests) in (0..).zip([self.local[0], self.local[1], self.remote]) {
            (0..requests).for_each(|_| _ = cluster.started(index, s(0.0)));
        }
        for tick in 1..=(seconds * 50.0) as u32 {
            cluster.divide(0.02, s(0.02 * f64::from(tick)));
        }
        cluster.subsets.list[0].division.spill.local_fraction
    }
}

#[test]
fn requests_leave_a_zone_that_is_busier_than_the_target_and_than_others() {
    let full = BUSY.keeps(3.0);
    assert!(full < 0.95, "{full}");
    for (stays, why) in [
        (Zones { local: [2, 2], ..BUSY }, "half is below seven tenths"),
        (Zones { local: [4, 0], ..BUSY }, "half of it is idle"),
        (Zones { local: [5, 0], ..BUSY }, "one that is more than full is full"),
        (Zones { remote: 4, ..BUSY }, "the other is as busy: nothing is gained"),
        (Zones { found: false, ..BUSY }, "whether four are many is not known"),
        (Zones { priority: 1, ..BUSY }, "the other is of another priority"),
    ] {
        assert_eq!(stays.keeps(3.0), 1.0, "{why}");
    }
    for (leaves, why) in [
        (Zones { remote: 4, out: true, ..BUSY }, "what is out makes no zone busy"),
        (Zones { remote: 4, farther: 4.0, ..BUSY }, "most of them are on their way"),
        (Zones { weight: 10.0, ..BUSY }, "weights that are alike are no capacity"),
    ] {
        let kept = leaves.keeps(3.0);
        assert!((kept - full).abs() < 0.05, "{why}: {kept}, not {full}");
    }
}

/// A zone that hangs is under pressure before any time-out, whatever it takes.
#[test]
fn a_zone_that_hangs_is_busy() {
    let hangs = Zones { local: [1, 1], takes: 1.0, found: false, ..BUSY };
    assert_eq!(hangs.keeps(1.0), 1.0, "they take a second");
    assert!(hangs.keeps(20.0) < 0.5, "{}", hangs.keeps(20.0));
}

/// A zone that keeps long polls and answers everything else is at rest, however old they and the last answer are.
#[test]
fn a_zone_that_holds_requests_is_not_busy() {
    let mut cluster =
        cluster(&zoned(), &[placed(1, "", 0, "a"), placed(2, "", 0, "a"), placed(3, "", 0, "b")]);
    (0..3).for_each(|index| cluster.takes(index, 0.01));
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    cluster.endpoints.states[..2].iter_mut().for_each(|endpoint| endpoint.hold(s(-90.0), s(0.0)));
    for tick in 1..=250 {
        cluster.divide(0.02, s(0.02 * f64::from(tick)));
    }
    assert_eq!(cluster.subsets.list[0].division.spill.local_fraction, 1.0);
}

/// A busy zone, the other zones at its priority, and another priority.
fn spilling(remote: bool) -> Cluster {
    let near = [placed(1, "", 0, "a"), placed(2, "", 0, "a")];
    let far = remote.then(|| placed(3, "", 0, "b"));
    let specs: Vec<Spec> = near.into_iter().chain(far).chain([placed(4, "", 1, "a")]).collect();
    let mut settings = zoned();
    (settings.health.max_ejected_percent, settings.failover.panic_percent) = (100.0, 0.0);
    let mut cluster = cluster(&settings, &specs);
    // The first time uses up the credit of a zone that has been at rest.
    for _ in 0..2 {
        cluster.subsets.list[0].division.spill.local_fraction = 0.25;
        cluster.divide(0.0, s(0.0));
    }
    cluster
}

/// Priorities follow health, not load.
#[test]
fn what_a_busy_zone_does_not_keep_stays_at_its_priority() {
    let mut cluster = spilling(true);
    assert_eq!(cluster.loads(), [0.25, 0.75, 0.0]);
    cluster.make(2, Is::Failed);
    cluster.eject();
    cluster.divide(0.0, s(0.0));
    assert_eq!(cluster.loads(), [1.0, 0.0, 0.0], "there is none to take it");
    assert_eq!(spilling(false).loads(), [1.0, 0.0]);
    // A half of the others is out, and they carry seven tenths.
    let mut cluster = spilling(true);
    (cluster.subsets.list[1].division.fit, cluster.subsets.list[1].division.weight) = (1.0, 2.0);
    cluster.divide(0.0, s(0.0));
    assert_eq!(cluster.loads(), [0.3, 0.7, 0.0]);
    // A half of the zone is out as well: together they carry all, however busy the rest is.
    (cluster.subsets.list[0].division.fit, cluster.subsets.list[1].division.weight) = (1.0, 2.8);
    cluster.divide(0.0, s(0.0));
    assert_eq!(cluster.loads(), [0.5, 0.5, 0.0]);
    // Less than all, and the next priority has the rest, as by health.
    cluster.subsets.list[1].division.weight = 7.0;
    cluster.divide(0.0, s(0.0));
    assert_eq!(cluster.loads(), [0.7, 0.2, 0.1]);
}

#[test]
fn without_zones_none_is_left_for_its_load() {
    let mut old = spilling(true);
    let specs = [placed(1, "", 0, "a"), placed(2, "", 0, "a"), placed(4, "", 1, "a")];
    let mut new = cluster(&settings(), &specs);
    new.take_over(&mut old, s(1.0));
    assert_eq!(new.loads(), [1.0, 0.0]);
}

/// Of three localities one loses a part of its requests: no key of another one moves.
#[test]
fn keys_of_one_locality_move_and_no_others() {
    let at = |nth: usize| Spec {
        locality: ["x", "y", "z"][nth % 3].into(),
        locality_weight: 1.0,
        ..endpoint(nth + 1)
    };
    let mut cluster = cluster(&settings(), &(0..9).map(at).collect::<Vec<_>>());
    let drawn = |cluster: &Cluster| -> Vec<usize> {
        let mut rng = Rng::new(1);
        (0..3000).map(|nth| cluster.subsets.draw(0..3, Some(rng::mix(nth)), &mut rng).unwrap()).collect()
    };
    for lost in 0..3 {
        let before = drawn(&cluster);
        cluster.subsets.list[lost].division.fit = 1.0;
        cluster.divide(0.0, s(0.0));
        let after = drawn(&cluster);
        cluster.subsets.list[lost].division.fit = 3.0;
        cluster.divide(0.0, s(0.0));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        let moved: Vec<_> = moved.map(|(before, after)| (*before, *after)).collect();
        assert!(moved.len() > 200 && moved.iter().all(|(before, _)| *before == lost), "{lost}: {moved:?}");
        assert_eq!(drawn(&cluster), before, "and they return");
    }
}
