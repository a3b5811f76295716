//! Shares that are reduced for a while, and the part of the requests that they leave.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::decision::Decision;
use crate::policy::Request;
use crate::rng::Rng;
use crate::settings::Signal;

impl Cluster {
    /// How many of so many requests each endpoint gets.
    fn deal(&mut self, requests: usize, now: Time) -> Vec<usize> {
        let (mut counts, mut rng) = (vec![0; self.endpoints.states.len()], Rng::new(3));
        for _ in 0..requests {
            if let Decision::Steer(named) = self.pick(Request::wanting(1), now, &mut rng) {
                counts[named.first().unwrap() as usize] += 1;
            }
        }
        counts
    }
}

/// A value below 0 counts as 0: a cost below it would be the lower, the further the turn is.
#[test]
fn a_newcomer_with_a_signal_below_zero_begins_slowly() {
    let signal = Signal { weight: 0.0, ..signal("room") };
    let settings = settings::Upstream {
        policy: settings::Policy::LeastSignal { signal: "room".into() },
        signals: vec![signal],
        slow_start: Duration::from_secs(60),
        ..settings()
    };
    // Known of both, of the first alone, and of none of them.
    for known in [2, 1, 0] {
        let mut cluster = cluster(&settings, &fleet(1));
        cluster.set_fleet(&fleet(2), s(1.0));
        let identities = cluster.endpoints.set.identities().to_vec();
        for identity in identities.into_iter().take(known) {
            cluster.set_signal(0, identity, -100.0, s(1.0));
        }
        (0..2).for_each(|_| cluster.refresh(s(1.1)));
        let counts = cluster.deal(200, s(1.1));
        assert!((10..30).contains(&counts[1]), "{known}: {counts:?}");
    }
}

/// Turns are counted in the requests of the whole cluster, of which a version may get few.
#[test]
fn a_reduced_share_is_kept_in_a_small_version() {
    let of = |version: &str, nth| Spec { version: version.into(), ..endpoint(nth) };
    for (policy, out) in [
        (settings::Policy::RoundRobin, 0),
        (settings::Policy::RoundRobin, 4),
        (settings::Policy::WeightedRoundRobin, 4),
    ] {
        let settings = settings::Upstream {
            policy: policy.clone(),
            split: vec![("a".into(), 95.0), ("b".into(), 5.0)],
            ..settings()
        };
        let specs: Vec<Spec> =
            (0..5 + out).map(|nth| of(if nth == 0 { "a" } else { "b" }, nth + 1)).collect();
        let mut cluster = cluster(&settings, &specs);
        (5..5 + out).for_each(|index| cluster.make(index, Is::Unhealthy));
        cluster.endpoints.states[1].constraints.ruled = Some(RuleAction::DownWeight);
        (0..2).for_each(|_| cluster.refresh(s(0.0)));
        let counts = cluster.deal(40_000, s(0.0));
        let part = counts[1] as f64 / counts[1..].iter().sum::<usize>() as f64;
        assert!((part / (0.25 / 3.25) - 1.0).abs() < 0.2, "{policy:?}, {out} out: {part:.3} of {counts:?}");
    }
}
