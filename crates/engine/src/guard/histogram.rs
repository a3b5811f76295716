//! Latency histogram with buckets of 3 to 6 percent: each power of two in sixteen equal parts, found without a
//! logarithm.

/// Log₂ of the number of buckets per power of two.
const PART_BITS: u32 = 4;
const PARTS: usize = 1 << PART_BITS;
/// Log₂ of the upper end of the range below the first bucket, nanoseconds: 66 µs. Faster requests count in the first
/// bucket.
const LOWEST_BIT: u32 = 16;
/// Number of powers of two, up to 2³⁷ ns, 137 s. Slower requests count in the last bucket.
const OCTAVES: usize = 21;
/// Number of buckets.
pub const BUCKETS: usize = PARTS * OCTAVES;

/// Counts by bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [0; BUCKETS] }
    }
}

/// The bucket of a latency.
pub fn bucket_of(ns: u64) -> u16 {
    let ns = ns.max(1 << LOWEST_BIT);
    let top = ns.ilog2();
    let octave = (top - LOWEST_BIT) as usize;
    let part = (ns >> (top - PART_BITS)) as usize & (PARTS - 1);
    (octave * PARTS + part).min(BUCKETS - 1) as u16
}

/// Lower edge of a bucket, seconds; for [`BUCKETS`], the upper edge of the last one.
pub fn lower_edge_s(bucket: usize) -> f64 {
    let (octave, part) = (bucket / PARTS, bucket % PARTS);
    let base = (1u64 << LOWEST_BIT) as f64 * 1e-9;
    base * (1u64 << octave.min(OCTAVES)) as f64 * (1.0 + part as f64 / PARTS as f64)
}

/// The latency below which `wanted` of the `counts` lie, seconds, interpolated evenly in the logarithm within a bucket.
/// `None` if all counts are zero.
pub fn value_at(counts: impl Iterator<Item = f64>, wanted: f64) -> Option<f64> {
    let (mut below, mut last) = (0.0, None);
    for (bucket, count) in counts.enumerate().filter(|(_, count)| *count > 0.0) {
        let (low, high) = (lower_edge_s(bucket), lower_edge_s(bucket + 1));
        if below + count >= wanted {
            let part = ((wanted - below) / count).clamp(0.0, 1.0);
            return Some(low * (high / low).powf(part));
        }
        below += count;
        last = Some(high);
    }
    last
}

impl Histogram {
    /// Counts a request in `bucket`.
    pub fn count(&mut self, bucket: u16) {
        self.add(usize::from(bucket), 1);
    }

    /// Adds `count` requests in `bucket`.
    pub fn add(&mut self, bucket: usize, count: u64) {
        if let Some(place) = self.counts.get_mut(bucket) {
            *place = place.saturating_add(count);
        }
    }

    /// Counts by bucket.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }

    /// Buckets with a count above zero.
    pub fn filled(&self) -> impl Iterator<Item = (usize, u64)> {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// Total count.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Total count in the buckets from `bucket` on.
    pub fn from(&self, bucket: usize) -> u64 {
        self.counts.iter().skip(bucket).fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The latency below which the fraction `part` of all lie, seconds.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        value_at(self.counts.iter().map(|count| *count as f64), part * self.total() as f64)
    }

    /// The latency below which `rank` requests lie, seconds.
    pub fn at_rank(&self, rank: f64) -> Option<f64> {
        value_at(self.counts.iter().map(|count| *count as f64), rank)
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        other.filled().for_each(|(bucket, count)| self.add(bucket, count));
    }

    /// The difference to `before`; `None` if any count decreased.
    pub fn since(&self, before: &Histogram) -> Option<Histogram> {
        let mut came = Histogram::default();
        for (place, (now, before)) in came.counts.iter_mut().zip(self.counts.iter().zip(&before.counts)) {
            *place = now.checked_sub(*before)?;
        }
        Some(came)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn buckets_are_three_to_six_percent_wide_and_hold_what_lies_between_their_edges() {
        for bucket in 0..BUCKETS {
            let (low, high) = (lower_edge_s(bucket), lower_edge_s(bucket + 1));
            assert!((1.03..1.07).contains(&(high / low)), "{bucket}");
            assert_eq!(usize::from(bucket_of((low * 1e9) as u64 + 1)), bucket);
            assert_eq!(usize::from(bucket_of((high * 1e9) as u64 - 1)), bucket);
        }
        assert_eq!((bucket_of(0), usize::from(bucket_of(u64::MAX))), (0, BUCKETS - 1));
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=1000).for_each(|ms| histogram.count(bucket_of(ms * 1_000_000)));
        for (part, s) in [(0.5, 0.5), (0.9, 0.9), (0.99, 0.99)] {
            let found = histogram.quantile(part).unwrap();
            assert!((found / s - 1.0).abs() < 0.02, "{part}: {found}");
        }
        assert_eq!(histogram.from(0), 1000);
    }

    #[test]
    fn what_became_less_is_no_increment() {
        let mut before = Histogram::default();
        before.count(3);
        let mut now = before.clone();
        now.count(3);
        now.count(7);
        assert_eq!(
            now.since(&before).map(|came| came.filled().collect::<Vec<_>>()),
            Some(vec![(3, 1), (7, 1)])
        );
        assert_eq!(before.since(&now), None);
    }
}
