//! Polls of Envoy's admin interface: what they cost Envoy's main thread, and what is known between two of them.

use std::time::Duration;

use crate::discovery::{ADMIN, Crew, RANDOM, addresses, by_envoy, crew, healthy, members, plugin, targets};
use crate::partial::{dumped, located};
use crate::scene::{Ending, begin, candidates, ms, pass_with, respond, serve};
use crate::world::{Answer, Call, Plugin, Stream, World};

/// Lets `seconds` pass, and answers each poll of the admin interface after `delay_ms`; `busy` with one request a second to
/// each worker. Returns the polls, each with the second at which it was sent.
fn polled<W: World>(
    world: &mut W,
    crew: &Crew,
    (seconds, delay_ms, busy): (u64, u64, bool),
    answer: impl Fn(&Call) -> String,
) -> Vec<(f64, Call)> {
    let all: Vec<Plugin> = [crew.main()].into_iter().chain(crew.iter().copied()).collect();
    let mut sent: Vec<(f64, Call)> = Vec::new();
    for _ in 0..seconds {
        for plugin in crew.iter().filter(|_| busy) {
            let mut stream = begin(world, *plugin);
            respond(&mut stream, &Ending::good());
            stream.log();
            stream.done();
        }
        pass_with(world, &all, ms(1000), |world| {
            let now = world.now() as f64 * 1e-9;
            for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
                let same = |other: &Call| (other.thread, other.token) == (call.thread, call.token);
                if !sent.iter().any(|(_, other)| same(other)) {
                    sent.push((now, call.clone()));
                }
                let since = sent.iter().rfind(|(_, other)| same(other)).map_or(now, |(since, _)| *since);
                if now - since >= delay_ms as f64 * 1e-3 - 0.001 {
                    world.answer(&call, &Answer::Http(200, answer(&call).as_bytes()));
                }
            }
        });
    }
    sent
}

/// What Envoy said of an endpoint's health is in force for a minute without a new answer. Polls that are left out for lack
/// of traffic are no silence: the first request after a night does not go to a host that was unhealthy in the evening.
fn announced_health_holds_while_polls_rest<W: World>(mut world: W) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), RANDOM));
    let list = members(&[(0, ""), (1, r#""failed_active_health_check":true"#), (2, "")]);
    let mut last = world.now() as f64 * 1e-9;
    let mut quiet_s = 0.0;
    for _ in 0..60 {
        let sent = polled(&mut world, &crew, (10, 0, false), |_| list.clone());
        last = sent.iter().rfind(|(_, call)| !call.path.starts_with("/stats")).map_or(last, |(at, _)| *at);
        quiet_s = world.now() as f64 * 1e-9 - last;
        if quiet_s > 75.0 {
            break;
        }
    }
    assert!(quiet_s > 75.0, "polls rest: {quiet_s}");
    for plugin in crew.iter() {
        assert_eq!(targets(&mut world, *plugin), addresses(&[0, 2]));
    }
}

/// While Envoy writes an answer, its main thread does nothing else.
fn an_answer_that_took_long_is_asked_for_ten_times_as_long_later<W: World>(_: W) {
    for delay_ms in [0, 300] {
        let mut world = W::new(3);
        let crew = crew(&mut world, 1, &plugin(&by_envoy(), RANDOM));
        let (hosts, weights) = (located(&[(0, "a"), (1, "b")]), dumped(&[("a", 1, 80), ("b", 1, 20)]));
        let sent = polled(&mut world, &crew, (40, delay_ms, true), |call| match &call.path {
            path if path.starts_with("/config_dump") => weights.clone(),
            path if path.starts_with("/clusters") => hosts.clone(),
            _ => String::new(),
        });
        for of in ["/clusters", "/config_dump"] {
            let times: Vec<f64> =
                sent.iter().filter(|(_, call)| call.path.starts_with(of)).map(|(at, _)| *at).collect();
            let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
            let shortest = pauses.fold(f64::INFINITY, f64::min);
            let usual = if delay_ms > 0 { 2.9..3.5 } else { 0.8..1.3 };
            assert!(usual.contains(&shortest), "{delay_ms} {of}: {times:?}");
            assert!(times.len() >= (40.0 / usual.end) as usize, "{delay_ms} {of}: {times:?}");
        }
    }
}

/// `/clusters` with these clusters.
fn clusters<'a>(all: impl Iterator<Item = (&'a str, String)>) -> String {
    let one = |(name, list): (&str, String)| {
        let list = list.replace(r#""name":"web""#, &format!(r#""name":"{name}""#));
        list[list.find('[').map_or(0, |at| at + 1)..list.len() - 2].to_owned()
    };
    format!(r#"{{"cluster_statuses":[{}]}}"#, all.map(one).collect::<Vec<_>>().join(","))
}

/// Large lists are asked for in turns, except where each answer has all of them, as from Envoy before 1.38: turns would
/// have it write everything for each of them.
fn large_lists_are_asked_for_in_turns_unless_each_answer_has_all<W: World>(_: W) {
    const NAMES: [&str; 2] = ["web", "api"];
    let of = |name: &str| if name == "web" { (0..1100).collect() } else { (1100..2200).collect::<Vec<_>>() };
    for filters in [true, false] {
        let mut world = W::new(3);
        let upstream = |name: &str| {
            format!(r#"{{"cluster":"{name}","policy":"random","endpoints":{{{}}}}}"#, by_envoy())
        };
        let json = format!(r#"{{"upstreams":[{}]}}"#, NAMES.map(upstream).join(","));
        let crew = crew(&mut world, 1, &json);
        let sent = polled(&mut world, &crew, (5, 0, true), |call| {
            if call.path.starts_with("/stats") {
                return String::new();
            }
            let named = NAMES.iter().filter(|name| !filters || call.path.contains(**name));
            let others = (!filters).then(|| ("other", healthy(&[9000])));
            clusters(named.map(|name| (*name, healthy(&of(name)))).chain(others))
        });
        let named: Vec<Vec<&str>> = sent
            .iter()
            .filter(|(_, call)| call.path.starts_with("/clusters"))
            .map(|(_, call)| NAMES.into_iter().filter(|name| call.path.contains(name)).collect())
            .collect();
        assert_eq!(named[0], NAMES, "nothing is known of their size yet");
        let later = &named[1..];
        if filters {
            assert!(later.len() >= 6, "each of them once a second: {named:?}");
            assert!(later.windows(2).all(|pair| pair[0].len() == 1 && pair[0] != pair[1]), "{named:?}");
        } else {
            assert!((3..=6).contains(&later.len()), "once a second: {named:?}");
            assert!(later.iter().all(|named| *named == NAMES), "{named:?}");
        }
    }
}

/// A cluster that requests meet between two polls is asked about at once, and so are the weights of its localities: its
/// canary does not get half of the requests until the next poll.
fn a_cluster_met_between_two_polls_does_not_wait_for_the_next<W: World>(mut world: W) {
    let source = by_envoy().replace(r#""1s""#, r#""60s""#);
    let json = format!(r#"{{"upstreams":[{{"cluster":"web_*","endpoints":{{{source}}}}}]}}"#);
    let crew = crew(&mut world, 1, &json);
    let answer =
        |call: &Call| match &call.path {
            path if path.starts_with("/stats") => String::new(),
            path if path.starts_with("/config_dump") => {
                let name =
                    if path.contains("b%24") || path.contains("web_b") { "eds/web_b" } else { "eds/web_a" };
                dumped(&[("a", 1, 99), ("b", 1, 1)]).replace("eds/web", name)
            }
            path => clusters(["web_a", "web_b"].into_iter().filter(|name| path.contains(name)).map(|name| {
                (name, located(&[(0, "a"), (1, "b")]).replace("eds/web", &format!("eds/{name}")))
            })),
        };
    let request = |world: &mut W, cluster: &str| {
        let headers: [(&str, &[u8]); 3] = [(":method", b"GET"), (":path", b"/"), (":authority", b"web")];
        let mut stream = world.stream(crew[0], &headers);
        stream.property(&["xds", "cluster_name"], cluster.as_bytes());
        assert!(stream.request_headers());
        let named = candidates(&stream);
        respond(&mut stream, &Ending::good());
        stream.log();
        stream.done();
        named.into_iter().next().unwrap_or_default()
    };
    for cluster in ["web_a", "web_b"] {
        assert_eq!(request(&mut world, cluster), "", "it is not known yet");
        let sent = polled(&mut world, &crew, (3, 0, false), answer);
        let asked =
            |of: &str| sent.iter().any(|(_, call)| call.path.starts_with(of) && call.path.contains(cluster));
        assert!(asked("/clusters"), "{cluster}: {sent:?}");
        assert!(asked("/config_dump"), "{cluster}: {sent:?}");
        let canary = (0..500).filter(|_| request(&mut world, cluster) == addresses(&[1])[0]).count();
        assert!((1..=20).contains(&canary), "{cluster}: {canary}");
        polled(&mut world, &crew, (20, 0, false), answer);
    }
}

/// A cluster that Envoy no longer has fails each poll. The outages of the admin interface are logged all the same, each
/// with one line, however many upstreams it has.
fn an_outage_is_logged_also_while_a_cluster_is_gone<W: World>(mut world: W) {
    let names: Vec<String> =
        (0..64).map(|at| if at > 0 { format!("api_{at:02}") } else { "web".into() }).collect();
    let upstream = |name: &String| format!(r#"{{"cluster":"{name}","endpoints":{{{}}}}}"#, by_envoy());
    let all = names.iter().map(upstream).collect::<Vec<_>>().join(",");
    let crew = crew(&mut world, 2, &format!(r#"{{"upstreams":[{all}]}}"#));
    let plugins = crew.all.clone();
    // The number of clusters that Envoy has, of the first; `None` if it does not answer.
    for (has, failed, again) in [
        (Some(64), 0, 0),
        (Some(62), 1, 0),
        (None, 2, 0),
        (Some(62), 2, 1),
        (Some(61), 3, 1),
        (None, 4, 1),
        // One more has gone meanwhile.
        (Some(60), 5, 2),
        (Some(63), 5, 2),
        (Some(64), 5, 3),
    ] {
        pass_with(&mut world, &plugins, ms(15_000), |world| {
            serve(world, crew[0], |_| Ending::good());
            for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
                let Some(has) = has else { return world.answer(&call, &Answer::Failed) };
                let named = names[..has].iter().map(String::as_str).filter(|name| call.path.contains(name));
                let named = named.map(|name| (name, healthy(&[0, 1])));
                let body = if call.path.starts_with("/stats") { String::new() } else { clusters(named) };
                world.answer(&call, &Answer::Http(200, body.as_bytes()));
            }
        });
        let logs = world.logs();
        let lines = |what: &str| logs.iter().filter(|line| line.contains(what)).count();
        let said = [lines("envoy_admin poll failed"), lines("envoy_admin poll succeeded again")];
        assert_eq!(said, [failed, again], "{has:?}: {logs:?}");
    }
    let gone = "cluster=api_62 endpoints: Envoy has no cluster of that name (and 1 more upstream)";
    assert!(world.logs().iter().any(|line| line.contains(gone)), "{:?}", world.logs());
}

/// After polls that timed out, Envoy is asked for less and given more time; by degrees for as much as before, and with the
/// usual time-out, once it answers quickly.
fn a_busy_moment_of_envoys_main_thread_is_got_over<W: World>(mut world: W) {
    const NAMES: [&str; 2] = ["web", "api"];
    let upstream = |name: &str| format!(r#"{{"cluster":"{name}","endpoints":{{{}}}}}"#, by_envoy());
    let json = format!(r#"{{"upstreams":[{}]}}"#, NAMES.map(upstream).join(","));
    let crew = crew(&mut world, 1, &json);
    let mut live = |answers: bool, seconds: u64| {
        let mut asked: Vec<(usize, Duration)> = Vec::new();
        for _ in 0..seconds {
            serve(&mut world, crew[0], |_| Ending::good());
            pass_with(&mut world, &crew.all, ms(1000), |world| {
                for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
                    let hosts = call.path.starts_with("/clusters");
                    let named = || NAMES.into_iter().filter(|name| call.path.contains(name));
                    asked.extend(hosts.then(|| (named().count(), call.timeout)));
                    let body = if hosts {
                        clusters(named().map(|name| (name, healthy(&[0, 1]))))
                    } else {
                        String::new()
                    };
                    let answer = if answers { Answer::Http(200, body.as_bytes()) } else { Answer::Failed };
                    world.answer(&call, &answer);
                }
            });
        }
        asked
    };
    let usual = (2, ms(500));
    assert_eq!(live(true, 5).last(), Some(&usual));
    assert_eq!(live(false, 15).last(), Some(&(1, ms(32_000))));
    let after = live(true, 60);
    assert_eq!(after.last(), Some(&usual), "{after:?}");
    // Not at once, and with no step back.
    assert_eq!(after[..3], [(1, ms(32_000)); 3], "{after:?}");
    assert!(after.is_sorted_by(|a, b| a.0 <= b.0 && a.1 >= b.1), "{after:?}");
    assert!(after.windows(2).all(|pair| 2 * pair[1].1 >= pair[0].1), "{after:?}");
}

both!(
    announced_health_holds_while_polls_rest,
    an_answer_that_took_long_is_asked_for_ten_times_as_long_later,
    large_lists_are_asked_for_in_turns_unless_each_answer_has_all,
    a_cluster_met_between_two_polls_does_not_wait_for_the_next,
    an_outage_is_logged_also_while_a_cluster_is_gone,
    a_busy_moment_of_envoys_main_thread_is_got_over,
);
