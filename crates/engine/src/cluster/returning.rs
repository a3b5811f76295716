//! Endpoints that have left, remembered for as long as they may return.
//!
//! An endpoint that a source omits for a minute, or a process that restarts at its old address, is not a new endpoint.

use core::net::SocketAddr;

use super::Cluster;
use crate::endpoint::{EndpointState, Hints, Standing, Tally};
use crate::estimate::{Held, InFlight};
use crate::health::State;
use crate::rng;
use crate::time::Time;

/// Time for which the state of an endpoint is kept after it has left, seconds.
const KEPT_FOR_S: f64 = 600.0;
/// Maximum number of endpoints kept; the oldest is dropped first.
const MAX_REMEMBERED: usize = 1000;
/// Maximum age of a good answer that shows an endpoint to be serving, seconds.
const SERVES_FOR_S: f64 = 30.0;

/// Endpoints that have left recently, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Returning(Vec<(u64, Time, EndpointState)>);

impl Returning {
    /// Stores the state of an endpoint that leaves.
    #[inline(never)]
    pub fn leave(&mut self, identity: u64, endpoint: EndpointState, now: Time) {
        self.0.retain(|(other, left, _)| *other != identity && now.seconds_since(*left) <= KEPT_FOR_S);
        if self.0.len() >= MAX_REMEMBERED {
            self.0.remove(0);
        }
        self.0.push((identity, now, endpoint));
    }

    /// Takes the state of an endpoint that returns, unless it has expired.
    #[inline(never)]
    pub fn take(&mut self, identity: u64, now: Time) -> Option<EndpointState> {
        let at = self.0.iter().position(|(other, ..)| *other == identity)?;
        let (_, left, known) = self.0.remove(at);
        if now.seconds_since(left) > KEPT_FOR_S {
            return None;
        }
        let mut endpoint = EndpointState {
            eligible: true,
            // Requests that were in flight when it left will not be finished here.
            in_flight: InFlight::none_since(now),
            counters: Tally::default(),
            ..known
        };
        endpoint.constraints.ruled = None;
        // Until when they are in force was dropped with the slot.
        endpoint.constraints.hints = Hints::default();
        endpoint.health.note_response();
        endpoint.health.held = Held::default();
        endpoint.health.forget_others();
        endpoint.not_after(now);
        Some(endpoint)
    }

    /// Caps timestamps at `now` after the clock stepped back: what left before would be kept until the clock catches up.
    pub fn not_after(&mut self, now: Time) {
        self.0.iter_mut().for_each(|(_, left, _)| *left = (*left).min(now));
    }
}

impl Cluster {
    /// Whether the endpoint at `address` is known to serve or to fail.
    pub fn standing(&self, address: SocketAddr, now: Time) -> Standing {
        let index = self.endpoints.set.index_of_hash(rng::hash(address.to_string().as_bytes()));
        let Some(endpoint) = index.and_then(|index| self.endpoint(index)) else { return Standing::Unknown };
        let good = endpoint.health.local().good.start.max(endpoint.good().start);
        match endpoint.health.state() {
            State::Failed | State::Recovering | State::Stalled => Standing::Fails,
            State::Healthy if good != Time::ZERO && now.seconds_since(good) <= SERVES_FOR_S => {
                Standing::Serves
            }
            _ => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn s(seconds: u64) -> Time {
        Time((1_000_000 + seconds) * 1_000_000_000)
    }

    #[test]
    fn what_is_known_is_kept_for_minutes_and_for_a_bounded_number() {
        let mut returning = Returning::default();
        let endpoint = || EndpointState { present: true, weight: 7.0, ..EndpointState::default() };
        (0..2 * MAX_REMEMBERED as u64).for_each(|identity| returning.leave(identity, endpoint(), s(0)));
        assert_eq!(returning.0.len(), MAX_REMEMBERED);
        let newest = 2 * MAX_REMEMBERED as u64 - 1;
        assert!(returning.take(0, s(1)).is_none(), "the first to leave is forgotten first");
        assert_eq!(returning.take(newest, s(600)).map(|m| m.weight), Some(7.0));
        assert!(returning.take(newest, s(600)).is_none(), "once");
        assert!(returning.take(newest - 1, s(601)).is_none(), "too long ago");
        let before = Time(s(0).0 - 500_000_000_000_000);
        returning.not_after(before);
        assert!(
            returning.take(newest - 2, before.after_secs(601.0)).is_none(),
            "by a clock that stepped back"
        );
        assert!(returning.take(newest - 3, before.after_secs(600.0)).is_some());
    }
}
