//! One request on its way: what Envoy is told, what a client's headers may not do, the page, and panics.

use std::collections::BTreeMap;
use std::process::Command;

use testbed::serde_json::json;

use crate::envoy;
use crate::scene::{HEADER, Listener, PAGE, said};
use crate::stream::Stream;

const PANIC: &str = "x-evenkeel-test-panic";

#[test]
fn the_endpoint_is_named_by_a_call_and_a_clients_header_ends_here() {
    let listener = Listener::new("a call", &json!({}), &json!({}));
    let mut got = BTreeMap::new();
    for nth in 0..30 {
        let stream = Stream::open(&listener.0);
        assert!(stream.request(&[(HEADER, "10.0.0.9:1"), (HEADER, "10.0.0.8:1")]), "request {nth} goes on");
        assert_eq!(stream.sent(HEADER), [""; 0], "request {nth}");
        let hosts = stream.state().hosts.clone();
        assert_eq!(hosts.len(), 1, "named once: {hosts:?}");
        stream.answer(&hosts[0], "200", &[], true);
        stream.complete();
        stream.destroy();
        *got.entry(hosts[0].clone()).or_insert(0_u64) += 1;
    }
    assert_eq!(got.keys().collect::<Vec<_>>(), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    assert_eq!(listener.of_endpoints("requests"), got.values().copied().collect::<Vec<_>>());
    assert_eq!(listener.status()["upstreams"][0]["not_followed"], 0);
}

#[test]
fn a_header_that_is_asked_for_is_written() {
    let listener =
        Listener::new("a header", &json!({ "steering": { "header": HEADER, "candidates": 2 } }), &json!({}));
    let stream = Stream::open(&listener.0);
    assert!(stream.request(&[(HEADER, "10.0.0.9:1")]));
    let written = stream.sent(HEADER);
    assert!(
        written.len() == 1 && written[0].starts_with("10.0.0.") && written[0].contains(','),
        "{written:?}"
    );
    assert!(stream.state().hosts.is_empty(), "and by no call");
    stream.complete();
    stream.destroy();
}

/// What two filters of a chain, one after the other, leave of a header that a client sends; the second has these fields more.
fn chain(first: &Listener, second: &Listener, header: &str, more: Option<&str>) -> [Vec<String>; 2] {
    let all = [Stream::open(&first.0), Stream::open(&second.0)];
    assert!(all[0].request(&[(header, "10.0.0.9:1")]));
    let fields = all[0].state().request.clone().into_iter().flatten();
    let fields = fields.chain(more.map(|name| (name.to_owned(), Vec::new()))).collect();
    assert!(all[1].request_after(&all[0], fields));
    all.map(|stream| {
        let left = stream.sent(header);
        stream.complete();
        stream.destroy();
        left
    })
}

/// Each is for a cluster of its own.
#[test]
fn what_an_earlier_filter_has_steered_stays_steered() {
    for (via, header) in [
        ("override_host", HEADER),
        ("stateful_session", HEADER),
        ("original_dst", "x-envoy-original-dst-host"),
        ("cluster_header", "x-evenkeel-cluster"),
    ] {
        let plugin = json!({ "steering": { "via": via, "header": header } });
        let of = |name: &str, upstream| Listener::new(&format!("{via}, {name}"), &plugin, &upstream);
        let first = of("first", json!({}));
        let second = of("second", json!({ "cluster": "api" }));
        let [one, other] = chain(&first, &second, header, None);
        assert!(one.len() == 1 && one[0] != "10.0.0.9:1", "{via}: {one:?}");
        assert_eq!(other, one, "{via}");
        assert_eq!(chain(&second, &second, header, None), [[""; 0]; 2], "{via}: the header is the client's");
        let [one, other] = chain(&first, &second, header, Some(PANIC));
        assert_eq!(other, one, "{via}: also where the second's worker is lost");
        let [one, other] = chain(&first, &of("both", json!({})), header, None);
        assert_eq!((one.len(), other.len()), (1, 1), "{via}: the later one decides");
    }
    // One that steers by a call has the name of a header, too.
    let steering = json!({ "steering": { "header": HEADER } });
    let first = Listener::new("first by a header", &steering, &json!({}));
    let second = Listener::new("second by a call", &json!({}), &json!({ "cluster": "api" }));
    let [one, other] = chain(&first, &second, HEADER, None);
    assert_eq!((one.len(), &other), (1, &one));
}

/// In a process of its own, where there is no other.
#[test]
fn a_filter_that_is_alone_sets_nothing_for_later_ones() {
    const ALONE: &str = "EVENKEEL_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let own = std::env::current_exe().expect("a path");
        let name = "requests::a_filter_that_is_alone_sets_nothing_for_later_ones";
        let run = Command::new(own).args(["--exact", name]).env(ALONE, "1").output().expect("it runs");
        let said = String::from_utf8_lossy(&run.stdout);
        let wrong = String::from_utf8_lossy(&run.stderr);
        return assert!(run.status.success() && said.contains("1 passed"), "{said}\n{wrong}");
    }
    let steering = |more: &str| json!({ "steering": { "header": HEADER }, "status": { "path": more } });
    let set = |listener: &Listener| {
        let stream = Stream::open(&listener.0);
        assert!(stream.request(&[]));
        let set = stream.state().filter_state.clone();
        stream.destroy();
        set.into_iter().collect::<Vec<_>>()
    };
    let replaced = Listener::new("alone", &steering("/a"), &json!({}));
    assert_eq!(set(&replaced), []);
    let alone = Listener::new("alone", &steering("/b"), &json!({}));
    assert_eq!(
        (set(&replaced), set(&alone)),
        (vec![], vec![]),
        "the one that it replaces is in no chain with it"
    );
    let by_call = Listener::new("not alone", &json!({}), &json!({ "cluster": "api" }));
    assert_eq!(set(&alone), [("wasm.evenkeel_steered".to_owned(), HEADER.into())]);
    assert_eq!(set(&by_call), [], "it writes no header");
}

#[test]
fn what_is_under_way_is_counted_until_its_end_whichever_that_is() {
    let listener = Listener::new("ends", &json!({}), &json!({}));
    let in_flight = || listener.of_endpoints("in_flight").iter().sum::<u64>();
    let begin = || {
        let stream = Stream::open(&listener.0);
        assert!(stream.request_begins(&[(":method", "POST")], false));
        stream.request_body(false);
        stream
    };
    let all: Vec<_> = (0..4).map(|_| begin()).collect();
    assert_eq!(in_flight(), 4);
    // Answered whole, with trailers both ways.
    all[0].request_trailers();
    let host = all[0].state().hosts[0].clone();
    all[0].answer(&host, "200", &[], false);
    all[0].response_body(&[b"a", b"b"], false);
    all[0].response_trailers(&[("grpc-status", "0")]);
    all[0].complete();
    assert_eq!(in_flight(), 3);
    all[0].destroy();
    // Reset by the client, and torn down without a word.
    all[1].complete();
    all[1].destroy();
    all[2].destroy();
    assert_eq!(in_flight(), 1);
    // Answered by Envoy.
    all[3].local_reply(503, "upstream_reset_before_response_started{connection_failure}", &[]);
    all[3].complete();
    all[3].destroy();
    assert_eq!(in_flight(), 0);
    assert_eq!(listener.of_endpoints("requests").iter().sum::<u64>(), 4, "each once");
    // One of which nothing ever came.
    Stream::open(&listener.0).destroy();
    assert_eq!(in_flight(), 0);
}

#[test]
fn a_failure_counts_against_the_endpoint_and_an_answer_of_envoys_own_does_not() {
    let listener = Listener::new("failures", &json!({}), &json!({ "policy": "round_robin" }));
    let errors = || listener.of_endpoints("failures").iter().sum::<u64>();
    listener.serve("503", &[]);
    assert_eq!(errors(), 1);
    for (details, counts) in [
        ("upstream_reset_before_response_started{connection_failure}", 1),
        ("rbac_access_denied_matched_policy[none]", 0),
        ("request_payload_too_large", 0),
    ] {
        let before = errors();
        let stream = Stream::open(&listener.0);
        assert!(stream.request(&[]));
        stream.local_reply(503, details, &[]);
        stream.complete();
        stream.destroy();
        assert_eq!(errors() - before, counts, "{details}");
    }
}

#[test]
fn a_status_in_the_last_bytes_of_a_body_is_found_however_they_come() {
    let listener = Listener::new("grpc-web", &json!({}), &json!({ "policy": "round_robin" }));
    let frame = |status: &str| {
        let trailers = format!("grpc-status:{status}\r\n");
        let length = u32::try_from(trailers.len()).unwrap().to_be_bytes();
        [&[0_u8, 0, 0, 0, 3, 1, 2, 3][..], &[0x80], &length, trailers.as_bytes()].concat()
    };
    for (at, status, errors) in [(1, "14", 1), (9, "14", 2), (20, "14", 3), (9, "0", 3)] {
        let stream = Stream::open(&listener.0);
        assert!(stream.request_begins(&[(":method", "POST")], false));
        stream.request_body(true);
        let host = stream.state().hosts[0].clone();
        stream.answer(&host, "200", &[("content-type", "application/grpc-web+proto")], false);
        let (body, filler) = (frame(status), vec![0x41; 5000]);
        stream.response_body(&[&filler, &body[..at], &body[at..]], true);
        stream.complete();
        stream.destroy();
        assert_eq!(
            listener.of_endpoints("failures").iter().sum::<u64>(),
            errors,
            "cut at {at}, status {status}"
        );
    }
}

#[test]
fn retry_elsewhere_differs_from_not_followed() {
    let listener = Listener::new("elsewhere", &json!({}), &json!({}));
    let serve = |attempts| {
        let stream = Stream::open(&listener.0);
        assert!(stream.request(&[]));
        let other = if stream.state().hosts[0] == "10.0.0.1:80" { "10.0.0.2:80" } else { "10.0.0.1:80" };
        stream.state().attempts = Some(attempts);
        stream.answer(other, "200", &[], true);
        stream.complete();
        stream.destroy();
        listener.status()["upstreams"][0]["not_followed"].as_u64().expect("a count")
    };
    assert_eq!(serve(1), 1);
    // The older interface does not tell how often Envoy tried.
    assert_eq!(serve(2), if envoy::is_older() { 2 } else { 1 });
}

#[test]
fn the_address_of_the_client_and_the_access_log_have_their_places() {
    let plugin = json!({ "attributes": ["endpoint", "reason"] });
    let listener = Listener::new("places", &plugin, &json!({ "policy": "ip_hash" }));
    let to = |client: &str| {
        let stream = Stream::open(&listener.0);
        stream.state().texts.insert(24, client.as_bytes().to_vec());
        assert!(stream.request(&[]));
        let state = stream.state();
        let of = |name: &str| state.filter_state.get(name).map(|v| String::from_utf8_lossy(v).into_owned());
        let host = state.hosts[0].clone();
        assert_eq!(of("wasm.evenkeel.endpoint").as_ref(), Some(&host));
        assert_eq!(of("wasm.evenkeel.reason").as_deref(), Some("policy"));
        drop(state);
        stream.complete();
        stream.destroy();
        host
    };
    let hosts: Vec<String> = (0..40).map(|n| to(&format!("192.0.2.{n}:1000"))).collect();
    let again: Vec<String> = (0..40).map(|n| to(&format!("192.0.2.{n}:2000"))).collect();
    assert_eq!(hosts, again, "an address leads to an endpoint");
    assert!(hosts.iter().any(|host| *host != hosts[0]), "and another one may lead elsewhere");
}

/// Cookies may come in several headers.
#[test]
fn every_value_of_a_header_is_read() {
    let listener = Listener::new(
        "cookies",
        &json!({}),
        &json!({
            "policy": "consistent_hash", "affinity": { "cookie": { "name": "user" } },
        }),
    );
    let to = |cookies: &[&str]| {
        let stream = Stream::open(&listener.0);
        let fields: Vec<_> = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
        assert!(stream.request(&fields));
        let host = stream.state().hosts[0].clone();
        stream.complete();
        stream.destroy();
        host
    };
    for user in 0..20 {
        let cookie = format!("user={user}");
        assert_eq!(to(&[&cookie]), to(&["a=b", "c=d", &cookie]), "{cookie}");
    }
}

#[test]
fn the_page_is_answered_here_and_nothing_else_is() {
    let listener = Listener::new("page", &json!({}), &json!({}));
    for (method, path, status) in [
        ("GET", PAGE, 200),
        ("HEAD", "/_evenkeel/metrics", 200),
        ("POST", PAGE, 405),
        ("GET", "/_evenkeel/x", 404),
    ] {
        let reply = listener.ask(method, path).expect("an answer");
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(reply.headers.iter().any(|(name, _)| name == "content-type") && !reply.body.is_empty());
    }
    assert_eq!(listener.of_endpoints("picks"), [0, 0, 0], "the page is no request");
    assert!(listener.ask("GET", "/_evenkeels").is_none());
    assert_eq!(listener.of_endpoints("picks").iter().sum::<u64>(), 1);
}

/// Each in a request that goes on; what was under way with the worker that panicked is let go.
#[test]
fn a_panic_costs_no_request_and_after_the_fifth_it_stands_aside() {
    // Three workers: it stands aside with all of them, whichever panicked.
    envoy::CONCURRENCY.set(9);
    let listener = Listener::new("panics", &json!({}), &json!({}));
    envoy::CONCURRENCY.set(2);
    let before = Stream::open(&listener.0);
    assert!(before.request_begins(&[], false));
    for nth in 1..=5 {
        listener.serve("200", &[]);
        let stream = Stream::open(&listener.0);
        assert!(
            stream.request(&[(PANIC, "please"), (HEADER, "10.0.0.9:1")]),
            "panic {nth}: the request goes on"
        );
        assert_eq!(stream.sent(HEADER), [""; 0], "panic {nth}");
        stream.answer("10.0.0.1:80", "200", &[], true);
        stream.complete();
        stream.destroy();
        if nth < 5 {
            assert_eq!(said(&format!("panicked, {nth} of 5 times")), 1);
            assert_eq!(
                listener.status()["upstreams"][0]["in_flight"],
                0,
                "the worker is there again, and new"
            );
            before.request_body(false);
        }
    }
    assert_eq!(said("panicked 5 times: requests pass unbalanced"), 1);
    let host = before.state().hosts[0].clone();
    before.answer(&host, "200", &[], true);
    before.complete();
    before.destroy();
    let stream = Stream::open(&listener.0);
    assert!(stream.request(&[(":path", "/_evenkeel/status.json"), (HEADER, "10.0.0.9:1")]), "passes on");
    assert_eq!((stream.sent(HEADER), stream.state().hosts.len()), (vec![], 0));
    stream.complete();
    stream.destroy();
    assert_eq!(listener.stat("panics_total", None), 5);
    std::thread::scope(|scope| {
        let unsteered = || assert_eq!(listener.serve("200", &[]), "", "passes on");
        let all: Vec<_> = (0..12).map(|_| scope.spawn(unsteered)).collect();
        all.into_iter().for_each(|one| one.join().expect("no panic"));
    });
}

/// A stream of the worker before does not count with the one that came after it.
#[test]
fn what_a_worker_began_does_not_end_with_the_next() {
    let listener = Listener::new("generations", &json!({}), &json!({}));
    let old = Stream::open(&listener.0);
    assert!(old.request(&[]));
    let provoked = Stream::open(&listener.0);
    assert!(provoked.request(&[(PANIC, "please")]));
    provoked.destroy();
    let new = Stream::open(&listener.0);
    assert!(new.request(&[]));
    let host = old.state().hosts[0].clone();
    old.answer(&host, "500", &[], true);
    old.complete();
    old.destroy();
    assert_eq!(listener.of_endpoints("in_flight").iter().sum::<u64>(), 1, "the new one's");
    assert_eq!(listener.of_endpoints("failures"), [0, 0, 0]);
    new.destroy();
    assert_eq!(listener.of_endpoints("in_flight"), [0, 0, 0]);
}

/// The status of gRPC comes last.
#[test]
fn a_failure_in_the_trailers_counts_once() {
    let listener = Listener::new("trailers", &json!({}), &json!({}));
    for status in ["0", "14"] {
        let stream = Stream::open(&listener.0);
        assert!(stream.request_begins(&[(":method", "POST")], false));
        stream.request_body(false);
        stream.request_trailers();
        let host = stream.state().hosts[0].clone();
        stream.answer(&host, "200", &[("content-type", "application/grpc")], false);
        stream.response_body(&[b"message"], false);
        stream.response_trailers(&[("grpc-status", status)]);
        stream.complete();
        stream.destroy();
    }
    let sum = |field| listener.of_endpoints(field).iter().sum::<u64>();
    assert_eq!((sum("requests"), sum("failures"), sum("in_flight")), (2, 1, 0));
}

/// Outside of requests a panic has the same consequences: the worker is there again, and after the fifth all pass.
#[test]
fn a_panic_in_a_tick_or_in_an_answer_is_one_of_five() {
    let admin = json!({ "endpoints": {
        "static": ["10.0.0.1:80"], "envoy_admin": { "cluster": "admin", "interval": "200ms" },
    } });
    for (name, answers) in [("those (panics in ticks)", false), ("those (panics in answers)", true)] {
        let listener = Listener::new(name, &json!({}), &admin);
        let before = said("panicked, 1 of 5 times");
        for nth in 1..=5u64 {
            assert_ne!(listener.serve("200", &[]), "", "{name}: it steers before panic {nth}");
            if answers {
                let call = listener.call();
                envoy::answer(&listener.0, call.id, Some(200), &[], &[b"{}"]);
            } else {
                listener.tick();
            }
        }
        assert_eq!(said("panicked, 1 of 5 times"), before + 1);
        assert_eq!(listener.serve("200", &[]), "", "{name}: it stands aside");
        assert_eq!(listener.stat("panics_total", None), 5, "{name}");
    }
}

/// A new configuration takes over what the one before it has learnt, with the workers of both.
#[test]
fn a_panic_while_a_configuration_takes_over_ends_neither() {
    let of = |slow_start: &str| {
        Listener::new("those (panics in handovers)", &json!({}), &json!({ "slow_start": slow_start }))
    };
    let (old, new) = (of("11s"), of("12s"));
    for listener in [&old, &new] {
        listener.tick_until("its worker", |listener| {
            let steers = !listener.serve("200", &[]).is_empty();
            (steers && listener.stat("panics_total", None) == 1).then_some(())
        });
    }
}

/// Two filters of a chain for one cluster, by mistake: Envoy lets nothing be set twice.
#[test]
fn what_an_earlier_filter_has_told_the_access_log_stays() {
    let plugin = json!({ "attributes": ["endpoint", "decision"] });
    let all = ["told", "told again"].map(|name| Listener::new(name, &plugin, &json!({})));
    let [first, second] = all.each_ref().map(|listener| Stream::open(&listener.0));
    assert!(first.request(&[]));
    let headers = first.state().request.clone().expect("headers");
    assert!(second.request_after(&first, headers));
    let told = first.state().filter_state.clone();
    assert_eq!((told.len(), &second.state().filter_state), (2, &told));
    for stream in [first, second] {
        stream.complete();
        stream.destroy();
    }
}
