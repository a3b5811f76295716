//! Everything one worker knows of one endpoint, dense and by value, so that a pick touches few cache lines.

use crate::config::{self, RuleAction};
use crate::fleet::Condition;
use crate::health::{Evidence, Health, State};
use crate::measure::{Blend, ErrorRatio, InFlight, InFlightReport, Latency, PeakEwma};
use crate::terms::Terms;
use crate::time::Time;

/// How many of its own standard errors an estimate must differ from the fleet before it is believed to differ.
const DOUBT: f64 = 1.5;
/// Spread of the logarithm of latencies assumed when judging an estimate's standard error.
const SPREAD: f64 = 0.5;

/// Latencies that differ by less than about this are equal, seconds: a thread switch or a fresh connection takes
/// as long.
pub const NOISE_S: f64 = 0.001;
/// How many standard deviations a failure ratio must exceed the fleet's.
const DOUBT_OF_ERRORS: f64 = 2.5;
/// A single failure among good answers is the business of [`Health`], not of the price.
const ONE_FAILURE: f64 = 0.06;

/// What happened to requests, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that ended, whatever their outcome.
    pub requests: u64,
    /// Of these, failures.
    pub failures: u64,
    /// Times the endpoint was chosen.
    pub picks: u64,
}

impl Counters {
    /// Takes off what is told elsewhere.
    pub fn take_off(&mut self, told: &Counters) {
        self.requests = self.requests.saturating_sub(told.requests);
        self.failures = self.failures.saturating_sub(told.failures);
        self.picks = self.picks.saturating_sub(told.picks);
    }

    /// Adds another worker's counts.
    pub fn merge(&mut self, other: &Counters) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        self.picks = self.picks.saturating_add(other.picks);
    }
}

/// The same of one endpoint since it was last [carried over](Tally::carry): a worker that gives it a thousand requests a
/// second fills this in seven weeks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that ended, whatever their outcome.
    pub requests: u32,
    /// Of these, failures.
    pub failures: u32,
    /// Times the endpoint was chosen.
    pub picks: u32,
}

impl Tally {
    /// A request ended.
    pub fn request(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// It was a failure.
    pub fn failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// The endpoint was chosen.
    pub fn pick(&mut self) {
        self.picks = self.picks.saturating_add(1);
    }

    /// Takes off what is told elsewhere.
    pub fn take_off(&mut self, told: &Tally) {
        self.requests = self.requests.saturating_sub(told.requests);
        self.failures = self.failures.saturating_sub(told.failures);
        self.picks = self.picks.saturating_sub(told.picks);
    }

    /// Begins anew if this is half full; what was counted so far is then to be kept elsewhere.
    pub fn carry(&mut self) -> Option<Counters> {
        let full = self.requests.max(self.failures).max(self.picks) > u32::MAX / 2;
        full.then(|| core::mem::take(self).into())
    }

    /// What was kept elsewhere, if that is less than half of what fits here.
    pub fn resume(Counters { requests, failures, picks }: Counters) -> Option<Tally> {
        let small = |count| u32::try_from(count).ok().filter(|count| *count <= u32::MAX / 2);
        Some(Tally { requests: small(requests)?, failures: small(failures)?, picks: small(picks)? })
    }
}

impl From<Tally> for Counters {
    fn from(Tally { requests, failures, picks }: Tally) -> Counters {
        Counters { requests: requests.into(), failures: failures.into(), picks: picks.into() }
    }
}

/// What the other workers know of an endpoint, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Others {
    /// Their requests.
    pub in_flight: InFlightReport,
    /// Their latency estimates.
    pub latency: Blend,
    /// The highest of their failure ratios.
    pub error_ratio: f32,
}

impl Others {
    /// Adds another worker's knowledge.
    pub fn merge(&mut self, other: &Others) {
        self.in_flight.merge(&other.in_flight);
        self.latency.merge(&other.latency);
        self.error_ratio = self.error_ratio.max(other.error_ratio);
    }
}

/// What the others know, and when it was gathered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    others: Others,
    told: Time,
}

/// Everything known of one endpoint. What most endpoints have nothing of stands apart.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// Whether the place is taken by an endpoint at all.
    pub present: bool,
    /// Whether it may be chosen.
    pub eligible: bool,
    /// Which of the upstream's groups it is chosen in; beyond all of them if in none.
    pub group: u32,
    /// Which endpoint this is, the same in every worker and proxy: [`Endpoint::hash`](crate::fleet::Endpoint).
    pub identity: u64,
    /// Relative capacity, > 0.
    pub weight: f32,
    /// Probability of being considered, relative to the others: weight × signals × slow start.
    pub share: f32,
    /// Value that `least_signal` compares; infinite if unknown.
    pub signal: f32,
    /// Expected seconds to response headers when idle, as far as it is known to differ from the fleet's.
    pub expected: f32,
    /// This worker's requests.
    pub in_flight: InFlight,
    /// This worker's latency estimate.
    pub latency: Latency,
    /// This worker's peak-sensitive latency, where `peak_ewma` compares it.
    pub peak: Option<Box<PeakEwma>>,
    /// This worker's failure ratio.
    pub errors: ErrorRatio,
    /// Its health.
    pub health: Health,
    /// This worker's counts, lately.
    pub counters: Tally,
    /// What the other workers know; none if there are none.
    pub heard: Option<Box<Heard>>,
    /// How it stands with those who announce it.
    pub condition: Condition,
    /// What the operator's rules demand.
    pub ruled: Option<RuleAction>,
    /// Explorations in a row that found it still slow.
    pub explored_in_vain: u8,
    /// An exploration is on its way.
    pub exploring: bool,
    /// An exploration went well: look again at once.
    pub look_again: bool,
}

impl Member {
    /// The clock stepped back to `now`: nothing that is known may be younger.
    pub fn not_after(&mut self, now: Time) {
        self.in_flight.not_after(now);
        self.latency.not_after(now);
        self.peak.iter_mut().for_each(|peak| peak.not_after(now));
        self.health.not_after(now);
    }

    /// Takes over what the worker of an older configuration has learnt.
    pub fn adopt(&mut self, known: &mut Member) {
        *self = Member {
            weight: self.weight,
            condition: self.condition,
            group: self.group,
            peak: self.peak.take().map(|own| known.peak.clone().unwrap_or(own)),
            // Who was looked at a moment ago, by whomever, is not to be explored by every worker anew.
            in_flight: InFlight::none_since(known.quiet_since()),
            counters: Tally::default(),
            heard: None,
            ruled: None,
            ..known.clone()
        };
        // The old worker lives on while its requests do, and tells what it knows: nothing may count twice.
        known.health.forget_own();
    }

    /// Those who announce it say how it stands. Whoever is let back into traffic starts slowly.
    pub fn stand(&mut self, condition: Condition, now: Time) {
        let was = core::mem::replace(&mut self.condition, condition);
        if was.condemned() && !condition.condemned() {
            if self.health.joined() != Time::ZERO && self.counters.picks == 0 {
                self.health.joins(now);
            }
            self.health.returns(now);
        }
    }

    /// What the other workers know.
    pub fn others(&self) -> Others {
        self.heard.as_ref().map_or_else(Others::default, |heard| heard.others)
    }

    /// Adds what another worker knows.
    pub fn hear(&mut self, other: &Others, evidence: &Evidence, told: Time) {
        if self.heard.is_none() && *other == Others::default() && *evidence == Evidence::default() {
            return;
        }
        let heard = self.heard.get_or_insert_default();
        heard.others.merge(other);
        heard.told = told;
        self.health.merge_other(evidence);
    }

    /// Forgets what the other workers know, to be told anew.
    pub fn forget_others(&mut self) {
        match &mut self.heard {
            // Nobody has told anything since the last time: nobody is left.
            Some(heard) if heard.others == Others::default() => self.heard = None,
            Some(heard) => heard.others = Others::default(),
            None => {}
        }
        self.health.forget_others();
    }

    /// Fills in what others had told before, where nobody has told it yet.
    pub fn recall(&mut self, latency: Blend, error_ratio: f32) {
        let told = latency.centre().is_some() || error_ratio > 0.0;
        if told && self.others().latency.centre().is_none() {
            let others = &mut self.heard.get_or_insert_default().others;
            others.latency = latency;
            others.error_ratio = others.error_ratio.max(error_ratio);
        }
    }

    /// Requests on their way from all workers.
    pub fn total_in_flight(&self) -> u32 {
        self.in_flight.total().saturating_add(self.heard.as_ref().map_or(0, |h| h.others.in_flight.total))
    }

    /// Requests of all workers that await response headers.
    pub fn awaiting(&self) -> u32 {
        self.in_flight
            .awaiting()
            .saturating_add(self.heard.as_ref().map_or(0, |h| h.others.in_flight.awaiting))
    }

    /// When it last showed life, or went from idle to busy.
    pub fn quiet_since(&self) -> Time {
        let others = self.heard.as_ref().map_or(Time::ZERO, |h| h.others.in_flight.quiet_since);
        self.in_flight.quiet_since().max(others)
    }

    /// The common latency estimate of all workers: logarithm of seconds, and the samples it rests on.
    pub fn centre(&self) -> Option<(f64, f64)> {
        let mut blend = self.heard.as_ref().map_or_else(Blend::default, |h| h.others.latency);
        blend.add(self.latency.parts());
        blend.centre()
    }

    /// Draws the conclusion on its health; who returns to traffic is forgiven.
    pub fn assess(&mut self, now: Time, limits: &config::Health, background: f64) -> State {
        let before = self.health.state();
        let state = self.health.assess(now, limits, background);
        if state == State::Healthy && before != State::Healthy {
            self.errors.forgive();
        }
        state
    }

    /// A lower bound of the latency in seconds from what has not been answered.
    pub fn floor(&self, now: Time) -> f64 {
        match &self.heard {
            Some(heard) => self.in_flight.floor(&heard.others.in_flight, heard.told, now),
            None => self.in_flight.floor(&InFlightReport::default(), Time::ZERO, now),
        }
    }

    /// The failure ratio over all workers.
    pub fn error_ratio(&self) -> f64 {
        self.errors.ratio().max(self.heard.as_ref().map_or(0.0, |h| f64::from(h.others.error_ratio)))
    }

    /// How far (natural log) the estimate lies above `typical` seconds, and the standard error of that.
    pub fn deviation(&self, typical: f64) -> Option<(f64, f64)> {
        self.ratio(typical).map(|(ratio, error)| (ratio.ln(), error))
    }

    /// The estimate over `typical` seconds, and the standard error of its logarithm. What the proxy itself takes
    /// now and then is no difference between endpoints.
    fn ratio(&self, typical: f64) -> Option<(f64, f64)> {
        let (centre, samples) = self.centre()?;
        Some(((centre.exp() + NOISE_S) / (typical + NOISE_S), SPREAD / samples.max(1.0).sqrt()))
    }

    /// Recomputes [`expected`](Member::expected) against `typical`, the fleet's median in seconds.
    ///
    /// The estimate counts only as far as it differs by more than its own uncertainty (soft threshold at
    /// 1.5 standard errors of the mean logarithm): equal endpoints look equal, and in-flight decides.
    /// A failure ratio beyond the fleet's adds its expected cost: a request that fails costs a retry by
    /// somebody, priced at ten typical requests or a second, whichever is more.
    pub fn price(&mut self, typical: f64, background_errors: f64, terms: &Terms) {
        let doubt = if terms.doubt { DOUBT } else { 0.0 };
        let differs = self.ratio(typical).map_or(1.0, |(ratio, error)| beyond_doubt(ratio, doubt * error));
        self.expected = (typical * differs + self.surcharge(typical, background_errors, terms)) as f32;
    }

    /// The part of the [price](Member::price) that is for failures, seconds.
    pub fn surcharge(&self, typical: f64, background_errors: f64, terms: &Terms) -> f64 {
        let usual = background_errors + DOUBT_OF_ERRORS * ErrorRatio::spread(background_errors);
        let excess = if terms.errors { (self.error_ratio() - usual - ONE_FAILURE).max(0.0) } else { 0.0 };
        excess * (10.0 * typical).max(1.0)
    }
}

/// `ratio` moved towards 1 by `doubt` on the logarithmic scale, and not beyond: e^(±(|ln ratio| − doubt)), without
/// logarithm or exponential where nothing is left, as for most endpoints on most ticks.
fn beyond_doubt(ratio: f64, doubt: f64) -> f64 {
    // ln x ≤ x − 1.
    if ratio.max(1.0 / ratio) - 1.0 <= doubt {
        1.0
    } else if ratio > 1.0 {
        (ratio * (-doubt).exp()).max(1.0)
    } else {
        (ratio * doubt.exp()).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn is_small() {
        let limit = if cfg!(target_pointer_width = "32") { 152 } else { 160 };
        assert!(size_of::<Member>() <= limit, "{} bytes", size_of::<Member>());
    }

    #[test]
    fn counts_are_carried_over_before_they_are_full() {
        let mut tally = Tally { picks: u32::MAX / 2, ..Tally::default() };
        assert_eq!(tally.carry(), None);
        assert_eq!(Tally::resume(tally.into()), Some(tally));
        tally.pick();
        let full = Counters::from(tally);
        assert_eq!((tally.carry(), tally), (Some(full), Tally::default()));
        assert_eq!(Tally::resume(full), None);
    }

    #[test]
    fn a_difference_counts_as_far_as_it_is_beyond_doubt() {
        for ratio in [0.01f64, 0.5, 0.83, 0.99, 1.0, 1.01, 1.2, 2.0, 100.0] {
            for doubt in [0.0, 0.1875, 0.75] {
                let (deviation, found) = (ratio.ln(), beyond_doubt(ratio, doubt).ln());
                let wanted = deviation.signum() * (deviation.abs() - doubt).max(0.0);
                assert!((found - wanted).abs() < 1e-9, "{ratio} {doubt}: {found}, not {wanted}");
            }
        }
    }
}
