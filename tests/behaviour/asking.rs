//! Polls of Prometheus: how many errors are logged, and which traffic keeps them up.

use crate::polling::{SIGNAL, crew, lines, refusal, vector, watch};
use crate::scene::picks;
use crate::world::{Plugin, Stream, World};

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

both!(each_of_many_faulty_queries_is_logged, requests_that_are_not_balanced_keep_no_polls_up);
