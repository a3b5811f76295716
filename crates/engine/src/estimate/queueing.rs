//! How much requests in flight delay the next one: a curve learnt from the upstream's own answers, because
//! it is told nowhere how many requests an endpoint serves at once.
//!
//! An endpoint that works on one request at a time answers the second after twice the time. One with many slots
//! does not care until they are full, and then its latency grows with every request in line. Latency × in-flight,
//! the usual price, is right for the first, and for the second it sends requests to slow endpoints in order to
//! spare idle slots. So for each depth (requests that a new one finds in flight) the mean logarithmic deviation
//! from what the endpoint takes when idle is kept; the same curve takes the queue out of the latency samples,
//! so that an endpoint is not called slow for being popular.
//!
//! Where nothing has been seen the curve goes on linearly from where something has: the price of a single server.
//!
//! Depth is what awaits an answer, by the endpoint's weight: a stream that is open delays no endpoint. Of each depth
//! the variance is learnt, too: what waited in a queue says the less of an endpoint's speed.

use super::noise::Noise;

/// Buckets of depth: one each up to 8, then four an octave.
const BUCKETS: usize = 24;
/// About the last this many answers of a bucket count.
const WINDOW: f32 = 300.0;
/// The linear continuation weighs as much as this many answers.
const PRIOR_WEIGHT: f32 = 20.0;
/// An answer's deviation counts up to this (natural log), so that one outlier bends nothing.
const CLIP: f32 = 3.0;
/// An answer that lies further below than so many times the spread of answers, and than this (natural log), says
/// nothing.
const QUICKER: f32 = 4.0;
const MIN_QUICKER: f32 = 2.0;
/// Fewer in flight is better even where it does not show in the latency: it spreads what may go wrong.
const MIN_EXPONENT: f32 = 0.3;
/// Depths with a prepared factor; deeper ones go on linearly.
const DEPTHS: usize = 160;
/// Where a request takes this multiple of its time, the endpoint is seen to be full, and so much more than it works on
/// is there. Enough to be no noise, and little enough to be met before every endpoint is overloaded: good balancing
/// keeps queues short.
const FULL_DELAY: f32 = 1.4;

/// The least weight of a sample.
const MIN_WEIGHT: f32 = 0.05;

/// How many requests an endpoint works on at a time, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slots {
    /// So many, above 0.
    pub count: f32,
    /// Whether endpoints have been seen to fill up; if not, it may be any number above as well.
    pub found: bool,
}

impl Slots {
    /// What two workers know together: the one that has seen endpoints fill up is right, and so is the higher of two
    /// lower bounds.
    pub fn merged(one: Option<Slots>, other: Option<Slots>) -> Option<Slots> {
        match (one, other) {
            (Some(one), Some(other)) if one.found && other.found => {
                Some(Slots { count: 0.5 * (one.count + other.count), found: true })
            }
            (Some(one), Some(other)) if one.found == other.found => {
                Some(Slots { count: one.count.max(other.count), found: false })
            }
            (Some(one), Some(other)) => Some(if one.found { one } else { other }),
            (one, other) => one.or(other),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    seen: f32,
    mean: f32,
    variance: f32,
}

/// The curve, with its factors prepared.
#[derive(Clone, Debug)]
pub struct Queueing {
    buckets: [Bucket; BUCKETS],
    /// By depth: what it multiplies the latency by, and the price, which is never flat.
    delay: [f32; DEPTHS],
    price: [f32; DEPTHS],
    /// By bucket: what a sample weighs.
    weights: [f32; BUCKETS],
    /// What never changes: by depth, the part of the price that is for the company; by bucket, by how much (natural log)
    /// a single line grows from the one before.
    company: [f32; DEPTHS],
    growth: [f32; BUCKETS],
    /// Whether there has been an answer since the factors were prepared.
    news: bool,
    /// How much answers differ by nature.
    pub noise: Noise,
}

impl Default for Queueing {
    fn default() -> Queueing {
        let mut queueing = Queueing {
            buckets: Default::default(),
            delay: [1.0; DEPTHS],
            price: [1.0; DEPTHS],
            weights: [1.0; BUCKETS],
            company: core::array::from_fn(|depth| (1.0 + depth as f32).powf(MIN_EXPONENT)),
            growth: core::array::from_fn(|at| (crowd(at) / at.checked_sub(1).map_or(1.0, crowd)).ln()),
            news: true,
            noise: Noise::default(),
        };
        queueing.refresh();
        queueing
    }
}

/// The bucket of a depth.
fn bucket(depth: usize) -> usize {
    match depth {
        0..=8 => depth,
        _ => {
            let octave = (depth / 8).ilog2() as usize;
            let quarter = (depth >> (octave + 1)) & 3;
            (8 + 4 * octave + quarter).min(BUCKETS - 1)
        }
    }
}

/// How many there are with a request that comes to the least depth of a bucket.
fn crowd(bucket: usize) -> f32 {
    1.0 + first_depth(bucket) as f32
}

/// The least depth of a bucket.
fn first_depth(of: usize) -> usize {
    let Some(beyond) = of.checked_sub(8) else { return of };
    let (octave, quarter) = (beyond / 4, beyond % 4);
    (8 << octave) + quarter * (2 << octave)
}

impl Queueing {
    /// An answer to a request that found `depth` others in flight, `deviation` (natural log) above what its
    /// endpoint takes when idle.
    pub fn observe(&mut self, depth: u32, deviation: f32) {
        let Some(bucket) = self.buckets.get_mut(bucket(depth as usize)) else { return };
        // No queue makes an answer quicker: one that lies so far below is of an endpoint that has healed.
        let lowest = -(QUICKER * self.noise.spread()).max(MIN_QUICKER);
        if deviation.is_finite() && deviation >= lowest {
            self.news = true;
            bucket.seen = (bucket.seen + 1.0).min(WINDOW);
            let off = deviation.clamp(-CLIP, CLIP) - bucket.mean;
            bucket.mean += off / bucket.seen;
            bucket.variance += (off * off - bucket.variance) / bucket.seen;
        }
    }

    /// What a sample from this depth weighs: the least variance over that of this depth.
    pub fn sample_weight(&self, depth: u32) -> f32 {
        self.weights.get(bucket(depth as usize)).copied().unwrap_or(1.0)
    }

    /// Prepares the factors; called on a tick. Without an answer since the last time they are what they were.
    pub fn refresh(&mut self) {
        if !core::mem::take(&mut self.news) {
            return;
        }
        let known = self.buckets.iter().filter(|b| b.seen >= PRIOR_WEIGHT);
        let least = known.map(|b| b.variance).fold(f32::INFINITY, f32::min);
        for (weight, bucket) in self.weights.iter_mut().zip(&self.buckets) {
            let known = bucket.seen >= PRIOR_WEIGHT && bucket.variance > 0.0;
            *weight = if known { (least / bucket.variance).clamp(MIN_WEIGHT, 1.0) } else { 1.0 };
        }
        let origin = self.buckets.iter().find(|b| b.seen >= PRIOR_WEIGHT).map_or(0.0, |b| b.mean);
        let mut log_delay = 0.0f32;
        for (at, (own, growth)) in self.buckets.iter().zip(&self.growth).enumerate() {
            // Its own mean, leaning on the linear continuation of the one before.
            let linear = log_delay + growth;
            let fitted = (own.seen * (own.mean - origin) + PRIOR_WEIGHT * linear) / (own.seen + PRIOR_WEIGHT);
            log_delay = fitted.max(log_delay);
            let delay = log_delay.exp();
            let depths = first_depth(at)..if at + 1 < BUCKETS { first_depth(at + 1) } else { DEPTHS };
            let places = (self.delay.get_mut(depths.clone()), self.price.get_mut(depths.clone()));
            if let ((Some(delays), Some(prices)), Some(company)) = (places, self.company.get(depths)) {
                delays.fill(delay);
                prices.iter_mut().zip(company).for_each(|(price, company)| *price = delay * company);
            }
        }
    }

    /// How many requests an endpoint works on at a time: as many as are there where a request takes noticeably more
    /// than it does at the least depth that was seen, divided by how much more. Only depths that were seen say so: what
    /// the curve assumes of the others is no sign of a full endpoint. `None` until there are answers enough.
    pub fn slots(&self) -> Option<Slots> {
        let mut seen = self.seen().map(|(at, _)| first_depth(at) as u32);
        let least = seen.next()?;
        let deepest = seen.last().unwrap_or(least);
        let full_delay = FULL_DELAY * self.delay(least);
        let Some(full) = (least..=deepest).find(|depth| self.delay(*depth) >= full_delay) else {
            return Some(Slots { count: 1.0 + deepest as f32, found: false });
        };
        let (above, below) = (self.delay(full), self.delay(full.saturating_sub(1)));
        let part = if above > below { ((full_delay - below) / (above - below)).clamp(0.0, 1.0) } else { 1.0 };
        Some(Slots { count: (full as f32 + part) / FULL_DELAY, found: true })
    }

    /// How far latency has risen above its own floor where a request finds `depth` others: 0 not at all, 1 as far as it
    /// does where endpoints are full. `None` where no such depth has been seen.
    pub fn risen(&self, depth: u32) -> Option<f32> {
        let floor = self.seen().map(|(_, mean)| mean).reduce(f32::min)?;
        let here = self.seen().take_while(|(at, _)| *at <= bucket(depth as usize)).last();
        let delay = (here?.1 - floor).exp();
        Some(((delay - 1.0) / (FULL_DELAY - 1.0)).clamp(0.0, 1.0))
    }

    /// The buckets with enough answers, and their means.
    fn seen(&self) -> impl Iterator<Item = (usize, f32)> {
        let enough = |(_, bucket): &(usize, &Bucket)| bucket.seen >= PRIOR_WEIGHT;
        self.buckets.iter().enumerate().filter(enough).map(|(at, bucket)| (at, bucket.mean))
    }

    /// What a request that finds `depth` others takes, in multiples of one that finds none.
    pub fn delay(&self, depth: u32) -> f32 {
        read(&self.delay, depth as f32)
    }

    /// What a request that finds `depth` others costs: the delay, and a little for the company. A fraction is
    /// allowed, because capacity is weighted.
    pub fn price(&self, depth: f32) -> f32 {
        read(&self.price, depth)
    }
}

/// Interpolates, and goes on linearly beyond the end.
fn read(table: &[f32; DEPTHS], depth: f32) -> f32 {
    let at = |depth: usize| table.get(depth).copied().unwrap_or(1.0);
    let depth = if depth > 0.0 { depth } else { 0.0 };
    let below = depth as usize;
    if below + 1 >= DEPTHS {
        return at(DEPTHS - 1) * (1.0 + depth) / DEPTHS as f32;
    }
    let (low, high) = (at(below), at(below + 1));
    low + (high - low) * (depth - below as f32)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::rng::Rng;

    fn learn(delay: impl Fn(u32) -> f32, deepest: u32) -> Queueing {
        let mut queueing = Queueing::default();
        let mut rng = Rng::new(3);
        for _ in 0..20_000 {
            let depth = rng.below(deepest);
            queueing.observe(depth, delay(depth).ln() + (rng.unit() as f32 - 0.5));
        }
        queueing.refresh();
        queueing
    }

    #[test]
    fn who_heals_while_idle_is_no_queue_of_those_who_are_busy() {
        let mut queueing = Queueing::default();
        for answer in 0..100 {
            queueing.observe(0, if answer % 10 == 0 { -4.6 } else { 0.0 });
            queueing.observe(1, 0.0);
        }
        queueing.refresh();
        // The guess of a single server raises it a little.
        assert!(queueing.delay(1) < 1.2, "{}", queueing.delay(1));
    }

    #[test]
    fn finds_out_how_many_slots_there_are() {
        for slots in [1.0f32, 4.0, 8.0] {
            let queueing = learn(|depth| (1.0f32).max((1.0 + depth as f32) / slots), 20);
            for depth in [0u32, 3, 7, 12] {
                let truth = (1.0f32).max((1.0 + depth as f32) / slots);
                let learnt = queueing.delay(depth);
                assert!(
                    (learnt / truth - 1.0).abs() < 0.25,
                    "{slots} slots, {depth} deep: {learnt}, not {truth}"
                );
            }
        }
    }

    #[test]
    fn the_unseen_costs_as_much_as_in_a_single_line() {
        assert!((Queueing::default().delay(9) - 10.0).abs() < 1.5);
        let queueing = learn(|_| 1.0, 4);
        assert!(queueing.delay(3) < 1.2);
        assert!((6.0..14.0).contains(&(queueing.delay(39) / queueing.delay(3))), "{}", queueing.delay(39));
        assert!(queueing.price(1e6) > 1000.0 && queueing.price(1e6).is_finite());
    }

    #[test]
    fn the_price_rises_with_every_request() {
        let queueing = learn(|_| 1.0, 10);
        assert!((0..200).all(|d| queueing.price(d as f32) < queueing.price(d as f32 + 1.0)));
        assert!(queueing.price(0.5) > queueing.price(0.0));
    }

    #[test]
    fn tells_slots_from_as_many_as_have_been_seen() {
        for slots in [1.0f32, 4.0, 8.0] {
            let delay = |depth: u32| (1.0f32).max((1.0 + depth as f32) / slots);
            let found = learn(delay, 24).slots().unwrap();
            assert!(found.found && (found.count / slots - 1.0).abs() < 0.3, "{slots}: {found:?}");
        }
        let unfilled = learn(|_| 1.0, 4).slots().unwrap();
        assert!(!unfilled.found && (3.0..5.0).contains(&unfilled.count), "{unfilled:?}");
        assert_eq!(Queueing::default().slots(), None);
    }

    #[test]
    fn depths_that_nobody_has_seen_are_no_sign_of_a_full_endpoint() {
        // 64 slots, a third to a half of them busy: never fewer than 20, never more than 32.
        let mut queueing = Queueing::default();
        let mut rng = Rng::new(5);
        for _ in 0..5_000 {
            queueing.observe(20 + rng.below(12), rng.unit() as f32 - 0.5);
        }
        queueing.refresh();
        let slots = queueing.slots().unwrap();
        assert!(!slots.found && slots.count >= 20.0, "{slots:?}");
        assert_eq!(queueing.risen(5), None, "such depths have not been seen");
        assert!(queueing.risen(30).unwrap() < 0.3, "{:?}", queueing.risen(30));
        let queueing = learn(|depth| (1.0f32).max((1.0 + depth as f32) / 4.0), 24);
        assert!(queueing.risen(2).unwrap() < 0.3, "{:?}", queueing.risen(2));
        assert_eq!(queueing.risen(12), Some(1.0));
    }

    #[test]
    fn who_has_seen_endpoints_fill_up_is_right() {
        let found = |count| Some(Slots { count, found: true });
        let bound = |count| Some(Slots { count, found: false });
        assert_eq!(Slots::merged(found(4.0), bound(9.0)), found(4.0));
        assert_eq!(Slots::merged(bound(3.0), bound(9.0)), bound(9.0));
        assert_eq!(Slots::merged(found(4.0), found(6.0)), found(5.0));
        assert_eq!(Slots::merged(None, bound(2.0)), bound(2.0));
    }

    #[test]
    fn nonsense_bends_nothing() {
        let mut queueing = Queueing::default();
        queueing.observe(0, f32::NAN);
        queueing.observe(u32::MAX, f32::INFINITY);
        queueing.refresh();
        assert_eq!(queueing.delay(0), 1.0);
    }

    #[test]
    fn buckets_are_in_order() {
        let all: Vec<usize> = (0..DEPTHS).map(bucket).collect();
        assert!(all.windows(2).all(|w| w[0] <= w[1] && w[1] - w[0] <= 1), "{all:?}");
        for (depth, of) in all.iter().enumerate() {
            let first = all.iter().position(|other| other == of);
            assert_eq!(first, Some(first_depth(*of)), "{depth}");
        }
    }
}
