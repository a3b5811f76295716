//! The guard of one cluster: collects the counts of both arms, judges, steps aside, and tries again.

use super::arms::Arms;
use super::capital::PERIOD_S;
use super::estimates::{Estimates, QUANTILES};
use super::evidence::{Evidence, Round, Shown};
use super::histogram::{self, BUCKETS, Histogram};
use crate::time::Time;

/// Number of figures that are tested: failures and the [`QUANTILES`].
pub const FIGURES: usize = 4;
/// Probability of a false finding on each side within a period, by figure; 0.01 in total.
const ALPHAS: [f64; FIGURES] = [0.006, 0.002, 0.001, 0.001];
/// Fraction of requests assumed to fail before anything is known.
const USUAL_FAILURES: f64 = 0.01;
/// Relative latency difference below which a finding is ignored.
const MIN_CHANGE: f64 = 0.02;
/// Window over which latency thresholds are computed, requests.
const REMEMBERED: f64 = 20_000.0;
/// Minimum number of requests beyond a quantile before it is tested.
const BEYOND: f64 = 10.0;
/// First pause after harm was found, unless configured, seconds.
pub const FIRST_PAUSE_S: f64 = 600.0;
/// Maximum pause, seconds.
const MAX_PAUSE_S: f64 = 6.0 * 3600.0;
/// Time without harm after which the first pause applies again, seconds.
const FORGIVEN_S: f64 = 86_400.0;
/// Time for which a finding holds, seconds.
const HOLDS_S: f64 = 6.0 * 3600.0;
/// A day in nanoseconds.
const DAY_NS: u64 = 86_400 * 1_000_000_000;

/// Certain effect of steering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finding {
    /// None so far.
    #[default]
    Open,
    /// Better than Envoy's own policy.
    Better,
    /// Better in some figures, slower in others.
    Mixed,
    /// Harmful.
    Worse,
}

impl Finding {
    /// Name in labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Finding::Open => "open",
            Finding::Better => "better",
            Finding::Mixed => "mixed",
            Finding::Worse => "worse",
        }
    }
}

/// An event to be logged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The finding has changed.
    Found(Finding),
    /// Harm was found: nothing is steered for this time, seconds.
    SteppedAside(f64),
    /// Steering has resumed.
    Resumed,
}

/// The guard of one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// Fraction of the requests that is held out, above 0 and at most 0.5.
    pub holdout: f64,
    /// Start of the current period; within a period, the probability of a false alarm is 0.01.
    pub began: Time,
    /// When it last judged.
    pub at: Time,
    /// Tests by figure.
    pub evidence: [Evidence; FIGURES],
    /// End of the pause; [`Time::ZERO`] while requests are steered.
    pub aside_until: Time,
    /// When steering began or last resumed.
    pub steers_since: Time,
    /// Minimum length of the next pause, seconds; it doubles until harm has been absent for a day.
    pub pause_s: f64,
    /// Length of the first pause, seconds, as configured; not shared.
    pub first_pause_s: f64,
    /// Number of times it has stepped aside.
    pub asides: u32,
    /// The finding that was last reported.
    pub finding: Finding,
    /// Current day (UTC), days since 1970.
    pub day: u64,
    /// Counts of the current day.
    pub today: Arms,
    /// Recent latencies of both arms; not shared, because they are soon known again.
    pub recent: Recent,
}

/// Recent latencies, decaying.
#[derive(Clone, Debug, PartialEq)]
pub struct Recent([f64; BUCKETS]);

impl Default for Recent {
    fn default() -> Recent {
        Recent([0.0; BUCKETS])
    }
}

impl Recent {
    fn total(&self) -> f64 {
        self.0.iter().sum()
    }

    fn take(&mut self, came: &Histogram, also: &Histogram) {
        let count = came.total().saturating_add(also.total()) as f64;
        let kept = REMEMBERED / (REMEMBERED + count);
        for (place, (ours, theirs)) in self.0.iter_mut().zip(came.counts().iter().zip(also.counts())) {
            *place = *place * kept + *ours as f64 + *theirs as f64;
        }
    }

    /// The bucket above whose lower edge a fraction nearest to `beyond` lies, and that fraction.
    fn threshold(&self, beyond: f64) -> Option<(usize, f64)> {
        let total = self.total();
        if total * beyond < BEYOND {
            return None;
        }
        let (mut from, mut best) = (total, (0, 1.0));
        for (bucket, count) in self.0.iter().enumerate() {
            let part = from / total;
            if (part - beyond).abs() < f64::abs(best.1 - beyond) {
                best = (bucket, part);
            }
            from -= count;
        }
        (best.1 > 0.0 && best.1 < 1.0).then_some(best)
    }

    fn quantile(&self, part: f64) -> Option<f64> {
        histogram::value_at(self.0.iter().copied(), part * self.total())
    }

    /// Relative increase of the quantile `part` among the steered, whose odds to exceed it are e^`log_ratio` times as
    /// high. Most requests are steered, so the recent latencies are theirs.
    fn change(&self, part: f64, log_ratio: f64) -> Option<f64> {
        let odds = (1.0 - part) / part * log_ratio.exp();
        Some(self.quantile(part)? / self.quantile(1.0 - odds / (1.0 + odds))? - 1.0)
    }
}

impl Guard {
    /// Creates a guard without any evidence.
    pub fn new(holdout: f64, now: Time) -> Guard {
        Guard {
            holdout,
            began: now,
            at: now,
            evidence: [Evidence::default(); FIGURES],
            aside_until: Time::ZERO,
            steers_since: now,
            pause_s: 0.0,
            first_pause_s: FIRST_PAUSE_S,
            asides: 0,
            finding: Finding::Open,
            day: now.0 / DAY_NS,
            today: Arms::default(),
            recent: Recent::default(),
        }
    }

    /// Whether it has stepped aside, so that nothing is steered.
    pub fn is_aside(&self) -> bool {
        self.aside_until != Time::ZERO
    }

    /// Today's figures.
    pub fn estimates(&self) -> Estimates {
        Estimates::of(&self.today, self.holdout)
    }

    /// Whether the day of [`today`](Guard::today) has ended with any requests counted.
    pub fn ends_day(&self, now: Time) -> bool {
        self.day != now.0 / DAY_NS && self.today != Arms::default()
    }

    /// Adds the counts since the last call and judges; returns an event to be logged.
    pub fn take(&mut self, came: &Arms, now: Time) -> Option<Event> {
        self.not_after(now);
        self.at = now;
        if self.day != now.0 / DAY_NS {
            self.day = now.0 / DAY_NS;
            self.today = Arms::default();
        }
        if self.is_aside() {
            return self.wait(now);
        }
        if now.seconds_since(self.began) >= PERIOD_S {
            self.began = now;
            self.evidence.iter_mut().for_each(|e| (e.worse, e.better) = Default::default());
        }
        self.today.merge(came);
        self.judge(came, now);
        self.recent.take(&came.steered.latency, &came.held_out.latency);
        let finding = self.conclusion(now);
        if finding == Finding::Worse {
            return Some(self.step_aside(now));
        }
        (core::mem::replace(&mut self.finding, finding) != finding).then_some(Event::Found(finding))
    }

    fn judge(&mut self, came: &Arms, now: Time) {
        let since_s = now.seconds_since(self.began);
        for figure in 0..FIGURES {
            let part = figure.checked_sub(1).and_then(|at| QUANTILES.get(at)).copied();
            let asked = match part {
                None => Some((of_failures(came), USUAL_FAILURES)),
                Some(part) => {
                    let threshold = self.recent.threshold(1.0 - part);
                    threshold.map(|(from, usual)| (of_latencies(came, from), usual))
                }
            };
            let Some((round, usual)) = asked else { continue };
            let (Some(evidence), Some(alpha)) = (self.evidence.get_mut(figure), ALPHAS.get(figure)) else {
                continue;
            };
            match evidence.take(&round, (self.holdout, usual, *alpha), since_s) {
                Shown::Nothing => {}
                Shown::Better => evidence.better_at = now,
                Shown::Worse(log_ratio) => {
                    let change = part.map(|part| self.recent.change(part, log_ratio));
                    // Bets on failures are on larger differences anyway.
                    if change.is_none_or(|change| change.is_some_and(|change| change >= MIN_CHANGE)) {
                        evidence.worse_at = now;
                    }
                }
            }
        }
    }

    /// The finding from all figures. More failures are harm, whatever else is better.
    fn conclusion(&self, now: Time) -> Finding {
        let holds = |at: Time| at != Time::ZERO && now.seconds_since(at) < HOLDS_S;
        let [failures, latencies @ ..] = &self.evidence;
        let slower = latencies.iter().any(|e| holds(e.worse_at));
        let better = self.evidence.iter().any(|e| holds(e.better_at) && !holds(e.worse_at));
        match (holds(failures.worse_at), slower, better) {
            (true, ..) | (_, true, false) => Finding::Worse,
            (_, true, true) => Finding::Mixed,
            (_, _, true) => Finding::Better,
            _ => Finding::Open,
        }
    }

    fn step_aside(&mut self, now: Time) -> Event {
        if now.seconds_since(self.steers_since) >= FORGIVEN_S {
            self.pause_s = 0.0;
        }
        let pause_s = self.pause_s.max(self.first_pause_s);
        self.pause_s = (2.0 * pause_s).min(MAX_PAUSE_S);
        self.aside_until = now.after_secs(pause_s);
        self.asides = self.asides.saturating_add(1);
        self.finding = Finding::Worse;
        Event::SteppedAside(pause_s)
    }

    /// Waits for the end of the pause. Nothing is drawn meanwhile, so there is nothing to judge.
    fn wait(&mut self, now: Time) -> Option<Event> {
        if now < self.aside_until {
            return None;
        }
        self.aside_until = Time::ZERO;
        self.steers_since = now;
        self.finding = Finding::Open;
        // A second false alarm in the period presupposes the first, whose probability is bounded.
        self.evidence = [Evidence::default(); FIGURES];
        self.began = now;
        Some(Event::Resumed)
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.began = self.began.min(now);
        self.at = self.at.min(now);
        self.steers_since = self.steers_since.min(now);
        for evidence in &mut self.evidence {
            evidence.worse_at = evidence.worse_at.min(now);
            evidence.better_at = evidence.better_at.min(now);
        }
        if self.aside_until.seconds_since(now) > MAX_PAUSE_S {
            self.aside_until = now.after_secs(self.first_pause_s);
        }
    }

    /// Validates what another worker wrote: a hostile value causes neither certainty nor an endless pause.
    pub fn checked(mut self, now: Time) -> Option<Guard> {
        let sound = |e: &Evidence| e.worse.checked().is_some() && e.better.checked().is_some();
        let holdout = self.holdout > 0.0 && self.holdout <= 0.5;
        if !holdout || !self.evidence.iter().all(sound) || !self.pause_s.is_finite() {
            return None;
        }
        self.pause_s = self.pause_s.clamp(0.0, MAX_PAUSE_S);
        self.not_after(now);
        Some(self)
    }
}

fn of_failures(came: &Arms) -> Round {
    let held_out_events = came.held_out.failures;
    let events = came.steered.failures.saturating_add(held_out_events);
    let (steered, held_out) = (came.steered.latency.total(), came.held_out.latency.total());
    Round {
        events: events as f64,
        held_out_events: held_out_events as f64,
        others: steered.saturating_add(held_out) as f64,
        held_out_others: held_out as f64,
    }
}

fn of_latencies(came: &Arms, from: usize) -> Round {
    let (steered, held_out) = (&came.steered.latency, &came.held_out.latency);
    let (above, held_out_above) = (steered.from(from), held_out.from(from));
    let (below, held_out_below) =
        (steered.total().saturating_sub(above), held_out.total().saturating_sub(held_out_above));
    Round {
        events: above.saturating_add(held_out_above) as f64,
        held_out_events: held_out_above as f64,
        others: below.saturating_add(held_out_below) as f64,
        held_out_others: held_out_below as f64,
    }
}

#[cfg(test)]
mod tests;
