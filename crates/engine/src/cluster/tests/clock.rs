//! The clock steps back: what was written before must neither outweigh what comes nor stay young until the clock is there again.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::Failure;
use crate::decision::RequestHandle;
use crate::outcome::{Outcome, Quickness, Unsettled};
use crate::settings::{Probe, Rule, RuleValue, Signal};

/// Before the step, and after it: seconds.
const BEFORE: f64 = 5000.0;
const AFTER: f64 = 1000.0;

fn with_signal() -> settings::Upstream {
    let signal = Signal { learn: true, ..signal("queue") };
    settings::Upstream { signals: vec![signal], ..settings() }
}

fn rule(value: RuleValue, lasting_s: u64) -> settings::Upstream {
    let rule = Rule { value, above: 1.0, lasting: Duration::from_secs(lasting_s), action: RuleAction::Eject };
    settings::Upstream { rules: vec![rule], ..settings() }
}

/// A cluster that began at the later hour.
fn begun(settings: &settings::Upstream) -> Cluster {
    let mut cluster = Cluster::new(settings, None, Ablation::ALL, s(BEFORE));
    cluster.set_fleet(&fleet(3), s(BEFORE));
    cluster
}

impl Cluster {
    /// A request to the endpoint at 0 that is answered after 10 ms.
    fn serve(&mut self, outcome: Outcome, seconds: f64) {
        let (endpoint, depth) = self.started(0, s(seconds)).unwrap();
        let handle = RequestHandle { upstream: 0, endpoint, started: s(seconds), depth };
        self.record_response(&handle, outcome, Quickness::Shown, s(seconds + 0.01));
        self.finished(endpoint, s(seconds + 0.01));
    }
}

#[test]
fn nothing_that_is_known_of_an_endpoint_is_younger_than_now() {
    let mut cluster = begun(&settings());
    let second = fleet(3)[1].clone();
    cluster.set_fleet(&[fleet(3), vec![Spec::at("10.9.9.9:80".parse().unwrap())]].concat(), s(BEFORE));
    (0..20).for_each(|_| cluster.serve(Outcome::Good, BEFORE));
    (0..3).for_each(|_| cluster.serve(Outcome::Failed(Failure::Refused), BEFORE + 1.0));
    cluster.endpoints.states[0].health.returns(s(BEFORE));
    let hash = rng::hash(second.address.to_string().as_bytes());
    let mut report = crate::endpoint::PeerReport::default();
    report.in_flight.quiet_since = s(BEFORE);
    let mut evidence = cluster.endpoints.states[0].health.local();
    evidence.good = GoodRun { count: 3, start: s(BEFORE) };
    cluster.forget_others(s(AFTER));
    cluster.merge_other(hash, &report, &evidence);
    cluster.not_after(s(AFTER));
    for (index, view) in cluster.endpoints.views() {
        let own = view.health.local();
        let others = view.health.others(view.good());
        for (what, moment) in [
            ("latency", view.latency.updated()),
            ("silence", view.in_flight.quiet_since()),
            ("own good answers", own.good.start),
            ("others' good answers", others.good.start),
            ("own failures", own.failures.latest_start.max(own.failures.latest_at).max(own.failures.since)),
            ("others' failures", others.failures.latest_start.max(others.failures.latest_at)),
            ("join", view.health.joined()),
            ("return", view.health.returned()),
        ] {
            assert!(moment <= s(AFTER), "{what} of {index}: {moment:?}");
        }
    }
    assert!(cluster.endpoints.states[0].latency.updated() == s(AFTER), "there was something to mend");
    assert!(cluster.traffic.began <= s(AFTER), "or every endpoint would have been silent since the future");
}

#[test]
fn failures_from_before_the_step_fade_as_all_do() {
    let mut cluster = begun(&rule(RuleValue::ErrorPercent, 0));
    (0..20).for_each(|_| cluster.serve(Outcome::Failed(Failure::Status5xx), BEFORE));
    assert!(cluster.subsets.list[0].errors.record.known(s(BEFORE)).is_some());
    cluster.not_after(s(AFTER));
    assert!(cluster.endpoints.failings.ratio(0, s(AFTER)).unwrap() > 0.5);
    assert!(cluster.endpoints.failings.ratio(0, s(AFTER + 900.0)).unwrap() < 0.1);
    let record = cluster.subsets.list[0].errors.record;
    assert!(record.known(s(AFTER)).is_some() && record.known(s(AFTER + 60.0)).is_none());
    assert!(record.failing(s(AFTER + 60.0)) < 0.01);
}

#[test]
fn the_rate_of_requests_is_known_again_at_once() {
    let mut cluster = begun(&settings());
    cluster.not_after(s(AFTER));
    for second in 0..20 {
        (0..100).for_each(|_| cluster.traffic.pick());
        cluster.traffic.refresh(s(AFTER + f64::from(second)));
    }
    let rate = cluster.traffic.rate_of_all();
    assert!((80.0..=120.0).contains(&rate), "{rate}");
}

#[test]
fn epochs_grow_again_after_a_clock_step() {
    let mut cluster = begun(&settings());
    cluster.not_after(s(AFTER));
    (0..100).for_each(|nth| cluster.serve(Outcome::Good, AFTER + f64::from(nth)));
    cluster.refresh(s(AFTER + 600.0));
    assert_eq!(cluster.traffic.epochs.current, s(AFTER + 600.0));
}

#[test]
fn new_values_of_a_signal_are_taken_and_the_old_ones_grow_old() {
    let mut cluster = begun(&with_signal());
    let hash = cluster.endpoints.set.identities()[0];
    cluster.set_signal(0, hash, 7.0, s(BEFORE));
    cluster.record_signal_answer(0, 3, s(BEFORE));
    cluster.not_after(s(AFTER));
    assert_eq!(cluster.readings(0)[0].confidence(s(AFTER), cluster.fresh_s()), 1.0);
    assert_eq!(cluster.readings(0)[0].confidence(s(AFTER + 60.0), cluster.fresh_s()), 0.0, "as old as any");
    cluster.set_signal(0, hash, 3.0, s(AFTER + 5.0));
    assert_eq!(cluster.readings(0)[0].latest(), 3.0);
    cluster.set_signal(0, hash, 4.0, s(AFTER + 10.0));
    assert!(
        cluster.readings(0)[0].news_s() > 2.0,
        "it is believed by and by that news are five seconds apart"
    );
    // Answers that have no value for any endpoint cost it its weight, now as before.
    (1..=30).for_each(|nth| cluster.record_signal_answer(0, 0, s(AFTER + 5.0 * f64::from(nth))));
    assert!(cluster.signals.learnt[0].get() < 0.5, "{}", cluster.signals.learnt[0].get());
}

#[test]
fn a_rule_acts_after_its_time() {
    let mut cluster = begun(&rule(RuleValue::InFlight, 10));
    (0..5).for_each(|_| _ = cluster.started(0, s(BEFORE)));
    cluster.refresh(s(BEFORE));
    cluster.not_after(s(AFTER));
    cluster.refresh(s(AFTER + 5.0));
    assert_eq!(cluster.endpoints.states[0].constraints.ruled, None, "five seconds");
    cluster.refresh(s(AFTER + 15.0));
    assert_eq!(cluster.endpoints.states[0].constraints.ruled, Some(RuleAction::Eject));
}

#[test]
fn peaks_of_latency_decay() {
    let mut cluster = begun(&settings::Upstream { policy: settings::Policy::PeakEwma, ..settings() });
    cluster.serve(Outcome::Good, BEFORE);
    cluster.not_after(s(AFTER));
    let peak = |seconds| cluster.endpoints.peaks[0].estimate(s(seconds)).unwrap();
    assert!(peak(AFTER + 60.0) < 0.01 * peak(AFTER), "{} of {}", peak(AFTER + 60.0), peak(AFTER));
}

#[test]
fn replicas_are_reckoned_after_a_period() {
    let autoscale = settings::Autoscale {
        target_pressure: 0.8,
        min: 2,
        max: 20,
        periods: 2,
        period: Duration::from_secs(30),
        cool_down: Duration::from_secs(300),
        tolerance_percent: 10.0,
        look_ahead: Duration::from_secs(30),
    };
    let term = settings::PressureTerm {
        value: settings::PressureValue::InFlight,
        weight: 1.0,
        full: 10.0,
        most: 2.0,
    };
    let settings = settings::Upstream { autoscale: Some(autoscale), pressure: vec![term], ..settings() };
    let mut cluster = begun(&settings);
    (0..3).for_each(|_| cluster.refresh(s(BEFORE)));
    cluster.scale_replicas(s(BEFORE));
    cluster.not_after(s(AFTER));
    (0..70).for_each(|second| cluster.scale_replicas(s(AFTER + f64::from(second))));
    assert_eq!(cluster.desired_replicas(), Some(3), "as many as there are, nearly idle");
}

#[test]
fn probes_out_of_band_go_on() {
    let mut settings = settings();
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(1));
    settings.health.probe = Some(Probe { path: "/".into(), authority: None, interval, timeout });
    let mut cluster = begun(&settings);
    let first = cluster.endpoints.set.reference(0).unwrap();
    let take = |cluster: &mut Cluster, seconds: f64| {
        let probing = cluster.ejection.probing.as_deref_mut().unwrap();
        probing.begin(0, s(seconds));
        probing.want(first, super::super::out_of_band::Urgency::Look, s(seconds));
        probing.end();
        cluster.take_probe(s(seconds))
    };
    assert_eq!(take(&mut cluster, BEFORE), Some(first));
    let handle = RequestHandle { upstream: 0, endpoint: first, started: s(BEFORE), depth: 0 };
    cluster.record_probe(&handle, Outcome::Good, s(BEFORE + 0.01));
    cluster.ejection.probing.as_deref_mut().unwrap().compare_with(first, s(BEFORE));
    cluster.not_after(s(AFTER));
    let lacks =
        |cluster: &Cluster, seconds| cluster.ejection.probing.as_ref().unwrap().lacks_reference(s(seconds));
    assert!(!lacks(&cluster, AFTER + 0.1) && lacks(&cluster, AFTER + 6.0));
    assert_eq!(take(&mut cluster, AFTER + 1.0), None, "a moment ago");
    // What was found before a failure does not speak for the endpoint after it.
    (0..3).for_each(|_| cluster.serve(Outcome::Failed(Failure::Refused), AFTER + 2.0));
    let known = cluster.endpoint(0).unwrap();
    assert!(!cluster.ejection.probing.as_ref().unwrap().clears(0, &known, false, 0.05));
    assert_eq!(take(&mut cluster, AFTER + 6.0), Some(first));
}

/// A call whose status comes long after its headers, or whose headers came at an hour that the clock has not reached
/// again: what its time showed is no news.
#[test]
fn what_a_call_showed_long_ago_or_later_than_now_changes_no_estimate() {
    for (answered, now, counts) in [(0.0, 1.0, true), (0.0, 60.0, false), (60.0, 0.0, false)] {
        let mut cluster = cluster(&settings(), &fleet(3));
        let mut answer = |seconds: f64, takes: f64, shows| {
            let (endpoint, depth) = cluster.started(0, s(seconds - takes)).unwrap();
            let handle = RequestHandle { upstream: 0, endpoint, started: s(seconds - takes), depth };
            let unsettled = cluster.record_response(&handle, Outcome::Undecided, shows, s(seconds));
            cluster.finished(endpoint, s(seconds));
            (handle, unsettled)
        };
        (0..20).for_each(|_| _ = answer(0.0, 0.2, Quickness::Shown));
        let (handle, unsettled) = answer(answered, 0.002, Quickness::Open);
        assert_eq!(unsettled, Unsettled::Sample);
        cluster.refresh(s(now));
        let before = cluster.endpoint(0).unwrap().latency.estimate();
        cluster.settle(&handle, unsettled, false, s(answered));
        let after = cluster.endpoint(0).unwrap().latency.estimate();
        assert_eq!(after < before, counts, "answered at {answered}, now {now}: {before:?}, {after:?}");
    }
}
