//! Polls of Prometheus: how many errors are logged, and which traffic keeps them up.

use crate::polling::{SIGNAL, crew, lines, refusal, vector, watch};
use crate::scene::{ms, pass_with, picks};
use crate::world::{Answer, Plugin, Stream, World};

/// A dozen queries, each with a fault of its own: each is logged, once.
fn each_of_many_faulty_queries_is_logged(mut world: impl World) {
    let signals: Vec<String> = (10..22).map(|i| format!(r#"{{"name":"s{i}","query":"bad{i}"}}"#)).collect();
    let crew = crew(&mut world, 1, &format!(r#""signals":[{}]"#, signals.join(",")), "");
    picks(&mut world, crew[0], 1);
    let number =
        |path: &str| path.split_once("query=bad").map_or(String::new(), |(_, rest)| rest[..2].to_owned());
    watch(&mut world, &crew, 10, |call, _| refusal(&format!("1:{}", number(&call.path))));
    for i in 10..22 {
        assert_eq!(
            lines(&world, &format!("signal=s{i}: Prometheus refused the query: bad_data: 1:{i}")),
            1,
            "{i}"
        );
    }
    assert_eq!(lines(&world, "prometheus poll failed"), 12);
}

/// A request whose route has this cluster.
fn request<W: World>(world: &mut W, plugin: Plugin, cluster: &str) {
    let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/")]);
    stream.property(&["xds", "cluster_name"], cluster.as_bytes());
    stream.request_headers();
    stream.response_headers(&[(":status", b"200")]);
    stream.response_body(true);
    stream.log();
    stream.done();
}

/// A health check of the load balancer in front, every second, needs no fresh signals.
fn requests_that_are_not_balanced_keep_no_polls_up(mut world: impl World) {
    let crew = crew(&mut world, 2, SIGNAL, "");
    picks(&mut world, crew[0], 20);
    let mut calls = 0;
    for _ in 0..120 {
        request(&mut world, crew[0], "elsewhere");
        calls += watch(&mut world, &crew, 1, |_, _| vector(&[])).len();
    }
    assert!((5..=12).contains(&calls), "1, 2, 4, … seconds apart: {calls}");
    request(&mut world, crew[1], "web");
    let calls = watch(&mut world, &crew, 1, |_, _| vector(&[])).len();
    assert!((1..=2).contains(&calls), "{calls}");
}

/// The calls of some seconds with traffic, each answered so.
fn asked<W: World>(world: &mut W, crew: &[Plugin], seconds: u64, answer: &Answer<'_>) -> usize {
    let mut calls = 0;
    for _ in 0..seconds {
        picks(world, crew[0], 1);
        pass_with(world, crew, ms(1000), |world| {
            for call in world.calls() {
                world.answer(&call, answer);
                calls += 1;
            }
        });
    }
    calls
}

/// Grafana Mimir limits how often a query may come; what stands before a server that restarts names a time, too.
fn a_server_that_asks_for_a_pause_is_given_one(mut world: impl World) {
    let crew = crew(&mut world, 2, SIGNAL, "");
    watch(&mut world, &crew, 3, |_, _| vector(&[]));
    for status in [429, 503] {
        let calls = asked(&mut world, &crew, 40, &Answer::Told(status, "retry-after", "10"));
        assert!((3..=6).contains(&calls), "{status}: {calls}");
    }
    let again = asked(&mut world, &crew, 20, &Answer::Told(429, "retry-after", "0"));
    assert!((8..=25).contains(&again), "as usual: {again}");
    // No longer than for a minute.
    let calls = asked(&mut world, &crew, 130, &Answer::Told(429, "retry-after", "99999999999"));
    assert!((3..=4).contains(&calls), "{calls}");
    asked(&mut world, &crew, 60, &Answer::Told(500, "retry-after", "10"));
    let calls = asked(&mut world, &crew, 20, &Answer::Told(500, "retry-after", "10"));
    assert!(calls >= 16, "it is no pause of the server's: {calls}");
    assert!(lines(&world, "no query for 10 s (retry-after)") > 0, "{:?}", world.logs());
}

both!(
    a_server_that_asks_for_a_pause_is_given_one,
    each_of_many_faulty_queries_is_logged,
    requests_that_are_not_balanced_keep_no_polls_up
);
