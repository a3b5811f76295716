//! What endpoints say about themselves in their response headers.

use crate::scene::{Ending, address, config, give, ms, pass, picks, picks_of, serve, single};
use crate::world::World;

const TURNS: &str = r#""policy":"round_robin","slow_start":"0s","health":{"ejection":"12s"}"#;

fn saying(status: &str, name: &'static str, value: &str) -> Ending {
    let mut ending = Ending::status(status);
    ending.headers.as_mut().expect("headers").push((name, value.as_bytes().to_vec()));
    ending
}

fn endpoint_that_reports_failing_is_ejected_until_it_stops(mut world: impl World) {
    let plugin = single(&mut world, &config(4, TURNS, ""));
    let failing = saying("200", "x-envoy-immediate-health-check-fail", "true");
    give(&mut world, plugin, &address(1), &failing);
    assert_eq!(picks_of(&mut world, plugin, &address(1), 40), 0);
    // It is probed, and still says so.
    let mut asked = 0;
    for _ in 0..200 {
        pass(&mut world, &[plugin], ms(100));
        let to =
            serve(&mut world, plugin, |to| if to == address(1) { failing.clone() } else { Ending::good() });
        asked += usize::from(to == address(1));
    }
    assert!((1..=8).contains(&asked), "{asked}");
    for _ in 0..300 {
        pass(&mut world, &[plugin], ms(100));
        serve(&mut world, plugin, |_| Ending::good());
    }
    assert!(picks_of(&mut world, plugin, &address(1), 40) >= 8, "it is back");
}

fn endpoint_that_reports_degraded_is_spared_until_it_stops(mut world: impl World) {
    let plugin = single(&mut world, &config(4, TURNS, ""));
    give(&mut world, plugin, &address(1), &saying("200", "x-envoy-degraded", ""));
    pass(&mut world, &[plugin], ms(300));
    assert_eq!(picks_of(&mut world, plugin, &address(1), 40), 0);
    pass(&mut world, &[plugin], ms(13_000));
    assert!(picks_of(&mut world, plugin, &address(1), 40) >= 8, "and looked at again");
    // All endpoints are degraded, so none is spared.
    for _ in 0..80 {
        serve(&mut world, plugin, |_| saying("200", "x-envoy-degraded", "true"));
        pass(&mut world, &[plugin], ms(20));
    }
    assert_eq!(picks(&mut world, plugin, 40).len(), 4);
}

fn retry_after_is_followed_within_bounds<W: World>(mut world: W) {
    for (status, after, left_alone_ms) in [
        ("429", "3", 3_000),
        ("503", "3", 3_000),
        ("429", "99999999999999999999", 12_000),
        ("429", "-5", 0),
        ("429", "NaN", 0),
        ("429", "0", 0),
        ("200", "60", 0),
    ] {
        let json = config(
            4,
            r#""policy":"round_robin","slow_start":"0s","health":{"ejection":"12s","suspect_after":5,"fail_after":9}"#,
            "",
        );
        let plugin = single(&mut world, &json);
        pass(&mut world, &[plugin], ms(1_000));
        give(&mut world, plugin, &address(1), &saying(status, "retry-after", after));
        let since = world.now();
        let quiet_ms = |world: &W| (world.now() - since) / 1_000_000;
        while picks_of(&mut world, plugin, &address(1), 4) == 0 {
            pass(&mut world, &[plugin], ms(50));
            assert!(quiet_ms(&world) <= left_alone_ms + 400, "{status} {after}");
        }
        let quiet_ms = quiet_ms(&world);
        assert!(quiet_ms + 400 >= left_alone_ms, "{status} {after}: {quiet_ms}");
    }
}

/// A service limits one client and says for how long, whichever endpoint it asks: that tells no endpoint from another,
/// and the others' requests need all of them.
fn pauses_that_most_endpoints_ask_for_are_granted_to_none<W: World>(_: W) {
    for endpoints in [2, 3, 4, 7] {
        let mut world = W::new(4);
        let plugin = single(&mut world, &config(endpoints, TURNS, ""));
        let limited = saying("429", "retry-after", "60");
        let mut turn = 0;
        for _ in 0..40 {
            for _ in 0..3 * endpoints {
                turn += 1;
                serve(&mut world, plugin, |_| if turn % 5 == 0 { limited.clone() } else { Ending::good() });
            }
            pass(&mut world, &[plugin], ms(100));
        }
        let serving = picks(&mut world, plugin, 40);
        assert_eq!(serving.len(), endpoints, "{serving:?}");
        // It ends: an endpoint that asks alone is left alone again.
        for _ in 0..140 {
            serve(&mut world, plugin, |_| Ending::good());
            pass(&mut world, &[plugin], ms(100));
        }
        if endpoints > 2 {
            give(&mut world, plugin, &address(1), &limited);
            pass(&mut world, &[plugin], ms(1_000));
            give(&mut world, plugin, &address(1), &limited);
            assert_eq!(picks_of(&mut world, plugin, &address(1), 40), 0, "{endpoints}");
        }
    }
}

/// The same where such a client comes rarely: an endpoint that serves the others well is not left alone for its sake. One
/// that goes on asking is.
fn a_pause_is_as_long_as_the_other_answers_bear_out<W: World>(_: W) {
    let limited = saying("429", "retry-after", "60");
    for (good, spared_ms) in [(0, 12_000), (2, 4_000), (11, 1_000), (100, 0)] {
        let mut world = W::new(4);
        let plugin = single(&mut world, &config(5, TURNS, ""));
        (0..good).for_each(|_| give(&mut world, plugin, &address(1), &Ending::good()));
        pass(&mut world, &[plugin], ms(1_000));
        give(&mut world, plugin, &address(1), &limited);
        let since = world.now();
        while picks_of(&mut world, plugin, &address(1), 5) == 0 {
            pass(&mut world, &[plugin], ms(50));
            assert!(world.now() - since < 20_000_000_000, "{good}");
        }
        let quiet_ms = (world.now() - since) / 1_000_000;
        assert!(quiet_ms + 400 >= spared_ms && quiet_ms <= spared_ms + 400, "{good}: {quiet_ms}");
        give(&mut world, plugin, &address(1), &limited);
        assert_eq!(picks_of(&mut world, plugin, &address(1), 40), 0, "{good}: it goes on asking");
    }
}

/// A client that is limited once at each of most endpoints, which serve the others well, does not take from an endpoint
/// that sheds everything what it asks for.
fn a_few_limited_requests_do_not_disable_pauses<W: World>(_: W) {
    let limited = saying("429", "retry-after", "60");
    for endpoints in [5, 9] {
        let mut world = W::new(4);
        let plugin = single(&mut world, &config(endpoints, TURNS, ""));
        for _ in 0..40 {
            (0..endpoints).for_each(|_| drop(serve(&mut world, plugin, |_| Ending::good())));
            pass(&mut world, &[plugin], ms(50));
        }
        (1..endpoints).for_each(|at| give(&mut world, plugin, &address(at), &limited));
        pass(&mut world, &[plugin], ms(300));
        for _ in 0..2 {
            give(&mut world, plugin, &address(0), &limited);
            pass(&mut world, &[plugin], ms(500));
        }
        assert_eq!(picks_of(&mut world, plugin, &address(0), 60), 0, "{endpoints}");
    }
}

/// Endpoints on standby answer nothing, so they do not say that a pause tells endpoints apart.
fn pauses_are_compared_among_those_that_serve<W: World>(_: W) {
    for standby in [1, 4, 9] {
        let mut world = W::new(4);
        let of = |at, priority| format!(r#"{{"address":"{}","priority":{priority}}}"#, address(at));
        let list: Vec<String> =
            (0..4).map(|at| of(at, 0)).chain((4..4 + standby).map(|at| of(at, 1))).collect();
        let json = format!(
            r#"{{"upstreams":[{{"cluster":"web","endpoints":{{"static":[{}]}},{TURNS}}}]}}"#,
            list.join(",")
        );
        let plugin = single(&mut world, &json);
        (0..3).for_each(|at| give(&mut world, plugin, &address(at), &saying("429", "retry-after", "60")));
        pass(&mut world, &[plugin], ms(300));
        let serving = picks(&mut world, plugin, 60);
        assert!((0..4).all(|at| serving.contains_key(&address(at))), "{standby}: {serving:?}");
    }
}

/// An endpoint that answers nothing else gets what it asks for each time, whatever it answered before, and whatever counts
/// as a failure.
fn one_that_only_asks_is_spared_each_time<W: World>(_: W) {
    let but_500 = r#","failures":[500]"#;
    for (status, failures) in [("429", ""), ("429", but_500), ("503", but_500)] {
        let mut world = W::new(4);
        let upstream =
            format!(r#""policy":"round_robin","slow_start":"0s","health":{{"ejection":"12s"{failures}}}"#);
        let plugin = single(&mut world, &config(4, &upstream, ""));
        for _ in 0..50 {
            (0..4).for_each(|_| drop(serve(&mut world, plugin, |_| Ending::good())));
            pass(&mut world, &[plugin], ms(50));
        }
        let ask = saying(status, "retry-after", "5");
        give(&mut world, plugin, &address(1), &ask);
        for time in 0..4 {
            give(&mut world, plugin, &address(1), &ask);
            for _ in 0..8 {
                assert_eq!(picks_of(&mut world, plugin, &address(1), 12), 0, "{status} {failures:?}, {time}");
                pass(&mut world, &[plugin], ms(500));
            }
            pass(&mut world, &[plugin], ms(1_500));
        }
    }
}

/// However many endpoints say it, and whatever they say, the ejection limit holds.
fn hostile_reports_cannot_eject_the_fleet(mut world: impl World) {
    let health = r#""policy":"round_robin","failover":{"panic_percent":0},"health":{"max_ejected_percent":50,"suspect_after":9,"fail_after":9}"#;
    for (status, name, value) in [
        ("429", "retry-after", "60"),
        ("503", "retry-after", "60"),
        ("200", "x-envoy-immediate-health-check-fail", "1"),
    ] {
        let plugin = single(&mut world, &config(4, health, ""));
        for _ in 0..40 {
            serve(&mut world, plugin, |_| saying(status, name, value));
            pass(&mut world, &[plugin], ms(50));
            assert!(picks(&mut world, plugin, 1).len() == 1, "somebody serves");
        }
        let serving = picks(&mut world, plugin, 40);
        assert!(serving.len() >= 2, "{name}: {serving:?}");
    }
}

fn headers_of_others_are_ignored_and_heeding_can_be_disabled(mut world: impl World) {
    let limited = Ending { details: Some("local_rate_limited"), ..saying("429", "retry-after", "60") };
    let mut nobody = saying("200", "x-envoy-immediate-health-check-fail", "1");
    nobody.served_by = Some(String::new());
    let deaf = r#""policy":"round_robin","health":{"heed_headers":false}"#;
    for (json, ending) in [
        (TURNS, limited),
        (TURNS, nobody),
        (deaf, saying("429", "retry-after", "60")),
        (deaf, saying("200", "x-envoy-immediate-health-check-fail", "1")),
        (deaf, saying("200", "x-envoy-degraded", "1")),
    ] {
        let plugin = single(&mut world, &config(4, json, ""));
        give(&mut world, plugin, &address(1), &ending);
        pass(&mut world, &[plugin], ms(300));
        assert!(picks_of(&mut world, plugin, &address(1), 40) >= 8, "{ending:?}");
    }
}

both!(
    endpoint_that_reports_failing_is_ejected_until_it_stops,
    endpoint_that_reports_degraded_is_spared_until_it_stops,
    retry_after_is_followed_within_bounds,
    pauses_that_most_endpoints_ask_for_are_granted_to_none,
    a_pause_is_as_long_as_the_other_answers_bear_out,
    a_few_limited_requests_do_not_disable_pauses,
    pauses_are_compared_among_those_that_serve,
    one_that_only_asks_is_spared_each_time,
    hostile_reports_cannot_eject_the_fleet,
    headers_of_others_are_ignored_and_heeding_can_be_disabled,
);
