//! An endpoint that leaves requests unanswered until their clients give up, under policies that do not look at latency.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::decision::{Decision, RequestHandle};
use crate::health::State;
use crate::outcome::{Outcome, Quickness};
use crate::policy::Request;
use crate::rng::Rng;

/// A cluster with 100 requests a second, some of whose endpoints hang.
struct Traffic {
    cluster: Cluster,
    rng: Rng,
    /// Number of hundredths of a second that have passed.
    passed: u32,
    open: Vec<(RequestHandle, Outcome, u32)>,
    /// When requests were sent to the first endpoint while it hung, in hundredths of a second.
    lost: Vec<u32>,
    /// Time after which a client gives up, in hundredths of a second.
    patience: u32,
}

impl Traffic {
    fn new(policy: settings::Policy, patience: u32) -> Traffic {
        let cluster = cluster(&settings::Upstream { policy, ..settings() }, &fleet(6));
        Traffic { cluster, rng: Rng::new(7), passed: 0, open: Vec::new(), lost: Vec::new(), patience }
    }

    fn now(&self) -> Time {
        s(f64::from(self.passed) / 100.0)
    }

    fn send(&mut self, index: u32, hang: &[u32]) {
        let now = self.now();
        let (endpoint, depth) = self.cluster.started(index, now).unwrap();
        let handle = RequestHandle { upstream: 0, endpoint, started: now, depth };
        let (outcome, lasts) =
            if hang.contains(&index) { (Outcome::Cancelled, self.patience) } else { (Outcome::Good, 2) };
        self.open.push((handle, outcome, self.passed + lasts));
        if index == 0 && hang.contains(&0) {
            self.lost.push(self.passed);
        }
    }

    /// So many seconds, in which the endpoints `hang` answer nothing.
    fn run(&mut self, seconds: u32, hang: &[u32]) {
        for _ in 0..100 * seconds {
            self.passed += 1;
            let (now, passed) = (self.now(), self.passed);
            for (handle, outcome, _) in self.open.iter().filter(|open| open.2 == passed) {
                self.cluster.record_response(handle, *outcome, Quickness::Shown, now);
                self.cluster.finished(handle.endpoint, now);
            }
            self.open.retain(|open| open.2 != passed);
            self.cluster.tick(ProbeShard::ALONE, now);
            let key = Some(rng::mix(u64::from(passed)));
            let request = Request { key, want: 1 };
            if let Decision::Steer(candidates) = self.cluster.pick(request, now, &mut self.rng) {
                self.send(candidates.first().unwrap(), hang);
            }
        }
    }

    fn state(&self) -> State {
        self.cluster.endpoint(0).unwrap().health.state()
    }
}

/// One request every sixth of the longest ejection, until one is answered.
#[test]
fn what_its_clients_have_given_up_on_is_still_owed() {
    for (policy, patience) in [
        (settings::Policy::RoundRobin, 150),
        (settings::Policy::RoundRobin, 1200),
        (settings::Policy::WeightedRoundRobin, 150),
        (settings::Policy::Random, 150),
        (settings::Policy::IpHash, 150),
        (settings::Policy::IpHash, 1200),
    ] {
        let case = format!("{policy:?}, patience {patience}");
        let mut traffic = Traffic::new(policy, patience);
        traffic.run(5, &[]);
        traffic.run(60, &[0]);
        let lost = &traffic.lost;
        assert_eq!(traffic.state(), State::Stalled, "{case}: {lost:?}");
        assert!((8..=16).contains(&lost.iter().filter(|sent| **sent > 800).count()), "{case}: {lost:?}");
        let pauses = lost.windows(2).filter(|pair| pair[0] > 800).map(|pair| pair[1] - pair[0]);
        assert!(pauses.clone().all(|pause| (490..=700).contains(&pause)), "{case}: {lost:?}");
        traffic.run(12, &[]);
        assert_eq!(traffic.state(), State::Healthy, "{case}: one was answered");
    }
}

/// Under a policy that sends nothing more where one waits, no three wait at a time.
#[test]
fn what_is_given_up_one_by_one_is_owed_as_well() {
    for patience in [30, 150, 400] {
        let mut traffic = Traffic::new(settings::Policy::LeastRequest, patience);
        traffic.run(5, &[]);
        traffic.run(60, &[0]);
        let lost = &traffic.lost;
        assert_eq!(traffic.state(), State::Stalled, "{patience}: {lost:?}");
        assert!(lost.iter().filter(|sent| **sent > 1800).count() <= 12, "{patience}: {lost:?}");
        traffic.run(12, &[]);
        assert_eq!(traffic.state(), State::Healthy, "{patience}");
    }
}

/// Requests that were given up while the endpoint was stalled no longer count once it has answered.
#[test]
fn an_answer_clears_what_was_owed() {
    let mut traffic = Traffic::new(settings::Policy::RoundRobin, 150);
    traffic.run(5, &[]);
    traffic.run(20, &[0]);
    traffic.run(20, &[]);
    assert_eq!(traffic.state(), State::Healthy);
    let before = traffic.lost.len();
    traffic.run(2, &[0]);
    let again = traffic.lost.len() - before;
    assert!((3..=8).contains(&again), "three wait before it is stalled again: {again}");
}

/// A fault of most endpoints is common, and their clients' patience changes nothing.
#[test]
fn where_most_endpoints_are_silent_none_is_stalled() {
    let mut traffic = Traffic::new(settings::Policy::RoundRobin, 150);
    traffic.run(5, &[]);
    traffic.run(10, &[0, 1, 2, 3]);
    assert!(traffic.cluster.endpoints.states.iter().all(|m| m.health.state() != State::Stalled));
    traffic.run(5, &[]);
    assert_eq!(traffic.cluster.in_use().len(), 6);
}

/// The endpoint has no request for hours because the clock was set, and is no less stalled for it.
#[test]
fn a_clock_that_steps_back_does_not_hide_that_it_hangs() {
    let mut traffic = Traffic::new(settings::Policy::RoundRobin, 150);
    traffic.passed = 400_000;
    traffic.run(5, &[]);
    traffic.run(4, &[0]);
    assert_eq!(traffic.state(), State::Stalled);
    traffic.open.clear();
    traffic.passed -= 360_000;
    let now = traffic.now();
    traffic.cluster.not_after(now);
    traffic.run(10, &[0]);
    assert_eq!(traffic.state(), State::Stalled);
}

/// Its connections to this worker may be dead, and those to others not.
#[test]
fn another_workers_answer_clears_as_well() {
    let mut traffic = Traffic::new(settings::Policy::RoundRobin, 150);
    traffic.run(5, &[]);
    for (sent_s, state) in [(-9.9, State::Stalled), (-1.0, State::Healthy)] {
        traffic.run(10, &[0]);
        assert_eq!(traffic.state(), State::Stalled);
        let now = traffic.now();
        let good = GoodRun { count: 1, start: s(f64::from(traffic.passed) / 100.0 + sent_s) };
        let answered = crate::health::Evidence { good, ..Default::default() };
        let identity = traffic.cluster.endpoints.set.identities()[0];
        traffic.cluster.forget_others(now);
        traffic.cluster.merge_other(identity, &crate::endpoint::PeerReport::default(), &answered);
        traffic.cluster.refresh(now);
        assert_eq!(traffic.state(), state, "sent {sent_s} s ago");
    }
}
