//! The guard of one cluster: takes in what both arms have counted, judges, steps aside, and tries again.

use super::arms::Arms;
use super::capital::PERIOD_S;
use super::estimates::{Estimates, QUANTILES};
use super::evidence::{Evidence, Round, Shown};
use super::histogram::{self, BUCKETS, Histogram};
use crate::time::Time;

/// What is judged: failures, then the [`QUANTILES`].
pub const FIGURES: usize = 4;
/// How wrong each may be found within a period, by figure: together a hundredth.
const ALPHAS: [f64; FIGURES] = [0.006, 0.002, 0.001, 0.001];
/// The part of requests that is usually said to fail, where nothing is known.
const USUAL_FAILURES: f64 = 0.01;
/// A difference in latency that is certain and smaller than this is none.
const MIN_CHANGE: f64 = 0.02;
/// Thresholds follow about so many of the latest requests.
const REMEMBERED: f64 = 20_000.0;
/// A quantile is compared once so many requests lie beyond it.
const BEYOND: f64 = 10.0;
/// For how long it steps aside at first, unless that is configured, and at most, seconds.
pub const FIRST_PAUSE_S: f64 = 600.0;
const MAX_PAUSE_S: f64 = 6.0 * 3600.0;
/// After so long without harm the first pause is enough again, seconds.
const FORGIVEN_S: f64 = 86_400.0;
/// What was beyond doubt is so for this long, seconds.
const HOLDS_S: f64 = 6.0 * 3600.0;
const DAY_NS: u64 = 86_400 * 1_000_000_000;

/// What steering does, beyond doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finding {
    /// Nothing so far.
    #[default]
    Open,
    /// Good.
    Better,
    /// Some of both.
    Mixed,
    /// Harm.
    Worse,
}

impl Finding {
    /// As it stands in labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Finding::Open => "open",
            Finding::Better => "better",
            Finding::Mixed => "mixed",
            Finding::Worse => "worse",
        }
    }
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The finding is another.
    Found(Finding),
    /// Harm: nothing is steered for so many seconds.
    SteppedAside(f64),
    /// It steers again.
    Resumed,
}

/// The guard of one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// The part that is held out, above 0 and at most a half.
    pub holdout: f64,
    /// When the period began, in which a false alarm has a probability of a hundredth.
    pub began: Time,
    /// When it judged last.
    pub at: Time,
    /// By figure.
    pub evidence: [Evidence; FIGURES],
    /// Until when nothing is steered; [`Time::ZERO`] while it is.
    pub aside_until: Time,
    /// When it began to steer, first or again.
    pub steers_since: Time,
    /// How long it steps aside the next time at least, seconds: longer than the first time where that did not help.
    pub pause_s: f64,
    /// How long it steps aside at first, as configured; not shared.
    pub first_pause_s: f64,
    /// How often it has stepped aside.
    pub asides: u32,
    /// The finding that was told last.
    pub finding: Finding,
    /// Which day it is, UTC.
    pub day: u64,
    /// What has been counted on this day.
    pub today: Arms,
    /// Latencies of late, both arms together; not shared, because it is soon known again.
    pub recent: Recent,
}

/// Latencies of late, fading.
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

    /// The bucket from which on nearest to `beyond` of all lie, and the part that does.
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

    /// By how much the quantile is higher among the steered, whose odds to lie beyond it are e^`log_ratio` times
    /// as high. Most requests are steered: theirs are the latencies of late.
    fn change(&self, part: f64, log_ratio: f64) -> Option<f64> {
        let odds = (1.0 - part) / part * log_ratio.exp();
        Some(self.quantile(part)? / self.quantile(1.0 - odds / (1.0 + odds))? - 1.0)
    }
}

impl Guard {
    /// A guard that knows nothing yet.
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

    /// Whether nothing is steered at the moment.
    pub fn is_aside(&self) -> bool {
        self.aside_until != Time::ZERO
    }

    /// Today's figures.
    pub fn estimates(&self) -> Estimates {
        Estimates::of(&self.today, self.holdout)
    }

    /// Whether the day of [`today`](Guard::today) is over, and there is something to say of it.
    pub fn ends_day(&self, now: Time) -> bool {
        self.day != now.0 / DAY_NS && self.today != Arms::default()
    }

    /// Takes in what has come since the last time.
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
                    // Failures are not bet on to differ by less.
                    if change.is_none_or(|change| change.is_some_and(|change| change >= MIN_CHANGE)) {
                        evidence.worse_at = now;
                    }
                }
            }
        }
    }

    /// Failures weigh more than latency: more of them are harm whatever else is better.
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

    /// While it is aside nothing is drawn, so that nothing is to be judged.
    fn wait(&mut self, now: Time) -> Option<Event> {
        if now < self.aside_until {
            return None;
        }
        self.aside_until = Time::ZERO;
        self.steers_since = now;
        self.finding = Finding::Open;
        // A second false alarm in the period presupposes the first: the hundredth is of that one.
        self.evidence = [Evidence::default(); FIGURES];
        self.began = now;
        Some(Event::Resumed)
    }

    /// The clock stepped back to `now`.
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

    /// What another worker wrote, as far as it can be: a hostile number buys neither certainty nor a rest for ever.
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
