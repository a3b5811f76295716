//! Overload by ejection: where the endpoints that are left cannot carry the load, their queues would grow until every request
//! times out. A part of the requests goes to ejected endpoints then, as it would without ejection: what fails there at once
//! makes no other request wait.

use super::Cluster;
use crate::endpoint::Constraints;
use crate::health::State;
use crate::rng::Rng;
use crate::settings::RuleAction;
use crate::time::Time;

/// So many times as much awaits an answer, and for so many times as long, as before the ejection: no more requests than now
/// get through …
const OVERLOADED: f64 = 4.0;
/// … and so many times when there is room again. Queues of a fleet that is busy and keeps up are shorter on average.
const RELIEVED: f64 = 2.0;
/// What awaits an answer is averaged over so many seconds, or over a few times the typical latency where that is longer …
const FOLLOW_S: f64 = 0.25;
const FOLLOW_LATENCIES: f64 = 2.0;
/// … and what is usual over so many times as long.
const USUAL_OVER_FOLLOW: f64 = 20.0;

/// The part rises to its limit within this many seconds, or within the typical latency where that is longer …
const RISE_S: f64 = 0.5;
/// … and falls so many times more slowly, as the queues take time to drain.
const FALL_OVER_RISE: f64 = 10.0;

/// The part of the requests that goes to ejected endpoints, and to which.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    part: f64,
    to: Vec<u32>,
    /// What awaits an answer of the eligible endpoints now, and what is usual: without an ejected endpoint; else the least since.
    now: Backlog,
    usual: Option<Backlog>,
}

/// Requests that await an answer, and the seconds that all of them together have waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Backlog {
    requests: f64,
    waited_s: f64,
}

impl Backlog {
    fn age(&self) -> f64 {
        if self.requests > 0.0 { self.waited_s / self.requests } else { 0.0 }
    }

    /// `self`, a step `by` closer to `other`.
    fn towards(self, other: Backlog, by: f64) -> Backlog {
        let step = |from: f64, to: f64| from + by * (to - from);
        Backlog { requests: step(self.requests, other.requests), waited_s: step(self.waited_s, other.waited_s) }
    }
}

impl Overflow {
    /// Whether any request goes to ejected endpoints.
    #[inline]
    pub fn any(&self) -> bool {
        self.part > 0.0
    }

    /// The ejected endpoint that gets this request, if it is one too many for the others.
    #[cold]
    #[inline(never)]
    pub fn draw(&self, rng: &mut Rng) -> Option<u32> {
        if rng.unit() >= self.part {
            return None;
        }
        self.to.get(rng.below(self.to.len() as u32) as usize).copied()
    }

    /// Follows what awaits an answer, `seconds` after the last time, with a typical latency of `typical` seconds.
    fn follow(&mut self, backlog: Backlog, ejected: bool, typical: f64, seconds: f64) {
        let follow = FOLLOW_S.max(FOLLOW_LATENCIES * typical);
        self.now = self.now.towards(backlog, (seconds / follow).min(1.0));
        let usual = self.usual.unwrap_or(self.now);
        self.usual = Some(if ejected {
            if self.now.age() < usual.age() || self.now.requests < usual.requests {
                let requests = usual.requests.min(self.now.requests);
                Backlog { requests, waited_s: requests * usual.age().min(self.now.age()) }
            } else { usual }
        } else {
            usual.towards(self.now, (seconds / (follow * USUAL_OVER_FOLLOW)).min(1.0))
        });
    }

    /// How many times as much awaits an answer, and how many times as long, as is usual: the lesser of both. More requests alone
    /// are a busy hour, older ones alone a heavy request.
    fn slow_down(&self, typical: f64) -> f64 {
        let usual = self.usual.unwrap_or(self.now);
        let more = (self.now.requests + 1.0) / (usual.requests + 1.0);
        let older = self.now.age() / usual.age().max(0.5 * typical).max(1e-6);
        more.min(older)
    }

    /// Follows the slow-down of those that are left, `seconds` after the last time; no more than the part `limit` that
    /// the ejected endpoints would have if they were not.
    fn settle(&mut self, limit: f64, typical: f64, seconds: f64) {
        let (slow_down, rise_s) = (self.slow_down(typical), RISE_S.max(typical));
        let step = if slow_down > OVERLOADED {
            limit * seconds / rise_s
        } else if slow_down < RELIEVED {
            -limit * seconds / (rise_s * FALL_OVER_RISE)
        } else {
            0.0
        };
        self.part = (self.part + step).clamp(0.0, limit);
    }
}

impl Cluster {
    /// Decides how much goes to ejected endpoints, `seconds` after the last time. A fleet that is divided into versions,
    /// priorities or zones has others to turn to, as have keys.
    pub(super) fn settle_overflow(&mut self, seconds: f64, now: Time) {
        // A key whose owner is ejected has another one until it is back.
        let divided =
            self.subsets.list.len() != 1 || self.subsets.list.iter().any(|g| g.policy.owner(0).is_some());
        if divided {
            self.ejection.overflow = Overflow::default();
            return;
        }
        let (mut eligible, mut ejected) = (0.0, 0.0);
        let mut backlog = Backlog::default();
        let overflow = &mut self.ejection.overflow;
        overflow.to.clear();
        for (index, member) in (0u32..).zip(&self.endpoints.states).filter(|(_, m)| m.present) {
            if member.eligible {
                eligible += f64::from(member.weight);
                let (requests, waited_s) = self.endpoints.peers.of(index, member).backlog(now);
                backlog.requests += requests;
                backlog.waited_s += waited_s;
            } else if is_only_failing(member.health.state(), &member.constraints) {
                ejected += f64::from(member.weight);
                overflow.to.push(index);
            }
        }
        let limit = if ejected > 0.0 { ejected / (eligible + ejected) } else { 0.0 };
        let typical = self.subsets.list.first().map_or(self.typical, |g| g.latency.typical);
        overflow.follow(backlog, ejected > 0.0, typical, seconds);
        overflow.settle(limit, typical, seconds);
    }
}

/// Whether nothing but its failures keeps an endpoint out: not what Envoy or a rule says, nor a pause that it asked for.
fn is_only_failing(state: State, constraints: &Constraints) -> bool {
    let Constraints { announced, ruled, word, .. } = constraints;
    state != State::Healthy
        && !announced.is_unavailable()
        && *ruled != Some(RuleAction::Eject)
        && !word.held()
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::endpoint::AnnouncedHealth;

    #[test]
    fn the_part_follows_the_slow_down_up_to_what_there_would_be_without_ejection() {
        let mut overflow = Overflow::default();
        let second = |overflow: &mut Overflow, slow_down: f64| {
            (0..100).for_each(|_| overflow.observe(0.02 * slow_down));
            (0..100).for_each(|_| overflow.settle(0.5, 0.0, 0.5, 0.01));
        };
        second(&mut overflow, 1.0);
        second(&mut overflow, 3.9);
        assert_eq!(overflow.part, 0.0, "busy is not overloaded");
        second(&mut overflow, 20.0);
        assert_eq!(overflow.part, 0.5);
        second(&mut overflow, 3.0);
        assert_eq!(overflow.part, 0.5, "kept between the two");
        second(&mut overflow, 1.0);
        assert!((0.3..0.5).contains(&overflow.part), "{}", overflow.part);
        (0..10).for_each(|_| second(&mut overflow, 1.0));
        assert_eq!(overflow.part, 0.0);
        second(&mut overflow, 100.0);
        overflow.settle(0.0, 0.0, 0.5, 10.0);
        assert_eq!(overflow.part, 0.0, "none is ejected");
    }

    /// Of every width, as long as the endpoints keep up.
    #[test]
    fn wide_work_is_no_overload() {
        for sigma in [0.2, 0.5, 1.0, 1.5, 2.0] {
            let mut rng = Rng::new(3);
            let mut overflow = Overflow::default();
            let mut most: f64 = 0.0;
            for _ in 0..20_000 {
                // The sum of twelve uniform numbers is nearly normal, of variance 1.
                let normal = (0..12).map(|_| rng.unit()).sum::<f64>() - 6.0;
                overflow.observe(0.02 * (sigma * normal).exp());
                overflow.settle(0.5, sigma, 0.5, 0.005);
                most = most.max(overflow.part);
            }
            assert!(most < 0.05, "{sigma}: {most}");
        }
    }

    #[test]
    fn what_else_keeps_an_endpoint_out_counts() {
        let free = Constraints::default;
        assert!(is_only_failing(State::Failed, &free()));
        assert!(!is_only_failing(State::Healthy, &free()), "nothing is wrong with it");
        let ruled = Constraints { ruled: Some(RuleAction::Eject), ..free() };
        let draining = Constraints { announced: AnnouncedHealth::Draining, ..free() };
        assert!(!is_only_failing(State::Failed, &ruled) && !is_only_failing(State::Failed, &draining));
    }

    #[test]
    fn drawn_are_ejected_endpoints_and_as_often_as_is_due() {
        let mut rng = Rng::new(7);
        let overflow = Overflow { part: 0.25, to: vec![3, 5], ..Overflow::default() };
        let drawn: Vec<u32> = (0..4000).filter_map(|_| overflow.draw(&mut rng)).collect();
        // Binomial: 1000 of 4000, standard deviation 27.4; five of them.
        assert!((863..=1137).contains(&drawn.len()), "{}", drawn.len());
        assert!(drawn.iter().all(|index| [3, 5].contains(index)) && drawn.contains(&3) && drawn.contains(&5));
        assert!((0..100).all(|_| Overflow { part: 1.0, ..Overflow::default() }.draw(&mut rng).is_none()));
    }
}
