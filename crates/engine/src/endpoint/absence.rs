//! Endpoints that a source does not name any more, and how long it takes until that is believed.
//!
//! A Prometheus that was restarted names an endpoint when it has scraped it, one of a pair of servers may name fewer
//! than the other, and `up` is 0 for an endpoint that is only busy. So an endpoint stays until its absence has lasted
//! for longer than absences that ended before, over several answers. Two more witnesses count: an endpoint that fails
//! by what is measured here leaves sooner, and one that serves well stays for an hour: its address may be another
//! service's by then.

use core::net::SocketAddr;

use crate::time::Time;

/// An absence is believed after as many answers in a row …
const ANSWERS: u32 = 3;
/// … over this long, seconds: a Prometheus that was restarted names every endpoint only when it has scraped every
/// endpoint once, and scrapes are up to a minute apart …
const MIN_S: f64 = 60.0;
/// … or this many times the longest absence that ended with a return …
const RECORD: f64 = 2.0;
/// … and no longer than this, seconds.
const MAX_S: f64 = 600.0;
/// An endpoint that fails by what is measured here is gone after as many answers without it.
const ANSWERS_IF_FAILING: u32 = 2;
/// An endpoint that serves well is gone after this long, seconds, of answers that name others and not it: addresses are
/// used again, and whatever answers there is not checked by anything else.
const MAX_SERVING_S: f64 = 3600.0;
/// So many endpoints that left are remembered, to learn from their return.
const MAX_DEPARTED: usize = 64;
/// A return after this long, seconds, is a new start and teaches nothing.
const TEACHES_WITHIN_S: f64 = 900.0;

/// What is measured here of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing lately.
    #[default]
    Unknown,
    /// It has answered well a moment ago.
    Serves,
    /// It has failed.
    Fails,
}

/// An endpoint that the latest answers did not name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Absence {
    /// Where it listens.
    pub address: SocketAddr,
    /// When the first answer without it came.
    pub since: Time,
    /// Answers in a row without it.
    pub answers: u32,
}

/// The absences of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Absences {
    /// Those that are not believed yet.
    pub open: Vec<Absence>,
    /// The longest absence that ended with a return, seconds.
    pub longest_s: f64,
    /// Which endpoints left, and since when they had not been named.
    departed: Vec<(SocketAddr, Time)>,
}

impl Absences {
    /// The absences as another worker has told them.
    pub fn told(open: Vec<Absence>, longest_s: f64) -> Absences {
        Absences { open, longest_s, departed: Vec::new() }
    }

    /// An answer named this endpoint.
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

    /// An answer did not name this endpoint.
    pub fn missed(&mut self, address: SocketAddr, now: Time) {
        match self.open.iter_mut().find(|a| a.address == address) {
            Some(absence) => absence.answers = absence.answers.saturating_add(1),
            None => self.open.push(Absence { address, since: now, answers: 1 }),
        }
    }

    /// Nothing is held against an answer that replaces the list.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    /// How many endpoints have not been named by several answers in a row.
    pub fn lasting(&self) -> usize {
        self.open.iter().filter(|absence| absence.answers >= ANSWERS).count()
    }

    /// How long an absence lasts until it is believed, seconds, of a source that is asked every `every_s`.
    fn patience_s(&self, every_s: f64) -> f64 {
        (RECORD * self.longest_s).max(f64::from(ANSWERS) * every_s).clamp(MIN_S, MAX_S)
    }

    /// Takes out the absences that are believed; `named_any` where the latest answer named any endpoint.
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

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.open.iter_mut().for_each(|a| a.since = a.since.min(now));
        self.departed.iter_mut().for_each(|(_, since)| *since = (*since).min(now));
    }
}
