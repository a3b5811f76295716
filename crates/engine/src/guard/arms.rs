//! The two arms of the comparison: their counts, and how a request is drawn into one of them.

use super::histogram::Histogram;
use crate::rng::{self, Rng};
use crate::time::Time;

/// The arm that a request was drawn into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Steered.
    Steered,
    /// Held out: left to Envoy's own policy.
    HeldOut,
}

/// Counts of one arm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Latencies of the requests that succeeded.
    pub latency: Histogram,
    /// Number of requests that failed.
    pub failures: u64,
}

impl Tally {
    /// Number of requests counted.
    pub fn requests(&self) -> u64 {
        self.latency.total().saturating_add(self.failures)
    }

    /// Counts a request by its latency bucket, or as a failure.
    pub fn count(&mut self, good: Option<u16>) {
        match good {
            Some(bucket) => self.latency.count(bucket),
            None => self.failures = self.failures.saturating_add(1),
        }
    }

    fn merge(&mut self, other: &Tally) {
        self.latency.merge(&other.latency);
        self.failures = self.failures.saturating_add(other.failures);
    }

    fn since(&self, before: &Tally) -> Option<Tally> {
        let latency = self.latency.since(&before.latency)?;
        Some(Tally { latency, failures: self.failures.checked_sub(before.failures)? })
    }
}

/// Counts of both arms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arms {
    /// Requests that were steered.
    pub steered: Tally,
    /// Requests that were left to Envoy.
    pub held_out: Tally,
}

impl Arms {
    /// Counts a request in `arm` by its latency bucket, or as a failure.
    pub fn count(&mut self, arm: Arm, good: Option<u16>) {
        match arm {
            Arm::Steered => self.steered.count(good),
            Arm::HeldOut => self.held_out.count(good),
        }
    }

    /// Number of requests counted.
    pub fn requests(&self) -> u64 {
        self.steered.requests().saturating_add(self.held_out.requests())
    }

    /// Adds another worker's counts.
    pub fn merge(&mut self, other: &Arms) {
        self.steered.merge(&other.steered);
        self.held_out.merge(&other.held_out);
    }

    /// The difference to `before`; `None` if any count decreased, as when a worker was restarted.
    pub fn since(&self, before: &Arms) -> Option<Arms> {
        Some(Arms {
            steered: self.steered.since(&before.steered)?,
            held_out: self.held_out.since(&before.held_out)?,
        })
    }
}

/// Salt that keeps the draw of a key's arm independent of other hashes of it.
const SALT: u64 = 0x1F83_D9AB_FB41_BD6B;
/// Salt for the bit that marks a key as seen.
const SEEN_SALT: u64 = 0x5BE0_CD19_137E_2179;
/// Salt for the worker that counts a key.
const PART_SALT: u64 = 0xCBBB_9D5D_C105_9ED8;
/// Time for which a key stays in its arm, seconds.
const KEY_STAYS_S: u64 = 3600;
/// Size of the set of seen keys, bits.
const SEEN_BITS: u64 = 1 << 16;

/// Result of a draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The request's arm.
    pub arm: Arm,
    /// Whether it counts: of the requests with one key only the first counts, in one worker, because the others are not
    /// independent draws.
    pub counts: bool,
}

/// Draws arms. Requests without a key are drawn independently. Those with one key stay together for an hour, so that
/// what sticks to an endpoint is not moved; after that the keys are drawn again.
#[derive(Clone, Debug)]
pub struct Lots {
    hour: u64,
    seen: Vec<u64>,
    /// This worker's part of the keys, and the number of parts.
    part: (u32, u32),
}

impl Default for Lots {
    fn default() -> Lots {
        Lots { hour: 0, seen: Vec::new(), part: (0, 1) }
    }
}

impl Lots {
    /// Sets which part of the keys, out of `parts`, this worker counts, so that none counts twice.
    pub fn count_part(&mut self, part: u32, parts: u32) {
        self.part = (part, parts.max(1));
    }

    /// Draws the arm of a request; the fraction `holdout` (0..=1) is held out.
    pub fn draw(&mut self, holdout: f64, key: Option<u64>, now: Time, rng: &mut Rng) -> Drawn {
        let Some(key) = key else {
            let arm = if rng.unit() < holdout { Arm::HeldOut } else { Arm::Steered };
            return Drawn { arm, counts: true };
        };
        let hour = now.0 / (KEY_STAYS_S * 1_000_000_000);
        let lot = rng::mix(key ^ SALT ^ rng::mix(hour));
        let unit = (lot >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        let arm = if unit < holdout { Arm::HeldOut } else { Arm::Steered };
        let (part, parts) = self.part;
        let ours = rng::mix(key ^ PART_SALT) % u64::from(parts) == u64::from(part);
        Drawn { arm, counts: ours && self.is_first(key, hour) }
    }

    /// Whether this is the first request with the key in this hour. A key whose bit is taken by another one counts as
    /// seen, which is independent of its arm.
    fn is_first(&mut self, key: u64, hour: u64) -> bool {
        let words = (SEEN_BITS / 64) as usize;
        if self.hour != hour || self.seen.len() != words {
            self.hour = hour;
            self.seen.clear();
            self.seen.resize(words, 0);
        }
        let at = rng::mix(key ^ SEEN_SALT) % SEEN_BITS;
        let Some(word) = self.seen.get_mut((at / 64) as usize) else { return false };
        let bit = 1u64 << (at % 64);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_part_that_is_held_out_is_the_configured_one() {
        let (mut lots, mut rng) = (Lots::default(), Rng::new(5));
        for keyed in [false, true] {
            let draws =
                (0..100_000u64).map(|n| lots.draw(0.1, keyed.then_some(rng::mix(n)), Time::ZERO, &mut rng));
            let held = draws.filter(|drawn| drawn.arm == Arm::HeldOut).count();
            // Four standard deviations of Binomial(100000, 0.1): 4 · √(100000 · 0.1 · 0.9) = 380.
            assert!(held.abs_diff(10_000) < 380, "{held}");
        }
    }

    #[test]
    fn counts_of_a_worker_that_began_anew_are_no_difference() {
        let mut before = Arms::default();
        before.count(Arm::HeldOut, None);
        before.count(Arm::Steered, Some(7));
        let mut now = before.clone();
        now.count(Arm::HeldOut, None);
        assert_eq!(now.since(&before).map(|since| since.requests()), Some(1));
        let anew = |arm, good| {
            let mut anew = Arms::default();
            (0..9).for_each(|_| anew.count(arm, good));
            anew.since(&before)
        };
        // More of everything but the failures, and of everything but the latency.
        assert_eq!([anew(Arm::Steered, Some(7)), anew(Arm::HeldOut, None)], [None, None]);
    }

    #[test]
    fn a_key_stays_for_an_hour_and_counts_once() {
        let (mut lots, mut rng) = (Lots::default(), Rng::new(5));
        let at = |s: u64| Time(s * 1_000_000_000);
        for key in (1..200).map(rng::mix) {
            let first = lots.draw(0.5, Some(key), at(10), &mut rng);
            let again = lots.draw(0.5, Some(key), at(3599), &mut rng);
            assert_eq!((again.arm, again.counts), (first.arm, false));
        }
        let moved = (1..2000).map(rng::mix).filter(|key| {
            let mut draw = |s| lots.draw(0.5, Some(*key), at(s), &mut rng).arm;
            draw(10) != draw(3601)
        });
        // Four standard deviations of Binomial(1999, 0.5) around one half: 90.
        assert!(moved.count().abs_diff(1000) < 90);
    }

    #[test]
    fn a_key_counts_in_one_worker() {
        let mut rng = Rng::new(5);
        let mut workers: Vec<Lots> = (0..3)
            .map(|part| {
                let mut lots = Lots::default();
                lots.count_part(part, 3);
                lots
            })
            .collect();
        // So few that no two share a bit.
        for key in (1..40).map(rng::mix) {
            let draws: Vec<Drawn> =
                workers.iter_mut().map(|lots| lots.draw(0.5, Some(key), Time::ZERO, &mut rng)).collect();
            assert!(draws.iter().all(|drawn| drawn.arm == draws[0].arm));
            assert_eq!(draws.iter().filter(|drawn| drawn.counts).count(), 1);
        }
    }
}
