//! Another attempt of a request, for a proxy that asks for a host at every attempt. The request's [`Stream`] learns the
//! outcome from the answer.
//!
//! [`Stream`]: crate::request::Stream

use super::affinity::{self, KeySource};
use crate::worker::Worker;
use config::Mode;
use engine::policy::{MAX_CANDIDATES, Request};
use engine::rng::Rng;
use engine::time::Time;

/// Whether another attempt got an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// An endpoint was named and taken.
    Taken,
    /// The worker balances no cluster of this name.
    Unmatched,
    /// The proxy's own policy decides: observe mode, the guard, or no endpoint is eligible.
    Left,
    /// None of the named endpoints was taken.
    Refused,
}

impl Worker {
    /// Names endpoints of `cluster` for another attempt of a request, best first, until `takes` accepts the address of
    /// one. It has no effect on later decisions; `rng` is the caller's for that reason.
    pub fn name_again(
        &mut self,
        cluster: &str,
        request: &impl KeySource,
        now: Time,
        rng: &mut Rng,
        mut takes: impl FnMut(&[u8]) -> bool,
    ) -> Again {
        let Some(upstream) = self.engine.route(cluster) else { return Again::Unmatched };
        if self.config.mode == Mode::Observe {
            return Again::Left;
        }
        let key = self.engine.upstream(upstream).and_then(|u| affinity::key(u.config(), request));
        let named = self.engine.pick_again(upstream, Request { key, want: MAX_CANDIDATES }, now, rng);
        if named.first().is_none() {
            return Again::Left;
        }
        let fleet = self.engine.upstream(upstream).map(|u| u.fleet());
        let taken =
            named.as_slice().iter().any(|index| fleet.and_then(|f| f.text(*index)).is_some_and(&mut takes));
        if taken { Again::Taken } else { Again::Refused }
    }
}
