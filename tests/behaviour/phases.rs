//! With everything switched on, and for any end of a request: no host call outside its phase, and no trap.

use crate::lease::crew;
use crate::scene::{Ending, address, begin, config, load, ms, pass, picks, respond, single, target};
use crate::wasm::Wasm;
use crate::world::{Answer, Stream, World};

/// All settings that look at single requests.
const EVERYTHING: &str = r#""log":{"failures":true,"sample_percent":50},"debug":{"when":"always"},
    "attributes":["endpoint","reason","cost","decision"],"status":{"path":"/_evenkeel"}"#;
const UPSTREAM: &str = r#""policy":"consistent_hash","affinity":{"cookie":"session"}"#;

fn endings() -> Vec<Ending> {
    let mut endings: Vec<Ending> = ["0", "1", "2", "4", "8", "13", "14", "15", "16", "x", ""]
        .iter()
        .flat_map(|status| [Ending::grpc_trailers(status), Ending::grpc_headers(status)])
        .collect();
    endings.extend(["101", "200", "304", "404", "429", "500", "503", "xyz"].map(Ending::status));
    for details in [
        "response_timeout",
        "upstream_reset_before_response_started{connection_termination}",
        "upstream_reset_before_response_started{overflow}",
        "upstream_reset_after_response_started{connection_termination}",
        "ext_authz_denied",
        "no_healthy_upstream",
        "downstream_remote_disconnect",
    ] {
        endings.extend([Ending::local("503", details), Ending::cut(details), Ending::grpc_cut(details)]);
    }
    endings.push(Ending::cancelled());
    let mut elsewhere = Vec::new();
    for ending in &endings {
        for served_by in [String::new(), address(1), "203.0.113.9:1".to_owned(), "/run/socket".to_owned()] {
            for attempts in [None, Some(1), Some(3)] {
                elsewhere.push(Ending { served_by: Some(served_by.clone()), attempts, ..ending.clone() });
            }
        }
    }
    endings.extend(elsewhere);
    endings
}

fn every_ending_with_everything_on<W: World>(_: W) {
    for mode in [r#""mode":"enforce""#, r#""mode":"observe""#] {
        for followed in [false, true] {
            let mut world = W::new(5);
            let plugin = single(&mut world, &config(3, UPSTREAM, &format!("{mode},{EVERYTHING}")));
            let thread = world.thread_of(plugin);
            let upstream = followed.then(|| world.follow(thread));
            for ending in endings() {
                let mut request = begin(&mut world, plugin);
                let to = target(&request);
                let mut attempt = upstream.map(|upstream| world.attempt(upstream, &request, &to));
                attempt.iter_mut().for_each(|attempt| _ = attempt.request_headers());
                world.advance(ms(10));
                if let Some(attempt) = &mut attempt {
                    respond(attempt, &ending);
                    attempt.done();
                }
                respond(&mut request, &ending);
                request.log();
                request.done();
            }
            pass(&mut world, &[plugin], ms(500));
            let serves = (0..50).any(|_| {
                let mut request = begin(&mut world, plugin);
                let named = !target(&request).is_empty();
                respond(&mut request, &Ending::good());
                request.log();
                request.done();
                named || mode.contains("observe")
            });
            assert!(serves, "{mode}, followed: {followed}");
        }
    }
}

/// The status is in the headers; the failure comes with the trailers.
fn a_call_that_fails_in_its_trailers_is_logged(mut world: impl World) {
    let plugin = single(&mut world, &config(3, "", r#""log":{"failures":true,"format":"json"}"#));
    for status in ["14", "2", "4", "8", "13", "15"] {
        let mut request = begin(&mut world, plugin);
        respond(&mut request, &Ending::grpc_trailers(status));
        request.log();
        request.done();
    }
    let logs = world.logs();
    let lines: Vec<&String> = logs.iter().filter(|line| line.contains("\"event\":\"decision\"")).collect();
    assert_eq!(lines.len(), 6, "{logs:?}");
    assert!(lines.iter().all(|line| line.contains("\"status\":200")), "{lines:?}");
    // In the headers and in the trailers: one request.
    let mut twice = Ending::grpc_headers("14");
    twice.trailers = Ending::grpc_trailers("14").trailers;
    let mut request = begin(&mut world, plugin);
    respond(&mut request, &twice);
    request.log();
    request.done();
    let lines = world.logs().iter().filter(|line| line.contains("\"event\":\"decision\"")).count();
    assert_eq!(lines, 7, "{:?}", world.logs());
}

both!(every_ending_with_everything_on, a_call_that_fails_in_its_trailers_is_logged);

/// Prometheus behind a cluster with the upstream filter: Envoy runs it before the call has returned.
#[test]
fn a_poll_may_run_upstream_filters_in_the_middle_of_a_tick() {
    let mut world = Wasm::new(3);
    let [plugin] = crew(&mut world, 1, "")[..] else { panic!("one worker") };
    let thread = world.thread_of(plugin);
    let upstream = world.follow(thread);
    let (vm, root) = world.vm(upstream);
    vm.filter_upstream(root, "prometheus");
    let mut answered = 0;
    for _ in 0..100 {
        pass(&mut world, &[plugin], ms(50));
        for call in world.calls() {
            world.answer(&call, &Answer::Http(200, b"{}"));
            answered += 1;
        }
        let mut request = begin(&mut world, plugin);
        assert!(!target(&request).is_empty());
        respond(&mut request, &Ending::good());
        request.log();
        request.done();
    }
    assert!(answered >= 3, "{answered}");
}

/// Envoy would never return from the second of two calls, if the first cluster takes none and the second has upstream filters.
#[test]
fn what_is_asked_beside_a_cluster_that_takes_no_request_is_asked_later() {
    let admin = r#""endpoints":{"envoy_admin":{"cluster":"admin","interval":"1s"},"#;
    let prometheus = r#""prometheus":{"cluster":"prometheus","interval":"1s"}"#;
    let upstream = r#""signals":[{"name":"queue","query":"queue"}]"#;
    let json = config(3, upstream, prometheus).replace(r#""endpoints":{"#, admin);
    for (blocked, filtered) in [("prometheus", "admin"), ("admin", "prometheus")] {
        let mut world = Wasm::new(3);
        [blocked, filtered].iter().for_each(|cluster| world.add_cluster(cluster));
        let thread = world.thread();
        let follower = world.follow(thread);
        let (vm, root) = world.vm(follower);
        vm.filter_upstream(root, filtered);
        world.process.block_cluster(blocked);
        let plugin = load(&mut world, thread, &json);
        let mut asked = 0;
        for _ in 0..200 {
            pass(&mut world, &[plugin], ms(50));
            picks(&mut world, plugin, 1);
            for call in world.calls() {
                asked += usize::from(call.cluster == filtered);
                world.answer(&call, &Answer::Http(200, b"{}"));
            }
        }
        assert!(asked >= 2, "{filtered}: {asked}");
    }
}

/// Contexts that never existed, are gone or are of another kind, and responses to calls that were never sent.
#[test]
fn callbacks_for_contexts_that_there_are_not_pass() {
    let mut world = Wasm::new(3);
    let plugin = single(&mut world, &config(3, "", EVERYTHING));
    let mut stream = begin(&mut world, plugin);
    let (vm, _) = world.vm(plugin);
    // 1 is the root, 2 the stream, the others are unknown.
    for context in [1, 2, 3, 0, 99, u32::MAX] {
        vm.callback("proxy_on_http_call_response", &[context, 7, 0, 10, 0]);
        vm.callback("proxy_on_configure", &[context.max(2), 10]);
        if context != 2 {
            for headers in ["proxy_on_request_headers", "proxy_on_response_headers"] {
                assert_eq!(vm.callback(headers, &[context, 1, 1]), Some(0), "{headers} of {context}");
            }
            for body in ["proxy_on_request_body", "proxy_on_response_body"] {
                assert_eq!(vm.callback(body, &[context, 1, 1]), Some(0), "{body} of {context}");
            }
            assert_eq!(vm.callback("proxy_on_response_trailers", &[context, 1]), Some(0));
        }
        if context > 2 {
            vm.callback("proxy_on_tick", &[context]);
            vm.callback("proxy_on_delete", &[context]);
            vm.callback("proxy_on_context_create", &[context, 98]);
        }
    }
    respond(&mut stream, &Ending::good());
    Stream::log(&mut stream);
    Stream::done(&mut stream);
    assert!(!target(&begin(&mut world, plugin)).is_empty());
}
