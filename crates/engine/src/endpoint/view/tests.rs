//! Cost and unanswered requests of an endpoint, regardless of which worker knows them.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::endpoint::PeerTable;
use crate::rng::Rng;

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

fn s(seconds: f64) -> Time {
    Time::from_secs_f64(1000.0 + seconds)
}

/// A cluster with latencies around 20 ms, up to a factor of e; one in a hundred is anything up to a second.
fn usual() -> Queueing {
    let (mut queueing, mut rng) = (Queueing::default(), Rng::new(5));
    for _ in 0..2000 {
        let seconds = 0.02 * (2.0 * (rng.unit() - 0.5)).exp();
        queueing.noise.survival.observe(if rng.unit() < 0.01 { rng.unit() } else { seconds });
    }
    queueing.noise.survival.refresh(0.02);
    queueing
}

/// An endpoint and another worker's current report on it; each of the two has sent some of the requests.
struct Shared {
    state: EndpointState,
    peers: PeerTable,
}

impl Shared {
    fn new(sent: &[f64], others: impl Fn(usize) -> bool, now: f64) -> Shared {
        let at_rest =
            || EndpointState { present: true, weight: 1.0, expected: 0.02, ..EndpointState::default() };
        let (mut endpoint, mut other) = (at_rest(), at_rest());
        for (n, at) in sent.iter().enumerate() {
            let to = if others(n) { &mut other } else { &mut endpoint };
            to.in_flight.start(s(*at));
        }
        let mut peers = PeerTable::default();
        peers.forget(s(now));
        let report = PeerReport { in_flight: other.report(s(now)), ..PeerReport::default() };
        peers.merge((0, &mut endpoint), 1, &report, &Evidence::default());
        Shared { state: endpoint, peers }
    }

    fn view(&self) -> EndpointView<'_> {
        self.peers.of(0, &self.state)
    }
}

fn is_near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-4 * one.abs().max(other.abs()).max(1e-3)
}

/// It does not matter which worker sent which request: together they know what a single one would.
#[test]
fn requests_count_the_same_whichever_worker_has_sent_them() {
    let (queueing, mut rng) = (usual(), Rng::new(8));
    for round in 0..200 {
        let n = 1 + rng.below(9) as usize;
        let sent = vec![-f64::from(1 + rng.below(500)) / 1e3; n];
        let alone = Shared::new(&sent, |_| false, 0.0);
        let alone = alone.view();
        let mine = rng.below(n as u32 + 1) as usize;
        let shared = Shared::new(&sent, |at| at >= mine, 0.0);
        let shared = shared.view();
        let all = |view: &EndpointView<'_>| (view.total_in_flight(), view.awaiting(), view.pending());
        assert_eq!(all(&shared), (n as u32, n as u32, n as u32));
        assert_eq!(all(&alone), all(&shared));
        assert!(is_near(alone.min_latency(s(0.0)), shared.min_latency(s(0.0))), "{round}");
        let (one, other) = (alone.silent(&queueing, s(0.0)), shared.silent(&queueing, s(0.0)));
        assert!(is_near(one.into(), other.into()), "{round}, {mine} of {n} since {}: {one} {other}", sent[0]);
    }
}

#[test]
fn silence_is_a_growing_lower_bound() {
    let queueing = usual();
    for requests in [1, 2, 5] {
        let shared = Shared::new(&vec![0.0; requests], |_| false, 0.0);
        let view = shared.view();
        let mut last = 0.0;
        for ms in 1..3000 {
            let now = s(f64::from(ms) / 1e3);
            let (silent, waited) = (view.silent(&queueing, now), view.min_latency(now));
            assert!(is_near(waited, f64::from(ms) / 1e3), "{waited} after {ms} ms");
            assert!(silent >= last && f64::from(silent) <= waited * 1.0001, "{ms}: {last} {silent} {waited}");
            if waited <= 0.02 {
                assert_eq!(silent, 0.0, "no more than is expected anyway");
            }
            last = silent;
        }
        assert!(f64::from(last) > 2.9, "in full in the end: {last}");
    }
    assert_eq!(Shared::new(&[], |_| false, 0.0).view().silent(&queueing, s(9.0)), 0.0);
    assert_eq!(Shared::new(&[], |_| false, 0.0).view().min_latency(s(9.0)), 0.0);
}

/// Several silent requests are stronger evidence than one, unless they queue behind one another.
#[test]
fn several_silent_ones_are_believed_sooner_unless_they_wait_in_line() {
    let belief = |queueing: &Queueing, n: usize| {
        Shared::new(&vec![-0.03; n], |_| false, 0.0).view().belief(queueing, s(0.0))
    };
    // Without samples the curve assumes a queue.
    let lines: Vec<f32> = (1..6).map(|n| belief(&usual(), n)).collect();
    let free: Vec<f32> = (1..6).map(|n| belief(&never_queueing(), n)).collect();
    assert!(free.windows(2).all(|two| two[0] <= two[1]) && free[4] > free[0] + 0.3, "{free:?}");
    assert!(lines.iter().zip(&free).all(|(line, free)| line <= free), "{lines:?} {free:?}");
    assert!(lines[4] < lines[0] + 0.1, "five in line say what one does: {lines:?}");
}

/// Teaches the curve that nothing queues.
fn never_queueing() -> Queueing {
    let mut queueing = usual();
    for _ in 0..500 {
        (0..20).for_each(|depth| queueing.observe(depth, 0.0));
    }
    queueing.refresh();
    queueing
}

/// Requests that have hung for long are not news; only those sent since the last answer are.
#[test]
fn requests_from_before_the_last_answer_add_next_to_nothing() {
    let queueing = never_queueing();
    let mut believed = Vec::new();
    for (k, silence) in [(1_u16, 0.03), (2, 0.028), (4, 0.024), (8, 0.02)] {
        let at_rest =
            || EndpointState { present: true, weight: 1.0, expected: 0.02, ..EndpointState::default() };
        let (mut only, mut also) = (at_rest(), at_rest());
        (0..3).for_each(|_| also.in_flight.start(s(-500.0)));
        for endpoint in [&mut only, &mut also] {
            endpoint.in_flight.start(s(-silence));
            endpoint.in_flight.answer(s(-silence), s(-silence));
            endpoint.in_flight.finish();
            // At even distances since the last answer, as the code assumes where others are older.
            (1..=k).rev().for_each(|n| endpoint.send(s(-silence * f64::from(n) / f64::from(k))));
        }
        let [one, other] = [&only, &also].map(|endpoint| {
            let view = EndpointView::alone(endpoint);
            assert_eq!(view.unanswered(), u32::from(k));
            view.belief(&queueing, s(0.0))
        });
        // The curve still assumes a slight queue.
        assert!((one - other).abs() < 0.05, "{k}: {one} {other}");
        believed.push(one);
    }
    assert!(believed.iter().all(|one| (0.01..0.99).contains(one)), "none is beyond doubt: {believed:?}");
}

fn reported(centre_s: f64, samples: f32, error_ratio: f32) -> Shared {
    let mut shared = Shared::new(&[], |_| false, 0.0);
    let mut report = PeerReport { error_ratio, ..PeerReport::default() };
    if samples > 0.0 {
        report.latency.add((centre_s.ln() as f32, samples, s(0.0)));
    }
    shared.peers.merge((0, &mut shared.state), 1, &report, &Evidence::default());
    shared
}

/// Soft threshold at 1.5 standard errors, more where there are few: 1.5 · (1 + 1/n) · σ/√n.
#[test]
fn a_latency_counts_as_far_as_it_lies_beyond_its_own_uncertainty() {
    let (all, none) = (Ablation::default(), Ablation::without(&[Part::ConfidenceMargin]));
    for typical in [0.002, 0.05, 3.0] {
        assert_eq!(reported(1.0, 0.0, 0.0).view().expected_cost(typical, 0.5, 0.0, &all), typical as f32);
        for times in [0.2, 0.7, 1.0, 1.3, 4.0] {
            for (samples, spread) in [(1.0_f32, 0.5), (4.0, 0.5), (16.0, 1.5), (9.0, 0.1)] {
                let shared = reported(times * typical, samples, 0.0);
                let view = shared.view();
                let n = f64::from(samples);
                let ratio = (times * typical + NOISE_S) / (typical + NOISE_S);
                let doubt = 1.5 * (1.0 + 1.0 / n) * spread / n.sqrt();
                let left = ratio.ln().signum() * (ratio.ln().abs() - doubt).max(0.0);
                let cost = f64::from(view.expected_cost(typical, spread, 0.0, &all));
                assert!(is_near(cost, typical * left.exp()), "{times} {samples} {spread}: {cost}");
                let plain = f64::from(view.expected_cost(typical, spread, 0.0, &none));
                assert!(is_near(plain, typical * ratio), "without a margin: {plain}");
                let (deviation, error) = view.deviation(typical).unwrap();
                assert!(is_near(deviation, ratio.ln()) && is_near(error, 0.5 / n.sqrt()));
            }
        }
    }
    assert_eq!(reported(1.0, 0.0, 0.0).view().deviation(0.05), None);
}

/// A retry at some endpoint costs ten typical requests or one second, whichever is more, for each failure beyond the
/// usual ratio and beyond chance.
#[test]
fn failures_beyond_the_usual_cost_what_a_retry_does() {
    let all = Ablation::default();
    for typical in [0.001, 0.05, 0.5] {
        let retry = f64::max(10.0 * typical, 1.0);
        for usual in [0.0, 0.02, 0.2] {
            let of = |ratio: f64| reported(1.0, 0.0, ratio as f32).view().error_penalty(typical, usual, &all);
            let free = ONE_FAILURE + usual + 2.5 * (usual * (1.0 - usual) * 0.05 / 1.95).sqrt();
            assert_eq!((of(0.0), of(ONE_FAILURE - 1e-3), of(free - 1e-3)), (0.0, 0.0, 0.0));
            for beyond in [0.01, 0.1, 0.3] {
                assert!((of(free + beyond) - beyond * retry).abs() < 1e-6 * retry + 1e-6, "{usual} {beyond}");
                let shared = reported(typical, 64.0, (free + beyond) as f32);
                let cost = f64::from(shared.view().expected_cost(typical, 0.1, usual, &all));
                assert!(is_near(cost, typical + of(free + beyond)), "{cost}");
            }
        }
    }
    let shared = reported(1.0, 0.0, 0.9);
    assert_eq!(shared.view().error_penalty(0.05, 0.0, &Ablation::without(&[Part::Errors])), 0.0);
}

#[test]
fn an_estimate_of_others_counts_where_they_have_one() {
    let mut shared = reported(0.1, 5.0, 0.0);
    assert!(shared.view().peers.unwrap().has_latency());
    assert!(
        shared
            .view()
            .centre()
            .is_some_and(|(centre, samples)| { is_near(centre, 0.1_f64.ln()) && is_near(samples, 5.0) })
    );
    shared.state.latency.observe(0.4, s(0.0), s(0.0), &Ablation::default());
    let (centre, samples) = shared.view().centre().unwrap();
    assert!(centre > 0.1_f64.ln() && centre < 0.4_f64.ln() && samples > 5.0, "both: {centre} {samples}");
    // A report without a latency estimate leaves the local one as it is.
    let mut shared = reported(1.0, 0.0, 0.3);
    assert!(!shared.view().peers.unwrap().has_latency() && shared.view().centre().is_none());
    shared.state.latency.observe(0.4, s(0.0), s(0.0), &Ablation::default());
    assert_eq!(shared.view().centre(), shared.state.latency.centre());
    assert!(is_near(shared.view().error_ratio(), 0.3), "the higher of both");
}

/// An endpoint whose answers show it quicker than the others, while some of its requests wait.
#[test]
fn an_endpoint_is_no_quicker_than_its_unanswered_requests_show() {
    let (typical, now) = (0.2, 10.0);
    for (ages, usual, expected, raised) in [
        (&[][..], 0.2, 0.002, 0.002),
        (&[0.05, 0.15], 0.1, 0.002, 0.1),
        (&[3.0, 5.0, 4.0], 4.0, 0.002, 0.2),
        // Wide work: the others' requests wait for long, too.
        (&[3.0, 5.0, 4.0], 16.0, 0.002, 0.05),
        (&[0.001, 0.003], 0.2, 0.05, 0.05),
    ] {
        let sent: Vec<f64> = ages.iter().map(|age| now - age).collect();
        // Alone, and with another worker that sent all but the first.
        for others in [|_| false, |n| n > 0] as [fn(usize) -> bool; 2] {
            let shared = Shared::new(&sent, others, now);
            let cost = shared.view().no_quicker_than_it_shows(expected, (typical, usual), s(now));
            assert!(is_near(cost.into(), raised), "{ages:?} {expected}: {cost}");
        }
    }
}
