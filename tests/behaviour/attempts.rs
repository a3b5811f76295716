//! With the filter also among upstream filters: every attempt counts for the endpoint that it went to, exactly once.

use std::collections::BTreeMap;

use crate::scene::{Ending, address, begin, config, ms, pass, picks, respond, single, target};
use crate::world::{Plugin, Stream, World};

/// Only eligibility decides which endpoint is picked, and two failures change nothing.
const PATIENT: &str = r#""policy":"round_robin","health":{"suspect_after":3,"fail_after":3}"#;

/// A thread with the filter in both places: the plugin that steers, and the one that follows attempts.
fn both_places<W: World>(world: &mut W, json: &str) -> (Plugin, Plugin) {
    let plugin = single(world, json);
    let thread = world.thread_of(plugin);
    (plugin, world.follow(thread))
}

/// The end of an attempt.
#[derive(Clone, Copy, Debug)]
enum Try {
    Good,
    Status(&'static str),
    /// Headers with this status, and nothing after them.
    Refusal(&'static str),
    /// A 404 without a body that is passed on.
    Final,
    /// The connection breaks, or the per-try timeout passes: there is no response and no reason.
    Silent,
    Refused,
    /// Headers, a part of the body, then nothing.
    Broken,
    /// A gRPC response with this status in its trailers.
    Grpc(&'static str),
}

/// A whole attempt of 10 ms.
fn attempt<W: World>(world: &mut W, upstream: Plugin, request: &W::Stream, to: &str, how: Try) {
    let mut attempt = world.attempt(upstream, request, to);
    attempt.request_headers();
    world.advance(ms(10));
    match how {
        Try::Good => {
            attempt.response_headers(&[(":status", b"200")]);
            attempt.response_body(true);
        }
        Try::Status(status) => attempt.response_headers(&[(":status", status.as_bytes())]),
        Try::Refusal(status) => attempt.response_headers_of(&[(":status", status.as_bytes())], true),
        Try::Final => attempt.response_headers_of(&[(":status", b"404")], true),
        Try::Silent => {}
        Try::Grpc(status) => {
            attempt.response_headers(&[(":status", b"200"), ("content-type", b"application/grpc")]);
            attempt.response_trailers(&[("grpc-status", status.as_bytes())]);
        }
        Try::Refused => {
            attempt.property(
                &["upstream", "transport_failure_reason"],
                b"delayed connect error: Connection refused",
            );
        }
        Try::Broken => {
            attempt.response_headers(&[(":status", b"200")]);
            attempt.response_body(false);
        }
    }
    attempt.done();
}

/// A request whose attempts go to these endpoints and end like this, and which ends for the client with `ending`.
fn tried<W: World>(
    world: &mut W,
    (plugin, upstream): (Plugin, Plugin),
    tries: &[(&str, Try)],
    ending: &Ending,
) {
    let mut request = begin(world, plugin);
    for (to, how) in tries {
        attempt(world, upstream, &request, to, *how);
    }
    let served_by = tries.last().map(|(to, _)| (*to).to_owned()).unwrap_or_default();
    let attempts = Some(tries.len() as u64);
    respond(&mut request, &Ending { served_by: Some(served_by), attempts, ..ending.clone() });
    request.log();
    request.done();
}

/// The endpoints that are ejected after `times` such requests.
fn out_after<W: World>(times: usize, tries: &[(&str, Try)], ending: &Ending) -> Vec<String> {
    let mut world = W::new(5);
    let places = both_places(&mut world, &config(4, PATIENT, ""));
    for _ in 0..times {
        tried(&mut world, places, tries, ending);
        world.advance(ms(20));
    }
    let serving = picks(&mut world, places.0, 40);
    (0..4).map(address).filter(|endpoint| !serving.contains_key(endpoint)).collect()
}

const RESET: &str = "upstream_reset_before_response_started{connection_termination}";
const BROKEN: &str = "upstream_reset_after_response_started{connection_termination}";

fn failed_attempts_are_blamed_and_the_retry_is_not<W: World>(_: W) {
    let (a, b, c) = (&*address(0), &*address(1), &*address(2));
    let good = Ending::good();
    for how in [Try::Silent, Try::Refused, Try::Status("503")] {
        assert_eq!(out_after::<W>(3, &[(a, how), (b, Try::Good)], &good), [a], "{how:?}");
        // Both of two that failed, which the last response alone could not show.
        assert_eq!(out_after::<W>(3, &[(a, how), (b, how), (c, Try::Good)], &good), [a, b], "{how:?}");
    }
}

fn a_status_in_the_trailers_of_an_attempt_counts<W: World>(_: W) {
    let a = &*address(0);
    let out = |status| out_after::<W>(3, &[(a, Try::Grpc(status))], &Ending::grpc_trailers(status));
    assert_eq!(out("14"), [a]);
    assert!(out("0").is_empty());
}

/// Envoy retries because of a response that is no failure: an endpoint that sheds load is not ejected for that.
fn an_answer_that_is_tried_again_is_no_reset<W: World>(_: W) {
    let (a, b) = (&*address(0), &*address(1));
    for how in ["429", "409", "404", "200"] {
        let tries = [(a, Try::Status(how)), (b, Try::Good)];
        assert!(out_after::<W>(12, &tries, &Ending::good()).is_empty(), "{how}");
    }
    let tries = [(a, Try::Status("503")), (b, Try::Good)];
    assert_eq!(out_after::<W>(3, &tries, &Ending::good()), [a]);
}

/// An endpoint whose answers Envoy always tries again elsewhere gets less, whether they have a body or not. The client's
/// own 404, which no route retries, costs no share.
fn what_is_shed_by_an_answer_that_is_tried_again_costs_a_share<W: World>(_: W) {
    let (a, b) = (&*address(0), &*address(1));
    let by_errors = r#""health":{"suspect_after":1000,"fail_after":1000}"#;
    let share = |how: &[Try]| {
        let mut world = W::new(5);
        let places = both_places(&mut world, &config(4, by_errors, ""));
        let mut turns = how.iter().copied().cycle();
        let mut given = 0;
        for _ in 0..400 {
            let mut request = begin(&mut world, places.0);
            let to = target(&request);
            given += usize::from(to == a);
            let last = match turns.next() {
                Some(how) if to == a => {
                    attempt(&mut world, places.1, &request, a, how);
                    if matches!(how, Try::Final) { a } else { b }
                }
                _ => &*to,
            };
            if last != a {
                attempt(&mut world, places.1, &request, last, Try::Good);
            }
            respond(&mut request, &Ending { served_by: Some(last.to_owned()), ..Ending::good() });
            request.log();
            request.done();
            pass(&mut world, &[places.0], ms(50));
        }
        given
    };
    for shed in [Try::Status("409"), Try::Status("425"), Try::Refusal("409"), Try::Refusal("403")] {
        let given = share(&[shed]);
        assert!(given < 60, "{shed:?}: {given} of 400");
    }
    let given = share(&[Try::Final]);
    assert!((70..=140).contains(&given), "{given} of 400");
}

fn every_attempt_counts_once<W: World>(_: W) {
    let a = &*address(0);
    let failed = Ending::status("503");
    assert!(out_after::<W>(2, &[(a, Try::Status("503"))], &failed).is_empty(), "two are not three");
    assert_eq!(out_after::<W>(3, &[(a, Try::Status("503"))], &failed), [a]);
    // Attempted twice, failed twice.
    assert_eq!(out_after::<W>(2, &[(a, Try::Status("503")), (a, Try::Status("503"))], &failed), [a]);
    let reset = Ending::local("503", RESET);
    assert!(out_after::<W>(2, &[(a, Try::Silent)], &reset).is_empty());
    assert_eq!(out_after::<W>(3, &[(a, Try::Silent)], &reset), [a]);
}

fn what_envoy_knows_explains_an_attempt_that_ended_without_a_word<W: World>(_: W) {
    let a = &*address(0);
    for (ending, out) in [
        (Ending::local("504", "response_timeout"), true),
        (Ending::local("504", "upstream_per_try_timeout"), true),
        (Ending::local("503", RESET), true),
        (Ending::cancelled(), false),
        (Ending::local("503", "upstream_reset_before_response_started{overflow}"), false),
    ] {
        assert_eq!(
            out_after::<W>(3, &[(a, Try::Silent)], &ending),
            if out { vec![a] } else { vec![] },
            "{ending:?}"
        );
    }
    // A timeout counts twice.
    assert_eq!(out_after::<W>(2, &[(a, Try::Silent)], &Ending::local("504", "response_timeout")), [a]);
    assert_eq!(out_after::<W>(3, &[(a, Try::Broken)], &Ending::cut(BROKEN)), [a]);
    assert!(out_after::<W>(3, &[(a, Try::Broken)], &Ending::cut("downstream_remote_disconnect")).is_empty());
}

/// If the client cancels, Envoy ends the request before the attempt; what it reports then counts, too.
fn the_order_of_their_ends_does_not_matter<W: World>(_: W) {
    for (details, out) in [(BROKEN, 1), ("downstream_remote_disconnect", 0)] {
        let mut world = W::new(5);
        let (plugin, upstream) = both_places(&mut world, &config(4, PATIENT, ""));
        for _ in 0..3 {
            let mut request = begin(&mut world, plugin);
            let mut attempt = world.attempt(upstream, &request, &address(0));
            attempt.request_headers();
            world.advance(ms(10));
            attempt.response_headers(&[(":status", b"200")]);
            request.property(&["upstream", "address"], address(0).as_bytes());
            request.response_headers(&[(":status", b"200")]);
            request.property(&["response", "code_details"], details.as_bytes());
            request.log();
            request.done();
            attempt.done();
        }
        assert_eq!(picks(&mut world, plugin, 40).len(), 4 - out, "{details}");
    }
}

/// The loser of a hedged pair is cancelled by Envoy once the other has answered.
fn the_loser_of_a_race_is_not_blamed<W: World>(_: W) {
    let mut world = W::new(5);
    let (plugin, upstream) = both_places(&mut world, &config(4, PATIENT, ""));
    for _ in 0..4 {
        let mut request = begin(&mut world, plugin);
        let mut slow = world.attempt(upstream, &request, &address(0));
        slow.request_headers();
        world.advance(ms(50));
        let mut quick = world.attempt(upstream, &request, &address(1));
        quick.request_headers();
        world.advance(ms(10));
        quick.response_headers(&[(":status", b"200")]);
        slow.done();
        quick.response_body(true);
        quick.done();
        respond(&mut request, &Ending { served_by: Some(address(1)), attempts: Some(2), ..Ending::good() });
        request.log();
        request.done();
    }
    assert_eq!(picks(&mut world, plugin, 40).len(), 4);
}

/// Six requests of each kind to one of two endpoints leave its in-flight neither too high nor too low.
fn what_was_taken_is_given_back_once<W: World>(_: W) {
    let kinds: [(&str, &[Try], Ending); 8] = [
        ("good", &[Try::Good], Ending::good()),
        ("retried", &[Try::Silent, Try::Good], Ending::good()),
        ("thrice", &[Try::Refused, Try::Status("503"), Try::Good], Ending::good()),
        ("timed out", &[Try::Silent], Ending::local("504", "response_timeout")),
        ("left", &[Try::Silent], Ending::cancelled()),
        ("broken", &[Try::Broken], Ending::cut(BROKEN)),
        ("never tried", &[], Ending::local("401", "ext_authz_denied")),
        ("never tried, left", &[], Ending::cancelled()),
    ];
    for (name, tries, ending) in kinds {
        let mut world = W::new(5);
        let json = config(2, r#""policy":"least_request","health":{"max_ejected_percent":0}"#, "");
        let places = both_places(&mut world, &json);
        let to = address(0);
        let tries: Vec<(&str, Try)> = tries.iter().map(|how| (&*to, *how)).collect();
        (0..6).for_each(|_| tried(&mut world, places, &tries, &ending));
        // Also unknown hosts.
        tried(&mut world, places, &[("203.0.113.9:1", Try::Good)], &Ending::good());
        pass(&mut world, &[places.0], ms(100));
        let open: Vec<_> = (0..10).map(|_| begin(&mut world, places.0)).collect();
        let mut counts = BTreeMap::<String, usize>::new();
        open.iter().for_each(|stream| *counts.entry(target(stream)).or_default() += 1);
        assert!(counts.values().all(|count| *count == 5), "{name}: {counts:?}");
    }
}

/// An attempt in flight counts at its own endpoint, not at the one named for the request.
fn in_flight_counts_where_the_attempt_is<W: World>(_: W) {
    let mut world = W::new(5);
    let (plugin, upstream) = both_places(&mut world, &config(2, r#""policy":"least_request""#, ""));
    let mut open = Vec::new();
    for _ in 0..5 {
        let request = begin(&mut world, plugin);
        let mut attempt = world.attempt(upstream, &request, &address(1));
        attempt.request_headers();
        open.push((request, attempt));
    }
    let next: Vec<_> = (0..5).map(|_| begin(&mut world, plugin)).collect();
    assert!(next.iter().all(|stream| target(stream) == address(0)), "the other has five");
}

/// An attempt's latency does not include that of the attempt before.
fn latency_is_the_attempts_own<W: World>(_: W) {
    let mut world = W::new(5);
    let by_latency =
        r#""policy":"peak_ewma","slow_start":"0s","health":{"suspect_after":1000,"fail_after":1000}"#;
    let (plugin, upstream) = both_places(&mut world, &config(3, by_latency, ""));
    for _ in 0..2 {
        for (failing, helping) in [(0, 1), (0, 2)] {
            let mut request = begin(&mut world, plugin);
            let mut first = world.attempt(upstream, &request, &address(failing));
            first.request_headers();
            world.advance(ms(3_000));
            first.done();
            attempt(&mut world, upstream, &request, &address(helping), Try::Good);
            let served_by = Some(address(helping));
            respond(&mut request, &Ending { served_by, attempts: Some(2), ..Ending::good() });
            request.log();
            request.done();
        }
    }
    // Two of three are compared: of 24 pairs each helper is in 8 with the failing one, and in 8 with the other, where the one
    // with fewer in flight is taken. A quarter is missed by less than 1 in 10⁵.
    let open: Vec<_> = (0..24).map(|_| begin(&mut world, plugin)).collect();
    let mut counts = BTreeMap::<String, usize>::new();
    open.iter().for_each(|request| *counts.entry(target(request)).or_default() += 1);
    let given = |endpoint| counts.get(&address(endpoint)).copied().unwrap_or(0);
    assert!(given(0) <= 1 && given(1) >= 6 && given(2) >= 6, "{counts:?}");
}

/// Without the filter among the cluster's upstream filters, everything is as before.
fn without_attempts_the_request_tells<W: World>(_: W) {
    let mut world = W::new(5);
    let (plugin, _) = both_places(&mut world, &config(4, PATIENT, ""));
    for _ in 0..3 {
        let mut request = begin(&mut world, plugin);
        world.advance(ms(10));
        respond(&mut request, &Ending { served_by: Some(address(0)), ..Ending::status("500") });
        request.log();
        request.done();
    }
    assert!(!picks(&mut world, plugin, 40).contains_key(&address(0)));
}

/// Streams of other filters, and numbers that do not exist.
fn an_attempt_of_nobodys_request_passes<W: World>(_: W) {
    let mut world = W::new(5);
    let (plugin, upstream) = both_places(&mut world, &config(2, PATIENT, ""));
    for number in [&b""[..], b"1", &[0xFF; 8], &[0; 8], &[1; 9]] {
        let mut foreign = world.stream(plugin, &[(":path", b"/")]);
        foreign.property(&["evenkeel_request"], number);
        let mut attempt = world.attempt(upstream, &foreign, &address(0));
        assert!(attempt.request_headers_of(false));
        attempt.request_body(true);
        attempt.response_headers(&[(":status", b"503")]);
        attempt.response_trailers(&[("grpc-status", b"14")]);
        attempt.done();
    }
    assert_eq!(picks(&mut world, plugin, 20).len(), 2);
}

/// Both have requests under way, numbered each for itself.
fn requests_of_two_plugins_are_told_apart<W: World>(_: W) {
    let (a, b, c) = (&*address(0), &*address(1), &*address(2));
    for failing in [0, 1] {
        let mut world = W::new(5);
        let json = config(4, PATIENT, "");
        let (first, upstream) = both_places(&mut world, &json);
        let thread = world.thread_of(first);
        let plugins = [first, world.configure(thread, "other", &json).expect("accepted")];
        let under_way = (0..8).map(|_| begin(&mut world, plugins[1 - failing]));
        let under_way: Vec<_> = under_way.collect();
        for _ in 0..3 {
            // Which two failed before the third answered, attempts alone can tell.
            let tries = [(a, Try::Status("503")), (b, Try::Status("503")), (c, Try::Good)];
            tried(&mut world, (plugins[failing], upstream), &tries, &Ending::good());
        }
        let serving = plugins.map(|plugin| {
            let counts = picks(&mut world, plugin, 40);
            [a, b].map(|endpoint| counts.contains_key(endpoint))
        });
        assert_eq!(serving, [[failing != 0; 2], [failing != 1; 2]]);
        drop(under_way);
    }
}

/// What an endpoint says of itself in the answer to an attempt: in the headers, in the trailers, and before its answer.
fn what_an_attempts_endpoint_says_counts<W: World>(_: W) {
    let mut world = W::new(5);
    let load = r#""policy":"round_robin","load_reports":[{"name":"load","header":"x-load","max":1}],
        "health":{"suspect_after":3,"fail_after":3}"#;
    let (plugin, upstream) = both_places(&mut world, &config(4, load, crate::following::STATUS));
    let answer = |world: &mut W, headers: &[(&str, &[u8])], trailers: &[(&str, &[u8])]| {
        let mut request = begin(world, plugin);
        let mut attempt = world.attempt(upstream, &request, &address(0));
        attempt.request_headers();
        world.advance(ms(10));
        attempt.response_headers(&[(":status", b"103")]);
        attempt.response_headers(headers);
        attempt.response_trailers(trailers);
        attempt.done();
        respond(&mut request, &Ending { served_by: Some(address(0)), ..Ending::good() });
        request.log();
        request.done();
    };
    let unusable = |world: &mut W| crate::following::shown(world, plugin, "unusable_reports");
    answer(&mut world, &[(":status", b"200"), ("x-load", b"much")], &[]);
    assert_eq!(unusable(&mut world), 1);
    answer(&mut world, &[(":status", b"200")], &[("grpc-status", b"0"), ("x-load", b"much")]);
    assert_eq!(unusable(&mut world), 2);
    for _ in 0..3 {
        assert_eq!(picks(&mut world, plugin, 8).len(), 4, "an early hint is no answer, and no failure");
        answer(&mut world, &[(":status", b"503")], &[]);
    }
    let failures =
        crate::following::page(&mut world, plugin)["upstreams"][0]["endpoints"][0]["failures"].clone();
    assert_eq!(failures, 3);
    let mut world = W::new(5);
    let (plugin, upstream) = both_places(&mut world, &config(4, PATIENT, ""));
    let mut request = begin(&mut world, plugin);
    let mut attempt = world.attempt(upstream, &request, &address(0));
    attempt.request_headers();
    attempt.response_headers(&[(":status", b"200"), ("x-envoy-immediate-health-check-fail", b"true")]);
    attempt.response_body(true);
    attempt.done();
    respond(&mut request, &Ending { served_by: Some(address(0)), ..Ending::good() });
    request.log();
    request.done();
    assert!(!picks(&mut world, plugin, 20).contains_key(&address(0)), "it asked not to get any");
}

/// A filter between the decision and the attempt takes its time.
fn what_others_take_is_not_the_attempts_time<W: World>(_: W) {
    let mut world = W::new(5);
    let (plugin, upstream) = both_places(&mut world, &config(2, "", crate::following::STATUS));
    for _ in 0..10 {
        let mut request = begin(&mut world, plugin);
        world.advance(ms(3_000));
        let to = target(&request);
        attempt(&mut world, upstream, &request, &to, Try::Good);
        respond(&mut request, &Ending { served_by: Some(to), ..Ending::good() });
        request.log();
        request.done();
    }
    pass(&mut world, &[plugin], ms(500));
    let shown = crate::following::page(&mut world, plugin);
    for endpoint in shown["upstreams"][0]["endpoints"].as_array().expect("endpoints") {
        assert!(endpoint["latency_ms"].as_f64().is_some_and(|ms| ms < 100.0), "{endpoint}");
    }
}

both!(
    what_an_attempts_endpoint_says_counts,
    what_others_take_is_not_the_attempts_time,
    requests_of_two_plugins_are_told_apart,
    what_is_shed_by_an_answer_that_is_tried_again_costs_a_share,
    an_answer_that_is_tried_again_is_no_reset,
    failed_attempts_are_blamed_and_the_retry_is_not,
    a_status_in_the_trailers_of_an_attempt_counts,
    every_attempt_counts_once,
    what_envoy_knows_explains_an_attempt_that_ended_without_a_word,
    the_order_of_their_ends_does_not_matter,
    the_loser_of_a_race_is_not_blamed,
    what_was_taken_is_given_back_once,
    in_flight_counts_where_the_attempt_is,
    latency_is_the_attempts_own,
    without_attempts_the_request_tells,
    an_attempt_of_nobodys_request_passes,
);
