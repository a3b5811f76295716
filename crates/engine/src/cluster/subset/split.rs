//! The version of a request: drawn with exact shares, or fixed by key.
//!
//! Without a key, versions are drawn by the multiples of the golden ratio, which fill [0, 1) more evenly than chance:
//! after n requests of a worker a share is off by a few requests (Kuipers, Niederreiter, "Uniform distribution of
//! sequences", 1974: discrepancy O(log n / n)), where random draws are off by √n.
//!
//! With a key, the versions race: each draws an exponential time from the hash of the key and its own name, divided by
//! its share, and the earliest wins. It wins in proportion to its share, regardless of the order of the configuration,
//! and a share that grows only takes keys over: of two versions, exactly as many as it grew by. The key's hash is
//! independent of the policy's, so that a user keeps the version whatever happens to its endpoints, and users of one
//! version spread over all of them.

use crate::rng::{self, Rng};

/// 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Salt that keeps the choice of a version independent of the ring's hash.
const VERSION_SALT: u64 = 0x5851_F42D_4C95_7F2D;

/// The shares of the versions.
#[derive(Debug, Default)]
pub(crate) struct Split {
    versions: Vec<Box<str>>,
    /// The hash of each version's name.
    names: Vec<u64>,
    /// Upper end of each version's part of [0, 1).
    ends: Vec<f64>,
    /// The last multiple; the first is random in each worker.
    turn: Option<u64>,
}

/// Result of a draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Drawn {
    /// Position of the version.
    pub version: usize,
    from: From,
}

/// What a replacement is derived from if the drawn version does not serve.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    /// Position of the draw within the version's part of [0, 1), as a fraction: as good as a fresh draw.
    Rest(f64),
    /// The key, which has a next choice.
    Key(u64),
}

/// Maps 64 bits to a number in `[0, 1)`.
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

impl Split {
    /// Shares as configured; if empty, there is a single version that includes every endpoint.
    pub fn new(shares: &[(String, f64)]) -> Split {
        let total: f64 = shares.iter().map(|(_, share)| share).sum();
        let mut end = 0.0;
        let ends = shares.iter().map(|(_, share)| {
            end += share / total;
            end
        });
        Split {
            ends: ends.collect(),
            names: shares.iter().map(|(version, _)| rng::hash(version.as_bytes())).collect(),
            versions: shares.iter().map(|(version, _)| version.as_str().into()).collect(),
            turn: None,
        }
    }

    /// Number of versions, at least one.
    pub fn versions(&self) -> usize {
        self.versions.len().max(1)
    }

    /// Position of `version`; `None` if it is not part of the split.
    pub fn version_of(&self, version: &str) -> Option<usize> {
        if self.versions.is_empty() {
            return Some(0);
        }
        self.versions.iter().position(|v| **v == *version)
    }

    /// Configured share of the version at `version`, 0..=1.
    pub fn share(&self, version: usize) -> f64 {
        let start = version.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0.0);
        self.ends.get(version).map_or(1.0, |end| end - start)
    }

    /// Draws the version of the next request, or of all requests with this key.
    pub fn draw(&mut self, key: Option<u64>, rng: &mut Rng) -> Drawn {
        if self.ends.len() < 2 {
            return Drawn { version: 0, from: From::Rest(0.0) };
        }
        if let Some(key) = key {
            return self.of_key(key);
        }
        let turn = self.turn.unwrap_or_else(|| rng.next_u64()).wrapping_add(GOLDEN);
        self.turn = Some(turn);
        self.place(unit(turn), |_| true)
    }

    /// Draws the version of another attempt, or of all requests with this key, without taking a turn.
    pub fn draw_again(&self, key: Option<u64>, rng: &mut Rng) -> Drawn {
        if self.ends.len() < 2 {
            return Drawn { version: 0, from: From::Rest(0.0) };
        }
        key.map_or_else(|| self.place(rng.unit(), |_| true), |key| self.of_key(key))
    }

    fn of_key(&self, key: u64) -> Drawn {
        Drawn { version: self.race(key, |_| true).unwrap_or(0), from: From::Key(key) }
    }

    /// The version that replaces the one of `drawn`, among those that `serves`, in proportion to their shares.
    pub fn instead(&self, drawn: Drawn, serves: impl Fn(usize) -> bool) -> Drawn {
        let rest = match drawn.from {
            From::Key(key) => {
                let version = self.race(key, serves).unwrap_or(drawn.version);
                return Drawn { version, ..drawn };
            }
            From::Rest(rest) => rest,
        };
        let total: f64 =
            (0..self.ends.len()).filter(|version| serves(*version)).map(|version| self.share(version)).sum();
        if total <= 0.0 { drawn } else { self.place(rest * total, serves) }
    }

    /// The version that wins the race for `key` among those that `runs`.
    fn race(&self, key: u64, runs: impl Fn(usize) -> bool) -> Option<usize> {
        let key = rng::mix(key ^ VERSION_SALT);
        let mut first: Option<(f64, u64, usize)> = None;
        for (version, name) in self.names.iter().enumerate().filter(|(version, _)| runs(*version)) {
            // In (0, 1], so that the logarithm is finite.
            let drawn = 1.0 - unit(rng::mix(key ^ name));
            let time = -drawn.ln() / self.share(version);
            // The name breaks ties, so the order of the configuration does not matter.
            if first.is_none_or(|(before, of, _)| (time, *name) < (before, of)) {
                first = Some((time, *name, version));
            }
        }
        first.map(|(_, _, version)| version)
    }

    fn place(&self, at: f64, serves: impl Fn(usize) -> bool) -> Drawn {
        let (mut left, mut last) = (at, Drawn { version: 0, from: From::Rest(0.0) });
        for version in (0..self.ends.len()).filter(|version| serves(*version)) {
            let share = self.share(version);
            last = Drawn { version, from: From::Rest((left / share).clamp(0.0, 1.0)) };
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
        let mut counts = vec![0.0; split.versions()];
        let mut rng = Rng::new(4);
        (0..draws as u64).for_each(|n| counts[split.draw(key(n), &mut rng).version] += 1.0);
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
        let key = rng::hash;
        let versions: Vec<usize> =
            (0..1000u64).map(|n| split.draw(Some(key(&n.to_le_bytes())), &mut Rng::new(n)).version).collect();
        let again: Vec<usize> =
            (0..1000u64).map(|n| split.draw(Some(key(&n.to_le_bytes())), &mut Rng::new(7)).version).collect();
        assert_eq!(versions, again);
        let counts = counts(&mut split, 100_000, |n| Some(key(&n.to_le_bytes())));
        assert!((counts[1] / 100_000.0 - 0.2).abs() < 0.005, "{counts:?}");
    }

    fn of_keys(shares: &[(&str, f64)], keys: u64) -> Vec<String> {
        let named: Vec<_> = shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect();
        let mut split = Split::new(&named);
        let mut version = |n: u64| split.draw(Some(rng::hash(&n.to_le_bytes())), &mut Rng::new(n)).version;
        (0..keys).map(|n| named[version(n)].0.clone()).collect()
    }

    fn moved(from: &[(&str, f64)], to: &[(&str, f64)]) -> usize {
        let (from, to) = (of_keys(from, 20_000), of_keys(to, 20_000));
        from.iter().zip(&to).filter(|(from, to)| from != to).count()
    }

    /// 4.5 standard deviations of a count of 20,000 draws.
    fn off(share: f64) -> f64 {
        4.5 * (20_000.0 * share * (1.0 - share)).sqrt()
    }

    #[test]
    fn the_order_of_versions_moves_no_key() {
        let one = of_keys(&[("v1", 80.0), ("v2", 15.0), ("v3", 5.0)], 2_000);
        for order in [[("v3", 5.0), ("v1", 80.0), ("v2", 15.0)], [("v2", 1.5), ("v3", 0.5), ("v1", 8.0)]] {
            assert_eq!(of_keys(&order, 2_000), one);
        }
    }

    #[test]
    fn a_change_of_shares_moves_what_it_must() {
        for (from, to, least) in [
            (&[("v1", 80.0), ("v2", 20.0)][..], &[("v1", 70.0), ("v2", 30.0)][..], 0.1),
            (&[("v1", 80.0), ("v2", 20.0)], &[("v2", 30.0), ("v1", 70.0)], 0.1),
            (&[("new", 1.0), ("old", 99.0)], &[("new", 50.0), ("old", 50.0)], 0.49),
            // A third version takes its part from both.
            (&[("v1", 80.0), ("v2", 20.0)], &[("v0", 10.0), ("v1", 72.0), ("v2", 18.0)], 0.1),
            (&[("v1", 80.0), ("v2", 20.0)], &[("v1", 100.0)], 0.2),
        ] {
            let moved = moved(from, to) as f64;
            assert!((moved - 20_000.0 * least).abs() < off(least), "{from:?} {to:?}: {moved}");
        }
        // With three versions, no memoryless rule moves fewer than 2d / (1 + d) for every change of d (Bavarian et al.,
        // "The optimality of correlated sampling", 2016).
        let moved =
            moved(&[("v1", 80.0), ("v2", 10.0), ("v3", 10.0)], &[("v1", 70.0), ("v2", 20.0), ("v3", 10.0)]);
        assert!((moved as f64) < 20_000.0 * 0.2 / 1.1, "{moved}");
    }

    #[test]
    fn keys_of_a_version_that_does_not_serve_go_to_the_others_in_proportion() {
        let mut split = split(&[50.0, 30.0, 20.0]);
        let mut counts = [0.0f64; 3];
        for n in 0..20_000u64 {
            let key = rng::hash(&n.to_le_bytes());
            let drawn = split.draw(Some(key), &mut Rng::new(1));
            let instead = split.instead(drawn, |version| version != 0);
            assert!(drawn.version == 0 || instead.version == drawn.version, "no other key moves");
            counts[instead.version] += 1.0;
        }
        assert!(counts[0] == 0.0 && (counts[1] - 12_000.0).abs() < off(0.6), "{counts:?}");
    }

    #[test]
    fn takeover_keeps_the_proportion() {
        let mut split = split(&[50.0, 30.0, 20.0]);
        let mut rng = Rng::new(1);
        let mut counts = [0.0f64; 3];
        for _ in 0..10_000 {
            let drawn = split.draw(None, &mut rng);
            let version =
                if drawn.version == 0 { split.instead(drawn, |l| l != 0).version } else { drawn.version };
            counts[version] += 1.0;
        }
        assert!(counts[0] == 0.0 && (counts[1] - 6000.0).abs() < 20.0, "{counts:?}");
        let nobody = Drawn { version: 2, from: From::Rest(0.5) };
        assert_eq!(split.instead(nobody, |_| false), nobody);
    }

    #[test]
    fn without_shares_all_endpoints_are_one_version() {
        let mut split = Split::new(&[]);
        assert_eq!((split.versions(), split.version_of("anything"), split.share(0)), (1, Some(0), 1.0));
        assert_eq!(split.draw(Some(5), &mut Rng::new(1)).version, 0);
        let single = super::tests::split(&[3.0]);
        assert_eq!((single.version_of("v0"), single.version_of("")), (Some(0), None));
    }
}
