//! The same client goes to the same endpoint: the client's address on the [ring](super::ring).
//!
//! Only health moves a client: while its endpoint is ejected, its second choice serves it; requests that probe such an
//! endpoint are those of its own clients. Endpoints have clients in proportion to static weight; signals, slow start
//! and load have no effect. Use it where an endpoint keeps state for a client, there are many clients, and none is much
//! busier than the rest (a NAT gateway is one client). A request whose client is unknown goes to a random endpoint.

use super::ring::{Ring, nearest};
use super::{Candidates, PickContext, Policy, Pool, Request};
use crate::rng::Rng;

/// Number of points walked if none of a key's own choices is eligible.
const STEPS: usize = 256;

/// The policy's ring.
#[derive(Debug, Default)]
pub struct IpHash {
    ring: Ring,
}

impl Policy for IpHash {
    fn refresh(&mut self, view: PickContext<'_>, pool: &Pool) {
        self.ring.refresh(view, pool.all());
    }

    fn owner(&self, key: u64) -> Option<u32> {
        super::ring::owner(&self.ring, key)
    }

    fn pick(
        &mut self,
        view: PickContext<'_>,
        pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        let key = request.key.unwrap_or_else(|| rng.next_u64());
        let mut candidates =
            nearest(&self.ring, key, request.want, STEPS, |index| view.eligible(index).is_some());
        if candidates.first().is_none() {
            pool.draw(view, request.want, rng, |index, _| candidates.push(index));
        }
        candidates
    }
}
