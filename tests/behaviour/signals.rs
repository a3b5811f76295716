//! Signals from Prometheus reach every worker, count while they are fresh, and do no harm.

use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::lease::crew;
use crate::scene::{address, ms, pass, pass_with, picks, picks_of};
use crate::world::{Answer, Plugin, World};

const LEAST_SIGNAL: &str = r#","policy":{"name":"least_signal","signal":"queue"}"#;

/// A response with this value for the loaded endpoint and zero for the others.
fn answer(loaded: usize, value: &str) -> String {
    let series = |endpoint: usize| {
        let value = if endpoint == loaded { value } else { "0" };
        format!(r#"{{"metric":{{"instance":"{}"}},"value":[1,"{value}"]}}"#, address(endpoint))
    };
    let series: Vec<String> = (0..4).map(series).collect();
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#, series.join(","))
}

/// Lets time pass with every call answered like this; returns the number of calls.
fn report<W: World>(world: &mut W, crew: &[Plugin], seconds: u64, answer: &Answer<'_>) -> usize {
    let mut told = 0;
    pass_with(world, crew, ms(1000 * seconds), |world| {
        for call in world.calls() {
            world.answer(&call, answer);
            told += 1;
        }
    });
    told
}

fn a_signal_reaches_every_worker_and_fades_with_its_source(mut world: impl World) {
    let crew = crew(&mut world, 3, LEAST_SIGNAL);
    let full = answer(2, "90");
    for plugin in &crew {
        assert!(picks_of(&mut world, *plugin, &address(2), 200) > 20, "nothing is known yet");
    }
    report(&mut world, &crew, 5, &Answer::Http(200, full.as_bytes()));
    for plugin in &crew {
        let given = picks_of(&mut world, *plugin, &address(2), 200);
        assert!(given < 6, "{given}");
    }
    // Prometheus goes away: its last values count less and less, and then not at all.
    report(&mut world, &crew, 60, &Answer::Failed);
    for plugin in &crew {
        let given = picks_of(&mut world, *plugin, &address(2), 200);
        assert!(given > 20, "{given}");
    }
}

/// A worker stands still with its poll under way, for longer than its lease lasts; it goes on with the answer.
fn an_answer_that_comes_after_the_lease_has_moved_changes_nothing(mut world: impl World) {
    let crew = crew(&mut world, 2, LEAST_SIGNAL);
    let [full, outdated] = [2, 1].map(|loaded| answer(loaded, "90"));
    report(&mut world, &crew, 5, &Answer::Http(200, full.as_bytes()));
    while world.calls().is_empty() {
        pass(&mut world, &crew, ms(50));
    }
    let asked = world.calls().remove(0);
    let (first, second): (Vec<Plugin>, Vec<Plugin>) =
        crew.iter().copied().partition(|plugin| world.thread_of(*plugin) == asked.thread);
    let mut polls = 0;
    pass_with(&mut world, &second, ms(8000), |world| {
        for call in world.calls().into_iter().filter(|call| call.thread != asked.thread) {
            world.answer(&call, &Answer::Http(200, full.as_bytes()));
            polls += 1;
        }
    });
    assert!(polls > 2, "the lease has moved: {polls}");
    // It notices that before the answer is handed to it.
    world.tick(first[0]);
    world.answer(&asked, &Answer::Http(200, outdated.as_bytes()));
    pass(&mut world, &crew, ms(100));
    for plugin in &crew {
        let given = [1, 2].map(|endpoint| picks_of(&mut world, *plugin, &address(endpoint), 200));
        assert!(given[0] > 20 && given[1] < 6, "{given:?}");
    }
}

fn adaptive_leans_away_from_a_full_queue(mut world: impl World) {
    let crew = crew(&mut world, 2, r#","policy":"adaptive""#);
    report(&mut world, &crew, 5, &Answer::Http(200, answer(1, "100").as_bytes()));
    for plugin in &crew {
        let given = picks_of(&mut world, *plugin, &address(1), 300);
        assert!(given < 50, "a quarter would be 75: {given}");
    }
}

fn unknown_is_never_best(mut world: impl World) {
    let crew = crew(&mut world, 1, LEAST_SIGNAL);
    for value in ["NaN", "+Inf", "-Inf", "", "a lot"] {
        let body = answer(3, value).replace("\"0\"", "\"10\"");
        report(&mut world, &crew, 70, &Answer::Failed);
        report(&mut world, &crew, 4, &Answer::Http(200, body.as_bytes()));
        let counts = picks(&mut world, crew[0], 400);
        let given = counts.get(&address(3)).copied().unwrap_or(0);
        assert!((50..=150).contains(&given), "{value:?}: {counts:?}");
    }
}

const BODIES: [&str; 17] = [
    "",
    "{",
    "null",
    "[]",
    "0",
    "\"success\"",
    "{}",
    r#"{"status":"success"}"#,
    r#"{"status":"success","data":null}"#,
    r#"{"status":"success","data":{"resultType":"vector","result":{}}}"#,
    r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":[],"value":0}]}}"#,
    r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#,
    r#"{"status":"success","data":{"resultType":"string","result":[1,"2"]}}"#,
    r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"instance":"10.0.0.1:8080"},"values":[]}]}}"#,
    r#"{"status":"error","errorType":"bad_data","error":"no"}"#,
    r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"instance":"10.0.0.1:8080"},"value":[1e999,"1e999999"]}]}}"#,
    "<html><body>502 Bad Gateway</body></html>",
];

fn malformed_answers_do_no_harm(mut world: impl World) {
    let crew = crew(&mut world, 2, LEAST_SIGNAL);
    let deep = "[".repeat(20_000);
    let long = format!(r#"{{"status":"success","data":{{"x":"{}"}}}}"#, "y".repeat(200_000));
    let bodies = BODIES.iter().copied().chain([deep.as_str(), long.as_str()]).map(str::as_bytes);
    for body in bodies.chain([&[0xff, 0xfe, 0x00][..]]) {
        for status in [200, 204, 301, 404, 422, 503] {
            report(&mut world, &crew, 2, &Answer::Http(status, body));
        }
    }
    for status in [&b""[..], b"abc", b"\xff\xfe", b"-200", b"99999999999999999999"] {
        report(&mut world, &crew, 2, &Answer::NoStatus(status));
    }
    for plugin in &crew {
        assert_eq!(picks(&mut world, *plugin, 100).len(), 4);
    }
    report(&mut world, &crew, 5, &Answer::Http(200, answer(2, "90").as_bytes()));
    assert!(picks_of(&mut world, crew[0], &address(2), 200) < 6, "a good answer is believed again");
}

fn damaged_answers_do_no_harm(mut world: impl World) {
    use proptest::prelude::*;
    let crew = crew(&mut world, 1, LEAST_SIGNAL);
    let whole = answer(1, "50").into_bytes();
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let config =
        Config { cases: 64, failure_persistence: None, rng_seed: RngSeed::Fixed(5), ..Config::default() };
    let world = std::cell::RefCell::new(&mut world);
    let outcome = TestRunner::new(config).run(&(damage, any::<prop::sample::Index>()), |(damage, cut)| {
        let mut body = whole.clone();
        damage.iter().for_each(|(at, byte)| body[at.index(whole.len())] = *byte);
        body.truncate(cut.index(2 * whole.len()));
        let world = &mut **world.borrow_mut();
        let mut told = 0;
        while told == 0 {
            told = report(world, &crew, 1, &Answer::Http(200, &body));
        }
        prop_assert!(!crate::scene::serve(world, crew[0], |_| crate::scene::Ending::good()).is_empty());
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

both!(
    a_signal_reaches_every_worker_and_fades_with_its_source,
    an_answer_that_comes_after_the_lease_has_moved_changes_nothing,
    adaptive_leans_away_from_a_full_queue,
    unknown_is_never_best,
    malformed_answers_do_no_harm,
    damaged_answers_do_no_harm,
);
