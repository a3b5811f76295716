//! Endpoints that a discovery source no longer names, and how long until they are removed.
//!
//! A restarted Prometheus names an endpoint only after scraping it, one server of a pair may name fewer than the other,
//! and `up` is 0 for an endpoint that is merely busy. So an endpoint stays until it has been absent from several
//! answers, and for longer than earlier absences that ended with a return. Its own traffic counts as well: an endpoint
//! that fails is removed sooner; one that serves well stays for an hour, but no longer, because its address may have
//! passed to another service.

use core::net::SocketAddr;

use crate::time::Time;

/// Minimum number of consecutive answers without an endpoint before it is removed.
const ANSWERS: u32 = 3;
/// Minimum absence, seconds: a restarted Prometheus names every endpoint only after one scrape of each, and scrapes are
/// up to a minute apart.
const MIN_S: f64 = 60.0;
/// Minimum absence in multiples of the longest one that ended with a return.
const RECORD: f64 = 2.0;
/// Maximum of the required absence, seconds.
const MAX_S: f64 = 600.0;
/// Minimum number of consecutive answers without an endpoint that fails by this worker's measurements.
const ANSWERS_IF_FAILING: u32 = 2;
/// Minimum absence of an endpoint that serves well, seconds, in answers that name others: addresses are reused, and
/// nothing else verifies what answers there.
const MAX_SERVING_S: f64 = 3600.0;
/// Maximum number of removed endpoints that are remembered, to learn from their return.
const MAX_DEPARTED: usize = 64;
/// Maximum absence from which a return is learnt, seconds; after a longer one it is a new start.
const TEACHES_WITHIN_S: f64 = 900.0;

/// Recent state of an endpoint by this worker's measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// No recent answers.
    #[default]
    Unknown,
    /// It had a good answer recently.
    Serves,
    /// It is failing.
    Fails,
}

/// An endpoint that was missing from the latest answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Absence {
    /// The endpoint's address.
    pub address: SocketAddr,
    /// Time of the first answer without it.
    pub since: Time,
    /// Number of consecutive answers without it.
    pub answers: u32,
}

/// Absences from the answers of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Absences {
    /// Absences of endpoints that have not been removed yet.
    pub open: Vec<Absence>,
    /// Longest absence that ended with a return, seconds.
    pub longest_s: f64,
    /// Removed endpoints, and since when they had been absent.
    departed: Vec<(SocketAddr, Time)>,
}

impl Absences {
    /// The absences as reported by another worker.
    pub fn reported(open: Vec<Absence>, longest_s: f64) -> Absences {
        Absences { open, longest_s, departed: Vec::new() }
    }

    /// Records that an answer named this endpoint.
    pub fn named(&mut self, address: SocketAddr, now: Time) {
        let open =
            self.open.iter().position(|a| a.address == address).map(|at| self.open.swap_remove(at).since);
        let left =
            self.departed.iter().position(|(a, _)| *a == address).map(|at| self.departed.swap_remove(at).1);
        if let Some(since) = open.or(left) {
            let lasted_s = now.seconds_since(since);
            if lasted_s <= TEACHES_WITHIN_S {
                self.longest_s = self.longest_s.max(lasted_s);
            }
        }
    }

    /// Records that an answer did not name this endpoint.
    pub fn missed(&mut self, address: SocketAddr, now: Time) {
        match self.open.iter_mut().find(|a| a.address == address) {
            Some(absence) => absence.answers = absence.answers.saturating_add(1),
            None => self.open.push(Absence { address, since: now, answers: 1 }),
        }
    }

    /// Clears all absences, for an answer that replaces the list.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    /// Number of endpoints that have been absent from several consecutive answers.
    pub fn lasting(&self) -> usize {
        self.open.iter().filter(|absence| absence.answers >= ANSWERS).count()
    }

    /// Required absence, seconds, for a source that is polled every `every_s`.
    fn patience_s(&self, every_s: f64) -> f64 {
        (RECORD * self.longest_s).max(f64::from(ANSWERS) * every_s).clamp(MIN_S, MAX_S)
    }

    /// Takes out the endpoints that are to be removed; `named_any` says whether the latest answer named any endpoint.
    pub fn believed(
        &mut self,
        named_any: bool,
        every_s: f64,
        now: Time,
        standing: impl Fn(SocketAddr) -> Standing,
    ) -> Vec<SocketAddr> {
        let patience_s = self.patience_s(every_s);
        let gone = |absence: &Absence| {
            let lasted = absence.answers >= ANSWERS && now.seconds_since(absence.since) >= patience_s;
            match standing(absence.address) {
                Standing::Serves => lasted && named_any && now.seconds_since(absence.since) >= MAX_SERVING_S,
                Standing::Fails => lasted || (named_any && absence.answers >= ANSWERS_IF_FAILING),
                Standing::Unknown => lasted,
            }
        };
        let gone: Vec<Absence> = self.open.extract_if(.., |absence| gone(absence)).collect();
        for absence in &gone {
            if self.departed.len() >= MAX_DEPARTED {
                self.departed.remove(0);
            }
            self.departed.push((absence.address, absence.since));
        }
        gone.into_iter().map(|absence| absence.address).collect()
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.open.iter_mut().for_each(|a| a.since = a.since.min(now));
        self.departed.iter_mut().for_each(|(_, since)| *since = (*since).min(now));
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn s(seconds: f64) -> Time {
        Time::from_secs_f64(1_000_000.0 + seconds)
    }

    /// When the clock steps back during an absence, it is believed as long after that as it would have been before.
    #[test]
    fn an_absence_from_before_a_step_of_the_clock_is_believed_in_its_time() {
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let mut absences = Absences::default();
        (0..3).for_each(|_| absences.missed(address, s(9000.0)));
        absences.not_after(s(0.0));
        let mut gone = |seconds| absences.believed(true, 5.0, s(seconds), |_| Standing::Unknown);
        assert_eq!(gone(59.0), [] as [SocketAddr; 0]);
        assert_eq!(gone(61.0), [address]);
        // It had left before the clock stepped back, and returns an hour later: that teaches nothing of short absences.
        absences.departed = vec![(address, s(9000.0))];
        absences.not_after(s(100.0));
        absences.named(address, s(4000.0));
        assert_eq!(absences.longest_s, 0.0);
        absences.departed = vec![(address, s(9000.0))];
        absences.not_after(s(100.0));
        absences.named(address, s(400.0));
        assert_eq!(absences.longest_s, 300.0);
    }
}
