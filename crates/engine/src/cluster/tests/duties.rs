//! Which endpoints are probed where not every worker, key or priority has requests.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::decision::{Decision, RequestHandle};
use crate::policy::Request;
use crate::settings::{Probe, Rule, RuleValue};
use crate::{Outcome, Quickness};

const ENOUGH: u32 = 10_000;
/// Requests per second of a worker.
const OFTEN: f32 = 50.0;

/// A cluster with requests for long, whose first endpoint is in this state.
fn troubled(is: Is) -> Cluster {
    let mut cluster = limited(&fleet(3), 100, 0);
    cluster.refresh(s(0.0));
    (cluster.traffic.rate, cluster.traffic.requests) = (OFTEN.into(), ENOUGH);
    cluster.make(0, is);
    cluster.eject();
    cluster
}

impl Cluster {
    /// Whether the first endpoint is this worker's to probe, one of busy workers with these rates in their order.
    fn probes_as(&mut self, rank: usize, rates: &[f32], now: Time) -> bool {
        self.traffic.forget_peers();
        let peers = rates.iter().enumerate().filter(|(peer, _)| *peer != rank);
        peers.for_each(|(peer, rate)| self.merge_peer(*rate, peer < rank, true));
        let shard = ProbeShard { rank: rank as u32, workers: rates.len() as u32, is_reporter: false };
        self.schedule(shard, now);
        self.subsets.versions[0].pending_probes.iter().any(|(_, index)| *index == 0)
    }

    /// A request that is sent at `now` and answered well 10 ms later: the endpoint that gets it.
    fn served(&mut self, key: Option<u64>, now: Time, rng: &mut rng::Rng) -> u32 {
        let decision = self.pick(Request { key, want: 1 }, now, rng);
        let Decision::Steer(named) = decision else { panic!("{decision:?}") };
        let index = named.first().unwrap();
        let (endpoint, depth) = self.started(index, now).unwrap();
        let handle = RequestHandle { upstream: 0, endpoint, started: now, depth };
        self.record_response(&handle, Outcome::Good, Quickness::Shown, now.after_secs(0.01));
        self.finished(endpoint, now.after_secs(0.01));
        index
    }
}

/// The requests of one connection come to one worker; the others are busy with other clusters.
#[test]
fn a_worker_without_requests_to_the_cluster_has_no_turn_to_probe() {
    for (is, rank) in [Is::Suspect, Is::Failed, Is::Recovering].into_iter().flat_map(|is| [(is, 0), (is, 9)])
    {
        let mut rates = [0.0; 16];
        rates[rank] = OFTEN;
        let mut cluster = troubled(is);
        let probes = (100..700).filter(|tenth| cluster.probes_as(rank, &rates, s(f64::from(*tenth) / 10.0)));
        assert_eq!(probes.count(), 600, "{is:?}");
    }
}

#[test]
fn a_request_that_hangs_keeps_probes_for_seconds_whichever_worker_has_the_requests() {
    for rank in 0..4 {
        let mut rates = [0.0; 4];
        rates[rank] = OFTEN;
        let mut cluster = troubled(Is::Failed);
        cluster.endpoints.states[0].send(s(0.0));
        let first = (0..600).find(|tenth| cluster.probes_as(rank, &rates, s(f64::from(*tenth) / 10.0)));
        assert!(first.is_some_and(|tenth| tenth <= 120), "{rank}: {first:?}");
    }
}

#[test]
fn those_with_requests_take_turns() {
    for rates in [[OFTEN, 0.0, OFTEN], [OFTEN, 0.2, OFTEN], [0.0, OFTEN, OFTEN]] {
        let mut cluster = troubled(Is::Failed);
        for turn in 5..60 {
            let now = s(2.0 * f64::from(turn) + 0.5);
            let on_duty =
                (0..3).filter(|rank| rates[*rank] >= OFTEN && cluster.probes_as(*rank, &rates, now));
            assert_eq!(on_duty.count(), 1, "{rates:?}");
        }
    }
}

/// The rule's latency changes only with answers. Its priority gets no requests meanwhile, as it has no healthy endpoint.
#[test]
fn a_priority_that_a_rule_has_ejected_is_tried_again() {
    let specs: Vec<Spec> =
        (0..4).map(|nth| Spec { priority: u32::from(nth > 1), ..endpoint(nth + 1) }).collect();
    let lasting = Duration::ZERO;
    let rule = Rule { value: RuleValue::LatencyMs, above: 100.0, lasting, action: RuleAction::Eject };
    let mut cluster = cluster(&settings::Upstream { rules: vec![rule], ..settings() }, &specs);
    for (index, seconds) in [0.5, 0.5, 0.01, 0.01].into_iter().enumerate() {
        let latency = &mut cluster.endpoints.states[index].latency;
        (0..20).for_each(|_| latency.observe(seconds, s(0.0), s(0.0), &Ablation::ALL));
    }
    let mut rng = rng::Rng::new(3);
    let mut asked = 0;
    for nth in 0..1200 {
        let now = s(f64::from(nth) / 20.0);
        cluster.tick(ProbeShard::ALONE, now);
        if nth < 100 {
            assert_eq!(cluster.in_use(), [2, 3], "slow, and within half of all");
        }
        asked += u32::from(cluster.served(None, now, &mut rng) < 2);
    }
    assert_eq!(cluster.in_use(), [0, 1, 2, 3]);
    assert!(asked > 300, "{asked}: the first priority is back");
}

/// Endpoints that are in traffic although they fail, in panic or beyond the limit, get none as long as they look slow.
#[test]
fn an_endpoint_that_hung_comes_back_where_it_may_not_be_ejected() {
    for (max_ejected, panic, hang) in [(100, 50, 3), (0, 50, 1), (0, 0, 3), (100, 100, 1), (50, 50, 3)] {
        let mut cluster = limited(&fleet(4), max_ejected, panic);
        let mut rng = rng::Rng::new(3);
        let mut hung: Vec<(f64, RequestHandle)> = Vec::new();
        for nth in 0..8000 {
            let seconds = f64::from(nth) / 20.0;
            cluster.tick(ProbeShard::ALONE, s(seconds));
            for (ends, handle) in hung.extract_if(.., |(ends, _)| *ends <= seconds) {
                let failed = Outcome::Failed(crate::Failure::Timeout);
                cluster.record_response(&handle, failed, Quickness::Shown, s(ends));
                cluster.finished(handle.endpoint, s(ends));
            }
            let Decision::Steer(named) = cluster.pick(Request { key: None, want: 1 }, s(seconds), &mut rng)
            else {
                panic!("one that works is left");
            };
            let (endpoint, depth) = cluster.started(named.first().unwrap(), s(seconds)).unwrap();
            let handle = RequestHandle { upstream: 0, endpoint, started: s(seconds), depth };
            if (5.0..65.0).contains(&seconds) && endpoint.index < hang {
                hung.push((seconds + 5.0, handle));
            } else {
                let now = s(seconds + 0.02);
                cluster.record_response(&handle, Outcome::Good, Quickness::Shown, now);
                cluster.finished(endpoint, now);
            }
        }
        let fails = |m: &&EndpointState| m.health.state() != crate::health::State::Healthy;
        let failing = cluster.endpoints.states.iter().filter(fails).count();
        assert_eq!(failing, 0, "{hang} of 4 hung, at most {max_ejected} %, panic {panic} %");
        assert!(cluster.endpoints.states.iter().all(|m| f64::from(m.expected) < 0.1));
    }
}

/// One that hangs, in traffic because none may be ejected, costs what one out of traffic does: no part of all requests.
#[test]
fn what_hangs_where_it_may_not_be_ejected_gets_a_request_at_times() {
    let mut cluster = limited(&fleet(4), 0, 0);
    let mut rng = rng::Rng::new(3);
    let mut hung: Vec<(f64, RequestHandle)> = Vec::new();
    let mut sent = 0;
    for nth in 0..30_000 {
        let seconds = f64::from(nth) / 100.0;
        cluster.tick(ProbeShard::ALONE, s(seconds));
        for (ends, handle) in hung.extract_if(.., |(ends, _)| *ends <= seconds) {
            cluster.record_response(
                &handle,
                Outcome::Failed(crate::Failure::Timeout),
                Quickness::Shown,
                s(ends),
            );
            cluster.finished(handle.endpoint, s(ends));
        }
        let Decision::Steer(named) = cluster.pick(Request::wanting(1), s(seconds), &mut rng) else {
            continue;
        };
        let (endpoint, depth) = cluster.started(named.first().unwrap(), s(seconds)).unwrap();
        let handle = RequestHandle { upstream: 0, endpoint, started: s(seconds), depth };
        if seconds > 5.0 && endpoint.index == 0 {
            sent += u32::from(seconds > 60.0);
            hung.push((seconds + 15.0, handle));
        } else {
            let now = s(seconds + 0.02);
            cluster.record_response(&handle, Outcome::Good, Quickness::Shown, now);
            cluster.finished(endpoint, now);
        }
    }
    assert!((10..=60).contains(&sent), "{sent} of 24,000");
}

/// A rule's ratio follows what the endpoint answers while it is out, not what it answered before.
#[test]
fn what_a_rule_ejected_for_errors_is_back_after_some_good_answers() {
    let lasting = Duration::ZERO;
    let rule = Rule { value: RuleValue::ErrorPercent, above: 10.0, lasting, action: RuleAction::Eject };
    let mut cluster = cluster(&settings::Upstream { rules: vec![rule], ..settings() }, &fleet(4));
    let mut rng = rng::Rng::new(3);
    let mut good = 0;
    for nth in 0..6000 {
        let now = s(f64::from(nth) / 20.0);
        cluster.tick(ProbeShard::ALONE, now);
        let Decision::Steer(named) = cluster.pick(Request::wanting(1), now, &mut rng) else { continue };
        let (endpoint, depth) = cluster.started(named.first().unwrap(), now).unwrap();
        let handle = RequestHandle { upstream: 0, endpoint, started: now, depth };
        let fails = endpoint.index == 0 && nth < 2000;
        let outcome = if fails { Outcome::Failed(crate::Failure::TooMany) } else { Outcome::Good };
        good += u32::from(endpoint.index == 0 && nth >= 2000 && !cluster.in_use().contains(&0));
        cluster.record_response(&handle, outcome, Quickness::Shown, now.after_secs(0.02));
        cluster.finished(endpoint, now.after_secs(0.02));
        assert!(nth != 1999 || cluster.in_use() == [1, 2, 3]);
    }
    assert_eq!(cluster.in_use(), [0, 1, 2, 3]);
    assert!((5..=16).contains(&good), "{good} good answers");
}

/// Requests of keys of these endpoints, ten a second for 100 s, while the fourth of four is ejected and its probes out of
/// band go well from this second on: how many of each key it got, and whether it is back.
fn with_probes(owners: &[u32], well_from: f64) -> (Vec<usize>, bool) {
    let policy = settings::Policy::ConsistentHash(Default::default());
    let mut settings = settings::Upstream { policy, ..settings() };
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(1));
    settings.health.probe = Some(Probe { path: "/".into(), authority: None, interval, timeout });
    let mut cluster = cluster(&settings, &fleet(4));
    let mut rng = rng::Rng::new(3);
    cluster.tick(ProbeShard::ALONE, s(0.0));
    let owned =
        |owner| (0..1000).map(rng::mix).find(|key| cluster.subsets.list[0].policy.owner(*key) == owner);
    let keys: Vec<u64> = owners.iter().map(|owner| owned(Some(*owner)).unwrap()).collect();
    for index in (0..3).cycle().take(600) {
        let endpoint = cluster.endpoints.set.reference(index).unwrap();
        cluster.record_outcome(endpoint, s(0.0), None, s(0.0));
    }
    cluster.make(3, Is::Failed);
    let mut counts = vec![0; owners.len()];
    for nth in 0..1000 {
        let seconds = f64::from(nth) / 10.0;
        cluster.tick(ProbeShard::ALONE, s(seconds));
        while let Some(endpoint) = cluster.take_probe(s(seconds)) {
            let handle = RequestHandle { upstream: 0, endpoint, started: s(seconds), depth: 0 };
            let well = endpoint.index != 3 || seconds >= well_from;
            let outcome = if well { Outcome::Good } else { Outcome::Failed(crate::Failure::Refused) };
            cluster.record_probe(&handle, outcome, s(seconds + 0.01));
        }
        let at = nth as usize % keys.len();
        counts[at] += usize::from(cluster.served(Some(keys[at]), s(seconds + 0.05), &mut rng) == 3);
    }
    (counts, cluster.endpoints.states[3].health.state() == crate::health::State::Healthy)
}

#[test]
fn with_probes_out_of_band_too_an_endpoint_whose_own_keys_have_no_traffic_comes_back() {
    for well_from in [0.0, 40.0] {
        let (counts, back) = with_probes(&[0], well_from);
        assert!(back && (3..=6).contains(&counts[0]), "{counts:?}, {back}");
        let (counts, back) = with_probes(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 3], well_from);
        assert!(back && counts[..9].iter().all(|count| *count == 0), "{counts:?}, {back}: its own keys do");
    }
    assert_eq!(with_probes(&[0], 1000.0), (vec![0], false), "none before a probe has gone well");
}

#[test]
fn what_a_probe_found_does_not_speak_for_the_next_endpoint_at_its_index() {
    let mut settings = settings();
    let (interval, timeout) = (Duration::from_secs(60), Duration::from_secs(1));
    settings.health.probe = Some(Probe { path: "/".into(), authority: None, interval, timeout });
    let mut cluster = cluster(&settings, &fleet(3));
    let first = cluster.endpoints.set.reference(0).unwrap();
    let probing = cluster.ejection.probing.as_deref_mut().unwrap();
    probing.begin(0, s(0.0));
    probing.want(first, super::super::out_of_band::Urgency::Look, s(0.0));
    probing.end();
    assert_eq!(cluster.take_probe(s(0.0)), Some(first));
    let handle = RequestHandle { upstream: 0, endpoint: first, started: s(0.0), depth: 0 };
    cluster.record_probe(&handle, Outcome::Good, s(0.01));
    let clears = |cluster: &Cluster| {
        let known = cluster.endpoint(0).unwrap();
        cluster.ejection.probing.as_ref().unwrap().clears(0, &known, false, 0.05)
    };
    assert!(clears(&cluster));
    cluster.set_fleet(&fleet(3)[1..], s(1.0));
    cluster.set_fleet(&fleet(4)[1..], s(2.0));
    assert_ne!(cluster.endpoints.set.reference(0), Some(first), "another endpoint");
    assert!(!clears(&cluster));
}
