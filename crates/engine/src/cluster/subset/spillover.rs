//! Spillover: how much of the local zone's traffic leaves it because the zone is busy.
//!
//! **Pressure** is the part of its capacity that the zone uses, the highest of:
//! - the busy slots of its eligible endpoints: unanswered requests, up to as many as an endpoint can work on at a time.
//!   That number is read off the learnt [curve](crate::estimate::Queueing): beyond it, more requests in flight only
//!   slow all of them down. Until something slows down it is unknown, and nothing follows from many requests in flight.
//! - the slow-down of answers compared with idle endpoints: a slow-down of s is that of a single server that is busy
//!   for 1 − 1/s of the time. Silence counts as slow, so a zone that hangs is under pressure before any timeout.
//! - the [pressure](crate::autoscale) of the zone's endpoints, where it is made of signals.
//!
//! **Control.** The local share is moved, not set: d ln(share)/dt = ln(target / pressure) / τ. Where pressure is
//! proportional to traffic, it settles where the two are equal: there is no error in the steady state and no threshold
//! at which something flips. The pressure is smoothed over half of τ, so the loop does not oscillate; signals, which
//! are seconds old, move the share in proportion more slowly. If the other zones are under more pressure than the
//! target, their pressure is the target: nothing is gained by leaving. A zone that has been below its target has a
//! credit, so that a busy moment, which occurs by chance in a zone at nine tenths of its target, moves nothing; in the
//! steady state it makes no difference.

/// Time constant of the share, seconds: fast enough for a surge, slow compared with latencies.
const TAU_S: f64 = 1.0;
/// Time constant of the smoothed pressure, seconds.
const SMOOTHING_S: f64 = 0.5;
/// Time constant of the share for a signal, in poll intervals: a value is up to two intervals old (scrape and poll),
/// and a loop with delay D needs a time constant of about 2.5 · D not to oscillate.
const POLLS_PER_TAU: f64 = 5.0;
/// Limits of the exponent per time constant: the share falls by e³ at most and grows by e.
const FASTEST: [f64; 2] = [-3.0, 1.0];
/// Minimum local share, so that the zone's pressure remains known.
const MIN_SHARE: f64 = 0.01;
/// Maximum credit: how far the share can grow beyond 1 while pressure is low, to cover half a second of chance.
const CREDIT: f64 = 1.1;
/// Slope of the pressure above a slow-down of ten, where it grows in proportion: a zone that hangs is worse than full.
const HUNG: f64 = 0.09;

/// Pressure on a subset, 1 is full.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pressure {
    /// Pressure from measurements of this proxy.
    pub measured: f64,
    /// Pressure from signals.
    pub signalled: f64,
}

/// The pressure that corresponds to a slow-down by the factor `times`.
pub(crate) fn of_slow_down(times: f64) -> f64 {
    let times = times.max(1.0);
    (1.0 - 1.0 / times).max(HUNG * times)
}

/// State of the local zone's share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spillover {
    /// Part of its traffic that the local zone keeps, 0.01..=1.
    pub local_fraction: f64,
    /// Credit that is used up before any traffic leaves, 1 or more.
    credit: f64,
    pressure: Pressure,
}

impl Default for Spillover {
    fn default() -> Spillover {
        Spillover { local_fraction: 1.0, credit: CREDIT, pressure: Pressure::default() }
    }
}

impl Spillover {
    /// The smoothed pressure, 1 is full.
    pub fn pressure(&self) -> f64 {
        self.pressure.measured.max(self.pressure.signalled)
    }

    /// Updates the smoothed pressure with that of the last `seconds`.
    pub fn observe(&mut self, now: Pressure, seconds: f64) {
        let part = 1.0 - (-seconds / SMOOTHING_S).exp();
        if now.measured.is_finite() {
            self.pressure.measured += part * (now.measured - self.pressure.measured);
        }
        self.pressure.signalled = now.signalled;
    }

    /// Moves the share over `seconds` towards a pressure of `target`; `poll_s` is the poll interval of signals.
    pub fn settle(&mut self, target: f64, poll_s: f64, seconds: f64) {
        let pressure = self.pressure();
        let tau = if self.pressure.signalled > self.pressure.measured {
            TAU_S.max(POLLS_PER_TAU * poll_s)
        } else {
            TAU_S
        };
        let [out, back] = FASTEST;
        // A target of zero means that nothing stays; zero pressure, that everything may.
        let pull = if pressure > 0.0 { (target / pressure).ln().clamp(out, back) } else { back };
        let local_fraction = self.local_fraction * self.credit * (pull * seconds.min(tau) / tau).exp();
        let local_fraction = if local_fraction.is_finite() { local_fraction } else { 1.0 };
        (self.local_fraction, self.credit) =
            (local_fraction.clamp(MIN_SHARE, 1.0), local_fraction.clamp(1.0, CREDIT));
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const TICK_S: f64 = 0.02;

    /// Share at each second, where the local zone is full at the share `full` and measurements are `delay_s` old.
    fn run(full: f64, delay_s: f64, signalled: bool, seconds: usize) -> Vec<f64> {
        let mut spill = Spillover::default();
        let mut past = vec![1.0; (delay_s / TICK_S) as usize + 1];
        let mut shares = Vec::new();
        for tick in 0..seconds * 50 {
            past.push(spill.local_fraction);
            let pressure = full * past[past.len() - 1 - (delay_s / TICK_S) as usize];
            let pressure = if signalled {
                Pressure { signalled: pressure, measured: 0.0 }
            } else {
                Pressure { measured: pressure, signalled: 0.0 }
            };
            spill.observe(pressure, TICK_S);
            spill.settle(0.7, delay_s / 2.0, TICK_S);
            if tick % 50 == 49 {
                shares.push(spill.local_fraction);
            }
        }
        shares
    }

    #[test]
    fn what_fits_stays_and_what_does_not_leaves() {
        assert!(run(0.69, 0.0, false, 20).iter().all(|share| *share == 1.0));
        let shares = run(1.4, 0.0, false, 20);
        assert!((shares[19] - 0.5).abs() < 0.01, "{shares:?}");
        assert!(shares.iter().all(|share| *share > 0.45), "no swing: {shares:?}");
        assert!(shares.windows(2).all(|w| (w[1] - w[0]).abs() < 0.35), "gradual: {shares:?}");
    }

    #[test]
    fn a_busy_moment_moves_nothing() {
        let mut spill = Spillover::default();
        for tick in 0..3000 {
            let measured = if tick % 50 < 20 { 0.76 } else { 0.62 };
            spill.observe(Pressure { measured, signalled: 0.0 }, TICK_S);
            spill.settle(0.7, 5.0, TICK_S);
            assert_eq!(spill.local_fraction, 1.0, "tick {tick}");
        }
    }

    #[test]
    fn a_late_answer_and_an_old_signal_make_no_swing() {
        for (delay, signalled) in [(0.3, false), (10.0, true)] {
            let shares = run(1.4, delay, signalled, 200);
            assert!(shares[150..].iter().all(|s| (s - 0.5).abs() < 0.02), "{delay}: {shares:?}");
            assert!(shares.iter().all(|s| *s > 0.4), "{delay}: {shares:?}");
        }
    }

    #[test]
    fn a_zone_that_hangs_is_left_within_two_seconds() {
        assert!(run(20.0, 0.0, false, 2)[1] < 0.06);
    }

    #[test]
    fn what_left_comes_back() {
        let mut spill = Spillover::default();
        for _ in 0..500 {
            spill.observe(Pressure { measured: 9.0, signalled: 0.0 }, TICK_S);
            spill.settle(0.7, 5.0, TICK_S);
        }
        assert!(spill.local_fraction < 0.02);
        for _ in 0..400 {
            spill.observe(Pressure::default(), TICK_S);
            spill.settle(0.7, 5.0, TICK_S);
        }
        assert_eq!(spill.local_fraction, 1.0);
    }

    #[test]
    fn nonsense_leaves_a_share() {
        let mut spill = Spillover::default();
        for pressure in [f64::INFINITY, f64::NAN, -1.0, 0.0] {
            spill.observe(Pressure { measured: 0.0, signalled: pressure }, TICK_S);
            for target in [0.0, f64::NAN, f64::INFINITY, 0.7] {
                spill.settle(target, 5.0, TICK_S);
                assert!(
                    (MIN_SHARE..=1.0).contains(&spill.local_fraction),
                    "{pressure} {target}: {}",
                    spill.local_fraction
                );
            }
        }
        assert!((of_slow_down(2.0) - 0.5).abs() < 1e-9 && of_slow_down(0.1) < 0.1);
    }
}
