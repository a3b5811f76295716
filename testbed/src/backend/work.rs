//! The duration of work: log-normal, seeded, lengthened by faults, held up by pauses.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};

use super::{Behaviour, Mode, lock};

#[derive(Debug)]
pub(super) struct Work {
    random: Mutex<StdRng>,
    seconds: LogNormal<f64>,
    slowness: f64,
    drawn: Mutex<Vec<Duration>>,
}

impl Work {
    pub(super) fn new(median: Duration, sigma: f64, slowness: f64, seed: u64) -> Self {
        // The logarithm of a log-normal's median is the normal's mean. Only a sigma that is not finite is refused.
        let seconds = LogNormal::new(median.as_secs_f64().max(1e-6).ln(), sigma)
            .expect("sigma must be finite and not negative");
        Self { random: Mutex::new(StdRng::seed_from_u64(seed)), seconds, slowness, drawn: Mutex::default() }
    }

    /// The duration of the next piece of work: drawn, if the request does not say how much it is.
    pub(super) fn next(&self, behaviour: Behaviour, asked: Option<Duration>) -> Duration {
        let mut random = lock(&self.random);
        let drawn = self.seconds.sample(&mut *random);
        let seconds = asked.map_or(drawn, |asked| asked.as_secs_f64());
        let factor = self.slowness * behaviour.work_factor(random.random());
        let work = Duration::from_secs_f64(seconds * factor);
        lock(&self.drawn).push(work);
        work
    }

    /// All durations drawn, in order.
    pub(super) fn drawn(&self) -> Vec<Duration> {
        lock(&self.drawn).clone()
    }

    /// Whether an event of this probability happens now.
    pub(super) fn chance(&self, probability: f64) -> bool {
        lock(&self.random).random::<f64>() < probability
    }
}

/// The end of work that begins at `start`, pauses included.
pub(super) fn end_of_work(start: Instant, work: Duration, mode: Mode) -> Instant {
    let Behaviour::Pause { length, every } = mode.behaviour else { return start + work };
    let running = every.saturating_sub(length);
    if running.is_zero() {
        return start + work;
    }
    // Running time as a function of elapsed time, and back.
    let passed = start.saturating_duration_since(mode.since).as_nanos();
    let (every, running) = (every.as_nanos(), running.as_nanos());
    let ran = passed / every * running + (passed % every).min(running);
    let target = ran + work.as_nanos();
    let (periods, rest) = (target / running, target % running);
    let end = if rest == 0 && periods > 0 { (periods - 1) * every + running } else { periods * every + rest };
    mode.since + Duration::from_nanos(u64::try_from(end.max(passed)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_median_and_the_tail_are_as_configured() {
        let work = Work::new(Duration::from_millis(20), 0.46, 1.0, 7);
        let mut drawn: Vec<f64> =
            (0..20_000).map(|_| work.next(Behaviour::Healthy, None).as_secs_f64() * 1000.0).collect();
        drawn.sort_by(f64::total_cmp);
        assert!((19.5..20.5).contains(&drawn[10_000]), "median {}", drawn[10_000]);
        // 20 ms · e^(0.46 · 2.326) = 58.3 ms
        assert!((55.0..62.0).contains(&drawn[19_800]), "p99 {}", drawn[19_800]);
    }

    #[test]
    fn the_same_seed_gives_the_same_work() {
        let draw = |seed| {
            let work = Work::new(Duration::from_millis(20), 0.46, 1.0, seed);
            (0..10).map(|_| work.next(Behaviour::Slow(3.0), None)).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn heavy_work_is_as_frequent_as_asked() {
        let work = Work::new(Duration::from_millis(1), 0.0, 1.0, 3);
        let heavy = Behaviour::Heavy { ratio: 0.1, factor: 50.0 };
        let many = (0..10_000).filter(|_| work.next(heavy, None) > Duration::from_millis(10)).count();
        assert!((900..1100).contains(&many), "{many}");
    }

    #[test]
    fn a_pause_holds_work_up() {
        let since = clock::now();
        let behaviour =
            Behaviour::Pause { length: Duration::from_millis(200), every: Duration::from_secs(1) };
        let mode = Mode { behaviour, since };
        let end = |start_ms, work_ms| {
            let start = since + Duration::from_millis(start_ms);
            (end_of_work(start, Duration::from_millis(work_ms), mode) - since).as_millis()
        };
        assert_eq!(end(100, 50), 150, "clear of the pause");
        assert_eq!(end(790, 20), 1010, "caught by the pause");
        assert_eq!(end(900, 20), 1020, "begun within the pause");
        assert_eq!(end(0, 800), 800, "done just before it");
        assert_eq!(end(0, 1700), 2100, "over two pauses");
    }
}
