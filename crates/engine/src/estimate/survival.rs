//! Survival function of latencies, by which a silence is judged.
//!
//! A request that has waited for a time *a*, the last *s* of it in silence, would have waited that long by nature with
//! probability S(a)/S(a − s). For a long poll that has been waiting for a minute, another second says nothing; for
//! requests that have just been sent, several times the usual latency says a lot.

/// Number of buckets: two per octave, from a quarter of a millisecond to an hour.
const BUCKETS: usize = 48;
/// Lower bound of the first bucket: this power of two, seconds.
const FIRST_LOG2: f32 = -12.0;
/// Minimum number of answers before the distribution is used; with fewer, every silence counts in full.
const FEWEST: f32 = 20.0;
/// Number of answers at which all counts are halved.
const MEMORY: f32 = 2000.0;
/// Multiple of the longest remembered latency after which no answer is expected.
const BEYOND: f64 = 2.0;
/// Minimum of that time in multiples of the typical latency.
const BEYOND_TYPICAL: f64 = 16.0;
/// Minimum of that time, seconds: threads pause, packets are retransmitted.
const BEYOND_S: f64 = 0.5;
/// Logarithms of the probabilities 0.4 and 0.04: a silence more probable than the first counts as nothing, one less
/// probable than the second in full.
const PROBABLE_LOGS: [f32; 2] = [-0.916_290_7, -3.218_876];

/// Distribution of the latencies of a cluster.
#[derive(Clone, Debug)]
pub struct Survival {
    counts: [f32; BUCKETS],
    all: f32,
    /// The longest latency that is still remembered, seconds.
    longest: f64,
    /// Logarithm of the fraction of answers that take longer than the lower bound of the bucket, by bucket.
    logs: [f32; BUCKETS],
    /// Whether there has been an answer since the logarithms were computed.
    news: bool,
    /// The typical latency for which they were computed, seconds.
    prepared: f64,
}

impl Default for Survival {
    fn default() -> Survival {
        Survival {
            counts: [0.0; BUCKETS],
            all: 0.0,
            longest: 0.0,
            logs: [0.0; BUCKETS],
            news: true,
            prepared: 0.0,
        }
    }
}

/// Position of `seconds` in the buckets, with a fraction.
fn place(seconds: f64) -> f32 {
    (2.0 * ((seconds as f32).max(f32::MIN_POSITIVE).log2() - FIRST_LOG2)).clamp(0.0, BUCKETS as f32 - 1.0)
}

impl Survival {
    /// Records a latency.
    pub fn observe(&mut self, seconds: f64) {
        if let Some(count) = self.counts.get_mut(place(seconds) as usize) {
            *count += 1.0;
            self.all += 1.0;
            self.news = true;
        }
    }

    /// Computes the logarithms. A prior of one answer adds a tail beyond the `typical` time, with a probability inverse
    /// to the time: a silence longer than any observed latency is improbable, but never impossible.
    pub fn refresh(&mut self, typical: f64) {
        if !core::mem::take(&mut self.news) && self.prepared == typical {
            return;
        }
        self.prepared = typical;
        if self.all > MEMORY {
            self.counts.iter_mut().for_each(|count| *count *= 0.5);
            self.all = self.counts.iter().sum();
        }
        let last = self.counts.iter().rposition(|count| *count >= 0.5).map_or(0, |last| last + 1);
        self.longest = f64::from((0.5 * last as f32 + FIRST_LOG2).exp2());
        let mut longer = self.all;
        let start = place(typical);
        let mut prepared = (1.0, 0.0);
        for (at, (log, count)) in self.logs.iter_mut().zip(&self.counts).enumerate() {
            let above = 0.5 * (start - at as f32);
            let beyond = if above >= 0.0 { 1.0 } else { above.exp2() };
            let share = (longer.max(0.0) + beyond) / (self.all + 1.0);
            // In buckets without answers the share does not change.
            if share != prepared.0 {
                prepared = (share, share.ln());
            }
            *log = prepared.1;
            longer -= count;
        }
    }

    /// Time after which no answer is expected any more, seconds; infinite while too little is known.
    pub fn beyond(&self, typical: f64) -> f64 {
        if self.all < FEWEST {
            return f64::INFINITY;
        }
        (BEYOND * self.longest).max(BEYOND_TYPICAL * typical).max(BEYOND_S)
    }

    fn log(&self, seconds: f64) -> f32 {
        let place = place(seconds);
        let at = |bucket: usize| self.logs.get(bucket.min(BUCKETS - 1)).copied().unwrap_or(0.0);
        let below = place as usize;
        at(below) + (at(below + 1) - at(below)) * (place - below as f32)
    }

    /// Log probability that a request of this `age` was not answered in the last `silence` of it, both in seconds.
    pub fn silent(&self, age: f64, silence: f64) -> f32 {
        let before = age - silence;
        self.log(age) - if before > 0.0 { self.log(before) } else { 0.0 }
    }

    /// Whether an answer takes longer than `seconds` with a probability below `chance`, judged by the lower bound of the
    /// bucket; never while too little is known.
    pub fn is_beyond(&self, seconds: f64, chance: f64) -> bool {
        let log = self.logs.get(place(seconds) as usize).copied().unwrap_or(0.0);
        self.all >= FEWEST && f64::from(log) < chance.ln()
    }

    /// How far a silence with the log probability `log` counts: 0 not at all, 1 in full.
    pub fn belief(&self, log: f32) -> f32 {
        if self.all < FEWEST {
            return 1.0;
        }
        let [probable, improbable] = PROBABLE_LOGS;
        ((probable - log) / (probable - improbable)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::rng::Rng;

    fn learnt(long: f64) -> Survival {
        let (mut survival, mut rng) = (Survival::default(), Rng::new(9));
        for _ in 0..1000 {
            let usual = 0.02 * (2.0 * (rng.unit() - 0.5)).exp();
            survival.observe(if rng.unit() < long { 10.0 * rng.unit() } else { usual });
        }
        survival.refresh(0.02);
        survival
    }

    #[test]
    fn logarithms_are_those_of_the_probabilities() {
        let off = |(log, part): (f32, f32)| (log - part.ln()).abs();
        assert!(PROBABLE_LOGS.into_iter().zip([0.4, 0.04]).map(off).all(|off| off < 2e-7));
    }

    #[test]
    fn what_is_prepared_again_without_news_is_the_same() {
        let mut again = learnt(0.1);
        let once = again.clone();
        again.refresh(0.02);
        assert_eq!((again.logs, again.longest), (once.logs, once.longest));
        again.refresh(0.2);
        assert_ne!(again.logs, once.logs, "another typical time");
    }

    #[test]
    fn what_is_usual_is_no_alarm_and_what_is_not_is_one() {
        let survival = learnt(0.0);
        assert!(survival.belief(survival.silent(0.02, 0.02)) < 0.4);
        assert_eq!(survival.belief(survival.silent(0.2, 0.2)), 1.0);
        assert_eq!(survival.belief(2.0 * survival.silent(0.04, 0.04)), 1.0, "two of them");
        assert_eq!(Survival::default().belief(0.0), 1.0, "nothing is known");
    }

    #[test]
    fn long_poll_is_no_evidence_of_slowness() {
        for survival in [learnt(0.0), learnt(0.02)] {
            assert_eq!(survival.belief(survival.silent(60.0, 1.0)), 0.0);
            assert_eq!(survival.belief(3.0 * survival.silent(5.0, 0.1)), 0.0);
        }
    }

    #[test]
    fn no_answer_is_expected_long_after_the_longest_that_is_known() {
        assert_eq!(Survival::default().beyond(0.02), f64::INFINITY, "nothing is known");
        assert_eq!(learnt(0.0).beyond(0.02), BEYOND_S);
        let mixed = learnt(0.02).beyond(0.02);
        assert!((15.0..=46.0).contains(&mixed), "twice ten seconds and more: {mixed}");
    }

    #[test]
    fn lateness_counts_less_where_many_are_late() {
        let (usual, mixed) = (learnt(0.0), learnt(0.3));
        assert!(mixed.silent(0.5, 0.5) > usual.silent(0.5, 0.5) + 2.0);
        assert!(mixed.belief(mixed.silent(0.5, 0.5)) < 0.2);
        let mut odd = Survival::default();
        [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9].iter().for_each(|s| odd.observe(*s));
        odd.refresh(f64::NAN);
        assert!(odd.silent(f64::NAN, 0.1).is_finite() || odd.silent(f64::NAN, 0.1).is_nan());
    }

    #[test]
    fn beyond_chance_is_what_hardly_any_answer_takes() {
        for (long, seed) in [0.0, 0.01, 0.2].into_iter().flat_map(|long| [1, 2, 3].map(|seed| (long, seed))) {
            let mut survival = learnt(long);
            survival.refresh(0.02);
            let mut rng = Rng::new(seed);
            let takes = |rng: &mut Rng| match rng.unit() < long {
                true => 10.0 * rng.unit(),
                false => 0.02 * (2.0 * (rng.unit() - 0.5)).exp(),
            };
            let beyond = (0..4000).filter(|_| survival.is_beyond(takes(&mut rng), 1e-3)).count();
            // Four at most are expected of a tail that is known, and it was learnt from a thousand answers.
            assert!(beyond <= 20, "{long}, {seed}: {beyond} of 4000");
            assert!(survival.is_beyond(if long > 0.0 { 1000.0 } else { 20.0 }, 1e-3), "{long}");
        }
        assert!(!Survival::default().is_beyond(1e9, 1e-3), "nothing is known");
    }
}
