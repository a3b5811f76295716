//! The state of one source of endpoints, and for how long it is valid.

use core::net::SocketAddr;

use super::found::{Finding, Found};
use config::MAX_ENDPOINTS;
use engine::endpoint::{Absences, AnnouncedHealth, Standing};
use engine::order;
use engine::time::Time;

/// Time for which announced health is valid without a new response, seconds; after that measurements alone decide.
const CONDITION_COUNTS_FOR_S: f64 = 60.0;
/// Number of poll intervals for which announced health is valid, if they exceed [`CONDITION_COUNTS_FOR_S`].
const SILENT_AFTER: f64 = 3.0;

/// The kinds of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// `endpoints.prometheus`.
    Prometheus,
    /// `endpoints.envoy_admin`.
    Envoy,
}

impl Origin {
    /// The name in labels and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Prometheus => "prometheus",
            Origin::Envoy => "envoy_admin",
        }
    }
}

/// The state of one source of endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The endpoints of the latest responses, with absent ones that are still kept.
    pub found: Vec<Found>,
    /// When it last answered usably; [`Time::ZERO`] if never.
    pub last_success: Time,
    /// Usable responses, in total.
    pub answers: u64,
    /// Polls without a usable response, in total.
    pub failures: u64,
    /// The error of the last poll, printable; empty if it succeeded.
    pub error: String,
    /// Whether a poll had no usable answer, and none has come since that could be used for any upstream.
    pub outage: bool,
    /// Whether the last answer could not be used for this upstream alone.
    pub alone: bool,
    /// The number of skipped entries in the last response.
    pub skipped: u32,
    /// The names of the first of these.
    pub examples: String,
    /// The fraction of the requests that the source gives to skipped entries, 0..=1.
    pub unsteerable: f64,
    /// Whether Envoy chooses its hosts by subsets, which no address respects. A new leader goes by it until it has asked.
    pub subsets: bool,
    /// The identity of the query; the response to another query replaces the list at once.
    pub question: u64,
    /// Endpoints of the list that are missing from the latest responses.
    pub absences: Absences,
    /// Whether the latest response named any endpoint.
    pub named_any: bool,
}

impl Source {
    /// Takes a response to `question` from `origin`; returns whether the list has changed.
    ///
    /// Requests can only be steered to the hosts that Envoy lists, so an endpoint missing there is removed at once,
    /// unless the list is empty. Absence from other sources is believed [later](Source::remove_absent).
    #[inline(never)]
    pub fn answer(&mut self, finding: Finding, (origin, question): (Origin, u64), now: Time) -> bool {
        let first = self.last_success == Time::ZERO;
        self.last_success = now;
        self.answers += 1;
        self.error.clear();
        (self.outage, self.alone) = (false, false);
        self.skipped = finding.skipped.saturating_add(finding.beyond).min(u32::MAX as usize) as u32;
        self.examples = finding.examples.join(", ");
        self.unsteerable = finding.unsteerable();
        self.named_any = !finding.found.is_empty();
        let replaces = core::mem::replace(&mut self.question, question) != question;
        let at_once = replaces || (origin == Origin::Envoy && self.named_any);
        let (mut found, named) = (finding.found, finding.seen);
        if at_once {
            self.absences.forget();
        } else {
            for found in &found {
                self.absences.named(found.address, now);
            }
            for old in &self.found {
                if !named.contains_key(&old.address) && found.len() < MAX_ENDPOINTS {
                    self.absences.missed(old.address, now);
                    found.push(old.clone());
                }
            }
        }
        let changed = first || !same(&self.found, &found);
        self.found = found;
        changed
    }

    /// Removes endpoints whose absence is believed, depending on their standing and on the source's record; returns
    /// whether there were any.
    #[inline(never)]
    pub fn remove_absent(
        &mut self,
        every_s: f64,
        now: Time,
        standing: impl Fn(SocketAddr) -> Standing,
    ) -> bool {
        if self.absences.open.is_empty() {
            return false;
        }
        let gone = self.absences.believed(self.named_any, every_s, now, standing);
        self.found.retain(|found| !gone.contains(&found.address));
        !gone.is_empty()
    }

    /// A poll failed. The list stays.
    pub fn fail(&mut self, error: &str) {
        self.outage = true;
        self.note(error);
    }

    fn note(&mut self, error: &str) {
        self.failures += 1;
        error.clone_into(&mut self.error);
    }

    /// A poll was answered, but not usably for this upstream; returns whether that is new.
    pub fn fail_alone(&mut self, error: &str) -> bool {
        self.note(error);
        !core::mem::replace(&mut self.alone, true)
    }

    /// Drops the announced health if the source, polled every `every_s` seconds, no longer answers; returns whether
    /// that changed anything.
    pub fn drop_stale_health(&mut self, every_s: f64, now: Time) -> bool {
        if now.seconds_since(self.last_success) < CONDITION_COUNTS_FOR_S.max(SILENT_AFTER * every_s) {
            return false;
        }
        let mut changed = false;
        for found in self.found.iter_mut().filter(|found| found.condition != AnnouncedHealth::Serving) {
            found.condition = AnnouncedHealth::Serving;
            changed = true;
        }
        changed
    }

    /// The list; `None` before the first response.
    pub fn known(&self) -> Option<&[Found]> {
        (self.last_success != Time::ZERO).then_some(&*self.found)
    }

    /// Adjusts all times to a clock that stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.last_success = self.last_success.min(now);
        self.absences.not_after(now);
    }
}

/// Whether both lists have the same content, in any order.
fn same(one: &[Found], other: &[Found]) -> bool {
    one == other || (one.len() == other.len() && sorted(one) == sorted(other))
}

fn sorted(found: &[Found]) -> Vec<&Found> {
    let mut sorted: Vec<&Found> = found.iter().collect();
    order::sort_by(&mut sorted, |one, other| one.address < other.address);
    sorted
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

    const PROMETHEUS: (Origin, u64) = (Origin::Prometheus, 1);
    const ENVOY: (Origin, u64) = (Origin::Envoy, 1);

    fn ports(source: &Source) -> Vec<u16> {
        let mut ports: Vec<u16> = source.found.iter().map(|found| found.address.port()).collect();
        ports.sort_unstable();
        ports
    }

    fn remove(source: &mut Source, now: Time, standing: Standing) -> bool {
        source.remove_absent(5.0, now, |_| standing)
    }

    #[test]
    fn an_absence_is_believed_when_it_has_been_repeated_for_a_minute() {
        for (origin, left) in [(PROMETHEUS, &[1][..]), (PROMETHEUS, &[][..]), (ENVOY, &[][..])] {
            let mut source = Source::default();
            assert!(source.answer(finding(&[1, 2]), origin, s(0)));
            for second in [5, 10, 15, 64] {
                assert!(!source.answer(finding(left), origin, s(second)));
                assert!(!remove(&mut source, s(second), Standing::Unknown));
                assert_eq!(ports(&source), [1, 2]);
            }
            assert!(remove(&mut source, s(65), Standing::Unknown));
            assert_eq!(ports(&source), left);
            assert!(source.known().is_some());
        }
    }

    #[test]
    fn a_minute_alone_is_not_enough() {
        let mut source = Source::default();
        source.answer(finding(&[1, 2]), PROMETHEUS, s(0));
        source.answer(finding(&[1]), PROMETHEUS, s(5));
        source.answer(finding(&[1]), PROMETHEUS, s(200));
        assert!(!remove(&mut source, s(201), Standing::Unknown), "two answers");
        source.answer(finding(&[1]), PROMETHEUS, s(202));
        assert!(remove(&mut source, s(202), Standing::Unknown));
    }

    #[test]
    fn answers_that_alternate_remove_no_endpoint() {
        let mut source = Source::default();
        source.answer(finding(&[1, 2, 3, 4]), PROMETHEUS, s(0));
        for round in 1..200 {
            let answer: &[u16] = if round % 2 == 0 { &[4, 3, 2, 1] } else { &[round as u16 % 4 + 1] };
            assert!(!source.answer(finding(answer), PROMETHEUS, s(5 * round)), "the same list");
            assert!(!remove(&mut source, s(5 * round), Standing::Unknown));
        }
        assert_eq!(ports(&source), [1, 2, 3, 4]);
    }

    #[test]
    fn a_source_that_brought_endpoints_back_is_believed_later() {
        let mut source = Source::default();
        source.answer(finding(&[1, 2]), PROMETHEUS, s(0));
        (1..20).for_each(|at| _ = source.answer(finding(&[1]), PROMETHEUS, s(5 * at)));
        assert!(remove(&mut source, s(95), Standing::Unknown));
        // It is listed again 100 s after it first went missing.
        assert!(source.answer(finding(&[1, 2]), PROMETHEUS, s(105)));
        (0..60).for_each(|at| _ = source.answer(finding(&[1]), PROMETHEUS, s(110 + 5 * at)));
        assert!(!remove(&mut source, s(110 + 199), Standing::Unknown));
        assert!(remove(&mut source, s(110 + 200), Standing::Unknown), "twice as long");
    }

    #[test]
    fn an_endpoint_that_serves_stays_and_one_that_fails_leaves_sooner() {
        let mut source = Source::default();
        source.answer(finding(&[1, 2]), PROMETHEUS, s(0));
        source.answer(finding(&[1]), PROMETHEUS, s(5));
        assert!(!remove(&mut source, s(6), Standing::Fails), "one answer");
        source.answer(finding(&[1]), PROMETHEUS, s(10));
        assert!(remove(&mut source.clone(), s(10), Standing::Fails));
        (3..500).for_each(|at| _ = source.answer(finding(&[1]), PROMETHEUS, s(5 * at)));
        assert!(!remove(&mut source, s(2500), Standing::Serves));
        assert!(remove(&mut source.clone(), s(2500), Standing::Unknown));
        assert!(!remove(&mut source, s(3604), Standing::Serves));
        // Nor for ever: its address may be another service's by now.
        assert!(remove(&mut source.clone(), s(3605), Standing::Serves));
        source.answer(finding(&[]), PROMETHEUS, s(3606));
        assert!(!remove(&mut source, s(9999), Standing::Serves), "nothing else is known");
        source.answer(finding(&[1]), PROMETHEUS, s(9999));
        assert!(remove(&mut source, s(9999), Standing::Unknown));
        // If no endpoint is listed at all, failures alone do not empty the list.
        source.answer(finding(&[]), PROMETHEUS, s(2600));
        source.answer(finding(&[]), PROMETHEUS, s(2605));
        assert!(!remove(&mut source, s(2606), Standing::Fails));
    }

    #[test]
    fn envoys_list_and_the_answer_to_another_question_replace_it_at_once() {
        let mut source = Source::default();
        source.answer(finding(&[1, 2]), ENVOY, s(0));
        assert!(source.answer(finding(&[2]), ENVOY, s(1)));
        assert_eq!(ports(&source), [2]);
        let mut source = Source::default();
        source.answer(finding(&[1, 2]), PROMETHEUS, s(0));
        assert!(source.answer(finding(&[3]), (Origin::Prometheus, 2), s(1)));
        assert_eq!(ports(&source), [3]);
    }

    #[test]
    fn failed_poll_keeps_the_endpoints() {
        let mut source = Source::default();
        assert_eq!(source.known(), None);
        source.answer(finding(&[1]), PROMETHEUS, s(0));
        source.fail("no answer in time");
        assert_eq!((source.known().map(<[Found]>::len), source.failures), (Some(1), 1));
        assert!(!source.answer(finding(&[1]), PROMETHEUS, s(9)), "the same");
        assert!(source.error.is_empty());
    }

    #[test]
    fn health_of_a_silent_source_is_dropped() {
        let mut source = Source::default();
        let mut answer = finding(&[1, 2]);
        answer.found[0].condition = AnnouncedHealth::Unhealthy;
        source.answer(answer, ENVOY, s(0));
        assert!(!source.drop_stale_health(5.0, s(59)));
        assert!(!source.drop_stale_health(30.0, s(60)), "it is asked seldom");
        assert!(source.drop_stale_health(5.0, s(60)));
        assert!(source.found.iter().all(|found| found.condition == AnnouncedHealth::Serving));
        assert!(!source.drop_stale_health(5.0, s(61)));
    }

    #[test]
    fn a_silence_is_noticed_also_after_the_clock_stepped_back() {
        let mut source = Source::default();
        let mut answer = finding(&[1, 2]);
        answer.found[0].condition = AnnouncedHealth::Unhealthy;
        source.answer(answer, ENVOY, s(3600));
        source.not_after(s(0));
        assert!(!source.drop_stale_health(5.0, s(59)));
        assert!(source.drop_stale_health(5.0, s(60)));
    }

    /// What an earlier question left open says nothing of the answers to another one.
    #[test]
    fn an_answer_to_another_question_replaces_the_list() {
        let mut source = Source::default();
        source.answer(finding(&[1, 2]), PROMETHEUS, s(0));
        source.answer(finding(&[1]), PROMETHEUS, s(5));
        assert_eq!(source.absences.open.len(), 1);
        assert!(source.answer(finding(&[1]), (Origin::Prometheus, 2), s(10)));
        assert_eq!((ports(&source), source.absences.open.len()), (vec![1], 0));
    }

    #[test]
    fn an_absence_from_before_a_step_of_the_clock_is_believed_in_its_time() {
        let mut source = Source::default();
        source.answer(finding(&[1, 2]), PROMETHEUS, s(9000));
        source.answer(finding(&[1]), PROMETHEUS, s(9005));
        source.not_after(s(0));
        (1..=2).for_each(|second| _ = source.answer(finding(&[1]), PROMETHEUS, s(second)));
        assert!(!remove(&mut source, s(59), Standing::Unknown));
        assert!(remove(&mut source, s(61), Standing::Unknown));
    }
}
