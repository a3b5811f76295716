//! A zone that is lost is left and comes back; a busy one keeps what it can do.

use simulator::{catalogue, contender, world};

/// A single request elsewhere makes more of a difference; the sum of five shares is rounded.
const ALL: f64 = 1.0 - 1e-9;

fn local(scenario: &str, window: (f64, f64)) -> f64 {
    local_with(scenario, window, 1)
}

fn local_with(scenario: &str, window: (f64, f64), seed: u64) -> f64 {
    let scenario = catalogue::named(scenario, seed).unwrap();
    let run = world::run(&scenario, &contender::named("adaptive").unwrap(), seed);
    run.shares(window).iter().take(5).sum()
}

#[test]
fn a_zone_that_refuses_or_fails_is_left_at_once_and_one_that_hangs_within_a_second() {
    assert!(local("zone-lost", (4.5, 6.0)) < 0.02);
    assert!(local("zone-errors", (5.0, 6.0)) < 0.05);
    assert!(local("zone-hung", (5.0, 6.0)) < 0.02);
    assert!(local("zone-lost", (1.0, 4.0)) > ALL);
    for seed in 1..=4 {
        let back = local_with("zone-hung", (30.0, 40.0), seed);
        assert!(back > 0.99, "{seed}: {back}, but for a busy moment");
    }
}

#[test]
fn a_busy_zone_keeps_what_it_can_do() {
    // Half of what it can do, one and a half times as much, and half again.
    assert!(local("zone-busy", (2.0, 5.0)) > ALL);
    let kept = local("zone-busy", (22.0, 25.0));
    assert!((0.4..0.62).contains(&kept), "{kept} of 1.5 times its capacity");
    assert!(local("zone-busy", (42.0, 45.0)) > 0.99);
}
