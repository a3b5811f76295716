//! A subset that is silent as a whole is left, and tried again now and then.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::decision::{Decision, RequestHandle};
use crate::outcome::{Outcome, Quickness};
use crate::policy::Request;
use crate::rng::Rng;

/// Two priorities of two endpoints each that answer after 20 ms.
struct Traffic {
    cluster: Cluster,
    rng: Rng,
    /// Number of hundredths of a second that have passed.
    passed: u32,
    open: Vec<(RequestHandle, u32)>,
}

impl Traffic {
    fn new() -> Traffic {
        let at = |nth| Spec { priority: u32::from(nth > 2), ..endpoint(nth) };
        Traffic::to(cluster(&settings(), &[1, 2, 3, 4].map(at)))
    }

    fn to(cluster: Cluster) -> Traffic {
        Traffic { cluster, rng: Rng::new(5), passed: 0, open: Vec::new() }
    }

    fn now(&self) -> Time {
        s(f64::from(self.passed) / 100.0)
    }

    fn send(&mut self, index: u32, hangs: bool) {
        let now = self.now();
        let (endpoint, depth) = self.cluster.started(index, now).unwrap();
        if !hangs {
            self.open.push((RequestHandle { upstream: 0, endpoint, started: now, depth }, self.passed + 2));
        }
    }

    /// So many seconds with a request every so many hundredths of one; where the first priority `hangs`, what it gets is
    /// never answered. Returns when it got requests, in hundredths of a second.
    fn run(&mut self, seconds: u32, every: u32, hangs: bool) -> Vec<u32> {
        let mut sent = Vec::new();
        for _ in 0..100 * seconds {
            self.passed += 1;
            let (now, passed) = (self.now(), self.passed);
            for (handle, _) in self.open.iter().filter(|open| open.1 == passed) {
                self.cluster.record_response(handle, Outcome::Good, Quickness::Shown, now);
                self.cluster.finished(handle.endpoint, now);
            }
            self.open.retain(|open| open.1 != passed);
            self.cluster.tick(ProbeShard::ALONE, now);
            if !passed.is_multiple_of(every) {
                continue;
            }
            if let Decision::Steer(candidates) = self.cluster.pick(Request::wanting(1), now, &mut self.rng) {
                let index = candidates.first().unwrap();
                self.send(index, hangs && index < 2);
                sent.extend((index < 2).then_some(passed));
            }
        }
        sent
    }
}

/// Streams without a header for hours, then a pause without other requests: that is no reason to leave for hours.
#[test]
fn what_was_left_for_its_silence_has_its_requests_again_once_it_answers_one() {
    let mut traffic = Traffic::new();
    assert_eq!(traffic.run(5, 10, false).len(), 50);
    (0..12).for_each(|nth| traffic.send(nth % 2, true));
    traffic.run(2, u32::MAX, false);
    let load = traffic.cluster.subsets.list[0].division.load;
    assert!(load < 0.5, "{load}: it answers nothing");
    traffic.run(10, 10, false);
    let sent = traffic.run(10, 10, false);
    assert!(sent.len() >= 95, "{} of 100", sent.len());
}

#[test]
fn what_hangs_as_a_whole_costs_a_request_at_times_that_double() {
    let mut traffic = Traffic::new();
    traffic.run(5, 1, false);
    let sent = traffic.run(60, 1, true);
    let looks: Vec<u32> = sent.into_iter().filter(|at| *at > 620).collect();
    assert!((4..=12).contains(&looks.len()), "{looks:?}");
    assert!(looks.last() > Some(&3000), "{looks:?}");
    // It is back within about as long as it was away.
    traffic.run(60, 1, false);
    assert_eq!(traffic.run(1, 1, false).len(), 100);
}

/// That it hangs is pressure, too, by which a zone keeps next to nothing: a look is not lowered by that.
#[test]
fn a_local_zone_that_hangs_is_looked_at_as_often() {
    let zone = Some(settings::Zone { local: "a".into(), spill_over_percent: 70.0 });
    let at = |nth| Spec { zone: if nth > 2 { "b" } else { "a" }.into(), ..endpoint(nth) };
    let settings = settings::Upstream { zone, ..settings() };
    let mut traffic = Traffic::to(cluster(&settings, &[1, 2, 3, 4].map(at)));
    traffic.run(5, 10, false);
    let sent = traffic.run(60, 10, true);
    let looks: Vec<u32> = sent.into_iter().filter(|at| *at > 1000).collect();
    assert!((3..=12).contains(&looks.len()), "{looks:?}");
    traffic.run(60, 10, false);
    assert!(traffic.run(10, 10, false).len() > 90);
}
