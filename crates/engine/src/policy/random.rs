//! A random endpoint in proportion to the shares: as `random` in NGINX and `RANDOM` in Envoy, but weighted.
//!
//! P(endpoint) = share / Σ shares, where the [share](crate::endpoint::EndpointState::share) is weight × signals × slow
//! start × rule. A draw uses Walker's alias method, O(1) ([`Pool`]). Use it where many proxies each see little traffic:
//! they need no common order and never fall into step. Loads vary more than with turns: by the square root of the mean.

use super::{Candidates, PickContext, Policy, Pool, Request};
use crate::rng::Rng;

/// The policy, without state of its own.
#[derive(Debug, Default)]
pub struct Random;

impl Policy for Random {
    fn pick(
        &mut self,
        view: PickContext<'_>,
        pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        let mut candidates = Candidates::default();
        pool.draw(view, request.want, rng, |index, _| candidates.push(index));
        candidates
    }
}
