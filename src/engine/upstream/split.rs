//! Which version a request is for: shares kept exactly, or by key for ever.
//!
//! Without a key, versions are drawn by the multiples of the golden ratio, which fill [0, 1) more evenly than chance:
//! after n requests of a worker a share is off by a few requests (Kuipers, Niederreiter, "Uniform distribution of
//! sequences", 1974: discrepancy O(log n / n)), where chance is off by √n. A key is hashed once more, apart from how
//! a policy hashes it, so that a user keeps the version whatever becomes of its endpoints, and users of one version
//! spread over all of them.

use crate::random::{self, Rng};

/// 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Keeps the version's hash of a key apart from that of the ring.
const VERSION_SALT: u64 = 0x5851_F42D_4C95_7F2D;

/// Shares by version, drawn from.
#[derive(Debug, Default)]
pub(super) struct Split {
    versions: Vec<Box<str>>,
    /// Where each version's part of [0, 1) ends.
    ends: Vec<f64>,
    /// The last multiple; workers begin anywhere.
    turn: Option<u64>,
}

/// What a draw came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Drawn {
    /// Position of the version.
    pub lane: usize,
    /// Where in that version's part of [0, 1) the draw fell, as a fraction of it: as good as a fresh draw.
    pub rest: f64,
}

/// A number of `[0, 1)` from 64 bits.
pub(super) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

impl Split {
    /// Shares as configured; without any there is one version, which everybody has.
    pub fn new(shares: &[(String, f64)]) -> Split {
        let total: f64 = shares.iter().map(|(_, share)| share).sum();
        let mut end = 0.0;
        let ends = shares.iter().map(|(_, share)| {
            end += share / total;
            end
        });
        Split {
            ends: ends.collect(),
            versions: shares.iter().map(|(version, _)| version.as_str().into()).collect(),
            turn: None,
        }
    }

    /// How many versions there are, at least one.
    pub fn lanes(&self) -> usize {
        self.versions.len().max(1)
    }

    /// The position of `version`; none if it gets nothing.
    pub fn lane_of(&self, version: &str) -> Option<usize> {
        if self.versions.is_empty() {
            return Some(0);
        }
        self.versions.iter().position(|v| **v == *version)
    }

    /// The part of the requests that the version at `lane` is to have.
    pub fn share(&self, lane: usize) -> f64 {
        let start = lane.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0.0);
        self.ends.get(lane).map_or(1.0, |end| end - start)
    }

    /// The version of the next request, or of all requests with this key.
    pub fn draw(&mut self, key: Option<u64>, rng: &mut Rng) -> Drawn {
        if self.ends.len() < 2 {
            return Drawn { lane: 0, rest: 0.0 };
        }
        let at = match key {
            Some(key) => unit(random::mix(key ^ VERSION_SALT)),
            None => {
                let turn = self.turn.unwrap_or_else(|| rng.next_u64()).wrapping_add(GOLDEN);
                self.turn = Some(turn);
                unit(turn)
            }
        };
        self.place(at, |_| true)
    }

    /// The version that takes over from the one of `drawn`, among those that `serves`; the same part of its requests
    /// for each as of all.
    pub fn instead(&self, drawn: Drawn, serves: impl Fn(usize) -> bool) -> Drawn {
        let total: f64 = (0..self.ends.len()).filter(|lane| serves(*lane)).map(|lane| self.share(lane)).sum();
        if total <= 0.0 { drawn } else { self.place(drawn.rest * total, serves) }
    }

    fn place(&self, at: f64, serves: impl Fn(usize) -> bool) -> Drawn {
        let (mut left, mut last) = (at, Drawn { lane: 0, rest: 0.0 });
        for lane in (0..self.ends.len()).filter(|lane| serves(*lane)) {
            let share = self.share(lane);
            last = Drawn { lane, rest: (left / share).clamp(0.0, 1.0) };
            if left < share {
                break;
            }
            left -= share;
        }
        last
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn split(shares: &[f64]) -> Split {
        let named: Vec<_> = (0..).zip(shares).map(|(i, share)| (format!("v{i}"), *share)).collect();
        Split::new(&named)
    }

    fn counts(split: &mut Split, draws: usize, key: impl Fn(u64) -> Option<u64>) -> Vec<f64> {
        let mut counts = vec![0.0; split.lanes()];
        let mut rng = Rng::new(4);
        (0..draws as u64).for_each(|n| counts[split.draw(key(n), &mut rng).lane] += 1.0);
        counts
    }

    #[test]
    fn shares_are_kept_to_a_few_requests() {
        for shares in [&[80.0, 20.0][..], &[1.0, 99.0], &[0.5, 0.3, 0.2], &[1.0; 32]] {
            let total: f64 = shares.iter().sum();
            for draws in [100, 2_000, 50_000] {
                let counts = counts(&mut split(shares), draws, |_| None);
                for (share, count) in shares.iter().zip(&counts) {
                    let off = count - draws as f64 * share / total;
                    assert!(off.abs() < 6.0, "{shares:?} {draws}: {counts:?}");
                }
            }
        }
    }

    #[test]
    fn a_key_has_one_version_and_keys_have_the_shares() {
        let mut split = split(&[80.0, 20.0]);
        let key = random::hash;
        let lanes: Vec<usize> =
            (0..1000u64).map(|n| split.draw(Some(key(&n.to_le_bytes())), &mut Rng::new(n)).lane).collect();
        let again: Vec<usize> =
            (0..1000u64).map(|n| split.draw(Some(key(&n.to_le_bytes())), &mut Rng::new(7)).lane).collect();
        assert_eq!(lanes, again);
        let counts = counts(&mut split, 100_000, |n| Some(key(&n.to_le_bytes())));
        assert!((counts[1] / 100_000.0 - 0.2).abs() < 0.005, "{counts:?}");
    }

    #[test]
    fn whoever_takes_over_keeps_the_proportion() {
        let mut split = split(&[50.0, 30.0, 20.0]);
        let mut rng = Rng::new(1);
        let mut counts = [0.0f64; 3];
        for _ in 0..10_000 {
            let drawn = split.draw(None, &mut rng);
            let lane = if drawn.lane == 0 { split.instead(drawn, |l| l != 0).lane } else { drawn.lane };
            counts[lane] += 1.0;
        }
        assert!(counts[0] == 0.0 && (counts[1] - 6000.0).abs() < 20.0, "{counts:?}");
        let nobody = Drawn { lane: 2, rest: 0.5 };
        assert_eq!(split.instead(nobody, |_| false), nobody);
    }

    #[test]
    fn without_shares_everybody_is_of_one_version() {
        let mut split = Split::new(&[]);
        assert_eq!((split.lanes(), split.lane_of("anything"), split.share(0)), (1, Some(0), 1.0));
        assert_eq!(split.draw(Some(5), &mut Rng::new(1)).lane, 0);
        let single = super::tests::split(&[3.0]);
        assert_eq!((single.lane_of("v0"), single.lane_of("")), (Some(0), None));
    }
}
