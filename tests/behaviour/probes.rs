//! Out-of-band probes: which endpoints are probed, how, and the effect on users' requests.

use std::collections::{BTreeMap, BTreeSet};

use testbed::serde_json::from_slice;

use crate::scene::{Ending, HEADER, address, config, ms, pass, respond, serve, single, target};
use crate::world::{Answer, Call, Plugin, Stream, World};

const PROBE: &str = r#""slow_start":"0s","health":{"probe":{"path":"/healthz","interval":"1s"}}"#;
const NONE: &str = r#""slow_start":"0s""#;
const STATUS: &str = r#""status":{"path":"/_evenkeel"}"#;

/// The endpoint that a probe is for.
fn probed(call: &Call) -> String {
    let named = call.headers.iter().find(|(name, _)| name == HEADER);
    named.expect("a probe names its endpoint").1.clone()
}

/// A plugin with this many endpoints.
fn probing<W: World>(world: &mut W, endpoints: usize, upstream: &str) -> Plugin {
    world.add_cluster("web");
    single(world, &config(endpoints, upstream, STATUS))
}

/// Users' requests and probes, by endpoint.
#[derive(Debug, Default)]
struct Seen {
    requests: BTreeMap<String, usize>,
    probes: BTreeMap<String, usize>,
}

impl Seen {
    fn requests(&self, endpoint: usize) -> usize {
        self.requests.get(&address(endpoint)).copied().unwrap_or(0)
    }

    fn probes(&self, endpoint: usize) -> usize {
        self.probes.get(&address(endpoint)).copied().unwrap_or(0)
    }
}

/// Runs requests and probes for `seconds` at `rate` requests per second. `request` returns the end of a request and its
/// latency, `probe` the status of a probe's response (`None` fails) and its latency.
fn live<W: World>(
    world: &mut W,
    plugin: Plugin,
    (seconds, rate): (f64, f64),
    request: impl Fn(&str) -> (Ending, u64),
    probe: impl Fn(&str) -> (Option<u16>, u64),
) -> Seen {
    let mut seen = Seen::default();
    world.calls().iter().for_each(|call| world.answer(call, &Answer::Failed));
    let (mut waiting, mut known): (Vec<(u64, Call)>, BTreeSet<u32>) = (Vec::new(), BTreeSet::new());
    let mut streams: Vec<(u64, W::Stream, Ending)> = Vec::new();
    let began = world.now();
    let mut sent = 0.0;
    let is_over = |now: u64| (now - began) as f64 * 1e-9 >= seconds;
    while !is_over(world.now()) || !streams.is_empty() || !waiting.is_empty() {
        world.advance(ms(10));
        let now = world.now();
        world.tick(plugin);
        for call in world.calls() {
            if known.insert(call.token) {
                *seen.probes.entry(probed(&call)).or_default() += 1;
                waiting.push((now + probe(&probed(&call)).1 * 1_000_000, call));
            }
        }
        let (over, rest) = waiting.into_iter().partition(|(at, _)| *at <= now);
        waiting = rest;
        for (_, call) in over {
            match probe(&probed(&call)).0 {
                Some(status) => world.answer(&call, &Answer::Http(status, b"")),
                None => world.answer(&call, &Answer::Failed),
            }
        }
        let mut still = Vec::new();
        for (at, mut stream, ending) in streams {
            if at <= now {
                respond(&mut stream, &ending);
                stream.log();
                stream.done();
            } else {
                still.push((at, stream, ending));
            }
        }
        streams = still;
        while !is_over(now) && sent <= (now - began) as f64 * 1e-9 * rate {
            sent += 1.0;
            let stream = crate::scene::begin(world, plugin);
            let to = target(&stream);
            *seen.requests.entry(to.clone()).or_default() += 1;
            let (ending, took) = request(&to);
            streams.push((now + took * 1_000_000, stream, ending));
        }
    }
    seen
}

fn good(_: &str) -> (Ending, u64) {
    (Ending::good(), 20)
}

fn well(_: &str) -> (Option<u16>, u64) {
    (Some(200), 1)
}

/// `first` for the first endpoint, `others` for any other.
fn but_the_first<T>(first: T, to: &str, others: T) -> T {
    if to == address(0) { first } else { others }
}

fn an_ejected_endpoint_is_asked_by_probes_alone_until_it_answers(mut world: impl World) {
    for (rate, ending, status) in [
        (100.0, Ending::status("503"), Some(500)),
        (
            20.0,
            Ending::local("503", "upstream_reset_before_response_started{remote_connection_failure}"),
            None,
        ),
    ] {
        let plugin = probing(&mut world, 5, PROBE);
        live(&mut world, plugin, (5.0, rate), good, well);
        let fails = |to: &str| (but_the_first(ending.clone(), to, Ending::good()), 20);
        let answer = |to: &str| (but_the_first(status, to, Some(200)), 1);
        let first = live(&mut world, plugin, (2.0, rate), fails, answer);
        assert!(first.requests(0) <= 6, "{rate}/s: {first:?}");
        let later = live(&mut world, plugin, (30.0, rate), fails, answer);
        assert_eq!(later.requests(0), 0, "{rate}/s: {later:?}");
        assert!((20..=32).contains(&later.probes(0)), "about one a second: {later:?}");
        let healed = live(&mut world, plugin, (10.0, rate), good, well);
        let fair = rate * 10.0 / 5.0;
        assert!(healed.requests(0) as f64 > 0.5 * fair, "{rate}/s: {healed:?} of a fair {fair}");
    }
}

fn a_path_that_does_not_see_the_fault_costs_no_more_requests_than_without(mut world: impl World) {
    let fails = |to: &str| (but_the_first(Ending::status("500"), to, Ending::good()), 20);
    let mut lost = |upstream| {
        let plugin = probing(&mut world, 5, upstream);
        live(&mut world, plugin, (5.0, 50.0), good, well);
        live(&mut world, plugin, (120.0, 50.0), fails, well).requests(0)
    };
    let (without, with) = (lost(NONE), lost(PROBE));
    assert!(with <= without + 3, "{with} failed, {without} without probes");
}

fn a_slow_endpoint_that_probes_find_slow_gets_no_request_to_find_out(mut world: impl World) {
    let slow = |to: &str| (Ending::good(), but_the_first(400, to, 20));
    let mut explored = |upstream, late| {
        let plugin = probing(&mut world, 5, upstream);
        live(&mut world, plugin, (5.0, 100.0), good, well);
        live(&mut world, plugin, (15.0, 100.0), slow, |to| (Some(200), but_the_first(late, to, 10)));
        live(&mut world, plugin, (60.0, 100.0), slow, |to| (Some(200), but_the_first(late, to, 10)))
            .requests(0)
    };
    let (without, blind, seen) = (explored(NONE, 10), explored(PROBE, 10), explored(PROBE, 200));
    assert_eq!(seen, 0, "{without} without probes");
    assert!(blind <= without + 3, "{blind} where probes see nothing, {without} without");
}

fn where_requests_are_few_probes_find_the_slow_and_the_dead_first(mut world: impl World) {
    // One proxy of many: a request to each endpoint in ten seconds.
    let slow = |to: &str| (Ending::good(), but_the_first(400, to, 20));
    let plugin = probing(&mut world, 20, PROBE);
    live(&mut world, plugin, (60.0, 2.0), good, |_| (Some(200), 10));
    let seen = live(&mut world, plugin, (100.0, 2.0), slow, |to| (Some(200), but_the_first(200, to, 10)));
    assert!(seen.requests(0) <= 2, "of a fair 10: {seen:?}");
    let fails = |to: &str| (but_the_first(Ending::status("503"), to, Ending::good()), 20);
    let plugin = probing(&mut world, 20, PROBE);
    live(&mut world, plugin, (60.0, 2.0), good, well);
    let seen = live(&mut world, plugin, (100.0, 2.0), fails, |to| (but_the_first(None, to, Some(200)), 1));
    assert!(seen.requests(0) <= 1, "of a fair 10: {seen:?}");
    let seen = live(&mut world, plugin, (60.0, 2.0), good, well);
    assert!(seen.requests(0) >= 2, "of a fair 6: {seen:?}");
}

fn a_path_that_fails_everywhere_takes_no_endpoint_out(mut world: impl World) {
    for status in [Some(500), None] {
        let plugin = probing(&mut world, 10, PROBE);
        let seen = live(&mut world, plugin, (100.0, 2.0), good, |_| (status, 1));
        for endpoint in 0..10 {
            assert!(seen.requests(endpoint) >= 5, "{status:?}, of a fair 20: {seen:?}");
            assert!(seen.probes(endpoint) > 0, "{seen:?}");
        }
    }
}

fn a_probe_is_a_get_of_the_path_through_the_cluster(mut world: impl World) {
    let probe = r#""health":{"probe":{"path":"/ready?deep=1","authority":"web.internal","interval":"2s","timeout":"300ms"}}"#;
    for (via, value) in [("override_host", None), ("original_dst", Some("x-envoy-original-dst-host"))] {
        world.add_cluster("web");
        let root = format!(r#"{STATUS},"steering":{{"via":"{via}"}}"#);
        let plugin = single(&mut world, &config(2, probe, &root));
        world.calls().iter().for_each(|call| world.answer(call, &Answer::Failed));
        for _ in 0..300 {
            serve(&mut world, plugin, |_| Ending::good());
            pass(&mut world, &[plugin], ms(100));
        }
        // Both are requested often enough, so nothing has to be probed.
        assert_eq!(world.calls().len(), 0);
        pass(&mut world, &[plugin], ms(3000));
        serve(&mut world, plugin, |_| Ending::good());
        pass(&mut world, &[plugin], ms(100));
        let call = world.calls().remove(0);
        let header = value.unwrap_or(HEADER);
        assert_eq!((call.cluster.as_str(), call.path.as_str()), ("web", "/ready?deep=1"));
        assert_eq!(
            (call.authority.as_str(), call.form.clone(), call.timeout),
            ("web.internal", None, ms(300))
        );
        let named = call.headers.iter().find(|(name, _)| name == header).map(|(_, value)| value.as_str());
        assert!([address(0), address(1)].iter().any(|address| Some(address.as_str()) == named), "{call:?}");
    }
}

fn a_report_in_a_probes_answer_counts(mut world: impl World) {
    let upstream = format!(
        r#"{PROBE},"policy":"random","load_reports":[{{"name":"load","header":"x-load","max":1,"smoothing":1}}]"#
    );
    let plugin = probing(&mut world, 5, &upstream);
    let mut got = 0;
    for request in 0..2000 {
        world.advance(ms(200));
        world.tick(plugin);
        for call in world.calls() {
            let load: &[u8] = if probed(&call) == address(0) { b"0.95" } else { b"0.3" };
            world.answer(&call, &Answer::With("x-load", load));
        }
        got += usize::from(serve(&mut world, plugin, |_| Ending::good()) == address(0) && request >= 1000);
    }
    assert!(got < 100, "{got} of a fair 200");
}

/// A request to an endpoint that Envoy's own policy has not chosen.
fn what_is_only_observed_is_not_probed(mut world: impl World) {
    world.add_cluster("web");
    let plugin = single(&mut world, &config(30, PROBE, r#""mode":"observe""#));
    for _ in 0..10 {
        serve(&mut world, plugin, |_| Ending { served_by: Some(address(0)), ..Ending::good() });
        pass(&mut world, &[plugin], ms(1000));
    }
    assert_eq!(world.calls(), []);
}

/// A successful probe does not count if its response asks for ejection.
fn endpoint_whose_probes_report_failing_gets_no_request(mut world: impl World) {
    let plugin = probing(&mut world, 5, PROBE);
    let mut got = 0;
    for request in 0..400 {
        pass(&mut world, &[plugin], ms(100));
        for call in world.calls() {
            let answer = Answer::With("x-envoy-immediate-health-check-fail", b"true");
            world.answer(&call, &but_the_first(answer, &probed(&call), Answer::Http(200, b"")));
        }
        let (fails, ejected) = (request < 50, request >= 100);
        let bad = |to: &str| but_the_first(Ending::status("503"), to, Ending::good());
        let to = serve(&mut world, plugin, |to| if fails { bad(to) } else { Ending::good() });
        got += usize::from(to == address(0) && ejected);
    }
    assert_eq!(got, 0);
}

fn probes_are_shown(mut world: impl World) {
    let plugin = probing(&mut world, 5, PROBE);
    let fails = |to: &str| (but_the_first(Ending::status("503"), to, Ending::good()), 20);
    let seen =
        live(&mut world, plugin, (20.0, 50.0), fails, |to| (but_the_first(Some(503), to, Some(200)), 1));
    pass(&mut world, &[plugin], ms(300));
    let headers: [(&str, &[u8]); 3] =
        [(":method", b"GET"), (":path", b"/_evenkeel/status.json"), (":authority", b"web")];
    let mut stream = world.stream(plugin, &headers);
    stream.request_headers();
    let shown: testbed::serde_json::Value = from_slice(&stream.local_body()).expect("JSON");
    let probes = &shown["upstreams"][0]["probes"];
    let sent = probes["sent"].as_u64().expect("a number") as usize;
    let all: usize = seen.probes.values().sum();
    assert!((all..=all + 5).contains(&sent), "{probes} of {seen:?}");
    let failed = probes["failed"].as_u64().expect("a number") as usize;
    assert!(failed + 1 >= seen.probes(0) && failed <= seen.probes(0), "{probes} of {seen:?}");
}

both!(
    what_is_only_observed_is_not_probed,
    an_ejected_endpoint_is_asked_by_probes_alone_until_it_answers,
    a_path_that_does_not_see_the_fault_costs_no_more_requests_than_without,
    a_slow_endpoint_that_probes_find_slow_gets_no_request_to_find_out,
    where_requests_are_few_probes_find_the_slow_and_the_dead_first,
    a_path_that_fails_everywhere_takes_no_endpoint_out,
    a_probe_is_a_get_of_the_path_through_the_cluster,
    a_report_in_a_probes_answer_counts,
    endpoint_whose_probes_report_failing_gets_no_request,
    probes_are_shown,
);
