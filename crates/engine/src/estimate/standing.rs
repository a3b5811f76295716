//! Detection of standing queues from a signal: a queue that is never short while the others' are, over so many updates
//! that chance does not explain it. Its endpoint is set aside, and tried again after a pause.

use crate::time::Time;

/// First pause of an endpoint that is set aside, updates; each failed trial doubles it.
const FIRST_PAUSE: u16 = 64;
/// Maximum pause, updates.
const MAX_PAUSE: u16 = 512;
/// Duration of a trial, updates.
const TRIAL: f64 = 3.0;
/// Ratio to the others' usual maximum from which a queue is long.
const TIMES_HIGHER: f32 = 2.0;
/// Ratio to the others' usual maximum plus one from which two values suffice instead of a whole window, or a single one
/// near `max`.
const TIMES_HIGHER_AT_ONCE: f32 = 8.0;
/// Fraction of `max` below which a queue is no burden, whatever the others have.
const MATERIAL: f32 = 1.0 / 16.0;
/// Fraction of `max` from which an endpoint is nearly full.
const FULL: f32 = 0.75;
/// Number of earlier updates that deviations are compared with.
pub const LAGS: usize = 4;

/// Usual values of the endpoints in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usual {
    /// Lower median of the latest values.
    pub latest: f32,
    /// Lower median of the minima in this window.
    pub low: f32,
    /// Lower median of the maxima in this window or in the previous one, whichever is higher.
    pub high: f32,
}

/// State of one signal for one endpoint: its values in this window, and whether it is set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Standing {
    low: f32,
    high: f32,
    stood: f32,
    off: [f32; LAGS],
    /// The values at the latest two updates.
    values: [f32; 2],
    phase: Phase,
    pause: u16,
    since: Time,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Phase {
    #[default]
    InUse,
    Aside,
    Tried,
}

/// Number of updates in a window, by the number of endpoints in use: the least *k* for which, among *n* equal
/// endpoints, all *k* values of one exceed those of the half with the lowest maxima in at most one of 10⁴ windows,
/// whatever the distribution of values: n ∫ k (1 − x)^(k − 1) P(Bin(n − 1, x^k) ≥ ⌈n / 2⌉) dx over 0 to 1.
pub fn news_a_window(endpoints: usize) -> u32 {
    match endpoints {
        0..=2 => 9,
        3..=1000 => 7,
        _ => 8,
    }
}

impl Standing {
    /// Records a value.
    pub fn observe(&mut self, value: f32) {
        self.low = self.low.min(value);
        self.high = self.high.max(value);
    }

    /// Minimum and maximum in this window.
    pub fn range(&self) -> (f32, f32) {
        (self.low, self.high)
    }

    /// Begins a new window with this value.
    pub fn begin(&mut self, value: f32) {
        (self.low, self.high) = (value, value);
    }

    /// Whether the endpoint is set aside.
    pub fn aside(&self) -> bool {
        self.phase == Phase::Aside
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.since = self.since.min(now);
    }

    /// Records the new `value` and its deviation `off` from the mean; returns the previous deviations, the latest
    /// first, and the previous value.
    pub fn moved(&mut self, value: f32, off: f32) -> ([f32; LAGS], f32) {
        let before = self.off;
        self.off.rotate_right(1);
        self.off[0] = off;
        self.values = [value, self.values[0]];
        (before, self.values[1])
    }

    /// Sets the endpoint aside if its queue stands while the others' are empty now and then. Evidence is a whole
    /// window, or two values far above all of theirs, or a single one if it is nearly full, where `max` is full.
    /// `usual` are the values of all endpoints at `at`.
    pub fn judge(
        &mut self,
        (value, max): (f32, f32),
        usual: Usual,
        window_over: bool,
        (at, news_s): (Time, f64),
    ) {
        let stood = if window_over { self.low } else { 0.0 };
        let lately = if value >= FULL * max { value } else { value.min(self.values[1]) };
        let stands = stood > TIMES_HIGHER * usual.high || lately > TIMES_HIGHER_AT_ONCE * (usual.high + 1.0);
        let matters = stood.max(lately) >= MATERIAL * max;
        if self.phase == Phase::InUse && stands && matters && usual.low <= 0.0 {
            let again = at.seconds_since(self.since) < f64::from(self.pause) * news_s;
            self.pause = if again { longer(self.pause) } else { FIRST_PAUSE };
            self.stood = value.max(stood);
            self.set(Phase::Aside, at);
        }
    }

    /// Processes the latest `value` of an endpoint that is set aside or tried. It is used again at once if the others'
    /// queues are half as long as its own was. `identity` is the endpoint's: all proxies try the same one at the same
    /// time, because requests of one alone would cause no queue.
    pub fn look(&mut self, value: f32, usual: Usual, (at, news_s): (Time, f64), identity: u64) {
        match self.phase {
            Phase::InUse => {}
            Phase::Aside if usual.latest * TIMES_HIGHER > self.stood => {
                self.pause = 0;
                self.set(Phase::InUse, at);
            }
            Phase::Aside => {
                if due(self.since, at, f64::from(self.pause) * power_of_two(news_s), identity) {
                    self.set(Phase::Tried, at);
                }
            }
            Phase::Tried => {
                let tried = at.seconds_since(self.since) / news_s;
                if tried >= 1.0 && value > TIMES_HIGHER * usual.high {
                    self.pause = longer(self.pause);
                    self.set(Phase::Aside, at);
                } else if tried >= TRIAL {
                    self.set(Phase::InUse, at);
                }
            }
        }
    }

    fn set(&mut self, phase: Phase, at: Time) {
        (self.phase, self.since) = (phase, at);
        // The rest of a window is not a window.
        (self.low, self.off) = (0.0, [0.0; LAGS]);
    }
}

fn longer(pause: u16) -> u16 {
    pause.saturating_mul(2).clamp(FIRST_PAUSE, MAX_PAUSE)
}

/// Rounds `seconds`, at least 1, up to a power of two: the same in all proxies that measure about the same.
fn power_of_two(seconds: f64) -> f64 {
    (1u64 << (seconds.max(1.0).ceil() as u64).next_power_of_two().ilog2().min(16)) as f64
}

/// Whether one of the endpoint's trial times, which recur once a period, has passed since half a period after `since`.
fn due(since: Time, at: Time, period_s: f64, identity: u64) -> bool {
    let period = ((period_s * 1e9) as u64).max(1);
    let nth = |time: Time| time.0.wrapping_add(identity % period) / period;
    nth(at) > nth(since.after_secs(0.5 * period_s))
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::rng::Rng;

    const SHORT: Usual = Usual { latest: 1.0, low: 0.0, high: 3.0 };

    fn s(seconds: u64) -> Time {
        Time((1_000_000 + seconds) * 1_000_000_000)
    }

    /// The time `seconds`, with an update every second.
    fn at(seconds: u64) -> (Time, f64) {
        (s(seconds), 1.0)
    }

    fn set_aside(identity: u64) -> Standing {
        let mut standing = Standing::default();
        standing.begin(10.0);
        standing.observe(9.0);
        standing.judge((9.0, 100.0), SHORT, true, at(0));
        assert!(standing.aside(), "{identity}");
        standing
    }

    /// The first second at which the endpoint is in use again, with a constant value.
    fn tried(standing: &mut Standing, value: f32, after: u64, identity: u64) -> u64 {
        let found = (after + 1..after + 5000).find(|second| {
            standing.look(value, SHORT, at(*second), identity);
            !standing.aside()
        });
        found.unwrap()
    }

    #[test]
    fn equal_endpoints_rarely_differ() {
        let mut rng = Rng::new(7);
        for endpoints in [2usize, 3, 5, 10, 30] {
            let news = news_a_window(endpoints);
            let mut found = 0;
            for _ in 0..20_000 {
                let mut row = || {
                    (0..news)
                        .map(|_| rng.unit() as f32)
                        .fold((1.0, 0.0), |(l, h): (f32, f32), v| (l.min(v), h.max(v)))
                };
                let rows: Vec<(f32, f32)> = (0..endpoints).map(|_| row()).collect();
                let mut highs: Vec<f32> = rows.iter().map(|row| row.1).collect();
                highs.sort_by(f32::total_cmp);
                found += rows.iter().filter(|row| row.0 > highs[(endpoints - 1) / 2]).count();
            }
            // Two are expected in 20,000 windows; more than ten have a probability of 10⁻⁵.
            assert!(found <= 10, "{endpoints} endpoints, {news} news: {found}");
            assert!((3..=10).contains(&news), "{endpoints} endpoints: {news} news");
        }
    }

    #[test]
    fn what_was_short_once_does_not_stand() {
        for (values, max, window_over, wanted) in [
            (vec![9.0, 8.0, 7.0], 100.0, true, true),
            (vec![9.0, 8.0, 7.0], 100.0, false, false),
            (vec![9.0, 6.0, 7.0], 100.0, true, false),
            (vec![9.0, 8.0, 7.0], 200.0, true, false),
            (vec![9.0, 40.0], 100.0, false, false),
            (vec![9.0, 40.0, 40.0], 100.0, false, true),
            (vec![9.0, 40.0, 40.0], 1000.0, false, false),
            (vec![9.0, 40.0], 50.0, false, true),
            (vec![9.0, 30.0], 40.0, false, false),
        ] {
            let mut standing = Standing::default();
            standing.begin(values[0]);
            for value in &values {
                standing.moved(*value, 0.1);
                standing.observe(*value);
            }
            standing.judge((values[values.len() - 1], max), SHORT, window_over, at(0));
            assert_eq!(standing.aside(), wanted, "{values:?}, {max}, {window_over}");
        }
        let mut standing = Standing::default();
        standing.begin(90.0);
        standing.judge((90.0, 100.0), Usual { low: 0.5, ..SHORT }, true, at(0));
        assert!(!standing.aside(), "the others are never empty");
    }

    #[test]
    fn the_others_need_it_where_their_queues_are_half_as_long() {
        let mut standing = set_aside(0);
        standing.look(0.0, Usual { latest: 4.5, ..SHORT }, at(1), 0);
        assert!(standing.aside());
        standing.look(0.0, Usual { latest: 4.6, ..SHORT }, at(2), 0);
        assert!(!standing.aside());
    }

    #[test]
    fn is_tried_after_a_pause_and_after_longer_ones() {
        let mut rng = Rng::new(3);
        for _ in 0..200 {
            let identity = rng.next_u64();
            let mut standing = set_aside(identity);
            let (mut last, mut pause) = (0, 64);
            for _ in 0..6 {
                let again = tried(&mut standing, 0.0, last, identity);
                assert!(
                    (pause / 2..=pause * 3 / 2 + 1).contains(&(again - last)),
                    "{identity}: {again} after {last}"
                );
                standing.look(100.0, SHORT, at(again), identity);
                assert!(!standing.aside(), "what came before the trial says nothing of it");
                standing.look(7.0, SHORT, at(again + 1), identity);
                assert!(standing.aside(), "{identity}");
                (last, pause) = (again + 1, (pause * 2).min(512));
            }
            let again = tried(&mut standing, 0.0, last, identity);
            (1..=3).for_each(|second| standing.look(6.0, SHORT, at(again + second), identity));
            standing.begin(6.0);
            standing.judge((6.0, 100.0), SHORT, true, at(again + 4));
            assert!(!standing.aside() && standing.phase == Phase::InUse);
        }
    }

    #[test]
    fn proxies_try_the_same_endpoint_at_the_same_time() {
        let mut rng = Rng::new(5);
        for _ in 0..200 {
            let identity = rng.next_u64();
            let moment = |began: u64| {
                let mut standing = Standing::default();
                standing.begin(9.0);
                standing.judge((9.0, 100.0), SHORT, true, at(began));
                tried(&mut standing, 0.0, began, identity)
            };
            let moments = [0, 3, 7, 15].map(moment);
            let first = moments[0];
            assert!(moments.iter().all(|m| m.abs_diff(first) % 64 == 0), "{identity}: {moments:?}");
        }
    }

    #[test]
    fn a_step_of_the_clock_keeps_no_endpoint_aside() {
        let mut standing = set_aside(9);
        standing.not_after(Time(5_000_000_000));
        let found = (6..200).find(|second| {
            standing.look(0.0, SHORT, (Time(second * 1_000_000_000), 1.0), 9);
            !standing.aside()
        });
        assert!(found.is_some());
    }
}
