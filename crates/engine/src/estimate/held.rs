//! Held requests: those that an endpoint keeps unanswered while it answers others, for longer than any answer has
//! taken, such as long polls. Nothing queues behind them, so they are no load.
//!
//! The ages of single requests are not kept. Time is divided into epochs that are longer than answers take
//! ([`Survival::beyond`](super::survival::Survival::beyond)), and the requests that have been waiting since before the
//! current one are counted.

use crate::time::Time;

/// Start of the current and the previous epoch, the same for all endpoints of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// Start of the current epoch.
    pub current: Time,
    /// Start of the previous epoch.
    pub before: Time,
}

/// One worker's requests to one endpoint that have been waiting since before the current epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    older: u16,
    held: u16,
}

impl Held {
    /// Number of held requests.
    pub fn count(&self) -> u32 {
        self.held.into()
    }

    /// The request sent at `started` is no longer waiting.
    pub fn ends(&mut self, started: Time, epochs: Epochs) {
        if started < epochs.current {
            let oldest = started < epochs.before || self.older == 0;
            let of = if oldest && self.held > 0 { &mut self.held } else { &mut self.older };
            *of = of.saturating_sub(1);
        }
    }

    /// Ends an epoch in which the endpoint `answered` or did not; `awaiting` requests are unanswered now. Those sent
    /// before the epoch are held if the endpoint has answered others since.
    pub fn turn(&mut self, awaiting: u32, answered: bool) {
        let counted = u32::from(self.older) + u32::from(self.held);
        let newer = u16::try_from(awaiting.saturating_sub(counted)).unwrap_or(u16::MAX);
        if answered {
            self.held = self.held.saturating_add(core::mem::take(&mut self.older));
        }
        self.older = self.older.saturating_add(newer);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::endpoint::EndpointState;

    fn ms(ms: u64) -> Time {
        Time(1_000_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn what_is_kept_while_others_are_answered_is_held_and_what_a_silent_endpoint_owes_is_not() {
        let (mut polled, mut stalled) = (EndpointState::default(), EndpointState::default());
        let mut epochs = Epochs { current: ms(0), before: ms(0) };
        for endpoint in [&mut polled, &mut stalled] {
            (0..3).for_each(|_| endpoint.send(ms(1)));
        }
        for epoch in 1..4 {
            polled.send(ms(epoch * 1000 - 100));
            polled.answer(ms(epoch * 1000 - 100), epochs, ms(epoch * 1000 - 50));
            for endpoint in [&mut polled, &mut stalled] {
                endpoint.turn_epoch(epochs.current);
            }
            epochs = Epochs { current: ms(epoch * 1000), before: epochs.current };
        }
        polled.send(ms(3100));
        let counts = |endpoint: &EndpointState| (endpoint.in_flight.awaiting(), endpoint.pending());
        assert_eq!((counts(&polled), counts(&stalled)), ((4, 1), (3, 3)));
        let report = polled.report(ms(3200));
        assert!(report.awaiting == 1 && report.mean_age < 0.26, "{report:?}");
        polled.stop_awaiting(ms(1), epochs);
        assert_eq!(counts(&polled), (3, 1), "one that was held is over");
        polled.answer(ms(3100), epochs, ms(3300));
        assert_eq!(counts(&polled), (2, 0));
        (0..5).for_each(|_| polled.stop_awaiting(ms(1), epochs));
        assert_eq!(counts(&polled), (0, 0));
    }
}
