//! What a source said last, and how far it is to be believed.

use super::Condition;
use super::found::{Finding, Found};
use crate::time::Time;

/// A list is not given up for an empty answer, but for as many of them in a row …
const EMPTY_ANSWERS: u32 = 3;
/// … that come over this long, seconds: a Prometheus that was restarted finds nobody until it has scraped everybody
/// once, and scrapes are up to a minute apart.
const EMPTY_FOR_S: f64 = 60.0;
/// What a source said of an endpoint's condition counts for this long, seconds; then what is measured decides alone.
const CONDITION_COUNTS_FOR_S: f64 = 60.0;
/// … or for so many questions without an answer, whichever is longer.
const SILENT_AFTER: f64 = 3.0;

/// Who names endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// `endpoints.prometheus`.
    Prometheus,
    /// `endpoints.envoy_admin`.
    Envoy,
}

/// A source of endpoints, as it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The endpoints it named last; an answer without any leaves them for a while.
    pub found: Vec<Found>,
    /// When it last answered usably; [`Time::ZERO`] if never.
    pub answered: Time,
    /// Usable answers, ever.
    pub answers: u64,
    /// Questions without a usable answer, ever.
    pub failures: u64,
    /// What the last failure was, printable; empty if the last question was answered.
    pub error: String,
    /// Entries of the last answer that named no usable endpoint.
    pub skipped: u32,
    /// Empty answers in a row.
    pub empties: u32,
    /// When the first of these came.
    pub empty_since: Time,
}

impl Source {
    /// Takes an answer. Whether the list has changed.
    pub fn answer(&mut self, finding: Finding, now: Time) -> bool {
        let first = self.answered == Time::ZERO;
        self.answered = now;
        self.answers += 1;
        self.error.clear();
        self.skipped = finding.skipped.saturating_add(finding.beyond).min(u32::MAX as usize) as u32;
        if !finding.found.is_empty() {
            self.empties = 0;
        } else if !self.found.is_empty() {
            if self.empties == 0 || now < self.empty_since {
                self.empty_since = now;
            }
            self.empties = self.empties.saturating_add(1);
            if self.empties < EMPTY_ANSWERS || now.seconds_since(self.empty_since) < EMPTY_FOR_S {
                return false;
            }
        }
        let changed = first || self.found != finding.found;
        self.found = finding.found;
        changed
    }

    /// There was no usable answer. What was said before stays.
    pub fn fail(&mut self, error: &str) {
        self.failures += 1;
        error.clone_into(&mut self.error);
    }

    /// Forgets who was condemned by a source that has gone silent, though asked every `every_s` seconds. Whether that
    /// changed anything.
    pub fn forget_conditions(&mut self, every_s: f64, now: Time) -> bool {
        if now.seconds_since(self.answered) < CONDITION_COUNTS_FOR_S.max(SILENT_AFTER * every_s) {
            return false;
        }
        let mut changed = false;
        for found in self.found.iter_mut().filter(|found| found.condition != Condition::Serving) {
            found.condition = Condition::Serving;
            changed = true;
        }
        changed
    }

    /// What was ever said; nothing before the first answer.
    pub fn known(&self) -> Option<&[Found]> {
        (self.answered != Time::ZERO).then_some(&*self.found)
    }

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.answered = self.answered.min(now);
        self.empty_since = self.empty_since.min(now);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn s(seconds: u64) -> Time {
        Time((1_000_000 + seconds) * 1_000_000_000)
    }

    fn finding(ports: &[u16]) -> Finding {
        let mut finding = Finding::default();
        ports.iter().for_each(|port| finding.add(Found::at(([10, 0, 0, 1], *port).into())));
        finding
    }

    #[test]
    fn an_empty_answer_is_believed_when_it_has_been_repeated_for_a_minute() {
        let mut source = Source::default();
        assert!(source.answer(finding(&[1, 2]), s(0)));
        for second in [5, 10, 15, 60] {
            assert!(!source.answer(finding(&[]), s(second)));
            assert_eq!(source.found.len(), 2);
        }
        assert!(source.answer(finding(&[]), s(66)));
        assert_eq!(source.known(), Some(&[][..]));
        // One answer in between starts the count anew; a minute alone is not enough either.
        assert!(source.answer(finding(&[1]), s(70)));
        source.answer(finding(&[]), s(71));
        assert!(!source.answer(finding(&[1]), s(72)));
        source.answer(finding(&[]), s(73));
        assert!(!source.answer(finding(&[]), s(200)));
        assert!(source.answer(finding(&[]), s(201)));
    }

    #[test]
    fn a_failure_leaves_what_was_said() {
        let mut source = Source::default();
        assert_eq!(source.known(), None);
        source.answer(finding(&[1]), s(0));
        source.fail("no answer in time");
        assert_eq!((source.known().map(<[Found]>::len), source.failures), (Some(1), 1));
        assert!(!source.answer(finding(&[1]), s(9)), "the same");
        assert!(source.error.is_empty());
    }

    #[test]
    fn nobody_stays_condemned_by_a_source_that_is_gone() {
        let mut source = Source::default();
        let mut answer = finding(&[1, 2]);
        answer.found[0].condition = Condition::Unhealthy;
        source.answer(answer, s(0));
        assert!(!source.forget_conditions(5.0, s(59)));
        assert!(!source.forget_conditions(30.0, s(60)), "it is asked seldom");
        assert!(source.forget_conditions(5.0, s(60)));
        assert!(source.found.iter().all(|found| found.condition == Condition::Serving));
        assert!(!source.forget_conditions(5.0, s(61)));
    }
}
