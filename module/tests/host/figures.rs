//! evenkeel's figures among Envoy's stats: defined in time, under the right names, and each counted once.

use std::collections::BTreeSet;

use testbed::serde_json::json;

use crate::envoy::Metric;
use crate::scene::Listener;
use crate::stream::Stream;

#[test]
fn every_metric_is_defined_in_time_and_once() {
    let listener = Listener::new("defined", &json!({}), &json!({}));
    let metrics = listener.0.state().metrics.clone();
    let once: BTreeSet<&Metric> = metrics.iter().collect();
    assert_eq!(once.len(), metrics.len(), "{metrics:?}");
    assert!(metrics.iter().all(|(_, name, _)| name.starts_with("evenkeel.fleet_")), "{metrics:?}");
    let of = |name: &str| metrics.iter().find(|(_, of, _)| of == &format!("evenkeel.fleet_{name}"));
    let labels = |name: &str| of(name).map(|(kind, _, labels)| (*kind, labels.join(",")));
    assert_eq!(labels("decisions_total"), Some((0, "upstream,reason".to_owned())));
    assert_eq!(labels("endpoints"), Some((1, "upstream".to_owned())));
    assert_eq!(labels("decision_nanoseconds"), Some((2, "upstream".to_owned())));
    assert_eq!(labels("panics_total"), Some((0, String::new())));
}

#[test]
fn every_decision_is_counted_once_and_gauges_show_the_latest() {
    let listener = Listener::new("counted", &json!({}), &json!({}));
    for _ in 0..25 {
        listener.serve("200", &[]);
    }
    let counted = |listener: &Listener| {
        // In place of an older Envoy: figures come with the next request.
        listener.ask("GET", "/_evenkeel");
        listener.stat("decisions_total", Some("web"))
    };
    listener.tick_until("25 decisions", |listener| (counted(listener) >= 25).then_some(()));
    for _ in 0..5 {
        listener.tick();
        assert_eq!(counted(&listener), 25, "and no more");
    }
    assert_eq!(listener.stat("decisions_total", Some("policy")), 25);
    for _ in 0..7 {
        listener.serve("200", &[]);
    }
    listener.tick_until("32 decisions", |listener| (counted(listener) == 32).then_some(()));
    listener
        .tick_until("the gauges", |listener| (listener.stat("endpoints", Some("web")) == 3).then_some(()));
    assert_eq!(listener.stat("panics_total", None), 0);
}

/// The older Envoy takes figures with a stream alone: until there is one they wait, and each is taken as if it had not.
#[test]
fn figures_wait_for_a_stream_and_lose_nothing() {
    let listener = Listener::new("waiting", &json!({}), &json!({}));
    let mut streams = Vec::new();
    for _ in 0..5 {
        let stream = Stream::open(&listener.0);
        assert!(stream.request(&[]));
        streams.push(stream);
        (0..3).for_each(|_| listener.tick());
    }
    streams.iter().for_each(|stream| stream.complete());
    // What the last ticks had no time to report comes with a later one and the next stream.
    listener.tick_until("5 decisions", |listener| {
        listener.ask("GET", "/_evenkeel");
        (listener.stat("decisions_total", Some("web")) == 5).then_some(())
    });
    assert_eq!(listener.stat("endpoints", Some("web")), 3);
    streams.iter().for_each(|stream| stream.destroy());
}

/// Two of Envoy's configurations with one plugin: what is counted comes to Envoy through one of them.
#[test]
fn what_two_configurations_share_is_counted_once() {
    let first = Listener::new("together", &json!({}), &json!({}));
    let second = Listener::new("together", &json!({}), &json!({}));
    for _ in 0..10 {
        first.serve("200", &[]);
        second.serve("200", &[]);
    }
    let counted = || {
        first.ask("GET", "/_evenkeel");
        second.ask("GET", "/_evenkeel");
        first.stat("decisions_total", Some("web")) + second.stat("decisions_total", Some("web"))
    };
    second.tick_until("20 decisions", |_| (counted() >= 20).then_some(()));
    for _ in 0..5 {
        second.tick();
        assert_eq!(counted(), 20);
    }
}
