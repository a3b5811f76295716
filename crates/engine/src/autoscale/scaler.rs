//! From pressure to a number of replicas, period by period.
//!
//! **Scale up** when pressure, with the extrapolated trend, has been above the target in `for` consecutive periods: to
//! as many as bring it back to the target. **Scale down** when fewer would have been enough for the whole of
//! `cool_down`, with `tolerance_percent` of the target to spare: to the most that any of these periods needed. In
//! between, nothing changes. What the load needs of the replicas that are there is never given up.
//!
//! **Invariants.** The number changes only at the end of a period of which at least half is known. Endpoints that do
//! not report count as idle for scaling up and as loaded to the target for scaling down, so missing data never changes
//! the number (as in the HorizontalPodAutoscaler). Replicas that are still starting are not requested again: the number
//! follows from the demand, not from itself.
//!
//! **Demand** is pressure times the replicas that it is based on, at each sample. Replicas that join in the middle of a
//! period relieve the others, and the mean pressure times the final number of replicas would request as many once more.
//! Above a pressure of 1 the demand includes backlog, which is work to be done once and not a trend.

use super::pressure::Pressure;
use super::trend::Trend;
use crate::settings::Autoscale;
use crate::time::Time;

/// Sampling interval of the pressure, seconds.
const SAMPLE_S: f64 = 1.0;
/// Minimum number of samples in a period.
const SAMPLES: f64 = 4.0;
/// Time constant of the displayed pressure, seconds: requests in flight at one moment are mostly noise.
const SHOWN_OVER_S: f64 = 5.0;
/// Minimum fraction of a period's samples that must be known.
const ENOUGH: f64 = 0.5;
/// Maximum factor of one step up; a step may always add [`MAX_MORE`].
const MAX_GROWTH: f64 = 2.0;
/// Number of replicas that one step up may always add.
const MAX_MORE: f64 = 4.0;
/// Tolerance for rounding errors, so that they add no replica.
const EPSILON: f64 = 1e-9;

/// Current replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Endpoints that are not about to leave.
    pub there: u32,
    /// Number of these in working order.
    pub working: u32,
}

/// Endpoints that carry load, and those on standby.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Division {
    /// Number that carry load.
    pub loaded: u32,
    /// Number on standby.
    pub standby: u32,
}

impl Division {
    /// `loaded` replicas, as desired under this division, under another one: endpoints that have ceased to be on standby
    /// and carry load are among them, as in their sum before; the reverse likewise.
    pub fn carry(self, loaded: u32, now: Division) -> u32 {
        let began = now.loaded.saturating_sub(self.loaded).min(self.standby.saturating_sub(now.standby));
        let ceased = self.loaded.saturating_sub(now.loaded).min(now.standby.saturating_sub(self.standby));
        loaded.saturating_add(began).saturating_sub(ceased).max(1)
    }
}

/// Scaling state of one cluster, as plain data: the worker that takes over the lease continues from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scaler {
    /// Smoothed pressure for display.
    pub shown: Option<f64>,
    /// Desired number of replicas.
    pub desired: Option<u32>,
    /// When pressure was last sampled.
    pub sampled: Time,
    /// The current period.
    pub period: Period,
    /// Number of consecutive periods that asked for more.
    pub above: u32,
    /// Consecutive periods in which fewer would have been enough.
    pub below: Below,
    /// Demand of the last periods.
    pub trend: Trend,
    /// The division under which `desired` was found.
    pub division: Division,
}

/// A period in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Period {
    /// When it began.
    pub began: Time,
    /// Number of samples with a known pressure.
    pub samples: u32,
    /// Sum of their demand, in replicas at a pressure of 1.
    pub demand: f64,
    /// Sum of the fraction of endpoints that each is based on.
    pub known: f64,
}

/// Consecutive periods in which fewer replicas would have been enough.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Below {
    /// Start of the first.
    pub since: Time,
    /// Number of periods.
    pub periods: u32,
    /// Maximum number of replicas that any of them needed.
    pub most: u32,
}

impl Scaler {
    /// Samples the pressure; calls more frequent than the sampling interval are ignored.
    pub fn observe(
        &mut self,
        config: Option<&Autoscale>,
        pressure: Option<Pressure>,
        replicas: Replicas,
        now: Time,
    ) {
        let period_s = config.map_or(f64::INFINITY, |c| c.period.as_secs_f64());
        let every_s = SAMPLE_S.min(period_s / SAMPLES);
        let since = now.seconds_since(self.sampled);
        if since < every_s && now >= self.sampled {
            return;
        }
        self.sampled = now;
        self.show(pressure, since);
        let Some(config) = config else {
            self.desired = None;
            return;
        };
        self.sample(pressure, replicas);
        let lasted = now.seconds_since(self.period.began);
        let out_of_step = now < self.period.began || lasted > 2.0 * period_s;
        if lasted + EPSILON >= period_s || out_of_step {
            let period = core::mem::replace(&mut self.period, Period { began: now, ..Period::default() });
            let known = f64::from(period.samples) * every_s >= ENOUGH * period_s;
            if known && !out_of_step {
                self.judge(config, &period, replicas, now);
            } else {
                self.interrupt();
            }
        }
        self.desired = self.desired.map(|desired| desired.clamp(config.min, config.max));
    }

    /// Notes the division of the endpoints. Those that begin or cease to carry load were counted on, and are so still: the
    /// number falls only by what the load needs, after the whole cool-down.
    pub fn divide(&mut self, now: Division) {
        let before = core::mem::replace(&mut self.division, now);
        let desired = self.desired.map(|desired| before.carry(desired, now));
        if desired != self.desired {
            (self.desired, self.below) = (desired, Below::default());
        }
    }

    fn show(&mut self, pressure: Option<Pressure>, since: f64) {
        let keep = (-since / SHOWN_OVER_S).exp();
        self.shown = pressure.map(|now| match self.shown {
            Some(before) => now.value + (before - now.value) * keep,
            None => now.value,
        });
    }

    fn sample(&mut self, pressure: Option<Pressure>, replicas: Replicas) {
        if let Some(Pressure { value, known }) = pressure {
            self.period.samples += 1;
            self.period.demand += value * f64::from(replicas.working);
            self.period.known += known;
        }
    }

    /// Ends all runs after a period of which too little is known; the number stays.
    fn interrupt(&mut self) {
        self.above = 0;
        self.below = Below::default();
        self.trend.interrupt();
    }

    fn judge(&mut self, config: &Autoscale, period: &Period, replicas: Replicas, now: Time) {
        if replicas.working == 0 {
            return self.interrupt();
        }
        let samples = f64::from(period.samples.max(1));
        let (demand, known) = (period.demand / samples, (period.known / samples).clamp(0.0, 1.0));
        let (working, target) = (f64::from(replicas.working), config.target_pressure);
        self.trend.observe(demand);
        let piled_up = demand > working + EPSILON;
        let ahead = config.look_ahead.as_secs_f64() / config.period.as_secs_f64();
        let rise = if piled_up { 0.0 } else { self.trend.rise(ahead) };
        let if_idle = demand * known + rise;
        let idle = (1.0 - known) * working + f64::from(replicas.there.saturating_sub(replicas.working));
        let if_loaded = demand * known + target * idle + rise;

        let needed = count(if_idle / target);
        // Replicas that the load needs may be there at the wish of another proxy or metric, which may end.
        let desired = self.desired.unwrap_or(replicas.there).max(needed.min(replicas.there));
        let desired = desired.clamp(config.min, config.max);
        self.above = if if_idle > target * working + EPSILON { self.above.saturating_add(1) } else { 0 };
        let most = (working * MAX_GROWTH).max(working + MAX_MORE) as u32;
        let more = needed.min(most).min(config.max);
        let spare = 1.0 - config.tolerance_percent / 100.0;
        let fewer = count(if_loaded / (target * spare)).max(config.min);

        self.desired = Some(desired);
        if fewer >= desired {
            self.below = Below::default();
        } else {
            if self.below.periods == 0 {
                self.below.since = period.began;
            }
            self.below.periods = self.below.periods.saturating_add(1);
            self.below.most = self.below.most.max(fewer);
        }
        if self.above >= config.periods && more > desired {
            self.desired = Some(more);
            self.above = 0;
            self.below = Below::default();
        } else if self.below.periods >= config.periods
            && now.seconds_since(self.below.since) + EPSILON >= config.cool_down.as_secs_f64()
        {
            self.desired = Some(self.below.most);
            self.below = Below::default();
        }
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        for time in [&mut self.sampled, &mut self.period.began, &mut self.below.since] {
            *time = (*time).min(now);
        }
    }
}

/// Rounds up to whole replicas.
fn count(replicas: f64) -> u32 {
    (replicas - EPSILON).ceil().max(0.0) as u32
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use core::time::Duration;

    use super::*;

    fn config() -> Autoscale {
        Autoscale {
            target_pressure: 0.8,
            min: 2,
            max: 20,
            periods: 2,
            period: Duration::from_secs(30),
            cool_down: Duration::from_secs(120),
            tolerance_percent: 10.0,
            look_ahead: Duration::ZERO,
        }
    }

    /// A scaler with a clock.
    struct Bench {
        scaler: Scaler,
        config: Autoscale,
        now: Time,
        replicas: u32,
    }

    impl Bench {
        fn new(replicas: u32) -> Bench {
            let mut bench =
                Bench { scaler: Scaler::default(), config: config(), now: Time(1_000_000_000_000), replicas };
            bench.look(None);
            bench
        }

        fn look(&mut self, pressure: Option<Pressure>) {
            let replicas = Replicas { there: self.replicas, working: self.replicas };
            self.scaler.observe(Some(&self.config), pressure, replicas, self.now);
        }

        /// Runs a whole period at this pressure; returns the desired replicas after it.
        fn period(&mut self, pressure: Option<Pressure>) -> Option<u32> {
            for _ in 0..30 {
                self.now = self.now.after_secs(1.0);
                self.look(pressure);
            }
            self.scaler.desired
        }

        fn at(&mut self, value: f64) -> Option<u32> {
            self.period(Some(Pressure { value, known: 1.0 }))
        }
    }

    #[test]
    fn two_periods_above_the_target_ask_for_as_many_as_bring_it_back() {
        let mut bench = Bench::new(10);
        assert_eq!(bench.scaler.desired, None, "nothing is known yet");
        assert_eq!(bench.at(0.7), Some(10));
        assert_eq!(bench.at(1.0), Some(10), "once is an accident");
        assert_eq!(bench.at(0.7), Some(10));
        assert_eq!(bench.at(1.0), Some(10), "not in a row");
        assert_eq!(bench.at(1.0), Some(13), "10 · 1.0 / 0.8");
        assert_eq!(bench.at(1.0), Some(13), "they are starting, and not asked for again");
        assert_eq!(bench.at(1.0), Some(13));
        bench.replicas = 13;
        assert_eq!(bench.at(10.0 / 13.0), Some(13));
        assert_eq!(Bench::new(10).at(0.801), Some(10));
    }

    /// Endpoints that are out come back, or are deleted first: those that work are not taken away for them.
    #[test]
    fn none_is_given_back_while_those_that_work_are_loaded() {
        for (there, working, value) in [(10, 4, 1.33), (10, 7, 0.8), (20, 15, 0.79)] {
            let mut bench = Bench::new(there);
            for _ in 0..40 {
                bench.now = bench.now.after_secs(10.0);
                let pressure = Some(Pressure { value, known: 1.0 });
                bench.scaler.observe(Some(&bench.config), pressure, Replicas { there, working }, bench.now);
                assert!(
                    bench.scaler.desired.is_none_or(|desired| desired >= there),
                    "{:?}",
                    bench.scaler.desired
                );
            }
        }
    }

    #[test]
    fn a_little_above_asks_for_one_more_and_a_lot_for_twice_as_many() {
        let mut bench = Bench::new(10);
        assert_eq!((bench.at(0.81), bench.at(0.81)), (Some(10), Some(11)));
        bench.replicas = 11;
        assert_eq!(bench.at(0.81 * 10.0 / 11.0), Some(11), "which is no reason to take it back");
        let mut bench = Bench::new(3);
        assert_eq!((bench.at(9.0), bench.at(9.0)), (Some(3), Some(7)));
        let mut bench = Bench::new(9);
        assert_eq!((bench.at(9.0), bench.at(9.0)), (Some(9), Some(18)));
        bench.replicas = 18;
        assert_eq!((bench.at(9.0), bench.at(9.0)), (Some(18), Some(20)), "the maximum");
    }

    #[test]
    fn fewer_only_after_the_whole_cool_down_and_never_fewer_than_its_busiest_period() {
        let mut bench = Bench::new(10);
        for (pressure, desired) in [(0.2, 10), (0.2, 10), (0.5, 10), (0.2, 7), (0.2, 7), (0.2, 7)] {
            assert_eq!(bench.at(pressure), Some(desired), "10 · 0.5 / (0.8 · 0.9)");
        }
        let mut bench = Bench::new(10);
        for pressure in [0.2, 0.2, 0.2, 0.7, 0.2, 0.2, 0.2] {
            assert_eq!(bench.at(pressure), Some(10), "{pressure}: a busy period begins the time anew");
        }
        assert_eq!(bench.at(0.0), Some(3));
        bench.replicas = 3;
        assert_eq!([bench.at(0.0), bench.at(0.0), bench.at(0.0), bench.at(0.0)][3], Some(2), "the minimum");
    }

    /// Another proxy's number, or another metric, may hold replicas. If that goes, the load still needs them.
    #[test]
    fn what_the_load_needs_of_those_that_are_there_is_not_given_up() {
        let mut bench = Bench::new(10);
        (0..4).for_each(|_| _ = bench.at(0.3));
        assert_eq!(bench.scaler.desired, Some(5));
        assert_eq!(bench.at(0.7), Some(9), "10 · 0.7 / 0.8");
        assert_eq!(bench.at(1.2), Some(10), "no more than there are, at once");
        assert_eq!(bench.at(1.2), Some(15));
    }

    #[test]
    fn the_band_between_moves_nothing() {
        for pressure in [0.66, 0.7, 0.75, 0.8] {
            let mut bench = Bench::new(10);
            (0..30).for_each(|_| assert_eq!(bench.at(pressure), Some(10), "{pressure}"));
        }
    }

    #[test]
    fn nothing_happens_on_what_is_not_known() {
        let mut bench = Bench::new(10);
        bench.at(1.0);
        assert_eq!(bench.period(None), Some(10));
        assert_eq!(bench.at(1.0), Some(10), "the row is broken");
        (0..50).for_each(|_| assert_eq!(bench.period(None), Some(10)));
        // Half of the endpoints report: the others count as idle, or as loaded to the target.
        let mut bench = Bench::new(10);
        for value in [1.5, 0.5] {
            let half = Pressure { value, known: 0.5 };
            (0..20).for_each(|_| assert_eq!(bench.period(Some(half)), Some(10), "{value}"));
        }
        let half = Pressure { value: 2.0, known: 0.5 };
        assert_eq!((bench.period(Some(half)), bench.period(Some(half))), (Some(10), Some(13)));
        // Without a working replica no pressure makes sense.
        bench.replicas = 0;
        (0..20).for_each(|_| assert_eq!(bench.at(0.0), Some(13)));
    }

    #[test]
    fn a_steady_rise_is_met_before_it_comes() {
        let rush = [0.4, 0.5, 0.6, 0.7, 0.8];
        let run = |look_ahead| {
            let mut bench = Bench::new(10);
            bench.config.look_ahead = Duration::from_secs(look_ahead);
            rush.map(|pressure| bench.at(pressure).unwrap_or(0))
        };
        assert_eq!(run(0), [10; 5]);
        let ahead = run(60);
        assert_eq!(ahead[..4], [10; 4]);
        assert_eq!(ahead[4], 13, "10 · (0.8 + 2 · 0.1) / 0.8");
    }

    #[test]
    fn replicas_that_join_within_a_period_are_not_asked_for_a_second_time() {
        let mut bench = Bench::new(4);
        assert_eq!((bench.at(1.6), bench.at(1.6)), (Some(4), Some(8)));
        for second in 0..60 {
            // A constant load of 6.4 replicas, with four more replicas from the middle of the first period on.
            bench.replicas = if second < 15 { 4 } else { 8 };
            bench.now = bench.now.after_secs(1.0);
            bench.look(Some(Pressure { value: 6.4 / f64::from(bench.replicas), known: 1.0 }));
            assert_eq!(bench.scaler.desired, Some(8), "{second}");
        }
    }

    #[test]
    fn what_has_piled_up_is_no_rise() {
        let mut bench = Bench::new(10);
        bench.config.look_ahead = Duration::from_secs(60);
        for (pressure, desired) in [(0.75, 10), (1.1, 10), (1.3, 17), (1.5, 17), (1.7, 20)] {
            // At 1.3: 10 · 1.3 / 0.8, and nothing for further growth of the queues.
            assert_eq!(bench.at(pressure), Some(desired), "{pressure}");
        }
    }

    #[test]
    fn the_clock_may_step_and_the_holder_sleep() {
        let mut bench = Bench::new(10);
        bench.at(1.0);
        bench.now = bench.now.after_secs(600.0);
        assert_eq!(bench.at(1.0), Some(10), "a gap says nothing");
        bench.now = Time(bench.now.0 - 400_000_000_000);
        bench.scaler.not_after(bench.now);
        bench.look(None);
        assert_eq!((bench.at(1.0), bench.at(1.0)), (Some(10), Some(13)));
    }

    #[test]
    fn without_configuration_pressure_is_shown_and_nothing_asked_for() {
        let mut scaler = Scaler::default();
        let now = |s: u64| Time((1000 + s) * 1_000_000_000);
        for second in 0..100 {
            let pressure = Some(Pressure { value: 1.5, known: 1.0 });
            scaler.observe(None, pressure, Replicas { there: 3, working: 3 }, now(second));
        }
        assert_eq!((scaler.shown, scaler.desired), (Some(1.5), None));
        scaler.observe(None, None, Replicas::default(), now(101));
        assert_eq!(scaler.shown, None);
    }
}
