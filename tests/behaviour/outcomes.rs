//! Which ends of requests count against an endpoint, and with what effect.

use crate::scene::{
    Ending, address, begin, config, give, ms, pass, picks, picks_of, respond, serve, single, target, wait,
};
use crate::world::{Plugin, Stream, World};

/// Only eligibility decides which endpoint is picked, and a single failure changes nothing.
const PATIENT: &str = r#""policy":"round_robin","health":{"suspect_after":3,"fail_after":3}"#;

const RESET: &str = "upstream_reset_before_response_started{connection_termination}";
const BROKEN: &str = "upstream_reset_after_response_started{connection_termination}";
const REFUSED: &str =
    "upstream_reset_before_response_started{remote_connection_failure,delayed_connect_error:_111}";

/// ext_proc puts the error of its own call into the details.
const EXT_PROC: &str = "ext_proc_error_gRPC_error_14{upstream_connect_error_or_disconnect/reset_before_headers._reset_reason:_remote_connection_failure,_transport_failure_reason:_delayed_connect_error:_Connection_refused}";

fn fails<W: World>(world: &mut W, plugin: Plugin, endpoint: &str, ending: &Ending, times: usize) {
    (0..times).for_each(|_| give(world, plugin, endpoint, ending));
}

fn three_failures_in_a_row_take_an_endpoint_out(mut world: impl World) {
    for ending in [
        Ending::status("500"),
        Ending::status("503"),
        Ending::status("599"),
        Ending::local("503", RESET),
        Ending::local("503", "upstream_reset_before_response_started{remote_reset}"),
        Ending::grpc_headers("14"),
        Ending::grpc_headers("2"),
        Ending::grpc_trailers("14"),
        Ending::grpc_trailers("13"),
        Ending::cut(BROKEN),
        Ending::grpc_cut(BROKEN),
    ] {
        let plugin = single(&mut world, &config(4, PATIENT, ""));
        let failing = address(1);
        fails(&mut world, plugin, &failing, &ending, 2);
        give(&mut world, plugin, &failing, &Ending::good());
        fails(&mut world, plugin, &failing, &ending, 2);
        assert_eq!(picks_of(&mut world, plugin, &failing, 3), 0, "another's turn");
        fails(&mut world, plugin, &failing, &ending, 1);
        let counts = picks(&mut world, plugin, 60);
        assert_eq!((counts.len(), counts.get(&failing)), (3, None), "{ending:?}: {counts:?}");
    }
}

fn a_time_out_or_a_refused_connection_takes_no_more_than_three(mut world: impl World) {
    for ending in [
        Ending::local("504", "response_timeout"),
        Ending::local("504", "upstream_per_try_timeout"),
        Ending::local("503", REFUSED),
        Ending::local("503", "upstream_reset_before_response_started{connection_timeout}"),
    ] {
        let plugin = single(&mut world, &config(4, PATIENT, ""));
        let failing = address(3);
        let mut taken = 0;
        for _ in 0..40 {
            let got =
                serve(&mut world, plugin, |to| if to == failing { ending.clone() } else { Ending::good() });
            taken += usize::from(got == failing);
        }
        assert!((1..=3).contains(&taken), "{ending:?}: {taken}");
    }
}

fn one_failure_makes_suspect_by_default(mut world: impl World) {
    let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
    give(&mut world, plugin, &address(0), &Ending::status("500"));
    assert_eq!(picks_of(&mut world, plugin, &address(0), 40), 0);
    // A single request verifies it, and succeeds.
    pass(&mut world, &[plugin], ms(20_000));
    assert!(picks_of(&mut world, plugin, &address(0), 40) > 0);
}

fn failures_of_others_eject_no_endpoint(mut world: impl World) {
    for ending in [
        Ending::status("429"),
        Ending::status("404"),
        Ending::status("400"),
        Ending::status("301"),
        Ending::local("503", "no_healthy_upstream"),
        Ending::local("503", "upstream_reset_before_response_started{overflow}"),
        Ending::local("503", "cluster_not_found"),
        Ending::local("500", "direct_response"),
        Ending::local("503", ""),
        Ending::local("503", "ext_authz_error"),
        Ending::grpc_headers("5"),
        Ending::grpc_headers("8"),
        Ending::grpc_trailers("0"),
        Ending::grpc_trailers("7"),
        Ending::grpc_trailers("8"),
        Ending::cancelled(),
        Ending::cut("downstream_remote_disconnect"),
        Ending::grpc_cut("downstream_remote_disconnect"),
        Ending::cut("upstream_max_stream_duration_reached"),
        // What ends is no response, but another protocol.
        Ending { headers: Ending::status("101").headers, ..Ending::cut(BROKEN) },
        // Envoy's own answers to gRPC calls are 200 with a status that blames the server.
        Ending { details: Some("no_healthy_upstream"), ..Ending::grpc_headers("14") },
        Ending { details: Some("ext_authz_error"), ..Ending::grpc_headers("13") },
        // The server of that filter is away, not an endpoint.
        Ending { served_by: Some(String::new()), ..Ending::local("500", EXT_PROC) },
        Ending { served_by: Some(String::new()), details: Some(EXT_PROC), ..Ending::grpc_headers("2") },
        Ending { served_by: Some("203.0.113.9:1".into()), ..Ending::status("503") },
    ] {
        let plugin = single(&mut world, &config(4, PATIENT, ""));
        fails(&mut world, plugin, &address(2), &ending, 12);
        let counts = picks(&mut world, plugin, 40);
        assert_eq!(counts.get(&address(2)), Some(&10), "{ending:?}: {counts:?}");
    }
}

/// `local_reply_config` gives Envoy's answers for a dead endpoint a status that looks well.
fn a_local_reply_under_another_status_is_a_failure_all_the_same(mut world: impl World) {
    for ending in [
        Ending::local("200", REFUSED),
        Ending::local("404", RESET),
        Ending::local("302", "response_timeout"),
        Ending::local("200", "upstream_per_try_timeout"),
    ] {
        let plugin = single(&mut world, &config(4, PATIENT, ""));
        let dead = address(2);
        let mut given = 0;
        // One in sixteen answers is looked at until one is found.
        for _ in 0..400 {
            let to = serve(&mut world, plugin, |to| if to == dead { ending.clone() } else { Ending::good() });
            given += usize::from(to == dead);
        }
        assert!(given <= 40, "{ending:?}: {given} of 400");
        // Then each, so that trying it again finds it dead.
        for _ in 0..200 {
            pass(&mut world, &[plugin], ms(500));
            let to = serve(&mut world, plugin, |to| if to == dead { ending.clone() } else { Ending::good() });
            given += usize::from(to == dead);
        }
        assert!(given <= 60, "{ending:?}: {given} of 600");
    }
    for harmless in [
        Ending::local("200", "direct_response"),
        Ending::local("404", "no_healthy_upstream"),
        Ending { served_by: Some(String::new()), ..Ending::local("200", "cache.response_from_cache_filter") },
    ] {
        let plugin = single(&mut world, &config(4, PATIENT, ""));
        fails(&mut world, plugin, &address(2), &harmless, 40);
        assert_eq!(picks_of(&mut world, plugin, &address(2), 40), 10, "{harmless:?}");
    }
}

/// A route without a time-out: the stream's idle time-out ends what a hung endpoint leaves unanswered. Envoy says 408 if
/// it was waiting for the client.
fn an_idle_time_out_blames_an_endpoint_that_was_silent(mut world: impl World) {
    let grpc = |status| Ending { details: Some("stream_idle_timeout"), ..Ending::grpc_headers(status) };
    for (ending, out) in [
        (Ending::local("504", "stream_idle_timeout"), true),
        (grpc("14"), true),
        (Ending::local("408", "stream_idle_timeout"), false),
        (grpc("2"), false),
    ] {
        let plugin = single(&mut world, &config(4, PATIENT, ""));
        (0..40).for_each(|_| _ = serve(&mut world, plugin, |_| Ending::good()));
        let hung = address(1);
        for _ in 0..12 {
            let mut stream = begin(&mut world, plugin);
            let to = target(&stream);
            wait(&mut world, plugin, ms(if to == hung { 3_000 } else { 10 }));
            let good = Ending::good();
            respond(&mut stream, if to == hung { &ending } else { &good });
            stream.log();
            stream.done();
        }
        assert_eq!(picks(&mut world, plugin, 20).contains_key(&hung), !out, "{ending:?}");
    }
}

/// With `cluster_header` an endpoint without a cluster of its own, or with a dead one, cannot be reached.
fn an_endpoint_whose_own_cluster_is_not_there_is_left(mut world: impl World) {
    for details in ["cluster_not_found", "no_healthy_upstream"] {
        let ending = Ending { served_by: Some(String::new()), ..Ending::local("503", details) };
        for (via, out) in [("cluster_header", true), ("override_host", false)] {
            let steering = format!(r#""steering":{{"via":"{via}"}}"#);
            let plugin = single(&mut world, &config(4, PATIENT, &steering));
            fails(&mut world, plugin, &address(1), &ending, if out { 2 } else { 12 });
            assert_eq!(picks(&mut world, plugin, 40).contains_key(&address(1)), !out, "{via}: {details}");
        }
    }
}

/// A rate limiter before the endpoint rejects the request: that does not raise the endpoint's cost either.
fn status_429_of_another_filter_does_not_count(mut world: impl World) {
    let by_errors = r#""policy":"adaptive""#;
    for (ending, dearer) in [
        (Ending::status("429"), true),
        (Ending::local("429", "local_rate_limited"), false),
        (Ending { details: Some("rate_limited"), ..Ending::grpc_headers("8") }, false),
    ] {
        let plugin = single(&mut world, &config(2, by_errors, ""));
        for _ in 0..100 {
            serve(&mut world, plugin, |to| if to == address(0) { ending.clone() } else { Ending::good() });
            pass(&mut world, &[plugin], ms(50));
        }
        let count = picks_of(&mut world, plugin, &address(0), 100);
        assert_eq!(count < 20, dearer, "{ending:?}: {count}");
    }
}

fn a_grpc_stream_that_fails_in_headers_and_trailers_has_failed_once(mut world: impl World) {
    let plugin = single(&mut world, &config(4, PATIENT, ""));
    let twice =
        Ending { trailers: Some(vec![("grpc-status", b"14".to_vec())]), ..Ending::grpc_headers("14") };
    fails(&mut world, plugin, &address(2), &twice, 2);
    assert_eq!(picks_of(&mut world, plugin, &address(2), 40), 10, "the headers have said it");
}

fn outcome_counts_for_the_endpoint_that_served(mut world: impl World) {
    let plugin = single(&mut world, &config(4, PATIENT, ""));
    // Envoy ignored the endpoint in the header.
    let elsewhere = Ending { served_by: Some(address(3)), ..Ending::status("500") };
    for _ in 0..3 {
        serve(
            &mut world,
            plugin,
            |to| if to == address(3) { Ending::status("500") } else { elsewhere.clone() },
        );
    }
    let counts = picks(&mut world, plugin, 30);
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert!(!counts.contains_key(&address(3)));
}

/// Answered by another endpoint at the second attempt, with this end.
fn retried(last: Ending) -> Ending {
    Ending { served_by: Some(address(3)), attempts: Some(2), ..last }
}

fn retries_that_went_well_blame_an_endpoint_that_answers_nothing(mut world: impl World) {
    let plugin = single(&mut world, &config(4, PATIENT, ""));
    fails(&mut world, plugin, &address(0), &retried(Ending::good()), 11);
    assert!(picks_of(&mut world, plugin, &address(0), 8) > 0);
    let plugin = single(&mut world, &config(4, PATIENT, ""));
    fails(&mut world, plugin, &address(0), &retried(Ending::good()), 12);
    let counts = picks(&mut world, plugin, 30);
    assert_eq!((counts.len(), counts.get(&address(0))), (3, None), "{counts:?}");
}

fn retries_eject_no_endpoint_that_answers_well_in_between(mut world: impl World) {
    // With the default, where a single failure makes an endpoint suspect: it sheds half to three quarters of its
    // requests.
    for shed in 1..=3 {
        let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
        for _ in 0..20 {
            fails(&mut world, plugin, &address(0), &retried(Ending::good()), shed);
            give(&mut world, plugin, &address(0), &Ending::good());
        }
        assert_eq!(picks_of(&mut world, plugin, &address(0), 40), 10, "{shed}");
    }
}

/// Sends good requests until `endpoint` has one, which takes this long and is then answered elsewhere.
fn retried_after<W: World>(world: &mut W, plugin: Plugin, endpoint: &str, takes_ms: u64) {
    for _ in 0..1000 {
        let mut stream = begin(world, plugin);
        let found = target(&stream) == endpoint;
        wait(world, plugin, ms(if found { takes_ms } else { 10 }));
        respond(&mut stream, &if found { retried(Ending::good()) } else { Ending::good() });
        stream.log();
        stream.done();
        if found {
            return;
        }
    }
    panic!("{endpoint} is not given a request");
}

fn a_time_out_that_a_retry_hides_is_known_by_its_length<W: World>(_: W) {
    // Every so many requests one takes three seconds; a retry after two seconds is then nothing unusual.
    for (every, takes_ms, blamed) in [(1000, 2000, true), (1000, 15, false), (20, 2000, false)] {
        let mut world = W::new(4);
        let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
        for nth in 1..=400 {
            let mut stream = begin(&mut world, plugin);
            wait(&mut world, plugin, ms(if nth % every == 0 { 3000 } else { 10 }));
            respond(&mut stream, &Ending::good());
            stream.log();
            stream.done();
        }
        pass(&mut world, &[plugin], ms(500));
        retried_after(&mut world, plugin, &address(0), takes_ms);
        let expected = if blamed { 0 } else { 10 };
        assert_eq!(picks_of(&mut world, plugin, &address(0), 40), expected, "{every}, {takes_ms}");
    }
}

fn the_last_answer_tells_why_a_request_was_tried_again<W: World>(_: W) {
    for shed in [Ending::status("429"), Ending::status("409"), Ending::grpc_headers("8")] {
        let mut world = W::new(4);
        let plugin = single(&mut world, &config(4, PATIENT, ""));
        fails(&mut world, plugin, &address(0), &retried(shed.clone()), 40);
        assert_eq!(picks(&mut world, plugin, 40).len(), 4, "{shed:?}");
    }
    for failed in [Ending::status("503"), Ending::grpc_headers("14")] {
        let mut world = W::new(8);
        let plugin = single(&mut world, &config(8, PATIENT, ""));
        // Each time another endpoint had the last attempt, and failed, too.
        for last in [3, 4, 5] {
            let last = Ending { served_by: Some(address(last)), ..retried(failed.clone()) };
            fails(&mut world, plugin, &address(0), &last, 1);
        }
        (0..30).for_each(|_| _ = serve(&mut world, plugin, |_| Ending::good()));
        assert_eq!(picks_of(&mut world, plugin, &address(0), 40), 0, "{failed:?}");
    }
}

fn retry_for_an_unseen_reason_blames_no_endpoint_if_configured(mut world: impl World) {
    let health =
        r#""policy":"round_robin","health":{"suspect_after":3,"fail_after":3,"blame_retried":false}"#;
    let plugin = single(&mut world, &config(4, health, ""));
    let retried = Ending { served_by: Some(address(3)), attempts: Some(2), ..Ending::good() };
    fails(&mut world, plugin, &address(0), &retried, 12);
    assert_eq!(picks(&mut world, plugin, 40).len(), 4);
}

fn an_answer_from_outside_the_fleet_changes_nothing(mut world: impl World) {
    let plugin = single(&mut world, &config(4, PATIENT, ""));
    for stranger in ["203.0.113.9:1", "not an address", "10.0.0.1"] {
        let ending = Ending { served_by: Some(stranger.into()), ..Ending::good() };
        (0..8).for_each(|_| _ = serve(&mut world, plugin, |_| ending.clone()));
    }
    assert_eq!(picks(&mut world, plugin, 40).len(), 4);
}

fn an_ejected_endpoint_comes_back_by_good_probes(mut world: impl World) {
    let health = r#""policy":"round_robin","health":{"ejection":"6s"}"#;
    let plugin = single(&mut world, &config(4, health, ""));
    give(&mut world, plugin, &address(1), &Ending::local("503", REFUSED));
    let mut waited = 0;
    let mut refused = 0;
    // It keeps refusing for 20 s, and is healthy from then on.
    while waited < 600 {
        pass(&mut world, &[plugin], ms(200));
        let failing = waited < 100;
        let got = serve(&mut world, plugin, |to| match to == address(1) && failing {
            true => Ending::local("503", REFUSED),
            false => Ending::good(),
        });
        refused += usize::from(failing && got == address(1));
        waited += 1;
        if !failing && picks_of(&mut world, plugin, &address(1), 4) > 0 {
            break;
        }
    }
    assert!(waited < 300, "back within a minute, not after {waited} steps");
    assert!((1..=20).contains(&refused), "probed, but sparingly: {refused}");
    pass(&mut world, &[plugin], ms(1000));
    (0..20).for_each(|_| _ = serve(&mut world, plugin, |_| Ending::good()));
    pass(&mut world, &[plugin], ms(1000));
    assert!(picks_of(&mut world, plugin, &address(1), 40) >= 8);
}

fn common_fault_ejects_no_endpoint(mut world: impl World) {
    let plugin = single(&mut world, &config(6, "", ""));
    let mut failed = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..600 {
        *failed.entry(serve(&mut world, plugin, |_| Ending::status("500"))).or_default() += 1;
        pass(&mut world, &[plugin], ms(50));
    }
    // Thirty seconds of failures only: every endpoint still gets a fair share of the requests.
    assert!(failed.len() == 6 && failed.values().all(|count| *count >= 30), "{failed:?}");
}

both!(
    a_local_reply_under_another_status_is_a_failure_all_the_same,
    an_idle_time_out_blames_an_endpoint_that_was_silent,
    an_endpoint_whose_own_cluster_is_not_there_is_left,
    retry_for_an_unseen_reason_blames_no_endpoint_if_configured,
    three_failures_in_a_row_take_an_endpoint_out,
    a_time_out_or_a_refused_connection_takes_no_more_than_three,
    one_failure_makes_suspect_by_default,
    failures_of_others_eject_no_endpoint,
    status_429_of_another_filter_does_not_count,
    a_grpc_stream_that_fails_in_headers_and_trailers_has_failed_once,
    outcome_counts_for_the_endpoint_that_served,
    retries_that_went_well_blame_an_endpoint_that_answers_nothing,
    retries_eject_no_endpoint_that_answers_well_in_between,
    a_time_out_that_a_retry_hides_is_known_by_its_length,
    the_last_answer_tells_why_a_request_was_tried_again,
    an_answer_from_outside_the_fleet_changes_nothing,
    an_ejected_endpoint_comes_back_by_good_probes,
    common_fault_ejects_no_endpoint,
);
