//! Endpoints of which one is a little quicker, with few requests and with many.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::decision::Decision;
use crate::policy::Request;
use crate::rng::Rng;

/// The part of the requests that the slower of two endpoints gets where none is in flight.
fn part_of_the_slower(rate: f64, seconds: [f64; 2]) -> f64 {
    let mut cluster = cluster(&settings(), &fleet(2));
    for (endpoint, seconds) in cluster.endpoints.states.iter_mut().zip(seconds) {
        (0..50).for_each(|_| endpoint.latency.observe(seconds, s(0.0), s(0.0), &Ablation::ALL));
    }
    (cluster.traffic.rate, cluster.traffic.began) = (rate, s(-1000.0));
    (0..3).for_each(|_| cluster.refresh(s(0.0)));
    let mut rng = Rng::new(1);
    let slower = (0..2000).filter(|_| {
        let decision = cluster.pick(Request::wanting(1), s(0.0), &mut rng);
        matches!(decision, Decision::Steer(named) if named.first() == Some(1))
    });
    slower.count() as f64 / 2000.0
}

/// 6 and 60 requests of 5 ms a second are 0.03 and 0.3 in flight, 600 are 3: more than a quarter for each of two.
#[test]
fn near_equals_share_what_little_there_is() {
    for slower in [1.0, 1.2, 1.3, 1.4, 2.0] {
        let part = |rate| part_of_the_slower(rate, [0.005, 0.005 * slower]);
        let (few, some, many) = (part(6.0), part(60.0), part(600.0));
        assert_eq!(few, some, "{slower}");
        match slower {
            ..=1.2 => assert!((0.45..0.55).contains(&some) && some == many, "{slower}: {some}, {many}"),
            ..=1.4 => assert!(some > 0.2 && many < some, "{slower}: {some}, {many}"),
            _ => assert_eq!((some, many), (0.0, 0.0), "twice as slow is not near"),
        }
    }
}
