//! Calls to Prometheus and to the admin interface: from the main thread, answered late, at once, in pieces, twice and never.

use std::time::Instant;

use testbed::serde_json::{Value, json};

use crate::envoy::{self, MEANWHILE, Meanwhile};
use crate::scene::{Listener, PAGE, said};

/// What Envoy's admin interface says of a cluster with these endpoints.
fn members(ports: &[u16]) -> String {
    let of = |port: &u16| json!({ "address": { "socket_address": { "address": "10.1.0.1", "port_value": port } } });
    let hosts: Vec<_> = ports.iter().map(of).collect();
    json!({ "cluster_statuses": [{ "name": "web", "host_statuses": hosts }] }).to_string()
}

fn by_admin(name: &str) -> Listener {
    let admin = json!({ "endpoints": { "envoy_admin": { "cluster": "admin", "interval": "200ms" } } });
    Listener::new(name, &json!({}), &admin)
}

fn endpoints(listener: &Listener) -> usize {
    listener.status()["upstreams"][0]["endpoints"].as_array().map_or(0, Vec::len)
}

#[test]
fn call_has_all_headers_and_its_answer_comes_in_pieces() {
    let listener = by_admin("pieces");
    let call = listener.call();
    assert_eq!((call.cluster.as_str(), call.timeout_ms), ("admin", 100));
    assert_eq!((call.header(":method"), call.header(":authority")), ("GET", "localhost"));
    assert!(call.header(":path").starts_with("/clusters?format=json"), "{call:?}");
    assert!(call.body.is_empty());
    for size in [1, 3, 64, 10_000] {
        let listener = by_admin(&format!("pieces of {size}"));
        let body = members(&[1, 2, 3, 4]);
        let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        envoy::answer(&listener.0, listener.call().id, Some(200), &[], &pieces);
        assert_eq!(endpoints(&listener), 4, "pieces of {size}");
    }
}

/// Read in parts, which begin and end anywhere in the pieces.
#[test]
fn a_large_answer_comes_in_pieces_of_any_size() {
    for size in [1000, 16_384, 1 << 20] {
        let listener = by_admin(&format!("large, in pieces of {size}"));
        let body = members(&(1..=3000).collect::<Vec<u16>>());
        let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        envoy::answer(&listener.0, listener.call().id, Some(200), &[], &pieces);
        assert_eq!(listener.status()["upstreams"][0]["endpoint_count"], 3000, "pieces of {size}");
    }
}

#[test]
fn a_form_goes_into_the_body_and_a_secret_into_its_header() {
    let plugin = json!({ "prometheus": {
        "cluster": "prometheus", "interval": "200ms", "timeout": "50ms", "method": "POST",
        "headers": { "x-scope-orgid": "tenant", "authorization": { "env": "PATH", "prefix": "Bearer " } },
    } });
    let signals = json!({ "signals": [{ "name": "load", "query": "load1" }] });
    let listener = Listener::new("form", &plugin, &signals);
    let call = listener.call();
    assert_eq!((call.header(":method"), call.header(":path")), ("POST", "/api/v1/query"));
    assert_eq!((call.header("x-scope-orgid"), call.timeout_ms), ("tenant", 50));
    let path = std::env::var("PATH").expect("every process has it");
    assert_eq!(call.header("authorization"), format!("Bearer {path}"), "from the environment");
    let body = String::from_utf8(call.body).expect("a form");
    assert!(body.contains("query=load1"), "{body}");
    let value = json!({ "status": "success", "data": { "resultType": "vector", "result": [
        { "metric": { "instance": "10.0.0.2:80" }, "value": [1.0, "0.25"] },
    ] } });
    envoy::answer(&listener.0, call.id, Some(200), &[], &[value.to_string().as_bytes()]);
    listener.tick_until("the signal", |listener| {
        let status = listener.status();
        assert_eq!(status["prometheus"]["failures"], 0, "{status}");
        (status["upstreams"][0]["endpoints"][1]["signals"]["load"]["value"] == 0.25).then_some(())
    });
}

/// Otherwise each set of clusters that there ever was would have its endpoints in memory, and one that comes back after days would
/// begin with those of then.
#[test]
fn what_was_found_goes_with_the_last_configuration_of_its_clusters() {
    let admin = json!({ "envoy_admin": { "cluster": "admin", "interval": "200ms" } });
    let of = |more: &str| {
        Listener::new("released", &json!({}), &json!({ "endpoints": admin, "slow_start": more }))
    };
    let first = of("11s");
    envoy::answer(&first.0, first.call().id, Some(200), &[], &[members(&[1, 2]).as_bytes()]);
    let second = of("12s");
    drop(first);
    let third = of("13s");
    assert_eq!([&second, &third].map(endpoints), [2, 2], "the clusters are the same");
    drop((second, third));
    assert_eq!(endpoints(&of("14s")), 0);
}

/// Envoy answers for a cluster without hosts before it has even returned, and then says that nothing was sent.
#[test]
fn an_answer_to_a_call_that_was_not_sent_belongs_to_none() {
    let listener = by_admin("at once");
    MEANWHILE.set(Some(Meanwhile::Answered(200, members(&[1, 2]).into_bytes())));
    listener.tick_until("it is asked", |_| MEANWHILE.with_borrow(Option::is_none).then_some(()));
    assert_eq!((endpoints(&listener), said("envoy_admin poll failed")), (0, 1), "{:?}", envoy::logged());
    let call = listener.call();
    envoy::answer(&listener.0, call.id, Some(200), &[], &[members(&[1, 2, 3]).as_bytes()]);
    assert_eq!(endpoints(&listener), 3);
}

/// A connection that breaks while one call is being sent takes others with it: their answers come while the worker is at work.
#[test]
fn an_answer_while_the_worker_is_at_work_is_kept_until_it_is_done() {
    let series = |n: u16| json!({ "metric": { "instance": format!("10.1.0.1:{n}") }, "value": [1.0, "1"] });
    let found =
        json!({ "status": "success", "data": { "resultType": "vector", "result": [series(1), series(2)] } });
    for (name, padding, count) in [("kept", 0, 2), ("too large to be kept", 1 << 20, 0)] {
        // An answer of Prometheus is awaited for as long as the test takes; Envoy is asked again and again meanwhile.
        let prometheus = json!({ "cluster": "prometheus", "interval": "1h", "timeout": "1h" });
        let of = |cluster: &str, endpoints: &Value| json!({ "cluster": cluster, "endpoints": endpoints });
        let upstreams = [
            of("web", &json!({ "prometheus": { "query": "up" } })),
            of("api", &json!({ "envoy_admin": { "cluster": "admin", "interval": "200ms" } })),
        ];
        let text = json!({ "status": { "path": PAGE }, "prometheus": prometheus, "upstreams": upstreams });
        let listener = Listener::of(name, &text.to_string()).expect("it is taken");
        listener.tick_until("the question", |listener| {
            let calls = &mut listener.0.state().calls;
            calls.retain(|call| call.cluster == "prometheus");
            (calls.len() == 1).then_some(())
        });
        MEANWHILE.set(Some(Meanwhile::Others(200, format!("{found}{}", " ".repeat(padding)).into_bytes())));
        listener.tick_until("another call", |_| MEANWHILE.with_borrow(Option::is_none).then_some(()));
        listener.tick();
        assert_eq!(endpoints(&listener), count, "{name}: {:?}", envoy::logged());
    }
}

#[test]
fn an_answer_counts_once_and_one_to_nothing_counts_not() {
    let listener = by_admin("once");
    let call = listener.call();
    for id in [call.id + 1, 0, u64::MAX] {
        envoy::answer(&listener.0, id, Some(200), &[], &[members(&[7, 8, 9]).as_bytes()]);
    }
    assert_eq!(endpoints(&listener), 0, "it answers no question");
    envoy::answer(&listener.0, call.id, Some(200), &[], &[members(&[1, 2]).as_bytes()]);
    envoy::answer(&listener.0, call.id, Some(200), &[], &[members(&[7, 8, 9]).as_bytes()]);
    assert_eq!(endpoints(&listener), 2);
}

#[test]
fn failed_and_unsent_calls_are_logged() {
    let listener = by_admin("fails");
    let of_source = |listener: &Listener| listener.status()["upstreams"][0]["discovery"].to_string();
    let call = listener.call();
    envoy::answer(&listener.0, call.id, None, &[], &[]);
    assert!(of_source(&listener).contains("timed out"), "{}", of_source(&listener));
    let level = envoy::logged()
        .iter()
        .find(|(_, line)| line.contains("envoy_admin poll failed"))
        .map(|(level, _)| *level);
    assert_eq!(level, Some(3), "a warning");
    let call = listener.call();
    envoy::answer(&listener.0, call.id, Some(403), &[], &[b"no"]);
    assert!(of_source(&listener).contains("403"), "{}", of_source(&listener));
    for (cluster, why) in [("absent", "is unknown to Envoy"), ("full", "accepts no request")] {
        let admin = json!({ "endpoints": { "envoy_admin": { "cluster": cluster, "interval": "200ms" } } });
        let listener = Listener::new(cluster, &json!({}), &admin);
        listener.tick_until(why, |listener| of_source(listener).contains(why).then_some(()));
    }
}

/// Three workers for nine threads, and one of them asks for all.
#[test]
fn of_several_workers_one_asks() {
    envoy::CONCURRENCY.set(9);
    let admin = json!({ "endpoints": { "envoy_admin": { "cluster": "admin", "interval": "5s" } } });
    let listener = Listener::new("several", &json!({}), &admin);
    envoy::CONCURRENCY.set(2);
    let call = listener.call();
    let since = Instant::now();
    for _ in 0..20 {
        listener.tick();
    }
    // One that is not answered is put again after two seconds, which a slow machine may take.
    let again = since.elapsed().as_secs() / 2 + u64::from(since.elapsed().as_secs() > 0);
    assert!(listener.0.state().calls.len() as u64 <= again, "the others wait for the answer as well");
    // The one put last is the one that an answer is taken for.
    let call = listener.0.state().calls.pop().unwrap_or(call);
    envoy::answer(&listener.0, call.id, Some(200), &[], &[members(&[1, 2]).as_bytes()]);
    // Whichever worker a thread is with: it learns of them, and of what comes later.
    let all_see = |count: usize| {
        listener.tick_until("all workers know", |listener| {
            let seen = on_threads(12, || endpoints(listener));
            seen.iter().all(|seen| *seen == count).then_some(())
        });
    };
    all_see(2);
    // What Envoy's own policy does is asked for as well.
    let again = listener.tick_until("the list is asked for again", |listener| {
        let calls = &mut listener.0.state().calls;
        calls.retain(|call| call.header(":path").starts_with("/clusters"));
        calls.pop()
    });
    envoy::answer(&listener.0, again.id, Some(200), &[], &[members(&[1, 2, 3]).as_bytes()]);
    all_see(3);
    on_threads(12, || (0..5).for_each(|_| _ = listener.serve("200", &[])));
    let workers = listener.tick_until("all requests on one page", |listener| {
        let all = listener.of_endpoints("requests").iter().sum::<u64>();
        (all == 60).then(|| listener.status()["workers"].as_u64())
    });
    assert!(workers >= Some(2), "{workers:?}");
}

/// What this thread does on so many of their own.
fn on_threads<T: Send>(count: usize, act: impl Fn() -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|_| scope.spawn(&act)).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect()
    })
}

/// No header steers a probe where Envoy is told by a call.
#[test]
fn where_no_header_steers_nothing_is_probed() {
    let upstream = json!({ "health": { "probe": { "path": "/healthz", "interval": "100ms" } } });
    let listener = Listener::new("no probes", &json!({}), &upstream);
    assert_eq!(said("health.probe of \"web\""), 1, "{:?}", envoy::logged());
    for _ in 0..20 {
        listener.serve("500", &[]);
        listener.tick();
    }
    assert_eq!(listener.0.state().calls.len(), 0);
    // The worker that comes after a panic does as that before.
    listener.serve("500", &[("x-evenkeel-test-panic", "please")]);
    for _ in 0..20 {
        listener.serve("500", &[]);
        listener.tick();
    }
    assert_eq!((listener.0.state().calls.len(), said("health.probe of \"web\"")), (0, 2));
    let header = json!({ "steering": { "header": "x-evenkeel-endpoint" } });
    let listener = Listener::new("probes", &header, &upstream);
    listener.serve("500", &[]);
    let probe = listener.call();
    assert_eq!((probe.cluster.as_str(), probe.header(":path")), ("web", "/healthz"));
    assert!(probe.header("x-evenkeel-endpoint").starts_with("10.0.0."), "{probe:?}");
}
