//! The decision on a request: an endpoint that is due for a probe, else the policy's choice in the subset that the
//! request is drawn into.

use super::Cluster;
use crate::cluster::subset::split::{Drawn, unit};
use crate::decision::{Decision, Reason};
use crate::policy::{Candidates, Request, Turns};
use crate::rng::{self, Rng};
use crate::settings::{NoneEligible, Policy};
use crate::time::Time;

/// Recent failure ratio of a subset above which a retry is sent elsewhere: about one failure among the last few
/// answers.
const FAILS_LATELY: f64 = 0.1;
/// Salt that keeps the choice of keys left to Envoy independent of the other hashes.
const ENVOY_SALT: u64 = 0x5851_F42D_4C95_7F2D;

impl Cluster {
    /// Decides where a request goes.
    pub fn pick(&mut self, request: Request, now: Time, rng: &mut Rng) -> Decision {
        self.traffic.pick();
        if let Some(reason) = self.left_to_envoy.draw_arm(request.key, now, rng) {
            self.stats.decided(reason);
            return Decision::Fallback;
        }
        if self.is_left_to_envoy(request.key, rng) {
            self.stats.decided(Reason::Unsteerable);
            return Decision::Fallback;
        }
        self.traffic.request();
        if self.ejection.overflow.any()
            && let Some(index) = self.ejection.overflow.draw(rng)
        {
            return self.steer_to_ejected(index);
        }
        let drawn = self.subsets.split.draw(request.key, rng);
        let mut candidates = Candidates::default();
        let probe = self.next_probe(drawn.version, request.key, now);
        probe.into_iter().for_each(|index| candidates.push(index));
        self.choose::<false>(drawn, request, now, rng, &mut candidates);
        if let Some(first) = candidates.first() {
            if let Some(endpoint) = self.endpoints.states.get_mut(first as usize) {
                endpoint.counters.pick();
                endpoint.turn.asked = self.traffic.requests;
            }
            candidates.truncate(request.want.max(1));
            self.stats.decided(if probe.is_some() { Reason::Probe } else { Reason::Policy });
            return Decision::Steer(candidates);
        }
        self.none_eligible()
    }

    /// Names endpoints for another attempt of a request, best first, as the candidates of a [`pick`](Cluster::pick)
    /// beyond its first are drawn: no endpoint has its turn or is probed, and nothing is counted. Empty if no endpoint
    /// is eligible, and for what is left to the proxy's own policy.
    pub fn pick_again(&mut self, request: Request, now: Time, rng: &mut Rng) -> Candidates {
        let mut candidates = Candidates::default();
        if self.left_to_envoy.stands_aside(request.key) || self.is_left_to_envoy(request.key, rng) {
            return candidates;
        }
        let drawn = self.subsets.split.draw_again(request.key, rng);
        self.choose::<true>(drawn, request, now, rng, &mut candidates);
        candidates.truncate(request.want.max(1));
        candidates
    }

    /// The decision on a request for which no endpoint is eligible.
    #[cold]
    #[inline(never)]
    fn none_eligible(&mut self) -> Decision {
        let (decision, reason) = match self.config.failover.none_eligible {
            // Before the first discovery no endpoint is known; that is no reason to reject a request.
            _ if self.endpoints.set.is_empty() => (Decision::Fallback, Reason::Fallback),
            NoneEligible::Envoy => (Decision::Fallback, Reason::Fallback),
            NoneEligible::Reject => (Decision::Reject, Reason::Reject),
            NoneEligible::SafeEndpoint(_) => (Decision::SafeEndpoint, Reason::SafeEndpoint),
        };
        self.stats.decided(reason);
        decision
    }

    /// Steers a request that the eligible endpoints cannot carry to the ejected endpoint at `index`.
    #[cold]
    #[inline(never)]
    fn steer_to_ejected(&mut self, index: u32) -> Decision {
        if let Some(endpoint) = self.endpoints.states.get_mut(index as usize) {
            endpoint.counters.pick();
            endpoint.turn.asked = self.traffic.requests;
        }
        self.stats.decided(Reason::Overflow);
        let mut candidates = Candidates::default();
        candidates.push(index);
        Decision::Steer(candidates)
    }

    /// Fills the candidates from the drawn subset, then from the other subsets of its version, then from other
    /// versions; `AGAIN` for a request that has had its turn.
    fn choose<const AGAIN: bool>(
        &mut self,
        drawn: Drawn,
        request: Request,
        now: Time,
        rng: &mut Rng,
        candidates: &mut Candidates,
    ) {
        let versions = &self.subsets.versions;
        let serves = |version: usize| versions.get(version).is_some_and(|l| l.serves);
        let version = if serves(drawn.version) {
            drawn.version
        } else {
            self.subsets.split.instead(drawn, serves).version
        };
        let Some(subsets) = self.subsets.versions.get(version).map(|l| l.subsets.clone()) else { return };
        let first = self.subsets.draw(subsets.clone(), request.key, rng);
        let mut second_best = None;
        if let Some(first) = first {
            self.ask::<AGAIN>(first, request, now, rng, candidates);
            let fails =
                self.subsets.list.get(first).is_some_and(|g| g.errors.record.failing(now) > FAILS_LATELY);
            if fails && request.want > 1 && subsets.len() > 1 {
                // Endpoints of one subset that fail together would fail the retry as well.
                second_best = candidates.as_slice().get(request.want - 1).copied();
                candidates.truncate(request.want - 1);
            }
        }
        for other in [true, false] {
            for at in 0..self.subsets.serving.len() {
                if candidates.as_slice().len() >= request.want.max(1) {
                    return;
                }
                let subset = self.subsets.serving.get(at).map_or(usize::MAX, |g| *g as usize);
                if Some(subset) != first && subsets.contains(&subset) == other {
                    self.ask::<AGAIN>(subset, request, now, rng, candidates);
                }
            }
            second_best.take().into_iter().for_each(|index| candidates.push(index));
        }
    }

    /// Adds the choices of the policy in the subset at `at`.
    fn ask<const AGAIN: bool>(
        &mut self,
        at: usize,
        request: Request,
        now: Time,
        rng: &mut Rng,
        to: &mut Candidates,
    ) {
        let Some(subset) = self.subsets.list.get_mut(at) else { return };
        let in_flight = subset.in_flight;
        let mut turns = Turns { requests: self.traffic.requests, ..subset.turns };
        if AGAIN {
            // No turns have passed since the last look at a silent endpoint: it is not looked at with a retry.
            turns.workers = 0.0;
        }
        let view = self.endpoints.context(&self.queueing, in_flight, turns, now);
        if AGAIN && matches!(self.config.policy, Policy::RoundRobin | Policy::WeightedRoundRobin) {
            return subset.pool.draw(view, request.want, rng, |index, _| to.push(index));
        }
        let named = subset.policy.pick(view, &mut subset.pool, request, rng);
        named.as_slice().iter().for_each(|index| to.push(*index));
    }

    /// Sets the part of the requests that is left to Envoy's own policy, 0..=1.
    pub fn leave_to_envoy(&mut self, part: f64) {
        self.left_to_envoy.unsteerable = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    }

    /// The part of the requests that is left to Envoy's own policy, 0..=1.
    pub fn left_to_envoy(&self) -> f64 {
        self.left_to_envoy.unsteerable
    }

    /// Whether Envoy's own policy decides on a request; the same for all requests with one key.
    fn is_left_to_envoy(&self, key: Option<u64>, rng: &mut Rng) -> bool {
        let part = self.left_to_envoy.unsteerable;
        if part <= 0.0 || self.endpoints.set.is_empty() {
            return false;
        }
        key.map_or_else(|| rng.unit(), |key| unit(rng::mix(key ^ ENVOY_SALT))) < part
    }

    /// Compares a decision in observe mode with Envoy's own pick, by the expected latencies of both endpoints.
    pub fn compare(&mut self, named: u32, used: u32) {
        let expected = |index| self.endpoint(index).map(|m| f64::from(m.expected));
        let (Some(named_s), Some(used_s)) = (expected(named), expected(used)) else { return };
        self.stats.compare(named == used, (named_s, used_s));
    }
}
