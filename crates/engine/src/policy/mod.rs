//! Policies: how an endpoint is chosen. One file per policy, behind one small trait.
//!
//! | policy | chooses |
//! |---|---|
//! | [`adaptive`] | the endpoint expected to answer soonest, by everything that is measured |
//! | [`least_request`] | the fewest requests in flight |
//! | [`peak_ewma`] | the lowest product of peak latency and requests in flight |
//! | [`weighted_score`] | the lowest sum of requests in flight and latency, each over its maximum |
//! | [`least_signal`] | the lowest value of a signal |
//! | [`weighted_round_robin`] | the next in turn, in proportion to weight |
//! | [`round_robin`] | the next in turn |
//! | [`random`] | a random endpoint, in proportion to weight |
//! | [`ip_hash`] | the owner of the client's address |
//! | [`consistent_hash`] | the owner of the key, or the next choice if that one is full |
//!
//! A new policy takes a file here, a line in [`build`], and a name in the configuration.

pub mod adaptive;
mod calendar;
pub mod consistent_hash;
pub mod ip_hash;
pub mod least_request;
pub mod least_signal;
pub mod peak_ewma;
pub mod pool;
pub mod random;
pub mod ring;
pub mod round_robin;
mod rounding;
#[cfg(test)]
mod tests;
pub mod weighted_round_robin;
pub mod weighted_score;

use crate::ablation::Ablation;
use crate::endpoint::{EndpointState, EndpointView, PeerTable};
use crate::estimate::{PeakEwma, Queueing};
use crate::rng::Rng;
use crate::settings;
use crate::time::Time;

pub use pool::Pool;

/// Maximum number of endpoints in a decision.
pub const MAX_CANDIDATES: usize = 8;

/// Turns, counted in requests. A reduced share (slow start, rules, signals) can only be kept by counting turns: with
/// few endpoints every pick compares all of them, so drawing one less often has no effect.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// This worker's requests to the whole cluster; wraps.
    pub requests: u32,
    /// Number of requests between two to an endpoint of weight 1 that gets its fair part.
    pub apart: f32,
    /// Mean weight, by which a load per weight is scaled to that of a typical endpoint.
    pub unit: f32,
    /// Number of workers with such requests, each about as many.
    pub workers: f32,
    /// The place of this worker among them, from 0.
    pub rank: u32,
    /// This worker's home.
    pub home: Home,
    /// Whether the endpoints have few requests in flight.
    pub at_rest: bool,
}

/// The part of a subset that a worker tries first among endpoints that cost the same, as a range of the shares added up
/// in an order that all workers of the process have in common. Workers learn of each other's requests some milliseconds
/// late; to a worker's home the others send little that it does not know of. Homes are as wide as the workers' parts of
/// the requests, so that endpoints still get equal parts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Home {
    /// Where it begins, 0..=1.
    pub from: f32,
    /// How wide it is, 0..=1; 0 if there are no peers.
    pub width: f32,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            requests: 0,
            apart: 0.0,
            unit: 1.0,
            workers: 1.0,
            rank: 0,
            home: Home::default(),
            at_rest: false,
        }
    }
}

impl Turns {
    /// Number of requests between two turns of `endpoint`.
    fn wanted(&self, endpoint: &EndpointState) -> f32 {
        self.apart / (endpoint.weight * (1.0 - endpoint.turn.held)).max(f32::MIN_POSITIVE)
    }

    /// Whether more than `turns` of its turns, over all workers, have passed since this worker chose `endpoint`.
    fn passed(&self, endpoint: &EndpointState, turns: f32) -> bool {
        self.requests.wrapping_sub(endpoint.turn.asked) as f32 * self.workers > turns * self.wanted(endpoint)
    }

    /// Whether `endpoint`, whose share is reduced, has waited for `wanted` requests, or will have after `soon` more.
    fn come(&self, endpoint: &EndpointState, wanted: f32, soon: f32) -> bool {
        self.requests.wrapping_sub(endpoint.turn.asked) as f32 + soon >= wanted
    }
}

/// Share, relative to the endpoint's own, below which it counts as full by a fresh signal; measurements do not override
/// that.
const FULL: f32 = 0.05;

/// Factor on the cost of an endpoint whose turn has not come. It is at most `breaks_at`, the factor by which all others
/// have to be more expensive before the endpoint is used out of turn: no request waits in a queue for the sake of a
/// share. A full endpoint has no such limit.
fn out_of_turn(held: f32, breaks_at: f32) -> f32 {
    let left = (1.0 - held).max(f32::MIN_POSITIVE);
    if left < FULL { 1.0 / left } else { (1.0 / left).min(breaks_at) }
}

/// What a policy may use in a pick.
#[derive(Clone, Copy)]
pub struct PickContext<'a> {
    /// Endpoint states by index; vacant slots have `present == false`.
    pub states: &'a [EndpointState],
    /// The peers' reports.
    pub peers: &'a PeerTable,
    /// Identity by index, the same in every worker and proxy: [`Endpoint::hash`](crate::endpoint::Endpoint::hash).
    pub identities: &'a [u64],
    /// Latency peaks, if the policy uses them.
    pub peaks: &'a [PeakEwma],
    /// The learnt effect of requests in flight on latency.
    pub queueing: &'a Queueing,
    /// Time of the decision.
    pub now: Time,
    /// This worker's requests in flight to the subset.
    pub in_flight: u32,
    /// The current turn.
    pub turns: Turns,
}

/// What a policy has to know about a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Hash of the request's key; `None` if it has none, or the policy uses none.
    pub key: Option<u64>,
    /// Number of endpoints to name.
    pub want: usize,
}

impl Request {
    /// A request without a key.
    pub fn wanting(want: usize) -> Request {
        Request { key: None, want }
    }
}

impl<'a> PickContext<'a> {
    /// The view of the endpoint at `index`.
    pub fn known(&self, index: u32) -> Option<EndpointView<'a>> {
        self.states.get(index as usize).map(|endpoint| self.peers.of(index, endpoint))
    }

    /// The state of the endpoint at `index`, if it is eligible.
    pub fn eligible(&self, index: u32) -> Option<&'a EndpointState> {
        self.states.get(index as usize).filter(|m| m.eligible)
    }
}

/// Endpoint indices, best first, in a fixed-size list: a pick does not allocate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    indices: [u32; MAX_CANDIDATES],
    len: usize,
}

impl Candidates {
    /// Appends `index`, unless the list is full or contains it.
    pub fn push(&mut self, index: u32) {
        if self.as_slice().contains(&index) {
            return;
        }
        if let Some(slot) = self.indices.get_mut(self.len) {
            *slot = index;
            self.len += 1;
        }
    }

    /// The indices, best first.
    pub fn as_slice(&self) -> &[u32] {
        self.indices.get(..self.len).unwrap_or_default()
    }

    /// The best one, if any.
    pub fn first(&self) -> Option<u32> {
        self.as_slice().first().copied()
    }

    /// Keeps the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

/// A choice among eligible endpoints. A policy owns its state between picks, such as a cursor or a ring.
pub trait Policy: Send {
    /// Called when endpoints, eligibility or shares may have changed; never on the request path.
    fn refresh(&mut self, _view: PickContext<'_>, _pool: &Pool) {}

    /// Names up to `request.want` distinct eligible endpoints, best first; empty if there is none.
    fn pick(&mut self, view: PickContext<'_>, pool: &mut Pool, request: Request, rng: &mut Rng)
    -> Candidates;

    /// The owner of `key`, eligible or not, if the policy has an owner for each key.
    fn owner(&self, _key: u64) -> Option<u32> {
        None
    }

    /// Expected cost of the next request to the endpoint at `index`, if the policy compares costs; lower is better.
    fn cost(&self, _view: PickContext<'_>, _index: u32) -> Option<f32> {
        None
    }

    /// Whether it keeps reduced shares by counting turns. For other policies they take effect in how often an endpoint
    /// is drawn.
    fn counts_turns(&self) -> bool {
        false
    }

    /// Whether it avoids endpoints with unanswered requests itself; for other policies health does.
    fn sees_silence(&self) -> bool {
        false
    }

    /// Whether it can leave an endpoint without traffic for ever, so that it has to be explored.
    fn exiles(&self) -> bool {
        false
    }
}

/// Creates the configured policy; `ablation` applies to the adaptive one.
pub fn build(policy: &settings::Policy, ablation: Ablation) -> Box<dyn Policy> {
    match policy {
        settings::Policy::Adaptive => Box::new(adaptive::Adaptive(ablation)),
        settings::Policy::ConsistentHash(bound) => Box::new(consistent_hash::ConsistentHash::new(*bound)),
        settings::Policy::IpHash => Box::new(ip_hash::IpHash::default()),
        settings::Policy::LeastRequest => Box::new(least_request::LeastRequest),
        settings::Policy::LeastSignal { .. } => Box::new(least_signal::LeastSignal),
        settings::Policy::PeakEwma => Box::new(peak_ewma::PeakEwma),
        settings::Policy::Random => Box::new(random::Random),
        settings::Policy::RoundRobin => Box::new(round_robin::RoundRobin::default()),
        settings::Policy::WeightedRoundRobin => Box::new(weighted_round_robin::WeightedRoundRobin::default()),
        settings::Policy::WeightedScore(score) => Box::new(weighted_score::WeightedScore::new(score)),
    }
}

/// Draws up to `draws` distinct endpoints, half of them at [home](Home), and ranks them by `cost`, lowest first; equal
/// costs keep the random order of the draw, those at home before the others. `cost` is told whether the endpoint is the first
/// that was drawn. An endpoint with a reduced share comes first among equals when its turn has come, and costs up to
/// `breaks_at` times more until then. So does one of many that is compared although others have nearly all shares: it is a
/// way out, and idle most of the time.
pub fn pick_lowest_cost(
    view: PickContext<'_>,
    pool: &mut Pool,
    draws: usize,
    want: usize,
    rng: &mut Rng,
    breaks_at: f32,
    cost: impl Fn(EndpointView<'_>, u32, bool) -> f32,
) -> Candidates {
    let mut best = [(i64::MAX, 0u32); pool::MAX_DRAWS];
    let kept = want.clamp(1, best.len());
    let mut count = 0;
    let draws = draws.max(want);
    let few = pool.len() <= draws;
    let at_home = if view.turns.home.width > 0.0 { draws / 2 } else { 0 };
    let elsewhere = if few { draws } else { want.max(draws - at_home) };
    let mut consider = |index: u32, endpoint: &EndpointState, times: f32| {
        let cost = cost(view.peers.of(index, endpoint), index, count == 0) * times;
        let cost = if cost.is_nan() { f32::INFINITY } else { cost };
        let (cost, rank) = match endpoint.turn.held {
            held if held > 0.0 => {
                in_turn(view.turns, endpoint, cost, if few { None } else { Some(elsewhere) }, breaks_at)
            }
            _ => (cost, 1),
        };
        count = kept.min(count + 1);
        // Equal costs stay behind those drawn before; what falls off the end is not wanted.
        let mut next = (order_of(cost, rank), index);
        let mut moves = false;
        for place in best.iter_mut().take(count) {
            moves |= next.0 < place.0;
            if moves {
                core::mem::swap(place, &mut next);
            }
        }
    };
    let mut near = Candidates::default();
    if at_home > 0 {
        near = pool.draw_at_home(view, at_home, rng, &mut |index, endpoint| consider(index, endpoint, 1.0));
    }
    let missing = pool.draw_some(view, elsewhere, rng, &mut |index, endpoint| {
        if !near.as_slice().contains(&index) {
            consider(index, endpoint, 1.0);
        }
    });
    if !missing.is_empty() {
        let times = if few { 1.0 } else { breaks_at };
        for index in pool.fill(view, missing, rng).iter().filter(|index| !near.as_slice().contains(index)) {
            view.eligible(*index).into_iter().for_each(|endpoint| consider(*index, endpoint, times));
        }
    }
    let mut candidates = Candidates::default();
    best.iter().take(count.min(want)).for_each(|(_, index)| candidates.push(*index));
    candidates
}

/// Cost and rank among equals of `endpoint`, whose share is reduced: by whether its turn has come, or will have come
/// before it is drawn again. `draws` is how many are drawn at a time, `None` if all are.
#[inline(never)]
fn in_turn(
    turns: Turns,
    endpoint: &EndpointState,
    cost: f32,
    draws: Option<usize>,
    breaks_at: f32,
) -> (f32, u8) {
    let (held, wanted) = (endpoint.turn.held, turns.wanted(endpoint));
    // Mean number of requests until it is drawn again.
    let drawn_within = draws.map_or(1.0, |draws| (wanted * (1.0 - held) / draws as f32).max(1.0));
    if turns.come(endpoint, wanted, drawn_within) {
        (cost, 0)
    } else {
        (cost * out_of_turn(held, breaks_at), 2)
    }
}

/// A number that orders by cost, then by rank.
fn order_of(cost: f32, rank: u8) -> i64 {
    let bits = cost.to_bits().cast_signed();
    // The order of `f32::total_cmp`.
    let ordered = bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed();
    i64::from(ordered) << 8 | i64::from(rank)
}
