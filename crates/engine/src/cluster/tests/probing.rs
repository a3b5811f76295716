//! Which endpoints get a single request next, after how many requests to others and how long, and from which worker.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::endpoint::Exploration;
use crate::rng;

const ENOUGH: u32 = 10_000;

/// A cluster where everything may be out, as it is at rest.
fn resting(specs: &[Spec]) -> Cluster {
    let mut cluster = limited(specs, 100, 0);
    cluster.refresh(s(0.0));
    cluster.traffic.rate = 100.0;
    cluster.traffic.requests = ENOUGH;
    cluster.traffic.first = s(-900_000.0);
    cluster.endpoints.states.iter_mut().for_each(|endpoint| endpoint.turn.asked = ENOUGH);
    cluster
}

/// The same with endpoints in these states, the first at index 0.
fn with(specs: &[Spec], states: &[Is]) -> Cluster {
    let mut cluster = resting(specs);
    states.iter().enumerate().for_each(|(index, is)| cluster.make(index, *is));
    cluster.eject();
    cluster
}

impl Cluster {
    /// So many requests went elsewhere since the endpoint at `index` got one.
    fn has_waited(&mut self, index: usize, requests: u32) {
        self.endpoints.states[index].turn.asked = self.traffic.requests.wrapping_sub(requests);
    }

    /// Which are due at `now`, the first to be asked first.
    fn due(&mut self, shard: ProbeShard, now: Time) -> Vec<u32> {
        self.schedule(shard, now);
        self.subsets.versions[0].pending_probes.iter().rev().map(|(_, index)| *index).collect()
    }

    /// After how many requests to others the endpoint at 0 is due.
    fn due_after(&mut self, now: Time) -> Option<u32> {
        (0..2000).find(|waited| {
            self.has_waited(0, *waited);
            self.due(ProbeShard::ALONE, now) == [0]
        })
    }

    /// From how many seconds on, in tenths.
    fn due_from(&mut self, workers: u32) -> Option<f64> {
        self.has_waited(0, ENOUGH);
        (0..600).map(|tenth| f64::from(tenth) / 10.0).find(|seconds| {
            (0..workers).any(|rank| {
                let shard = ProbeShard { rank, workers, is_reporter: false };
                self.due(shard, s(*seconds)) == [0]
            })
        })
    }
}

/// A failing endpoint gets at most half of a healthy one's requests, whatever its weight; one that answers again all of them.
#[test]
fn a_failing_endpoint_waits_for_two_turns_and_one_that_recovers_for_one() {
    for endpoints in [2, 3, 10] {
        for (is, turns) in [(Is::Failed, 2), (Is::Suspect, 2), (Is::Recovering, 1)] {
            let mut cluster = with(&fleet(endpoints), &[is]);
            assert_eq!(cluster.due_after(s(100.0)), Some(turns * endpoints as u32), "{is:?} of {endpoints}");
        }
    }
    for (weight, turn) in [(2.0, 2), (0.5, 5)] {
        let mut specs = fleet(3);
        specs[0].weight = weight;
        let mut cluster = with(&specs, &[Is::Failed]);
        assert_eq!(cluster.due_after(s(100.0)), Some(2 * turn), "weight {weight}");
    }
}

#[test]
fn what_fails_is_asked_again_later_and_later_up_to_the_longest_ejection() {
    for (is, seconds) in [(Is::Suspect, 1.0), (Is::Failed, 5.0), (Is::Recovering, 0.0)] {
        assert_eq!(with(&fleet(3), &[is]).due_from(1), Some(seconds), "{is:?}");
    }
    let (mut before, mut turns_before) = (0.0, 0);
    for failed_probes in 0..10u32 {
        let mut cluster = with(&fleet(3), &[Is::Failed]);
        for _ in 0..failed_probes {
            let event = FailureEvent { weight: 1, broke: None };
            cluster.endpoints.states[0].health.failure(s(0.01), s(0.01), event);
        }
        let (from, turns) = (cluster.due_from(1).unwrap(), cluster.due_after(s(100.0)).unwrap());
        let case = format!("{failed_probes}: {from} s, {turns} requests");
        assert!(if failed_probes >= 5 { from <= 30.1 } else { from > 1.4 * before }, "{case}");
        assert!(
            if failed_probes >= 5 { turns == 36 } else { f64::from(turns) > 1.4 * f64::from(turns_before) },
            "{case}"
        );
        (before, turns_before) = (from, turns);
    }
    assert!(before >= 30.0, "{before}: the longest wait is reached");
}

#[test]
fn a_count_of_requests_that_wraps_is_a_wait_as_any() {
    let mut cluster = with(&fleet(3), &[Is::Failed]);
    cluster.traffic.requests = 3;
    cluster.endpoints.states.iter_mut().for_each(|endpoint| endpoint.turn.asked = u32::MAX);
    assert_eq!(cluster.due(ProbeShard::ALONE, s(100.0)), [] as [u32; 0], "four requests");
    cluster.has_waited(0, 6);
    assert_eq!(cluster.endpoints.states[0].turn.asked, u32::MAX - 2);
    assert_eq!(cluster.due(ProbeShard::ALONE, s(100.0)), [0]);
}

#[test]
fn the_longest_waiting_comes_first_and_each_once() {
    let mut cluster = with(&fleet(6), &[Is::Failed; 3]);
    [30, 50, 40].into_iter().enumerate().for_each(|(index, waited)| cluster.has_waited(index, waited));
    for round in 0..3 {
        assert_eq!(cluster.due(ProbeShard::ALONE, s(100.0)), [1, 2, 0], "{round}");
    }
    let asked: Vec<_> = (0..4).map(|_| cluster.next_due(0, None)).collect();
    assert_eq!(asked, [Some(1), Some(2), Some(0), None]);
}

#[test]
fn one_worker_at_a_time_probes_and_each_has_its_time() {
    let mut cluster = with(&fleet(3), &[Is::Failed]);
    cluster.has_waited(0, ENOUGH);
    let mut probes = |rate: f64, seconds: f64| -> Vec<u32> {
        cluster.traffic.rate = rate;
        let has = |rank: &u32| {
            cluster.due(ProbeShard { rank: *rank, workers: 3, is_reporter: false }, s(seconds)) == [0]
        };
        (0..3).filter(has).collect()
    };
    let mut turns = [0; 3];
    for turn in 0..60 {
        let at = 100.0 + 2.0 * f64::from(turn);
        let on_duty = probes(100.0, at);
        assert_eq!(on_duty.len(), 1, "{on_duty:?}");
        assert_eq!(probes(100.0, at + 1.9), on_duty, "for two seconds");
        turns[on_duty[0] as usize] += 1;
    }
    assert!(turns.iter().all(|times| *times >= 8), "{turns:?}");
    assert_eq!(
        probes(0.2, 100.0),
        [0, 1, 2],
        "with less than a request in its time each would wait for ever"
    );
}

#[test]
fn paused_or_ruled_out_endpoints_are_not_probed() {
    for is in [Is::Held, Is::Unhealthy, Is::Draining] {
        let mut cluster = with(&fleet(4), &[Is::Failed]);
        cluster.has_waited(0, ENOUGH);
        assert_eq!(cluster.due(ProbeShard::ALONE, s(100.0)), [0]);
        cluster.make(0, is);
        cluster.eject();
        assert_eq!(cluster.due(ProbeShard::ALONE, s(100.0)), [] as [u32; 0], "{is:?}");
    }
    // While the degraded are spared, those of them that fail are left alone, too, and others are not.
    let mut cluster = with(&fleet(5), &[Is::Failed, Is::Degraded, Is::Failed]);
    cluster.make(0, Is::Degraded);
    cluster.eject();
    (0..3).for_each(|index| cluster.has_waited(index, ENOUGH));
    assert_eq!(cluster.ejection.degraded_out, 1);
    assert_eq!(cluster.due(ProbeShard::ALONE, s(100.0)), [2]);
}

#[test]
fn what_has_a_request_on_its_way_gets_no_second_one() {
    let mut cluster = with(&fleet(4), &[Is::Failed, Is::Failed]);
    (0..2).for_each(|index| cluster.has_waited(index, ENOUGH));
    assert_eq!(cluster.due(ProbeShard::ALONE, s(100.0)).len(), 2);
    // Since the schedule was made.
    cluster.endpoints.states[0].send(s(100.0));
    assert_eq!([cluster.next_due(0, None), cluster.next_due(0, None)], [Some(1), None]);
    assert_eq!(cluster.due(ProbeShard::ALONE, s(100.0)), [1]);
}

/// Long polls and a probe that hangs: what is unanswered for hours does not keep an endpoint out for hours.
#[test]
fn an_unanswered_request_delays_a_probe_for_seconds_and_not_for_ever() {
    for (is, workers, from) in
        [(Is::Suspect, 1, 6.0), (Is::Failed, 1, 10.0), (Is::Failed, 3, 10.0), (Is::Recovering, 1, 5.0)]
    {
        let mut cluster = with(&fleet(3), &[is]);
        cluster.endpoints.states[0].send(s(0.0));
        let due = cluster.due_from(workers).unwrap_or(f64::INFINITY);
        assert!((from..from + 2.1).contains(&due), "{is:?}: {due}");
    }
    let mut cluster = with(&fleet(3), &[]);
    cluster.make(0, Is::Ruled);
    cluster.eject();
    cluster.endpoints.states[0].send(s(0.0));
    assert!(cluster.due_from(1).is_some_and(|due| (5.0..20.0).contains(&due)));
}

#[test]
fn an_endpoint_that_hangs_gets_ever_fewer_probes() {
    let mut cluster = with(&fleet(3), &[Is::Failed]);
    let mut probes = Vec::new();
    for tenth in 0..36_000 {
        let now = s(f64::from(tenth) / 10.0);
        cluster.has_waited(0, ENOUGH);
        cluster.due(ProbeShard::ALONE, now);
        while cluster.next_probe(0, None, now) == Some(0) {
            cluster.endpoints.states[0].send(now);
            probes.push(tenth / 10);
        }
    }
    assert!((10..=16).contains(&probes.len()), "{probes:?}: an hour, each half as long after the last again");
    assert!(probes.windows(2).all(|pair| pair[1] - pair[0] >= 4), "{probes:?}");
}

/// Its polls are older than its failures and say nothing: one probe after the other is answered meanwhile.
#[test]
fn an_endpoint_with_open_polls_recovers_with_each_answer() {
    let mut cluster = with(&fleet(3), &[Is::Failed]);
    (0..20).for_each(|_| cluster.endpoints.states[0].send(s(-30.0)));
    let back = (0..600).find(|tenth| {
        let now = s(f64::from(*tenth) / 10.0);
        cluster.has_waited(0, ENOUGH);
        cluster.due(ProbeShard::ALONE, now);
        if cluster.next_probe(0, None, now) == Some(0) {
            let endpoint = &mut cluster.endpoints.states[0];
            endpoint.send(now);
            endpoint.health.success(now);
            endpoint.answer(now, cluster.traffic.epochs, now);
            endpoint.health.assess(GoodRun::default(), now, &cluster.config.health, 0.0);
        }
        cluster.endpoints.states[0].health.state() == crate::health::State::Healthy
    });
    assert!(back.is_some_and(|tenth| (100..=105).contains(&tenth)), "{back:?}");
}

/// Requests of these keys, ten a second for 100 s, to four endpoints of which the last has failed: how many of each key
/// went to each.
fn by_key(policy: settings::Policy, workers: u32, owners: &[usize]) -> Vec<[usize; 4]> {
    let shard = ProbeShard { workers, ..ProbeShard::ALONE };
    let mut cluster = cluster(&settings::Upstream { policy, ..settings() }, &fleet(4));
    let mut rng = rng::Rng::new(3);
    cluster.tick(shard, s(0.0));
    let key_of = |owner: &usize| {
        let owned = |key: &u64| cluster.subsets.list[0].policy.owner(*key) == Some(*owner as u32);
        (0..1000).map(rng::mix).find(owned).unwrap()
    };
    let keys: Vec<u64> = owners.iter().map(key_of).collect();
    for index in (0..3).cycle().take(600) {
        let endpoint = cluster.endpoints.set.reference(index).unwrap();
        cluster.record_outcome(endpoint, s(0.0), None, s(0.0));
    }
    cluster.make(3, Is::Failed);
    let mut counts = vec![[0; 4]; keys.len()];
    for nth in 0..1000 {
        let now = s(f64::from(nth) / 10.0);
        cluster.tick(shard, now);
        let at = nth as usize % keys.len();
        let request = crate::policy::Request { key: Some(keys[at]), want: 1 };
        let decision = cluster.pick(request, now, &mut rng);
        let crate::decision::Decision::Steer(named) = decision else { panic!("{decision:?}") };
        let index = named.first().unwrap() as usize;
        counts[at][index] += 1;
        if index == 3 {
            let event = FailureEvent { weight: 1, broke: None };
            cluster.endpoints.states[3].health.failure(now, now, event);
        }
    }
    counts
}

/// One whose keys are not asked for would be out for ever, and keep others from leaving.
#[test]
fn an_ejected_endpoint_is_probed_by_other_keys_only_where_its_own_have_no_traffic() {
    for policy in [settings::Policy::IpHash, settings::Policy::ConsistentHash(Default::default())] {
        let alone = by_key(policy.clone(), 1, &[0])[0];
        assert!((2..=10).contains(&alone[3]), "{policy:?}: {alone:?}");
        assert_eq!(alone[0] + alone[3], 1000, "{policy:?}: {alone:?}");
        let one_of_four = by_key(policy.clone(), 4, &[0])[0];
        assert!(
            (1..alone[3]).contains(&one_of_four[3]),
            "its keys may come to other workers: {one_of_four:?}"
        );
        let counts = by_key(policy.clone(), 1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert!(counts[9][3] >= 2, "{policy:?}: {counts:?}");
        assert!(counts[..9].iter().all(|of| of[3] == 0), "{policy:?}: {counts:?}");
    }
}

/// A stalled endpoint is looked at because of what it owes: after five seconds of silence and two turns, later with each look.
#[test]
fn a_stalled_endpoint_is_looked_at_though_it_owes_answers() {
    let stalled = |looks: u32| {
        let mut cluster = resting(&fleet(3));
        cluster.endpoints.states[0].send(s(0.0));
        cluster.make(0, Is::Stalled);
        (0..looks).for_each(|_| cluster.endpoints.states[0].send(s(0.0)));
        cluster.eject();
        cluster
    };
    assert_eq!(stalled(0).due_from(1), Some(5.0));
    assert_eq!(stalled(1).due_from(1), Some(10.0));
    let mut cluster = stalled(0);
    assert_eq!(cluster.due_after(s(100.0)), Some(6));
    cluster.due(ProbeShard::ALONE, s(100.0));
    assert_eq!(cluster.next_due(0, None), Some(0));
}

#[test]
fn what_is_in_traffic_in_panic_needs_no_probe() {
    let mut cluster = limited(&fleet(3), 100, 50);
    cluster.refresh(s(0.0));
    (0..3).for_each(|index| cluster.make(index, Is::Failed));
    cluster.eject();
    cluster.traffic.requests = ENOUGH;
    assert_eq!(cluster.due(ProbeShard::ALONE, s(100.0)), [] as [u32; 0]);
}

/// Whether the second priority can take over is to be known before it has to: each of its endpoints is one of all then.
#[test]
fn a_priority_without_requests_is_verified_and_not_explored() {
    let specs: Vec<Spec> =
        (0..5).map(|nth| Spec { priority: u32::from(nth < 2), ..endpoint(nth + 1) }).collect();
    let mut cluster = resting(&specs);
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    cluster.make(0, Is::Failed);
    cluster.eject();
    assert_eq!(cluster.due_after(s(100.0)), Some(10));
    let mut cluster = resting(&specs);
    cluster.endpoints.states.iter_mut().for_each(|endpoint| endpoint.expected = 0.02);
    cluster.endpoints.states[0].expected = 10.0;
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    cluster.endpoints.states[0].expected = 10.0;
    assert_eq!(cluster.due_from(1), None, "slow, and not asked for");
}

/// A fleet whose first endpoint takes forty times as long.
fn slow(endpoints: usize, rate: f64, in_vain: u32) -> Cluster {
    let mut cluster = resting(&fleet(endpoints));
    for index in 0..endpoints {
        let seconds = if index == 0 { 0.4 } else { 0.01 };
        let endpoint = &mut cluster.endpoints.states[index];
        (0..20).for_each(|_| endpoint.latency.observe(seconds, s(-10.0), s(-10.0), &Ablation::ALL));
        endpoint.turn.asked = ENOUGH;
    }
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    // The rate is that of a long time.
    (cluster.traffic.rate, cluster.traffic.refreshed) = (rate, s(1000.0));
    for _ in 0..in_vain {
        cluster.endpoints.states[0].exploration.begin();
        cluster.endpoints.states[0].exploration.answer(false, || false);
    }
    cluster
}

/// A thousand requests apart, but no sooner than after 2.5 s and no later than after 12 s; after each in vain 1.3 times as long, up to
/// 6 s or what it was at first.
#[test]
fn a_slow_endpoint_is_explored_seldom_and_more_seldom_where_it_is_in_vain() {
    for ((rate, workers), in_vain, from, to) in [
        ((100.0, 1), 0, 10.0, 10.2),
        ((50.0, 2), 0, 10.0, 12.2),
        ((10_000.0, 1), 0, 2.5, 2.7),
        ((1.0, 1), 0, 12.0, 12.2),
        ((10_000.0, 1), 1, 3.2, 3.4),
        ((10_000.0, 1), 2, 4.2, 4.4),
        ((10_000.0, 1), 20, 6.0, 6.2),
        ((100.0, 1), 20, 10.0, 10.2),
    ] {
        let due = slow(4, rate, in_vain).due_from(workers);
        let fits = due.is_some_and(|due| (from..=to).contains(&due));
        assert!(fits, "{rate}/s of {workers}, {in_vain} in vain: {due:?}, not {from} to {to}");
    }
    assert_eq!(slow(4, 100.0, 0).due_after(s(50.0)), Some(16), "four turns of four endpoints");
}

/// What all of its first requests met may be over: four times as long after, but no sooner than after a tenth of the pause.
/// One worker checks, whichever is on duty; the others wait.
#[test]
fn an_endpoint_that_was_slow_from_the_first_is_checked_early_by_one_worker() {
    for (tested_s, from) in [(0.1, 1.0), (0.5, 2.0), (2.0, 8.0), (4.0, 10.0)] {
        for workers in [1, 3] {
            let mut checking = 0;
            for rank in 0..workers {
                let mut cluster = slow(4, 100.0 / f64::from(workers), 0);
                let shard = ProbeShard { rank, workers, is_reporter: false };
                // Its last answer is of the start; one request in ten milliseconds, at 100/s.
                cluster.traffic.first = s(-tested_s);
                let mut due = (0..110).map(|tenth| f64::from(tenth) / 10.0).filter(|seconds| {
                    cluster.has_waited(0, (seconds * cluster.traffic.rate) as u32);
                    cluster.due(shard, s(*seconds)) == [0]
                });
                let first = due.next().unwrap_or(f64::INFINITY);
                if first < 9.9 {
                    checking += 1;
                    assert!(
                        (from..=from + 0.4).contains(&first),
                        "{tested_s} of {workers}: {first}, not {from}"
                    );
                }
            }
            assert_eq!(checking, u32::from(from < 10.0), "{tested_s} of {workers}");
        }
    }
}

#[test]
fn what_answers_quickly_again_is_asked_with_every_turn_until_it_is_not_slow() {
    let mut cluster = slow(4, 100.0, 3);
    cluster.endpoints.states[0].exploration.begin();
    cluster.endpoints.states[0].exploration.answer(true, || true);
    assert_eq!(cluster.due_after(s(0.1)), Some(4));
    for rank in 0..3 {
        let shard = ProbeShard { rank, workers: 3, is_reporter: false };
        assert_eq!(cluster.due(shard, s(0.1)), [0], "the same worker goes on, on duty or not");
    }
    cluster.endpoints.states[0].expected = 0.01;
    for looks in 1..3 {
        assert_eq!(cluster.due(ProbeShard::ALONE, s(0.1)), [0], "{looks} of three");
        cluster.endpoints.states[0].exploration.begin();
        cluster.endpoints.states[0].exploration.answer(true, || true);
    }
    assert_eq!(cluster.due(ProbeShard::ALONE, s(0.1)), [] as [u32; 0]);
    assert!(!cluster.endpoints.states[0].exploration.looks_again(), "that was all");
}

/// The first request after a rest meets cold caches. One that is far off, or slow twice, is not followed.
#[test]
fn a_first_answer_that_is_not_far_off_is_followed_by_another() {
    for (answers, follows, in_vain) in [
        (&[(false, true)][..], true, 0),
        (&[(false, true), (false, true)], false, 1),
        (&[(false, true), (true, true)], true, 0),
        (&[(false, true), (true, true), (false, true)], false, 1),
        (&[(false, false)], false, 1),
        (&[(true, true), (false, true)], false, 1),
    ] {
        let mut exploration = Exploration::default();
        for (well, near) in answers {
            exploration.begin();
            assert!(!exploration.looks_again(), "one is on its way");
            exploration.answer(*well, || *near);
        }
        assert_eq!((exploration.looks_again(), exploration.in_vain()), (follows, in_vain), "{answers:?}");
        exploration.answer(true, || true);
        assert_eq!(exploration.looks_again(), follows, "it is no answer to an exploration");
    }
    let mut exploration = Exploration::default();
    for _ in 0..40 {
        exploration.begin();
        exploration.answer(false, || false);
    }
    assert_eq!(exploration.in_vain(), 15);
}

#[test]
fn one_request_in_a_hundred_explores_and_what_it_finds_is_remembered() {
    let mut cluster = slow(4, 100.0, 0);
    cluster.has_waited(0, ENOUGH);
    let mut explored = 0;
    for _ in 0..300 {
        cluster.traffic.request();
        cluster.due(ProbeShard::ALONE, s(50.0));
        explored += usize::from(cluster.next_due(0, None).is_some());
    }
    assert!((6..=8).contains(&explored), "{explored}: four saved up, three earned");
    cluster.endpoints.states[0].exploration.answer(true, || true);
    assert!(cluster.endpoints.states[0].exploration.looks_again(), "one was on its way");
    // What fails is verified all the same.
    cluster.make(0, Is::Failed);
    cluster.eject();
    cluster.due(ProbeShard::ALONE, s(50.0));
    assert_eq!(cluster.next_due(0, None), Some(0));
}
