//! How much requests in flight delay the next one: a curve learnt from the cluster's own answers, because how many
//! requests an endpoint serves at once is not configured anywhere.
//!
//! An endpoint that works on one request at a time answers the second after twice the time. One with many slots is not
//! affected until they are full; then its latency grows with every queued request. The usual cost, latency × in-flight,
//! is right for the first, but for the second it sends requests to slow endpoints in order to spare idle slots. So for
//! each depth (the number of requests that a new one finds in flight) the mean logarithmic deviation from the
//! endpoint's idle latency is kept. The same curve removes the queueing delay from latency samples, so that an endpoint
//! does not count as slow for being popular.
//!
//! Beyond the observed depths the curve continues linearly, as for a single server.
//!
//! Depth counts requests that await an answer, relative to the endpoint's weight: an open stream delays no endpoint.
//! The variance is learnt per depth as well: a sample that waited in a queue says less about the endpoint's speed.

use super::noise::Noise;

/// Number of depth buckets: one per depth up to 8, then four per octave.
const BUCKETS: usize = 24;
/// Window of the moving averages in a bucket, answers.
const WINDOW: f32 = 300.0;
/// Weight of the linear continuation, answers.
const PRIOR_WEIGHT: f32 = 20.0;
/// Upper bound of an answer's deviation (natural log), against outliers.
const CLIP: f32 = 3.0;
/// Deviation below which an answer is ignored, in multiples of the spread of answers.
const QUICKER: f32 = 4.0;
/// Minimum of that bound (natural log).
const MIN_QUICKER: f32 = 2.0;
/// Exponent of the minimum cost over 1 + depth: fewer requests in flight are better even where latency does not show
/// it, because they limit the damage of a failure.
const MIN_EXPONENT: f32 = 0.3;
/// Number of depths with a precomputed factor; beyond, the curve is linear.
const DEPTHS: usize = 160;
/// Delay factor at which an endpoint counts as full; it then holds this factor more requests than it works on. High
/// enough not to be noise, and low enough to occur before every endpoint is overloaded: good balancing keeps queues
/// short.
const FULL_DELAY: f32 = 1.4;

/// Minimum weight of a sample.
const MIN_WEIGHT: f32 = 0.05;

/// How many requests an endpoint works on at a time, as far as known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slots {
    /// The number of requests, above 0.
    pub count: f32,
    /// Whether endpoints have been seen to fill up; if not, `count` is a lower bound.
    pub found: bool,
}

impl Slots {
    /// Merges the estimates of two workers: one that has seen endpoints fill up takes precedence; of two lower bounds,
    /// the higher counts.
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

/// The learnt curve, with precomputed factors.
#[derive(Clone, Debug)]
pub struct Queueing {
    buckets: [Bucket; BUCKETS],
    /// Factor on the latency, by depth.
    delay: [f32; DEPTHS],
    /// Factor on the cost, by depth; it always rises.
    cost: [f32; DEPTHS],
    /// Weight of a sample, by bucket.
    weights: [f32; BUCKETS],
    /// Factor of the cost for the number of requests alone, by depth; constant.
    company: [f32; DEPTHS],
    /// Growth (natural log) of a single server's delay from the previous bucket, by bucket; constant.
    growth: [f32; BUCKETS],
    /// Mean logarithm of the number of requests, including the new one, behind the answers in the last bucket,
    /// which has no upper end: its delay is that of so many.
    deep: f32,
    /// Whether there has been an answer since the factors were computed.
    news: bool,
    /// Mean time until an answer, waiting included, seconds; 0 before the first.
    pub sojourn_s: f32,
    /// How much answers vary by nature.
    pub noise: Noise,
}

impl Default for Queueing {
    fn default() -> Queueing {
        let mut queueing = Queueing {
            buckets: Default::default(),
            delay: [1.0; DEPTHS],
            cost: [1.0; DEPTHS],
            weights: [1.0; BUCKETS],
            company: core::array::from_fn(|depth| (1.0 + depth as f32).powf(MIN_EXPONENT)),
            growth: core::array::from_fn(|at| (crowd(at) / at.checked_sub(1).map_or(1.0, crowd)).ln()),
            deep: crowd(BUCKETS - 1).ln(),
            news: true,
            sojourn_s: 0.0,
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

/// Number of requests, including the new one, at the lowest depth of a bucket.
fn crowd(bucket: usize) -> f32 {
    1.0 + first_depth(bucket) as f32
}

/// Lowest depth of a bucket.
fn first_depth(of: usize) -> usize {
    let Some(beyond) = of.checked_sub(8) else { return of };
    let (octave, quarter) = (beyond / 4, beyond % 4);
    (8 << octave) + quarter * (2 << octave)
}

impl Queueing {
    /// Records an answer to a request that found `depth` others, with its deviation (natural log) from the endpoint's
    /// idle latency.
    pub fn observe(&mut self, depth: u32, deviation: f32) {
        let at = bucket(depth as usize);
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        // No queue makes an answer faster: one so far below comes from an endpoint that has recovered.
        let lowest = -(QUICKER * self.noise.spread()).max(MIN_QUICKER);
        if deviation.is_finite() && deviation >= lowest {
            self.news = true;
            bucket.seen = (bucket.seen + 1.0).min(WINDOW);
            let off = deviation.clamp(-CLIP, CLIP) - bucket.mean;
            bucket.mean += off / bucket.seen;
            bucket.variance += (off * off - bucket.variance) / bucket.seen;
            if at == BUCKETS - 1 {
                self.observe_deep(depth);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn observe_deep(&mut self, depth: u32) {
        let seen = self.buckets.last().map_or(WINDOW, |bucket| bucket.seen);
        self.deep += ((1.0 + depth as f32).ln() - self.deep) / (seen + PRIOR_WEIGHT);
    }

    /// Weight of a sample from this depth: the lowest variance of any depth over that of this one, 0.05..=1.
    pub fn sample_weight(&self, depth: u32) -> f32 {
        self.weights.get(bucket(depth as usize)).copied().unwrap_or(1.0)
    }

    /// Recomputes the factors if there has been an answer; called on a tick.
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
            // The bucket's own mean, with the linear continuation of the previous one as prior.
            let linear = log_delay + growth;
            let fitted = (own.seen * (own.mean - origin) + PRIOR_WEIGHT * linear) / (own.seen + PRIOR_WEIGHT);
            log_delay = fitted.max(log_delay);
            let delay = log_delay.exp();
            let depths = first_depth(at)..if at + 1 < BUCKETS { first_depth(at + 1) } else { DEPTHS };
            let places = (self.delay.get_mut(depths.clone()), self.cost.get_mut(depths.clone()));
            if let ((Some(delays), Some(costs)), Some(company)) = (places, self.company.get(depths)) {
                delays.fill(delay);
                costs.iter_mut().zip(company).for_each(|(cost, company)| *cost = delay * company);
            }
        }
    }

    /// Number of requests that an endpoint works on at a time: the depth at which a request takes `FULL_DELAY` times
    /// as long as at the lowest observed depth, divided by that factor. Only observed depths count: the curve's
    /// assumption about others is no sign of a full endpoint. `None` until there are enough answers.
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

    /// How far latency has risen above its minimum at `depth`: 0 not at all, 1 as far as at full endpoints. `None` if
    /// no such depth has been observed.
    pub fn risen(&self, depth: u32) -> Option<f32> {
        let floor = self.seen().map(|(_, mean)| mean).reduce(f32::min)?;
        let here = self.seen().take_while(|(at, _)| *at <= bucket(depth as usize)).last();
        let delay = (here?.1 - floor).exp();
        Some(((delay - 1.0) / (FULL_DELAY - 1.0)).clamp(0.0, 1.0))
    }

    /// Buckets with enough answers, and their means.
    fn seen(&self) -> impl Iterator<Item = (usize, f32)> {
        let enough = |(_, bucket): &(usize, &Bucket)| bucket.seen >= PRIOR_WEIGHT;
        self.buckets.iter().enumerate().filter(enough).map(|(at, bucket)| (at, bucket.mean))
    }

    /// Latency of a request that finds `depth` others, in multiples of one that finds none.
    pub fn delay(&self, depth: u32) -> f32 {
        match self.delay.get(depth as usize) {
            Some(delay) => *delay,
            None => self.beyond(&self.delay, depth as f32, 0.0),
        }
    }

    /// Cost factor of a request that finds `depth` others: the delay, times a little for the others. Fractions are
    /// allowed because capacity is weighted.
    pub fn cost(&self, depth: f32) -> f32 {
        let depth = if depth > 0.0 { depth } else { 0.0 };
        let below = depth as usize;
        match (self.cost.get(below), self.cost.get(below.wrapping_add(1))) {
            (Some(low), Some(high)) => low + (high - low) * (depth - below as f32),
            _ => self.beyond(&self.cost, depth, MIN_EXPONENT),
        }
    }

    /// Continues `table` beyond its end: linearly from where the last bucket was observed, and at least with this exponent.
    #[cold]
    #[inline(never)]
    fn beyond(&self, table: &[f32; DEPTHS], depth: f32, exponent: f32) -> f32 {
        let times = (1.0 + depth) / DEPTHS as f32;
        let observed = (self.deep.exp() / DEPTHS as f32).max(1.0);
        table.last().copied().unwrap_or(1.0) * (times / observed).max(times.powf(exponent))
    }
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
    fn recovery_while_idle_is_no_queue() {
        let mut queueing = Queueing::default();
        for answer in 0..100 {
            queueing.observe(0, if answer % 10 == 0 { -4.6 } else { 0.0 });
            queueing.observe(1, 0.0);
        }
        queueing.refresh();
        // The prior of a single server raises it slightly.
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
        assert!(queueing.cost(1e6) > 1000.0 && queueing.cost(1e6).is_finite());
        assert_eq!(queueing.cost(f32::INFINITY), f32::INFINITY);
    }

    /// An endpoint with hundreds of slots: what it answers at such depths is not divided by a queue that it does not have.
    #[test]
    fn what_was_observed_far_out_is_where_the_line_begins() {
        for (slots, deepest) in [(2000.0, 600), (500.0, 1000), (200.0, 1000)] {
            let queueing = learn(|depth| (1.0f32).max((1.0 + depth as f32) / slots), deepest);
            for depth in [200, 400, deepest] {
                let truth = (1.0f32).max((1.0 + depth as f32) / slots);
                let learnt = queueing.delay(depth);
                assert!(learnt < 2.5 * truth, "{slots} slots, {depth} deep: {learnt}, not {truth}");
            }
            assert!((0..1000).all(|d| queueing.cost(d as f32) < queueing.cost(d as f32 + 1.0)));
        }
    }

    #[test]
    fn the_cost_rises_with_every_request() {
        let queueing = learn(|_| 1.0, 10);
        assert!((0..200).all(|d| queueing.cost(d as f32) < queueing.cost(d as f32 + 1.0)));
        assert!(queueing.cost(0.5) > queueing.cost(0.0));
    }

    #[test]
    fn estimates_slots_from_few_observations() {
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
    fn unseen_depths_are_no_sign_of_a_full_endpoint() {
        // 64 slots, a third to half of them busy: between 20 and 31 requests.
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
    fn worker_that_saw_full_endpoints_prevails() {
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
