//! Overload by ejection: where the endpoints that are left cannot carry the load, their queues would grow until every request
//! times out. A part of the requests goes to ejected endpoints then, as it would without ejection: what fails there at once
//! makes no other request wait.

use super::Cluster;
use crate::health::State;
use crate::rng::Rng;
use crate::time::Time;

/// Answers take so many times as long as idle endpoints take: no more requests than now get through …
const OVERLOADED: f64 = 4.0;
/// … and so many times when there is room again. Queues of a fleet that is busy and keeps up are shorter on average.
const RELIEVED: f64 = 2.0;
/// The part rises to its limit within this many seconds, or within the typical latency where that is longer …
const RISE_S: f64 = 0.5;
/// … and falls so many times more slowly, as the queues take time to drain.
const FALL_OVER_RISE: f64 = 10.0;

/// The part of the requests that goes to ejected endpoints, and to which.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    part: f64,
    to: Vec<u32>,
}

impl Overflow {
    /// The ejected endpoint that gets this request, if it is one too many for the others.
    pub fn draw(&self, rng: &mut Rng) -> Option<u32> {
        if self.part <= 0.0 || rng.unit() >= self.part {
            return None;
        }
        self.to.get(rng.below(self.to.len() as u32) as usize).copied()
    }

    /// Follows the slow-down of those that are left, `seconds` after the last time; no more than the part `limit` that
    /// the ejected endpoints would have if they were not.
    fn settle(&mut self, slow_down: f64, limit: f64, typical: f64, seconds: f64) {
        let rise_s = RISE_S.max(typical);
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
    /// priorities or zones has others to turn to.
    pub(super) fn settle_overflow(&mut self, seconds: f64, now: Time) {
        self.ejection.overflow.to.clear();
        if self.ejection.out == 0 || self.subsets.list.len() != 1 {
            self.ejection.overflow.part = 0.0;
            return;
        }
        let (mut weight, mut speed, mut ejected) = (0.0, 0.0, 0.0);
        let (typical, unit) =
            self.subsets.list.first().map_or((self.typical, 1.0), |g| (g.latency.typical, g.turns.unit));
        for (index, member) in self.endpoints.views() {
            let own = f64::from(member.weight);
            if member.eligible {
                let crowd = f64::from(member.pending()) * f64::from(unit) / own;
                let queue = f64::from(self.queueing.delay((crowd - 1.0).max(0.0) as u32));
                let silence = member.min_latency(now) / typical.max(1e-6);
                weight += own;
                speed += own / queue.max(silence).max(1.0);
            } else if member.health.state() != State::Healthy
                && !member.constraints.announced.is_unavailable()
            {
                ejected += own;
                self.ejection.overflow.to.push(index);
            }
        }
        let slow_down = if speed > 0.0 { weight / speed } else { 1.0 };
        let limit = if ejected > 0.0 { ejected / (weight + ejected) } else { 0.0 };
        self.ejection.overflow.settle(slow_down, limit, typical, seconds);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_part_follows_the_slow_down_up_to_what_there_would_be_without_ejection() {
        let mut overflow = Overflow::default();
        let second = |overflow: &mut Overflow, slow_down| {
            (0..100).for_each(|_| overflow.settle(slow_down, 0.5, 0.02, 0.01));
        };
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
        overflow.settle(100.0, 0.0, 0.02, 10.0);
        assert_eq!(overflow.part, 0.0, "none is ejected");
    }

    #[test]
    fn drawn_are_ejected_endpoints_and_as_often_as_is_due() {
        let mut rng = Rng::new(7);
        let overflow = Overflow { part: 0.25, to: vec![3, 5] };
        let drawn: Vec<u32> = (0..4000).filter_map(|_| overflow.draw(&mut rng)).collect();
        // Binomial: 1000 of 4000, standard deviation 27.4; five of them.
        assert!((863..=1137).contains(&drawn.len()), "{}", drawn.len());
        assert!(drawn.iter().all(|index| [3, 5].contains(index)) && drawn.contains(&3) && drawn.contains(&5));
        assert!((0..100).all(|_| Overflow { part: 1.0, to: Vec::new() }.draw(&mut rng).is_none()));
    }
}
