//! Configurations that come and go: shared, replaced, refused, and what has been learnt by then.

use std::process::Command;

use testbed::serde_json::json;

use crate::envoy;
use crate::scene::{HEADER, Listener, PAGE, said, text};
use crate::stream::Stream;

#[test]
fn the_same_text_under_the_same_name_is_one_plugin_and_outlives_either() {
    let admin = json!({ "endpoints": { "static": ["10.0.0.1:80"], "envoy_admin": { "cluster": "admin", "interval": "200ms" } } });
    let first = Listener::new("shared", &json!({}), &admin);
    let second = Listener::new("shared", &json!({}), &admin);
    let other = Listener::new("not shared", &json!({}), &admin);
    for listener in [&first, &second, &second, &other] {
        listener.serve("200", &[]);
    }
    assert_eq!((first.of_endpoints("requests"), other.of_endpoints("requests")), (vec![3], vec![1]));
    assert_eq!(second.of_endpoints("requests"), [3]);
    // The second has the ticks, and a call under way; the first takes both over.
    let lost = second.call();
    first.0.state().wakes = 0;
    second.tick();
    assert_eq!(first.0.state().wakes, 0, "one of them is asked for ticks");
    drop(second);
    let again = first.call();
    assert_eq!((lost.cluster, again.cluster), ("admin".to_owned(), "admin".to_owned()));
    assert_eq!(said("timed out"), 0, "the one that was lost did not: {:?}", envoy::logged());
    assert_eq!(first.of_endpoints("requests"), [3]);
}

/// Envoy may keep the configuration before it for minutes, and ends its calls with it.
#[test]
fn calls_are_of_the_latest_configuration() {
    let admin = json!({ "endpoints": { "envoy_admin": { "cluster": "admin", "interval": "200ms" } } });
    let first = Listener::new("latest", &json!({}), &admin);
    first.call();
    let second = Listener::new("latest", &json!({}), &admin);
    first.0.state().calls.clear();
    second.call();
    let third = Listener::new("latest", &json!({}), &admin);
    second.0.state().calls.clear();
    third.call();
    drop(second);
    third.call();
    assert!(first.0.state().calls.is_empty(), "the oldest sends none");
    drop(third);
    first.call();
}

#[test]
fn a_call_that_ends_with_its_configuration_says_nothing_of_what_was_asked() {
    let upstream = |cluster: &str| {
        let admin =
            json!({ "static": ["10.0.0.1:80"], "envoy_admin": { "cluster": "admin", "interval": "200ms" } });
        let signals = json!([{ "name": "load", "query": "load1" }]);
        let probe = json!({ "path": "/healthz", "interval": "100ms" });
        json!({ "cluster": cluster, "endpoints": admin, "signals": signals, "health": { "probe": probe } })
    };
    let text = json!({
        "status": { "path": PAGE },
        "steering": { "header": HEADER },
        "prometheus": { "cluster": "prometheus", "interval": "200ms", "timeout": "50ms" },
        "upstreams": [upstream("web"), upstream("api")],
    })
    .to_string();
    let of = || Listener::of("lost", &text).expect("it is taken");
    let stays = of();
    stays.serve("500", &[]);
    let calls_to = |listener: &Listener, cluster: &str| {
        listener.tick_until(cluster, |listener| {
            let state = listener.0.state();
            state.calls.iter().find(|call| call.cluster == cluster).cloned()
        })
    };
    let goes = of();
    let asked = ["admin", "prometheus", "web"].map(|cluster| calls_to(&goes, cluster));
    drop(goes);
    for lost in asked {
        let again = calls_to(&stays, &lost.cluster);
        assert_eq!(
            (again.header(":path"), again.timeout_ms, &again.body),
            (lost.header(":path"), lost.timeout_ms, &lost.body),
            "{}",
            lost.cluster
        );
    }
    let status = stays.status();
    assert_eq!(status["upstreams"][0]["probes"]["failed"], 0, "{status}");
    assert_eq!(status["prometheus"]["failures"], 0, "{status}");
    assert_eq!(said("poll failed"), 0, "{:?}", envoy::logged());
}

#[test]
fn a_configuration_that_goes_later_takes_no_ticks_with_it() {
    let first = Listener::new("later", &json!({}), &json!({}));
    let second = Listener::new("later", &json!({}), &json!({}));
    drop(second);
    for _ in 0..3 {
        first.tick();
    }
    assert_eq!(envoy::schedulers_of(first.0.id), 1);
}

/// A main thread that is busy is asked once. The ticks of another one say that time passes.
#[test]
fn a_tick_that_has_not_come_is_not_asked_for_again() {
    let busy = Listener::new("busy", &json!({}), &json!({}));
    let other = Listener::new("other", &json!({}), &json!({}));
    (0..10).for_each(|_| other.tick());
    assert!(busy.0.state().wakes <= 1);
}

#[test]
fn a_new_text_takes_over_and_streams_of_the_old_one_end_where_they_began() {
    let first = Listener::new("replaced", &json!({}), &json!({}));
    for _ in 0..9 {
        first.serve("200", &[]);
    }
    let under_way = Stream::open(&first.0);
    assert!(under_way.request(&[]));
    first.tick();
    let second = Listener::new("replaced", &json!({}), &json!({ "slow_start": "11s" }));
    let status = second.status();
    // Which endpoints got the nine requests is chance.
    let endpoints = status["upstreams"][0]["endpoints"].as_array().expect("endpoints");
    assert!(endpoints.iter().any(|endpoint| endpoint["latency_ms"].is_number()), "what was learnt: {status}");
    let host = under_way.state().hosts[0].clone();
    under_way.answer(&host, "200", &[], true);
    under_way.complete();
    under_way.destroy();
    drop(first);
    second.serve("200", &[]);
    second.tick_until("nothing lost", |second| {
        (second.of_endpoints("requests").iter().sum::<u64>() >= 11).then_some(())
    });
    assert_eq!(second.of_endpoints("requests").iter().sum::<u64>(), 11, "and nothing doubled");
    assert_eq!(second.of_endpoints("in_flight"), [0, 0, 0]);
    let page = second.ask("GET", "/_evenkeel/config.json").expect("a page");
    assert!(String::from_utf8_lossy(&page.body).contains("11s"), "the new one is in force");
}

/// Two listeners with filters of one name: one is configured anew, once with the same text.
#[test]
fn a_listener_takes_over_from_its_own_configuration() {
    let first = Listener::new("of one name", &json!({}), &json!({}));
    (0..9).for_each(|_| _ = first.serve("200", &[]));
    first.tick();
    let _other = Listener::new("of one name", &json!({}), &json!({ "cluster": "api" }));
    let same = Listener::new("of one name", &json!({}), &json!({}));
    assert_eq!(same.of_endpoints("requests").iter().sum::<u64>(), 9, "the same plugin");
    let next = Listener::new("of one name", &json!({}), &json!({ "slow_start": "11s" }));
    let status = next.status();
    let endpoints = status["upstreams"][0]["endpoints"].as_array().expect("endpoints");
    assert!(endpoints.iter().any(|endpoint| endpoint["latency_ms"].is_number()), "what was learnt: {status}");
}

#[test]
fn refused_configuration_is_logged_as_by_the_filter_and_the_old_one_serves() {
    let listener = Listener::new("refused", &json!({}), &json!({}));
    listener.serve("200", &[]);
    for wrong in [
        "{".to_owned(),
        text(&json!({ "mod": "observe" }), &json!({})),
        text(
            &json!({ "mode": "observ", "attributes": ["endpoint", "endpoint"] }),
            &json!({ "slow_start": 3 }),
        ),
    ] {
        assert!(Listener::of("refused", &wrong).is_none(), "{wrong}");
        for fault in config::parse(wrong.as_bytes()).expect_err("a fault") {
            assert_eq!(said(&format!("configuration refused: {fault}")), 1, "{fault}");
        }
    }
    assert!(Listener::of("refused", r#"{"role":"upstream"}"#).is_none());
    assert_eq!(said("configuration refused: $.role: found \"upstream\""), 1);
    assert_eq!(said("works among the listener's filters only"), 1);
    listener.serve("200", &[]);
    assert_eq!(listener.of_endpoints("requests").iter().sum::<u64>(), 2);
}

/// In a process of its own: the environment says so.
#[test]
fn where_it_is_asked_to_it_stands_aside() {
    const VARIABLE: &str = "EVENKEEL_ON_REFUSED_CONFIGURATION";
    if std::env::var_os(VARIABLE).is_none() {
        let own = std::env::current_exe().expect("a path");
        let name = "configurations::where_it_is_asked_to_it_stands_aside";
        let run =
            Command::new(own).args(["--exact", name]).env(VARIABLE, "stand_aside").output().expect("it runs");
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && said.contains("1 passed"),
            "{said}\n{}",
            String::from_utf8_lossy(&run.stderr)
        );
        return;
    }
    let wrong = text(&json!({ "mod": "observe" }), &json!({}));
    let listener = Listener::of("aside", &wrong).expect("it is taken");
    assert_eq!(said("configuration refused: $.mod"), 1);
    for _ in 0..3 {
        let stream = Stream::open(&listener.0);
        assert!(stream.request(&[(HEADER, "10.0.0.9:1")]));
        assert_eq!((stream.sent(HEADER), stream.state().hosts.len()), (vec![], 0));
        stream.answer("10.0.0.1:80", "200", &[], true);
        stream.complete();
        stream.destroy();
    }
    let refused = listener.ask("GET", "/_evenkeel/status.json").expect("a page");
    let page = String::from_utf8(refused.body).expect("text");
    assert!(page.contains(r#""configuration_refused":["$.mod"]"#), "{page}");
    assert_eq!(listener.ask("GET", "/_evenkeel").map(|reply| reply.status), Some(503));
    listener.tick();
    // One that is accepted comes and steers; a wrong one after it leaves it in force.
    let right = Listener::of("aside", &text(&json!({}), &json!({}))).expect("it is taken");
    assert_ne!(right.serve("200", &[]), "");
    let metric = ("evenkeel.fleet_configuration_refused".to_owned(), vec![]);
    let refused = |listener: &Listener| listener.0.state().series.get(&metric).copied();
    assert_eq!((refused(&listener), refused(&right)), (Some(1), Some(0)));
    let later = Listener::of("aside", &wrong).expect("it is taken");
    assert_ne!(later.serve("200", &[]), "", "the one before it stays in force");
    assert_eq!(later.status()["configuration_refused"], json!(["$.mod"]));
    assert_eq!(later.stat("configuration_refused", None), 1);
    // It is taken back.
    let back = Listener::of("aside", &text(&json!({}), &json!({}))).expect("it is taken");
    assert_ne!(back.serve("200", &[]), "");
    assert_eq!((refused(&back), &back.status()["configuration_refused"]), (Some(0), &json!(null)));
}
