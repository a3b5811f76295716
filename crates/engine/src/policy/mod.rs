//! How an endpoint is chosen: one file a policy behind one small trait.
//!
//! | policy | question it answers |
//! |---|---|
//! | [`adaptive`] | which endpoint will answer soonest, by all that is known? |
//! | [`least_request`] | which endpoint has the fewest requests on the way? |
//! | [`peak_ewma`] | whose latest peak of latency, times what is on the way, is lowest? |
//! | [`weighted_score`] | whose sum of requests on the way and latency, each over its maximum, is lowest? |
//! | [`least_signal`] | whose signal is lowest? |
//! | [`weighted_round_robin`] | whose turn is it, the heavier the more often? |
//! | [`round_robin`] | whose turn is it? |
//! | [`random`] | which endpoint does chance name, the heavier the more often? |
//! | [`ip_hash`] | whose is this client? |
//! | [`consistent_hash`] | whose is this key, and if that one is full, which is next? |
//!
//! A new policy is one file here, one line in [`build`], and its name in the configuration.

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
#[cfg(test)]
mod tests;
pub mod weighted_round_robin;
pub mod weighted_score;

use crate::ablation::Ablation;
use crate::endpoint::EndpointState;
use crate::endpoint::EndpointView;
use crate::endpoint::PeerTable;
use crate::estimate::{PeakEwma, Queueing};
use crate::rng::Rng;
use crate::settings;
use crate::time::Time;

pub use pool::Pool;

/// The most endpoints a decision can name.
pub const MAX_CANDIDATES: usize = 8;

/// Turns, counted in requests: what is said of an endpoint's share (slow start, rules, signals) holds for
/// two endpoints as for a hundred only if it is kept by counting, because of few every endpoint is compared every time.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// This worker's requests to the whole upstream; the sum may wrap.
    pub requests: u32,
    /// How many of them come between two to an endpoint of weight 1 that gets its fair part.
    pub apart: f32,
    /// The mean weight, so that a load per weight is that of an endpoint as most are.
    pub unit: f32,
    /// How many workers have such requests, each about as many.
    pub workers: f32,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { requests: 0, apart: 0.0, unit: 1.0, workers: 1.0 }
    }
}

impl Turns {
    /// How many requests are to come between two to `member`.
    fn wanted(&self, member: &EndpointState) -> f32 {
        self.apart / (member.weight * (1.0 - member.turn.held)).max(f32::MIN_POSITIVE)
    }

    /// Whether more than so many of its turns among all workers have passed since `member` was asked here.
    fn passed(&self, member: &EndpointState, turns: f32) -> bool {
        self.requests.wrapping_sub(member.turn.asked) as f32 * self.workers > turns * self.wanted(member)
    }

    /// Whether `member`, with less than its fair part, has waited for `wanted` requests, or will have `soon`.
    fn come(&self, member: &EndpointState, wanted: f32, soon: f32) -> bool {
        self.requests.wrapping_sub(member.turn.asked) as f32 + soon >= wanted
    }
}

/// An endpoint that is left less than this part of its share is full, as a fresh signal says: that does not give way to
/// what is measured.
const FULL: f32 = 0.05;

/// What an endpoint whose turn has not come costs, in multiples of its own cost, where `breaks_at` is how much more
/// the others have to cost until it is used out of turn: no request waits in a queue for the sake of a share.
fn out_of_turn(held: f32, breaks_at: f32) -> f32 {
    let left = (1.0 - held).max(f32::MIN_POSITIVE);
    if left < FULL { 1.0 / left } else { (1.0 / left).min(breaks_at) }
}

/// What a policy may look at.
#[derive(Clone, Copy)]
pub struct PickContext<'a> {
    /// Everything known, by endpoint index; vacant places have `present == false`.
    pub states: &'a [EndpointState],
    /// What the other workers tell of them.
    pub peers: &'a PeerTable,
    /// Which endpoints they are, the same in every worker and proxy:
    /// [`Endpoint::hash`](crate::endpoint::Endpoint::hash).
    pub identities: &'a [u64],
    /// Peaks of their latency, where the policy compares them.
    pub peaks: &'a [PeakEwma],
    /// How much requests in flight delay the next.
    pub queueing: &'a Queueing,
    /// The moment of the decision.
    pub now: Time,
    /// This worker's requests in flight, to all endpoints.
    pub in_flight: u32,
    /// Which turn it is.
    pub turns: Turns,
}

/// What a policy has to know of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Hash of what the request should stick to; none if it carries no key, or the policy asks for none.
    pub key: Option<u64>,
    /// How many endpoints are to be named.
    pub want: usize,
}

impl Request {
    /// A request without a key.
    pub fn wanting(want: usize) -> Request {
        Request { key: None, want }
    }
}

impl<'a> PickContext<'a> {
    /// What is known of the endpoint at `index`.
    pub fn known(&self, index: u32) -> Option<EndpointView<'a>> {
        self.states.get(index as usize).map(|member| self.peers.of(index, member))
    }

    /// The member at `index`, if it may be chosen.
    pub fn eligible(&self, index: u32) -> Option<&'a EndpointState> {
        self.states.get(index as usize).filter(|m| m.eligible)
    }
}

/// Endpoint indices, best first: a fixed-size list, because a request allocates nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    indices: [u32; MAX_CANDIDATES],
    len: usize,
}

impl Candidates {
    /// Appends `index`; a full list and a repetition stay as they are.
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

    /// The best, if any.
    pub fn first(&self) -> Option<u32> {
        self.as_slice().first().copied()
    }

    /// Keeps the best `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

/// Chooses among the eligible. A policy owns what it remembers between picks (a cursor, a ring).
pub trait Policy: Send {
    /// Called when membership, eligibility or shares may have changed, never on a request.
    fn refresh(&mut self, _view: PickContext<'_>, _pool: &Pool) {}

    /// Names up to `request.want` distinct eligible endpoints, best first; none if there is none.
    fn pick(&mut self, view: PickContext<'_>, pool: &mut Pool, request: Request, rng: &mut Rng)
    -> Candidates;

    /// Whose `key` is, well or not, where the policy has an owner for each key.
    fn owner(&self, _key: u64) -> Option<u32> {
        None
    }

    /// What the next request to the endpoint at `index` is said to cost, where the policy compares costs; lower is
    /// better.
    fn cost(&self, _view: PickContext<'_>, _index: u32) -> Option<f32> {
        None
    }

    /// Whether it keeps to the part that an endpoint is held below by itself, by counting; for the
    /// others that part is in how often they are drawn.
    fn counts_turns(&self) -> bool {
        false
    }

    /// Whether it shuns by itself an endpoint that owes answers; for the others health does.
    fn sees_silence(&self) -> bool {
        false
    }

    /// Whether an endpoint can be left without traffic for ever, so that the engine must explore it.
    fn exiles(&self) -> bool {
        false
    }
}

/// The policy that the configuration names; `ablation` are those of the adaptive one.
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

/// Draws `draws` distinct members and ranks them by `cost`, lowest first; equal costs keep the random order of
/// the draw, so that no endpoint is preferred for its position. Which endpoint is held below its fair
/// part comes first among equals when its turn has come, and costs more until then, up to `breaks_at` times.
pub fn pick_lowest_cost(
    view: PickContext<'_>,
    pool: &mut Pool,
    draws: usize,
    want: usize,
    rng: &mut Rng,
    breaks_at: f32,
    cost: impl Fn(EndpointView<'_>, u32) -> f32,
) -> Candidates {
    let mut best = [(i64::MAX, 0u32); pool::MAX_DRAWS];
    let kept = want.clamp(1, best.len());
    let mut count = 0;
    let draws = draws.max(want);
    let few = pool.len() <= draws;
    pool.draw(view, draws, rng, |index, member| {
        let cost = cost(view.peers.of(index, member), index);
        let cost = if cost.is_nan() { f32::INFINITY } else { cost };
        let (cost, rank) = match member.turn.held {
            held if held > 0.0 => {
                in_turn(view.turns, member, cost, if few { None } else { Some(draws) }, breaks_at)
            }
            _ => (cost, 1),
        };
        count = kept.min(count + 1);
        // Equals stay behind those that were drawn before; what falls off the end is not wanted.
        let mut next = (order_of(cost, rank), index);
        let mut moves = false;
        for place in best.iter_mut().take(count) {
            moves |= next.0 < place.0;
            if moves {
                core::mem::swap(place, &mut next);
            }
        }
    });
    let mut candidates = Candidates::default();
    best.iter().take(count.min(want)).for_each(|(_, index)| candidates.push(*index));
    candidates
}

/// What `member`, which is held below its fair part, costs, and its rank among equals: by whether its turn has come, or
/// will have by the time it is drawn again among so many `draws`, which are not of all.
#[inline(never)]
fn in_turn(
    turns: Turns,
    member: &EndpointState,
    cost: f32,
    draws: Option<usize>,
    breaks_at: f32,
) -> (f32, u8) {
    let (held, wanted) = (member.turn.held, turns.wanted(member));
    // As long as it takes on average until it is drawn.
    let drawn_within = draws.map_or(1.0, |draws| (wanted * (1.0 - held) / draws as f32).max(1.0));
    if turns.come(member, wanted, drawn_within) {
        (cost, 0)
    } else {
        (cost * out_of_turn(held, breaks_at), 2)
    }
}

/// A number that is the smaller the lower the cost, and the lower the rank among equal costs.
fn order_of(cost: f32, rank: u8) -> i64 {
    let bits = cost.to_bits().cast_signed();
    // As `f32::total_cmp` does it.
    let ordered = bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed();
    i64::from(ordered) << 8 | i64::from(rank)
}
