//! Overflow to ejected endpoints. Where the remaining endpoints cannot carry the load, their queues would grow until
//! every request times out. A part of the requests then goes to ejected endpoints, as it would without ejection: a
//! request that fails there at once delays no other.

use super::Cluster;
use crate::endpoint::Constraints;
use crate::health::State;
use crate::order;
use crate::rng::Rng;
use crate::settings::RuleAction;

/// Overload threshold: unanswered requests over the number that rate and usual latency explain (Little's law). At this
/// ratio no more requests get through than before. The queues of a busy fleet that keeps up are shorter on average.
const OVERLOADED: f64 = 4.5;
/// Overload threshold where ejected endpoints fail almost nothing; in between, it is interpolated by their failure
/// ratio.
const BUSY: f64 = 1.25;
/// Allowance for chance in small counts, requests: the tail of a Poisson distribution beyond the threshold is then
/// 2·10⁻⁵ at most.
const CHANCE: f64 = 2.0;
/// Minimum averaging time for unanswered requests, seconds.
const FOLLOW_S: f64 = 0.25;
/// Minimum averaging time in multiples of the usual latency.
const FOLLOW_LATENCIES: f64 = 2.0;
/// Minimum averaging time in requests, where ejected endpoints serve some.
const FOLLOW_REQUESTS: f64 = 4.0;
/// Maximum number of unanswered requests that counts, in multiples of what there would be if every endpoint had as many for
/// its weight as the median one by weight: queues that chance makes unequal differ by less.
const UNEVEN: f64 = 2.0;
/// Window of the usual latency, answers.
const ANSWERS: f64 = 4096.0;
/// Minimum number of answers before the usual latency is trusted.
const ENOUGH: f64 = 8.0;
/// Minimum observation time before the usual latency is trusted, in multiples of it.
const LONG_ENOUGH: f64 = 2.0;

/// Time in which the part rises from zero to its limit, seconds, or the usual latency where that is longer.
const RISE_S: f64 = 0.5;
/// Ratio of the falling to the rising time: queues take time to drain.
const FALL_OVER_RISE: f64 = 10.0;

/// Maximum time without ejections until what is usual is learnt again, seconds: queues that an ejection left are gone
/// sooner, however long it lasted.
const MAX_TROUBLED_S: f64 = 60.0;

/// The part of the requests that goes to ejected endpoints, and the endpoints that get it.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    part: f64,
    /// These endpoints, each with the sum of the weights up to its own.
    to: Vec<(u32, f64)>,
    /// Smoothed number of unanswered requests at eligible endpoints, while others are ejected.
    awaiting: Option<f64>,
    /// Number of answers while no endpoint was ejected, or while too little was known.
    answers: f64,
    /// Sum of the latencies of these answers, seconds; until enough is known, the time that requests spent in flight.
    seconds: f64,
    /// Sum of the squared latencies of these answers, s².
    squares: f64,
    /// Time during which this worker had requests in flight, seconds.
    watched_s: f64,
    /// Whether the usual latency is known.
    known: bool,
    /// Time with ejected endpoints less the time since without, seconds: queues remain longer than usual for a while.
    troubled_s: f64,
}

impl Overflow {
    /// Whether any requests go to ejected endpoints.
    #[inline]
    pub fn any(&self) -> bool {
        !self.to.is_empty() && self.part > 0.0
    }

    /// Draws whether this request exceeds what the others can carry, and which ejected endpoint gets it.
    #[cold]
    #[inline(never)]
    pub fn draw(&self, rng: &mut Rng) -> Option<u32> {
        if rng.unit() >= self.part {
            return None;
        }
        let at = rng.unit() * self.to.last()?.1;
        self.to.get(self.to.partition_point(|(_, weights)| *weights <= at)).map(|(index, _)| *index)
    }

    /// Mean latency while no endpoint is ejected, seconds, if it is known.
    pub fn usual_s(&self) -> Option<f64> {
        self.known.then(|| self.seconds / self.answers)
    }

    /// Records an answer after `seconds`, with `out` endpoints ejected.
    #[inline]
    pub fn observe(&mut self, seconds: f64, out: usize) {
        if self.known && (out > 0 || self.troubled_s > 0.0) {
            return;
        }
        self.answers += 1.0;
        self.squares += seconds * seconds;
        if self.known {
            self.seconds += seconds;
            if self.answers > ANSWERS {
                for sum in [&mut self.answers, &mut self.seconds, &mut self.squares] {
                    *sum *= 0.5;
                }
            }
        }
    }

    /// Learns the usual latency from this worker's requests in flight, `seconds` after the last call. The first answers
    /// come from the fastest requests; the total time in flight over the number of answers is unbiased by that: the
    /// estimate of a mean from censored lifetimes.
    fn learn(&mut self, in_flight: f64, seconds: f64) {
        self.seconds += in_flight * seconds;
        self.watched_s += if in_flight > 0.0 { seconds } else { 0.0 };
        self.known = self.answers >= ENOUGH && self.watched_s > LONG_ENOUGH * self.seconds / self.answers;
    }

    /// Lets the part decay over `seconds` in which no endpoint is ejected, or too little is known. It is not reset,
    /// because an endpoint with intermittent failures returns and is ejected again within seconds, faster than queues
    /// drain.
    fn rest(&mut self, seconds: f64) {
        self.to.clear();
        self.awaiting = None;
        self.part *= (1.0 - seconds / (RISE_S * FALL_OVER_RISE)).max(0.0);
    }

    /// Updates the part from the number of unanswered requests at eligible endpoints, `seconds` after the last call.
    /// `limit` is the part that the ejected endpoints would get if they were not ejected, `failing` their failure
    /// ratio.
    fn settle(&mut self, awaiting: f64, (limit, failing): (f64, f64), rate: f64, seconds: f64) {
        let usual_s = self.seconds / self.answers;
        let mut follow = FOLLOW_S.max(FOLLOW_LATENCIES * usual_s);
        let mut chance = CHANCE;
        if failing < 1.0 {
            follow = follow.max(FOLLOW_REQUESTS / rate);
            chance *= FOLLOW_LATENCIES * usual_s / follow;
        }
        let before = self.awaiting.unwrap_or(awaiting);
        let now = before + (awaiting - before) * (seconds / follow).min(1.0);
        self.awaiting = Some(now);
        // Queues of a fleet that keeps up grow with the variance of the work (Kingman's formula): 1 for exponential
        // times.
        let width = (0.5 * self.squares / (self.answers * usual_s * usual_s)).max(1.0);
        let many = BUSY + (OVERLOADED - BUSY) * failing;
        let overloaded = now + chance > many * width * (rate * usual_s + chance);
        let step =
            if overloaded { 1.0 } else { -1.0 / FALL_OVER_RISE } * limit * seconds / RISE_S.max(usual_s);
        self.part = (self.part + step).clamp(0.0, limit);
    }
}

impl Cluster {
    /// Updates the overflow, `seconds` after the last call. There is none in a cluster that is divided into versions,
    /// priorities or zones, which has other endpoints to turn to, nor with a policy by key.
    #[inline(never)]
    pub(super) fn settle_overflow(&mut self, seconds: f64) {
        // A key whose owner is ejected moves to another owner until it is back.
        let divided =
            self.subsets.list.len() != 1 || self.subsets.list.iter().any(|g| g.policy.owner(0).is_some());
        if divided {
            self.ejection.overflow = Overflow::default();
            return;
        }
        let overflow = &mut self.ejection.overflow;
        let troubled = if self.ejection.out > 0 { seconds } else { -seconds };
        overflow.troubled_s = (overflow.troubled_s + troubled).clamp(0.0, MAX_TROUBLED_S);
        if !overflow.known {
            let own = self.subsets.list.first().map_or(0, |subset| subset.in_flight);
            overflow.learn(f64::from(own), seconds);
        }
        if self.ejection.out == 0 || !overflow.known {
            overflow.rest(seconds);
            return;
        }
        let (mut eligible, mut awaiting) = (0.0, 0.0);
        let mut depths = Vec::new();
        // Weight and failing weight of the ejected endpoints: of those that serve some requests, or of all if none
        // does. An endpoint that serves nothing gets nothing while others serve some.
        let (mut ejected, mut failed, mut some_serve) = (0.0, 0.0, false);
        overflow.to.clear();
        for (index, endpoint) in (0u32..).zip(&self.endpoints.states).filter(|(_, m)| m.present) {
            let weight = f64::from(endpoint.weight);
            if endpoint.eligible {
                let pending = f64::from(self.endpoints.peers.of(index, endpoint).pending());
                eligible += weight;
                awaiting += pending;
                depths.push((pending / weight, weight));
            } else if is_only_failing(endpoint.health.state(), &endpoint.constraints) {
                let others = self.endpoints.peers.of(index, endpoint).others_evidence();
                let fails = endpoint.health.fails_at_times(&others);
                if fails.is_some() && !some_serve {
                    (ejected, failed, some_serve) = (0.0, 0.0, true);
                    overflow.to.clear();
                }
                if fails.is_some() == some_serve {
                    ejected += weight;
                    failed += weight * fails.unwrap_or(1.0);
                    overflow.to.push((index, ejected));
                }
            }
        }
        let (limit, failing) =
            if ejected > 0.0 { (ejected / (eligible + ejected), failed / ejected) } else { (0.0, 1.0) };
        // Requests that wait at one endpoint, because it hangs or is slow, are no sign that the others are full.
        let awaiting = awaiting.min(UNEVEN * median_by_weight(&mut depths, eligible) * eligible);
        overflow.settle(awaiting, (limit, failing), self.traffic.rate_of_all(), seconds);
    }
}

/// The lower median of values with weights, which add up to `all`: one of little weight that is idle is no half of the
/// endpoints.
fn median_by_weight(values: &mut [(f64, f64)], all: f64) -> f64 {
    order::sort_by(values, |one, other| one.0 < other.0);
    let mut weights = 0.0;
    let middle = values.iter().find(|(_, weight)| {
        weights += weight;
        2.0 * weights >= all
    });
    middle.map_or(0.0, |(value, _)| *value)
}

/// Whether an endpoint is ejected for its failures alone: not by announced health, a rule, or a pause that it asked
/// for.
fn is_only_failing(state: State, constraints: &Constraints) -> bool {
    let Constraints { announced, ruled, hints, .. } = constraints;
    state != State::Healthy
        && !announced.is_unavailable()
        && *ruled != Some(RuleAction::Eject)
        && !hints.held()
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::endpoint::AnnouncedHealth;

    /// An overflow that knows a usual latency of 20 ms.
    fn usual() -> Overflow {
        let mut overflow = Overflow::default();
        (0..50).for_each(|_| overflow.observe(0.02, 0));
        overflow.learn(1.0, 1.0);
        overflow
    }

    #[test]
    fn the_part_follows_what_awaits_an_answer_up_to_what_there_would_be_without_ejection() {
        let mut overflow = usual();
        let second = |overflow: &mut Overflow, all: f64| {
            (0..100).for_each(|_| overflow.settle(all, (0.5, 1.0), 100.0, 0.01));
        };
        second(&mut overflow, 2.0);
        second(&mut overflow, 9.0);
        assert_eq!(overflow.part, 0.0, "busy is not overloaded");
        second(&mut overflow, 100.0);
        assert!(overflow.part > 0.4, "{}", overflow.part);
        second(&mut overflow, 100.0);
        assert_eq!(overflow.part, 0.5);
        second(&mut overflow, 2.0);
        assert!((0.3..0.5).contains(&overflow.part), "{}", overflow.part);
        (0..10).for_each(|_| second(&mut overflow, 2.0));
        assert_eq!(overflow.part, 0.0);
        second(&mut overflow, 100.0);
        overflow.settle(100.0, (0.0, 1.0), 100.0, 10.0);
        assert_eq!(overflow.part, 0.0, "none is ejected");
    }

    #[test]
    fn more_requests_are_no_overload() {
        let mut overflow = usual();
        for rate in [1.0, 100.0, 10_000.0] {
            (0..1000).for_each(|_| overflow.settle(0.02 * rate, (0.5, 1.0), rate, 0.01));
            assert_eq!(overflow.part, 0.0, "{rate}");
        }
    }

    #[test]
    fn what_ejected_endpoints_serve_is_worth_the_less_they_fail() {
        // Number of unanswered requests; two are usual.
        let opens = |failing: f64| {
            (1..100).find(|awaiting| {
                let mut overflow = usual();
                (0..1000).for_each(|_| overflow.settle(f64::from(*awaiting), (0.5, failing), 100.0, 0.01));
                overflow.part > 0.0
            })
        };
        let opens: Vec<_> = [0.1, 0.4, 0.7, 1.0].map(opens).into_iter().flatten().collect();
        assert!(opens.is_sorted() && opens.len() == 4 && opens[0] * 3 < opens[3], "{opens:?}");
        let mut seldom = usual();
        (0..1000).for_each(|_| seldom.settle(0.1, (0.5, 0.1), 1.0, 0.01));
        assert!(seldom.part > 0.0, "five times as many as usual, with a request a second");
        (0..1000).for_each(|_| seldom.settle(0.1, (0.5, 0.1), 0.0, 0.01));
        assert!(seldom.part.is_finite());
    }

    #[test]
    fn overload_does_not_become_usual() {
        let mut overflow = usual();
        (0..10_000).for_each(|_| overflow.observe(2.0, 1));
        assert!(((overflow.seconds / overflow.answers) - 0.02).abs() < 1e-9);
        (0..100_000).for_each(|_| overflow.observe(0.03, 0));
        assert!(((overflow.seconds / overflow.answers) - 0.03).abs() < 1e-4, "but what is usual may change");
    }

    /// Log-normal work around 20 ms: the sum of twelve uniform numbers is nearly normal, of variance 1.
    fn takes(sigma: f64, rng: &mut Rng) -> f64 {
        0.02 * (sigma * ((0..12).map(|_| rng.unit()).sum::<f64>() - 6.0)).exp()
    }

    /// The largest overflow in `requests` requests with log-normal work of width `sigma`, where the endpoints keep up:
    /// the number in flight is Poisson (M/G/∞). One endpoint is ejected `from` this request on.
    fn most(sigma: f64, rate: f64, from: u32, requests: u32, rng: &mut Rng) -> f64 {
        let mut overflow = Overflow::default();
        let mut ends: Vec<f64> = Vec::new();
        let (mut now, mut next, mut sent, mut most): (f64, f64, u32, f64) = (0.0, 0.0, 0, 0.0);
        while sent < requests {
            now += 0.02;
            while next < now {
                ends.push(next + takes(sigma, rng));
                next -= rng.unit().max(1e-12).ln() / rate;
                sent += 1;
            }
            let out = usize::from(sent >= from);
            let answered = ends.iter().filter(|end| **end <= now).count();
            ends.retain(|end| *end > now);
            (0..answered).for_each(|_| overflow.observe(takes(sigma, rng), out));
            if !overflow.known {
                overflow.learn(ends.len() as f64, 0.02);
            } else if out > 0 {
                overflow.settle(ends.len() as f64, (0.5, 1.0), rate, 0.02);
            }
            most = most.max(overflow.part);
        }
        most
    }

    #[test]
    fn wide_work_is_no_overload() {
        for (sigma, rate) in [0.2, 1.0, 2.0].into_iter().flat_map(|s| [2.0, 50.0, 1000.0].map(|r| (s, r))) {
            let most = most(sigma, rate, 2000, 20_000, &mut Rng::new(3));
            assert!(most < 0.05, "{sigma}, {rate}: {most}");
        }
    }

    /// The first answers come from the fastest requests and do not represent the others.
    #[test]
    fn the_first_answers_after_a_start_are_no_overload() {
        for (seed, rate) in (1..=20).flat_map(|s| [50.0, 400.0, 4000.0].map(|r| (s, r))) {
            for from in [0, 10, 100] {
                let most = most(1.0, rate, from, 5000, &mut Rng::new(seed));
                assert!(most < 0.1, "{seed}, {rate}, {from}: {most}");
            }
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
        let overflow = Overflow { part: 0.25, to: vec![(3, 1.0), (5, 2.0)], ..Overflow::default() };
        let drawn: Vec<u32> = (0..4000).filter_map(|_| overflow.draw(&mut rng)).collect();
        // Binomial: 1000 of 4000, standard deviation 27.4; five of them.
        assert!((863..=1137).contains(&drawn.len()), "{}", drawn.len());
        assert!(drawn.iter().all(|index| [3, 5].contains(index)) && drawn.contains(&3) && drawn.contains(&5));
        assert!((0..100).all(|_| Overflow { part: 1.0, ..Overflow::default() }.draw(&mut rng).is_none()));
    }
}
