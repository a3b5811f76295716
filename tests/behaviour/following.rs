//! What Envoy does with a decision: whether it follows it, and whether the decision was for the right route.

use testbed::serde_json::{Value, from_slice};

use crate::discovery::{RANDOM, by_envoy, crew, healthy, members, plugin, report_hosts};
use crate::scene::{Ending, HEADER, address, begin, candidates, config, ms, pass, respond, single, target};
use crate::world::{Answer, Plugin, Stream, World};

pub const STATUS: &str = r#""status":{"path":"/_evenkeel"}"#;

pub fn page<W: World>(world: &mut W, plugin: Plugin) -> Value {
    let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/_evenkeel/status.json")]);
    stream.request_headers();
    from_slice(&stream.local_body()).expect("JSON")
}

pub fn shown<W: World>(world: &mut W, plugin: Plugin, what: &str) -> u64 {
    let json = page(world, plugin);
    let upstream = &json["upstreams"][0];
    upstream[what].as_u64().unwrap_or_else(|| panic!("{what} in {upstream}"))
}

fn served_by<W: World>(world: &mut W, plugin: Plugin, by: &str, attempts: Option<u64>) {
    let mut stream = begin(world, plugin);
    world.advance(ms(10));
    respond(&mut stream, &Ending { served_by: Some(by.to_owned()), attempts, ..Ending::good() });
    stream.log();
    stream.done();
}

pub fn lines(world: &impl World, part: &str) -> usize {
    world.logs().iter().filter(|line| line.contains(part)).count()
}

fn not_followed_is_counted_and_logged_once(mut world: impl World) {
    let plugin = single(&mut world, &config(4, "", STATUS));
    let stranger = "203.0.113.9:1";
    for _ in 0..20 {
        served_by(&mut world, plugin, stranger, Some(2));
    }
    pass(&mut world, &[plugin], ms(1000));
    assert_eq!(shown(&mut world, plugin, "not_followed"), 0, "retries go elsewhere");
    for _ in 0..20 {
        served_by(&mut world, plugin, stranger, Some(1));
    }
    let mut elsewhere = 0;
    for _ in 0..20 {
        let mut stream = begin(&mut world, plugin);
        elsewhere += u64::from(target(&stream) != address(0));
        respond(&mut stream, &Ending { served_by: Some(address(0)), ..Ending::good() });
        stream.log();
        stream.done();
    }
    assert_eq!(shown(&mut world, plugin, "not_followed"), 20 + elsewhere);
    pass(&mut world, &[plugin], ms(1000));
    for _ in 0..20 {
        served_by(&mut world, plugin, stranger, None);
        pass(&mut world, &[plugin], ms(500));
    }
    assert_eq!(lines(&world, "not followed: "), 1);
    assert_eq!(lines(&world, "load-balancing policy is not override_host with header"), 1);
    assert_eq!(world.counter("evenkeel.upstream=.=web;.;fleet_not_followed_total"), Some(40 + elsewhere));
}

/// Endpoints that have left Envoy's cluster are not followed until the list is read anew: nothing is wrong. With the
/// addresses unchanged something is.
fn endpoints_that_have_just_left_are_no_fault<W: World>(_: W) {
    for swapped in [true, false] {
        let mut world = W::new(3);
        let crew = crew(&mut world, 2, &plugin(&by_envoy(), RANDOM));
        let lists = [healthy(&[0, 1, 2]), healthy(&[3, 4, 5])];
        report_hosts(&mut world, &crew, &lists[0]);
        for round in 1..6 {
            // The first requests are sent before the list is read, and answered after.
            let mut under_way: Vec<_> =
                crew.iter().cycle().take(40).map(|plugin| begin(&mut world, *plugin)).collect();
            for plugin in crew.iter() {
                for _ in 0..20 {
                    served_by(&mut world, *plugin, "203.0.113.9:1", Some(1));
                }
            }
            pass(&mut world, &crew, ms(600));
            report_hosts(&mut world, &crew, &lists[if swapped { round % 2 } else { 0 }]);
            for stream in &mut under_way {
                respond(stream, &Ending { served_by: Some("203.0.113.9:1".into()), ..Ending::good() });
                stream.log();
                stream.done();
            }
            pass(&mut world, &crew, ms(600));
        }
        assert_eq!(lines(&world, "not followed: "), usize::from(!swapped), "{:?}", world.logs());
    }
}

/// A named address passes over subsets by metadata and the preference of a zone. Envoy's stats show that a cluster has
/// them: its subsets are respected, by every worker, and what is lost is said.
fn bypassed_policies_are_said<W: World>(_: W) {
    let in_zone = |zone: &str| format!(r#""eds_health_status":"HEALTHY"}},"locality":{{"zone":"{zone}""#);
    let (a, b) = (in_zone("a"), in_zone("b"));
    let (subsets, zones) = ("subsets by metadata", "prefers its own zone");
    for (zone, [active, computed, small], said) in [
        ("", [0, 0, 0], [0, 0]),
        ("", [2, 0, 0], [1, 0]),
        ("", [0, 3, 0], [0, 1]),
        ("", [0, 3, 3], [0, 0]),
        (r#","zone":{"local":"a"}"#, [1, 3, 0], [1, 0]),
    ] {
        let mut world = W::new(6);
        let json = plugin(&by_envoy(), &format!("{RANDOM}{zone}"));
        let crew = crew(&mut world, 2, &json.replacen('{', &format!("{{{STATUS},"), 1));
        let list = members(&[(0, &a), (1, &b)]);
        let lead = crew.main();
        for _ in 0..25 {
            report_hosts(&mut world, &crew, &list);
            for plugin in crew.iter() {
                let mut stream = begin(&mut world, *plugin);
                respond(&mut stream, &Ending::good());
                stream.log();
                stream.done();
            }
            pass(&mut world, &[lead, crew[0], crew[1]], ms(500));
        }
        let asked = world.calls().into_iter().rfind(|call| call.path.starts_with("/stats?filter="));
        let asked = asked.expect("Envoy is asked for stats");
        assert!(asked.path.contains("web"), "{}", asked.path);
        let answer = format!(
            "cluster.web.lb_recalculate_zone_structures: {computed}\ncluster.web.lb_subsets_active: {active}\n\
             cluster.web.lb_zone_cluster_too_small: {small}\n"
        );
        world.answer(&asked, &Answer::Http(200, answer.as_bytes()));
        pass(&mut world, &[lead, crew[0], crew[1]], ms(500));
        assert_eq!([lines(&world, subsets), lines(&world, zones)], said, "{:?}", world.logs());
        for turn in 0..3 {
            for plugin in crew.iter() {
                let named = candidates(&begin(&mut world, *plugin));
                assert_eq!(named.is_empty(), active > 0, "turn {turn}: {named:?}");
            }
            report_hosts(&mut world, &crew, &list);
        }
        let shown = page(&mut world, crew[1]);
        let names: Vec<&str> = [("subsets", said[0]), ("zone_aware", said[1])]
            .iter()
            .filter(|(_, is)| *is > 0)
            .map(|(n, _)| *n)
            .collect();
        let bypassed = shown["upstreams"][0]["discovery"]["bypassed"].as_array();
        assert_eq!(bypassed.map_or(0, Vec::len), names.len(), "{shown}");
        names.iter().for_each(|name| {
            assert!(bypassed.is_some_and(|all| all.iter().any(|one| one == name)), "{shown}")
        });
    }
}

fn what_is_followed_is_not_counted(mut world: impl World) {
    let plugin = single(&mut world, &config(4, "", STATUS));
    for ending in [
        Ending::good(),
        Ending::status("503"),
        Ending::local("503", "no_healthy_upstream"),
        Ending::cancelled(),
    ] {
        for _ in 0..20 {
            let mut stream = begin(&mut world, plugin);
            respond(&mut stream, &ending);
            stream.log();
            stream.done();
        }
    }
    pass(&mut world, &[plugin], ms(1000));
    assert_eq!((shown(&mut world, plugin, "not_followed"), shown(&mut world, plugin, "rerouted")), (0, 0));
    assert_eq!(lines(&world, "named"), 0);
}

/// With the filter among upstream filters the first attempt decides.
fn the_first_attempt_tells<W: World>(mut world: W) {
    let plugin = single(&mut world, &config(4, "", STATUS));
    let thread = world.thread_of(plugin);
    let upstream = world.follow(thread);
    for first in [None, Some("203.0.113.9:1")] {
        for _ in 0..10 {
            let mut request = begin(&mut world, plugin);
            let named = target(&request);
            let to = first.unwrap_or(&named).to_owned();
            for to in [&to, &address(3)] {
                let mut attempt = world.attempt(upstream, &request, to);
                attempt.request_headers();
                attempt.response_headers(&[(":status", b"503")]);
                attempt.done();
            }
            respond(
                &mut request,
                &Ending { served_by: Some(address(3)), attempts: Some(2), ..Ending::good() },
            );
            request.log();
            request.done();
        }
        assert_eq!(shown(&mut world, plugin, "not_followed"), if first.is_some() { 10 } else { 0 });
    }
}

/// A filter behind this one clears the route cache: the request leaves for another cluster.
fn rerouted_request_is_counted_and_logged(mut world: impl World) {
    let plugin = single(&mut world, &config(4, "", STATUS));
    for before in [None, Some(&b"other"[..])] {
        for _ in 0..40 {
            let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/")]);
            before.iter().for_each(|cluster| stream.property(&["xds", "cluster_name"], cluster));
            stream.request_headers();
            assert!(stream.request_values(HEADER).is_empty());
            stream.property(&["xds", "cluster_name"], b"web");
            respond(&mut stream, &Ending { served_by: Some(address(0)), ..Ending::good() });
            stream.log();
            stream.done();
        }
    }
    assert_eq!(shown(&mut world, plugin, "rerouted"), 80);
    pass(&mut world, &[plugin], ms(1000));
    assert_eq!(lines(&world, "put evenkeel behind that filter"), 1);
    // Requests to other clusters are only looked at now and then.
    for _ in 0..200 {
        let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/")]);
        stream.property(&["xds", "cluster_name"], b"other");
        stream.request_headers();
        respond(&mut stream, &Ending { served_by: Some("203.0.113.9:1".to_owned()), ..Ending::good() });
        stream.log();
        stream.done();
    }
    assert_eq!((shown(&mut world, plugin, "rerouted"), shown(&mut world, plugin, "not_followed")), (80, 0));
}

/// The endpoint that was tried first is Envoy's choice; that of a retry is not.
fn observing_compares_with_the_first_attempt<W: World>(mut world: W) {
    let plugin = single(&mut world, &config(4, "", &format!(r#""mode":"observe",{STATUS}"#)));
    let thread = world.thread_of(plugin);
    for followed in [false, true] {
        let upstream = followed.then(|| world.follow(thread));
        for tries in [1, 2] {
            for turn in 0..20 {
                let mut request = begin(&mut world, plugin);
                for attempt in 0..tries {
                    let Some(upstream) = upstream else { continue };
                    let mut seen = world.attempt(upstream, &request, &address((turn + attempt) % 4));
                    seen.request_headers();
                    seen.response_headers(&[(":status", if attempt + 1 == tries { b"200" } else { b"503" })]);
                    seen.response_body(true);
                    seen.done();
                }
                let served_by = Some(address((turn + tries - 1) % 4));
                respond(&mut request, &Ending { served_by, attempts: Some(tries as u64), ..Ending::good() });
                request.log();
                request.done();
            }
        }
    }
    let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/_evenkeel/status.json")]);
    stream.request_headers();
    let json: Value = from_slice(&stream.local_body()).expect("JSON");
    assert_eq!(json["upstreams"][0]["observed"]["compared"], 60, "all but retries that nothing has followed");
}

/// In observe mode after a fallback: the time of a failed attempt is not charged to the endpoint of the retry.
fn the_helper_is_not_charged_with_the_time_of_both<W: World>(mut world: W) {
    let plugin = single(&mut world, &config(2, "", &format!(r#""mode":"observe",{STATUS}"#)));
    for _ in 0..30 {
        for (by, attempts, time) in [(0, 1, 10), (1, 2, 2000)] {
            let mut stream = begin(&mut world, plugin);
            world.advance(ms(time));
            let ending = Ending { served_by: Some(address(by)), attempts: Some(attempts), ..Ending::good() };
            respond(&mut stream, &ending);
            stream.log();
            stream.done();
        }
    }
    pass(&mut world, &[plugin], ms(500));
    let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/_evenkeel/status.json")]);
    stream.request_headers();
    let json: Value = from_slice(&stream.local_body()).expect("JSON");
    let latency = json["upstreams"][0]["endpoints"][1]["latency_ms"].as_f64();
    assert!(latency.is_none_or(|ms| ms < 100.0), "{json}");
}

/// If only one endpoint is named, a retry goes to the same one: it failed before it answered.
fn a_retry_that_stays_counts_as_a_failure<W: World>(_: W) {
    for via in ["original_dst", "cluster_header"] {
        let mut world = W::new(5);
        let health = r#""policy":"round_robin","health":{"fail_after":3,"suspect_after":3}"#;
        let plugin = single(
            &mut world,
            &config(4, health, &format!(r#""steering":{{"via":"{via}","header":"{HEADER}"}}"#)),
        );
        let out = address(1);
        // Each gets two.
        for _ in 0..8 {
            let mut stream = begin(&mut world, plugin);
            let named = target(&stream);
            world.advance(ms(10));
            let attempts = if named == out { Some(2) } else { Some(1) };
            let ending = if named == out { Ending::status("503") } else { Ending::good() };
            respond(&mut stream, &Ending { attempts, ..ending });
            stream.log();
            stream.done();
        }
        // Two attempts per request, so two requests are four failures.
        let picked = (0..16).filter(|_| target(&begin(&mut world, plugin)) == out).count();
        assert_eq!(picked, 0, "{via}");
    }
}

both!(
    not_followed_is_counted_and_logged_once,
    endpoints_that_have_just_left_are_no_fault,
    bypassed_policies_are_said,
    what_is_followed_is_not_counted,
    the_first_attempt_tells,
    rerouted_request_is_counted_and_logged,
    observing_compares_with_the_first_attempt,
    the_helper_is_not_charged_with_the_time_of_both,
    a_retry_that_stays_counts_as_a_failure,
);
