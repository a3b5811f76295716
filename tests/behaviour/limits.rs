//! Bounds that nothing else reaches: what is kept, asked for, shown and said, however much there is of it.

use std::collections::BTreeSet;

use crate::discovery::{ADMIN, RANDOM, by_envoy, crew, plugin};
use crate::following::{STATUS, page};
use crate::scene::{Ending, address, begin, config, give, load, ms, pass, pass_with, respond, serve, single};
use crate::world::{Answer, Plugin, Stream, World};

/// Hedged attempts that all ended before anything said why.
fn attempts_without_an_explanation_are_kept_up_to_a_number<W: World>(mut world: W) {
    let upstream = r#""policy":"round_robin","health":{"max_ejected_percent":0}"#;
    let plugin = single(&mut world, &config(4, upstream, STATUS));
    let thread = world.thread_of(plugin);
    let upstream = world.follow(thread);
    let mut request = begin(&mut world, plugin);
    let mut hedged: Vec<W::Stream> = (0..40)
        .map(|_| {
            let mut attempt = world.attempt(upstream, &request, &address(0));
            attempt.request_headers();
            attempt
        })
        .collect();
    world.advance(ms(10));
    hedged.iter_mut().for_each(Stream::done);
    respond(&mut request, &Ending::local("504", "response_timeout"));
    request.log();
    request.done();
    pass(&mut world, &[plugin], ms(500));
    let shown = page(&mut world, plugin);
    let failures = shown["upstreams"][0]["endpoints"][0]["failures"].as_u64().expect("a number");
    assert_eq!(failures, 16, "{shown}");
}

/// Probes that no answer comes to.
fn probes_in_flight_are_bounded(mut world: impl World) {
    world.add_cluster("web");
    let probe = r#""slow_start":"0s","health":{"probe":{"path":"/healthz","interval":"1s"}}"#;
    let plugin = single(&mut world, &config(100, probe, ""));
    for _ in 0..20 {
        serve(&mut world, plugin, |_| Ending::good());
        pass(&mut world, &[plugin], ms(1000));
    }
    assert_eq!(world.calls().len(), 32);
}

/// Proxies that start together must not ask together for ever.
fn questions_to_envoy_are_not_in_step(mut world: impl World) {
    let crew = crew(&mut world, 1, &plugin(&by_envoy(), RANDOM));
    let all: Vec<Plugin> = [crew.main()].into_iter().chain(crew.iter().copied()).collect();
    let (mut last, mut pauses) = (world.now(), BTreeSet::new());
    for _ in 0..30 {
        serve(&mut world, crew[0], |_| Ending::good());
        pass_with(&mut world, &all, ms(1000), |world| {
            for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
                pauses.insert((world.now() - last) / 50_000_000);
                last = world.now();
                world.answer(&call, &Answer::Http(200, br#"{"cluster_statuses":[]}"#));
            }
        });
    }
    assert!(pauses.len() >= 3, "{pauses:?}");
}

/// A configuration with a cluster of this name and a signal.
fn named(cluster: &str, prometheus: &str) -> String {
    format!(
        r#"{{{STATUS},"prometheus":{{"cluster":"prometheus","interval":"1s","timeout":"1s"{prometheus}}},"upstreams":[{{
            "cluster":"{cluster}","endpoints":{{"static":["{}"]}},"signals":[{{"name":"queue","query":"queue"}}]}}]}}"#,
        address(0)
    )
}

fn an_error_is_shown_up_to_a_length(mut world: impl World) {
    world.add_cluster("prometheus");
    let cluster = "web".repeat(100);
    let plugin = single(&mut world, &named(&cluster, ""));
    let mut asked = 0;
    pass_with(&mut world, &[plugin], ms(3000), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(500, &[b'x'; 2000]));
            asked += 1;
        }
    });
    let shown = page(&mut world, plugin);
    let counted = ["polls", "failures"].map(|counted| shown["prometheus"][counted].as_u64());
    assert_eq!(counted, [Some(asked); 2]);
    let error = shown["prometheus"]["last_error"].as_str().expect("an error");
    assert_eq!(error.chars().count(), 300, "{error}");
    assert!(world.logs().iter().all(|line| line.len() < 1000), "{:?}", world.logs());
}

/// Else the next poll would find the last one without an answer.
fn a_poll_is_over_before_the_next_one(mut world: impl World) {
    world.add_cluster("prometheus");
    let plugin = single(&mut world, &named("web", ""));
    pass(&mut world, &[plugin], ms(1000));
    let calls = world.calls();
    assert!(!calls.is_empty());
    assert!(calls.iter().all(|call| call.timeout <= ms(900)), "{calls:?}");
}

/// It would be a header of its own, and the token would stand in the log.
fn a_variable_that_is_no_header_value_is_not_sent_and_not_shown(mut world: impl World) {
    world.add_cluster("prometheus");
    for value in ["s3cr3t\r\nx-other: 1", "s3cr3t\u{1}"] {
        world.set_environment("PROM_TOKEN", value);
        let thread = world.thread();
        let json = named("web", r#","headers":{"authorization":{"env":"PROM_TOKEN","prefix":"Bearer "}}"#);
        let plugin = load(&mut world, thread, &json);
        pass(&mut world, &[plugin], ms(3000));
        assert!(world.calls().is_empty(), "{value:?}: {:?}", world.calls());
        let shown = page(&mut world, plugin).to_string();
        assert!(!shown.contains("s3cr") && shown.contains("PROM_TOKEN"), "{shown}");
    }
    let logs = world.logs();
    assert!(logs.iter().all(|line| !line.contains("s3cr")), "{logs:?}");
    assert!(logs.iter().any(|line| line.contains("to be no header value (not shown)")), "{logs:?}");
}

/// The client would come back with the cookie of an endpoint that it never had.
fn a_request_that_is_rejected_gets_no_cookie(mut world: impl World) {
    let upstream = r#""policy":"consistent_hash","affinity":{"cookie":"seat"},
        "health":{"fail_after":1,"max_ejected_percent":100},"failover":{"panic_percent":0,"none_eligible":"reject"}"#;
    let plugin = single(&mut world, &config(1, upstream, ""));
    give(&mut world, plugin, &address(0), &Ending::local("504", "response_timeout"));
    let mut rejected = 0;
    for _ in 0..10 {
        let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/")]);
        stream.property(&["xds", "cluster_name"], b"web");
        if !stream.request_headers() {
            rejected += 1;
            stream.response_headers_of(&[(":status", b"503")], true);
            assert_eq!(stream.response_values("set-cookie"), Vec::<Vec<u8>>::new());
        }
        stream.log();
        stream.done();
    }
    assert!(rejected > 5, "{rejected}");
}

/// What answered may have any name: a path of the machine, say.
fn a_host_without_an_ip_address_is_not_named_to_clients(mut world: impl World) {
    let plugin =
        single(&mut world, &config(2, "", r#""debug":{"when":"always"},"log":{"sample_percent":100}"#));
    for host in ["/run/secret/socket", "a\"b, by=x", "\u{1b}[31m"] {
        let mut stream = begin(&mut world, plugin);
        respond(&mut stream, &Ending { served_by: Some(host.to_owned()), ..Ending::good() });
        let said = stream.response_values("x-evenkeel-decision");
        let said = String::from_utf8_lossy(said.first().expect("a header"));
        assert!(said.contains("endpoint=") && !said.contains("served="), "{said}");
        stream.log();
        stream.done();
    }
    assert!(world.logs().iter().all(|line| !line.contains("secret")), "{:?}", world.logs());
}

/// A few may be endpoints that have just left.
fn a_few_requests_that_went_elsewhere_are_no_hint(mut world: impl World) {
    let plugin = single(&mut world, &config(4, "", STATUS));
    for (requests, lines) in [(4, 0), (1, 1)] {
        for _ in 0..requests {
            serve(&mut world, plugin, |_| Ending {
                served_by: Some("203.0.113.9:1".into()),
                attempts: Some(1),
                ..Ending::good()
            });
        }
        pass(&mut world, &[plugin], ms(1000));
        let said =
            world.logs().iter().filter(|line| line.contains("another endpoint than the chosen one")).count();
        assert_eq!(said, lines, "{:?}", world.logs());
    }
}

/// Envoy's limit for all headers together is 60 KiB.
fn a_question_with_many_long_names_is_put_in_parts(mut world: impl World) {
    let names: Vec<String> = (0..60).map(|at| format!("outbound_{at}_{}", "x".repeat(400))).collect();
    let upstreams: Vec<String> = names
        .iter()
        .map(|name| format!(r#"{{"cluster":"{name}","policy":"random","endpoints":{{{}}}}}"#, by_envoy()))
        .collect();
    let crew = crew(&mut world, 1, &format!(r#"{{"upstreams":[{}]}}"#, upstreams.join(",")));
    let all: Vec<Plugin> = [crew.main()].into_iter().chain(crew.iter().copied()).collect();
    let mut asked = BTreeSet::new();
    for _ in 0..40 {
        serve(&mut world, crew[0], |_| Ending::good());
        pass_with(&mut world, &all, ms(250), |world| {
            for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
                assert!(call.path.len() <= 20 << 10, "{} bytes", call.path.len());
                asked.extend(names.iter().filter(|name| call.path.contains(*name)).cloned());
                world.answer(&call, &Answer::Http(200, br#"{"cluster_statuses":[]}"#));
            }
        });
    }
    assert_eq!(asked.len(), names.len(), "each in its turn");
}

fn an_error_of_envoy_is_shown_up_to_a_length(mut world: impl World) {
    world.add_cluster(ADMIN);
    let json = named(&"web".repeat(100), "").replace("\"static\":[", &format!("{},\"static\":[", by_envoy()));
    let plugin = single(&mut world, &json);
    pass_with(&mut world, &[plugin], ms(3000), |world| {
        let calls = world.calls().into_iter().filter(|call| call.cluster == ADMIN);
        calls.for_each(|call| world.answer(&call, &Answer::Http(500, &[b'x'; 2000])));
    });
    let shown = page(&mut world, plugin);
    let sources = shown["upstreams"][0]["discovery"].to_string();
    assert!(sources.contains("cluster=web") && !sources.contains("HTTP status"), "cut before it: {sources}");
}

/// The endpoint would get no probe any more.
fn a_probe_that_was_not_sent_is_sent_later(mut world: impl World) {
    let probe = r#""slow_start":"0s","health":{"probe":{"path":"/healthz","interval":"1s"}}"#;
    let plugin = single(&mut world, &config(30, probe, ""));
    for sent in [false, true] {
        for _ in 0..10 {
            serve(&mut world, plugin, |_| Ending::good());
            pass(&mut world, &[plugin], ms(1000));
        }
        assert_eq!(!world.calls().is_empty(), sent, "{:?}", world.calls());
        world.add_cluster("web");
    }
}

/// The client leaves a response that has begun well: that is as good as its end.
fn a_response_that_the_client_leaves_ends_a_run_of_failures(mut world: impl World) {
    let patient = r#""policy":"round_robin","health":{"suspect_after":3,"fail_after":3}"#;
    for (between, out) in [(None, true), (Some("downstream_remote_disconnect"), false)] {
        let plugin = single(&mut world, &config(4, patient, ""));
        let fail = |world: &mut _, times: usize| {
            (0..times).for_each(|_| give(world, plugin, &address(1), &Ending::status("500")));
        };
        fail(&mut world, 2);
        between.iter().for_each(|details| give(&mut world, plugin, &address(1), &Ending::grpc_cut(details)));
        fail(&mut world, 1);
        let picked = crate::scene::picks_of(&mut world, plugin, &address(1), 40);
        assert_eq!(picked == 0, out, "{between:?}: {picked}");
    }
}

/// The headers may be all of it, and then its end says nothing more.
fn a_response_that_ends_with_its_headers_does_not_break_off(mut world: impl World) {
    let patient = r#""policy":"round_robin","health":{"suspect_after":3,"fail_after":3}"#;
    for (complete, out) in [(false, true), (true, false)] {
        let plugin = single(&mut world, &config(4, patient, ""));
        for _ in 0..16 {
            let mut stream = begin(&mut world, plugin);
            let to = crate::scene::target(&stream);
            stream.property(&["upstream", "address"], to.as_bytes());
            stream.property(&["response", "code_details"], b"via_upstream");
            if to == address(1) {
                stream.response_headers_of(&[(":status", b"200")], complete);
                let details = b"upstream_reset_after_response_started{connection_termination}";
                stream.property(&["response", "code_details"], details);
            } else {
                stream.response_headers_of(&[(":status", b"200")], true);
            }
            stream.log();
            stream.done();
            world.advance(ms(20));
        }
        let picked = crate::scene::picks_of(&mut world, plugin, &address(1), 40);
        assert_eq!(picked == 0, out, "{complete}: {picked}");
    }
}

/// Each of several clusters.
fn decision_times_are_those_of_their_cluster(mut world: impl World) {
    let of =
        |name: &str, at| format!(r#"{{"cluster":"{name}","endpoints":{{"static":["{}"]}}}}"#, address(at));
    let plugin = single(&mut world, &format!(r#"{{"upstreams":[{},{}]}}"#, of("api", 7), of("web", 0)));
    (0..200).for_each(|_| _ = serve(&mut world, plugin, |_| Ending::good()));
    pass(&mut world, &[plugin], ms(500));
    let times =
        |name: &str| world.histogram(&format!("evenkeel.upstream=.={name};.;fleet_decision_nanoseconds"));
    assert_eq!((times("api").len(), times("web").len()), (0, 3));
}

both!(
    a_question_with_many_long_names_is_put_in_parts,
    an_error_of_envoy_is_shown_up_to_a_length,
    a_probe_that_was_not_sent_is_sent_later,
    a_response_that_the_client_leaves_ends_a_run_of_failures,
    a_response_that_ends_with_its_headers_does_not_break_off,
    decision_times_are_those_of_their_cluster,
    attempts_without_an_explanation_are_kept_up_to_a_number,
    probes_in_flight_are_bounded,
    questions_to_envoy_are_not_in_step,
    an_error_is_shown_up_to_a_length,
    a_poll_is_over_before_the_next_one,
    a_variable_that_is_no_header_value_is_not_sent_and_not_shown,
    a_request_that_is_rejected_gets_no_cookie,
    a_host_without_an_ip_address_is_not_named_to_clients,
    a_few_requests_that_went_elsewhere_are_no_hint,
);
