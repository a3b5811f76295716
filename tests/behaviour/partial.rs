//! Discovery that finds fewer endpoints than there are, or endpoints that requests cannot be steered to.

use crate::discovery::{
    ADMIN, Crew, PROMETHEUS, RANDOM, addresses, asked, by_envoy, crew, healthy, members, plugin, report,
    report_hosts, series, split, targets,
};
use crate::scene::{Ending, address, begin, candidates, give, load, ms, pass_with, picks, serve, single};
use crate::world::{Answer, Plugin, World};

const FOUND: &str = r#""prometheus":{"query":"up"}"#;

/// Seconds in which Prometheus lists these endpoints, and each worker sends requests that `ending` answers.
fn seconds<W: World>(
    world: &mut W,
    crew: &Crew,
    seconds: u64,
    named: impl Fn(u64) -> Vec<usize>,
    ending: impl Fn(&str) -> Ending,
) {
    let workers: Vec<_> = crew.iter().copied().collect();
    let mut polls = 0;
    let all: Vec<_> = [crew.main()].into_iter().chain(workers.iter().copied()).collect();
    pass_with(world, &all, ms(1000 * seconds), |world| {
        for call in world.calls().into_iter().filter(|call| call.cluster == PROMETHEUS) {
            polls += 1;
            world.answer(&call, &Answer::Http(200, series(&named(polls)).as_bytes()));
        }
        for worker in &workers {
            serve(world, *worker, &ending);
        }
    });
}

fn a_prometheus_that_starts_again_removes_no_endpoint(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(FOUND, RANDOM));
    let nine: Vec<usize> = (0..9).collect();
    report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, series(&nine).as_bytes()));
    // It has scraped one of them, then three, then all; ten seconds per step.
    for names in [&[7][..], &[2, 4, 7], &[], &[1], &nine] {
        seconds(&mut world, &crew, 10, |_| names.to_vec(), |_| Ending::good());
        for plugin in crew.iter() {
            assert_eq!(targets(&mut world, *plugin), addresses(&nine), "{names:?}");
        }
    }
    let logs = world.logs();
    assert!(
        logs.iter().any(|line| line.contains("source=prometheus: 8 of 9 endpoints are no longer listed")),
        "{logs:?}"
    );
}

fn answers_that_alternate_leave_every_endpoint_its_share(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(FOUND, r#""policy":"round_robin""#));
    let ten: Vec<usize> = (0..10).collect();
    report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, series(&ten).as_bytes()));
    let named = |poll: u64| if poll.is_multiple_of(2) { (0..10).collect() } else { vec![3, 8] };
    seconds(&mut world, &crew, 200, named, |_| Ending::good());
    let counts = picks(&mut world, crew[1], 1000);
    assert!(counts.len() == 10 && counts.values().all(|count| (90..=110).contains(count)), "{counts:?}");
}

fn an_endpoint_that_is_left_out_and_serves_well_stays(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(FOUND, RANDOM));
    report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, series(&[0, 1, 2]).as_bytes()));
    seconds(&mut world, &crew, 300, |_| vec![0], |_| Ending::good());
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 1, 2]));
}

fn an_endpoint_that_is_left_out_and_gets_no_requests_goes_after_a_minute(mut world: impl World) {
    let crew = crew(&mut world, 1, &plugin(FOUND, RANDOM));
    report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, series(&[0, 1, 2]).as_bytes()));
    let idle = |world: &mut _, seconds: u64| {
        pass_with(world, &[crew.main(), crew[0]], ms(1000 * seconds), |world: &mut _| {
            for call in World::calls(world) {
                World::answer(world, &call, &Answer::Http(200, series(&[1]).as_bytes()));
            }
        });
    };
    idle(&mut world, 50);
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 1, 2]));
    // Those requests succeeded, which counts for half a minute.
    idle(&mut world, 100);
    assert_eq!(targets(&mut world, crew[0]), addresses(&[1]));
}

fn an_endpoint_that_is_left_out_and_fails_goes_soon(mut world: impl World) {
    let more =
        r#""policy":"round_robin","health":{"max_ejected_percent":100},"failover":{"panic_percent":0}"#;
    let crew = crew(&mut world, 2, &plugin(FOUND, more));
    report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, series(&[0, 1, 2, 3]).as_bytes()));
    let gone = [address(2), address(3)];
    let ending = |to: &str| match gone.contains(&to.to_owned()) {
        true => Ending::local("503", "upstream_reset_before_response_started{remote_connection_failure}"),
        false => Ending::good(),
    };
    seconds(&mut world, &crew, 10, |_| vec![0, 1], ending);
    let status = world.logs();
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 1]));
    // They have left, so they do not count as ejected: the set is two endpoints, both healthy.
    seconds(&mut world, &crew, 1, |_| vec![0, 1, 2, 3], |_| Ending::good());
    assert!(targets(&mut world, crew[1]).len() >= 2, "{status:?}");
}

fn an_endpoint_that_returns_within_minutes_is_no_newcomer(mut world: impl World) {
    let crew = crew(
        &mut world,
        1,
        &plugin(&by_envoy(), r#""policy":"random","slow_start":"300s","health":{"fail_after":2}"#),
    );
    report_hosts(&mut world, &crew, &healthy(&[0, 1, 2, 3]));
    pass_with(&mut world, &[crew.main(), crew[0]], ms(2000), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(200, healthy(&[0, 1, 2, 3]).as_bytes()));
        }
    });
    give(&mut world, crew[0], &address(3), &Ending::local("504", "response_timeout"));
    let known = targets(&mut world, crew[0]);
    assert_eq!(known, addresses(&[0, 1, 2]));
    report_hosts(&mut world, &crew, &healthy(&[0, 2]));
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 2]));
    report_hosts(&mut world, &crew, &healthy(&[0, 1, 2, 3]));
    let counts = picks(&mut world, crew[0], 3000);
    assert_eq!(counts.get(&address(3)), None, "it failed before it left: {counts:?}");
    assert!(counts[&address(1)] > 850, "no slow start: {counts:?}");
    // An endpoint that was never known is a new one.
    report_hosts(&mut world, &crew, &healthy(&[0, 1, 2, 4]));
    let counts = picks(&mut world, crew[0], 3000);
    assert!((1..300).contains(&counts[&address(4)]), "a slow start: {counts:?}");
}

fn hosts_that_await_their_removal_serve(mut world: impl World) {
    let reject = r#""policy":"random","failover":{"none_eligible":"reject"}"#;
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), reject));
    report_hosts(&mut world, &crew, &healthy(&[0, 1, 2]));
    let pending = r#""pending_dynamic_removal":true,"eds_health_status":"HEALTHY""#;
    for left in [&[1][..], &[]] {
        let state = |host| (host, if left.contains(&host) { "" } else { pending });
        report_hosts(&mut world, &crew, &members(&[state(0), state(1), state(2)]));
        for plugin in crew.iter() {
            assert_eq!(targets(&mut world, *plugin), addresses(&[0, 1, 2]), "Envoy goes on using them");
        }
    }
    report_hosts(
        &mut world,
        &crew,
        &members(&[(0, pending), (1, r#""pending_dynamic_removal":true,"failed_active_health_check":true"#)]),
    );
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0]));
}

/// `/clusters` with one cluster `web` whose endpoints are in these localities.
pub fn located(endpoints: &[(usize, &str)]) -> String {
    let hosts: Vec<String> = endpoints
        .iter()
        .map(|(endpoint, region)| {
            let (ip, port) = split(*endpoint);
            format!(
                r#"{{"address":{{"socket_address":{{"address":"{ip}","port_value":{port}}}}},"weight":1,"locality":{{"region":"{region}"}}}}"#
            )
        })
        .collect();
    format!(
        r#"{{"cluster_statuses":[{{"name":"web","eds_service_name":"eds/web","host_statuses":[{}]}}]}}"#,
        hosts.join(",")
    )
}

/// `/config_dump` with these localities: region, number of endpoints, weight.
pub fn dumped(localities: &[(&str, usize, u32)]) -> String {
    let groups: Vec<String> = localities
        .iter()
        .map(|(region, endpoints, weight)| {
            let hosts = vec![r#"{"health_status":"HEALTHY","load_balancing_weight":1}"#; *endpoints].join(",");
            format!(
                r#"{{"locality":{{"region":"{region}"}},"lb_endpoints":[{hosts}],"load_balancing_weight":{weight}}}"#
            )
        })
        .collect();
    format!(
        r#"{{"configs":[{{"dynamic_endpoint_configs":[{{"endpoint_config":{{"cluster_name":"eds/web","endpoints":[{}]}}}}]}}]}}"#,
        groups.join(",")
    )
}

/// Answers every request to Envoy's admin interface for 2.5 s.
fn envoy_tells<W: World>(world: &mut W, crew: &Crew, members: &str, localities: &str) {
    let all: Vec<_> = [crew.main()].into_iter().chain(crew.iter().copied()).collect();
    pass_with(world, &all, ms(2500), |world| {
        for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
            let body = if call.path.starts_with("/config_dump") { localities } else { members };
            assert!(
                !call.path.starts_with("/config_dump")
                    || call.path.ends_with("name_regex=%5Eeds%5C%2Fweb%24"),
                "{call:?}"
            );
            world.answer(&call, &Answer::Http(200, body.as_bytes()));
        }
    });
}

fn a_canary_keeps_its_locality_weight(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), ""));
    let members = located(&[(0, "a"), (1, "b")]);
    for (a, b, low, high) in
        [(99, 1, 8, 40), (80, 20, 340, 460), (1, 1, 900, 1100), (10, 0, 0, 0), (20, 80, 1540, 1660)]
    {
        envoy_tells(&mut world, &crew, &members, &dumped(&[("a", 1, a), ("b", 1, b)]));
        let counts = picks(&mut world, crew[1], 2000);
        let canary = counts.get(&address(1)).copied().unwrap_or(0);
        assert!((low..=high).contains(&canary), "{a}/{b}: {counts:?}");
    }
}

/// What is not known of the weights changes nothing, and each time that they become unknown is said once.
fn a_canary_keeps_its_weight_while_envoy_does_not_tell_it(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), ""));
    let (members, dump) = (located(&[(0, "a"), (1, "b")]), dumped(&[("a", 1, 99), ("b", 1, 1)]));
    let late = (504, "upstream request timeout");
    for ((status, weights), said) in
        [((200, &*dump), 0), ((200, "{}"), 1), ((200, &*dump), 1), (late, 2), (late, 2), ((200, &*dump), 2)]
    {
        pass_with(&mut world, &crew.all, ms(2500), |world| {
            for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
                let (status, body) =
                    if call.path.starts_with("/config_dump") { (status, weights) } else { (200, &*members) };
                world.answer(&call, &Answer::Http(status, body.as_bytes()));
            }
        });
        let counts = picks(&mut world, crew[1], 2000);
        let canary = counts.get(&address(1)).copied().unwrap_or(0);
        assert!((8..=40).contains(&canary), "{status} {weights}: {counts:?}");
        let logs = world.logs();
        let lines = |what: &str| logs.iter().filter(|line| line.contains(what)).count();
        assert_eq!(lines("locality weights unknown"), said, "{status} {weights}: {logs:?}");
    }
    for why in ["/config_dump: the answer has no \"eds/web\"", "/config_dump: timed out"] {
        assert!(world.logs().iter().any(|line| line.contains(why)), "{why}: {:?}", world.logs());
    }
}

/// Answers polls for hosts, and none for the weights of localities, for `seconds`, in which only these workers tick.
fn envoy_tells_only_hosts<W: World>(world: &mut W, awake: &[Plugin], seconds: u64, members: &str) {
    let mut asked = 0;
    pass_with(world, awake, ms(1000 * seconds), |world| {
        for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
            let hosts = call.path.starts_with("/clusters");
            asked += usize::from(hosts);
            world.answer(&call, &if hosts { Answer::Http(200, members.as_bytes()) } else { Answer::Failed });
        }
    });
    assert!(asked > 0, "the hosts are asked for");
}

/// A new leader knows the hosts before the weights: until it does, those that were in force are.
fn locality_weights_outlast_a_reload_and_a_move_of_the_lease<W: World>(_: W) {
    let members = located(&[(0, "a"), (1, "b")]);
    for (a, b, low, high) in [(99, 1, 8, 40), (10, 0, 0, 0)] {
        for reloads in [true, false] {
            let mut world = W::new(1);
            let mut crew = crew(&mut world, 2, &plugin(&by_envoy(), ""));
            envoy_tells(&mut world, &crew, &members, &dumped(&[("a", 1, a), ("b", 1, b)]));
            let awake = if reloads {
                let json = plugin(&by_envoy(), r#""slow_start":"1s""#);
                for plugin in &mut crew.all {
                    let thread = world.thread_of(*plugin);
                    *plugin = load(&mut world, thread, &json);
                }
                &crew.all[..]
            } else {
                // The main thread, which holds the lease, is silent.
                &crew.all[1..]
            };
            envoy_tells_only_hosts(&mut world, awake, 8, &members);
            let counts = picks(&mut world, crew[1], 2000);
            let canary = counts.get(&address(1)).copied().unwrap_or(0);
            assert!((low..=high).contains(&canary), "{a}/{b}, reloads: {reloads}: {counts:?}");
            // Where they no longer count, they are not kept.
            if reloads {
                let json = plugin(&by_envoy().replace('}', r#","locality_weights":false}"#), RANDOM);
                for plugin in &mut crew.all {
                    let thread = world.thread_of(*plugin);
                    *plugin = load(&mut world, thread, &json);
                }
                envoy_tells_only_hosts(&mut world, &crew.all, 8, &members);
                let counts = picks(&mut world, crew[1], 1000);
                assert!((400..600).contains(&counts[&address(1)]), "{a}/{b}: {counts:?}");
            }
        }
    }
}

fn locality_weight_equal_to_the_sum_of_endpoints_is_ignored(mut world: impl World) {
    let crew =
        crew(&mut world, 1, &plugin(&by_envoy(), r#""health":{"fail_after":1,"max_ejected_percent":100}"#));
    let members = located(&[(0, "a"), (1, "a"), (2, "b")]);
    envoy_tells(&mut world, &crew, &members, &dumped(&[("a", 2, 200), ("b", 1, 100)]));
    give(&mut world, crew[0], &address(2), &Ending::local("504", "response_timeout"));
    assert_eq!(picks(&mut world, crew[0], 300).get(&address(2)), None, "the balancer is free");
    // Also with weights that divide: a locality without a healthy endpoint gets nothing.
    envoy_tells(&mut world, &crew, &members, &dumped(&[("a", 2, 1), ("b", 1, 99)]));
    give(&mut world, crew[0], &address(2), &Ending::local("504", "response_timeout"));
    assert_eq!(picks(&mut world, crew[0], 300).get(&address(2)), None, "it is the only one of its locality");
}

fn locality_weights_can_be_left_alone(mut world: impl World) {
    let sources =
        format!(r#""envoy_admin":{{"cluster":"{ADMIN}","interval":"1s","locality_weights":false}}"#);
    let crew = crew(&mut world, 1, &plugin(&sources, RANDOM));
    envoy_tells(&mut world, &crew, &located(&[(0, "a"), (1, "b")]), "{}");
    let counts = picks(&mut world, crew[0], 1000);
    assert!((400..600).contains(&counts[&address(1)]), "{counts:?}");
}

fn what_cannot_be_steered_to_gets_its_part(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), r#""policy":"round_robin""#));
    let pipe = r#"{"address":{"pipe":{"path":"/run/x.sock"}},"weight":1}"#;
    let body = members(&[(0, ""), (1, ""), (2, "")]);
    let body = body.replace("\"host_statuses\":[", &format!("\"host_statuses\":[{pipe},"));
    report_hosts(&mut world, &crew, &body);
    let unsteered = (0..2000).filter(|_| candidates(&begin(&mut world, crew[1])).is_empty()).count();
    assert!((430..570).contains(&unsteered), "a quarter: {unsteered}");
    let logs = world.logs();
    let said: Vec<_> = logs.iter().filter(|line| line.contains("1 of 4 hosts have no IP address")).collect();
    assert!(said.len() == 1 && said[0].contains("a pipe") && said[0].contains("25 %"), "{logs:?}");
    report_hosts(&mut world, &crew, &healthy(&[0, 1]));
    assert!((0..200).all(|_| !candidates(&begin(&mut world, crew[1])).is_empty()));
}

/// Where one worker leads and carries the traffic, no other one tells it of the change.
fn what_cannot_be_steered_to_may_come_and_go<W: World>(mut world: W) {
    world.add_cluster(ADMIN);
    let json = plugin(&by_envoy(), r#""policy":"round_robin""#);
    let crew = Crew { all: vec![single(&mut world, &json)] };
    let pipe = r#"{"address":{"pipe":{"path":"/run/x.sock"}},"weight":1}"#;
    let steered = healthy(&[0, 1, 2]);
    let partly = steered.replace("\"host_statuses\":[", &format!("\"host_statuses\":[{pipe},"));
    for (body, least, most) in [(&steered, 0, 0), (&partly, 430, 570), (&steered, 0, 0)] {
        report_hosts(&mut world, &crew, body);
        let unsteered = (0..2000).filter(|_| candidates(&begin(&mut world, crew.main())).is_empty()).count();
        assert!((least..=most).contains(&unsteered), "{unsteered}");
    }
}

fn series_without_address_are_logged_with_their_labels(mut world: impl World) {
    let crew = crew(&mut world, 1, &plugin(FOUND, RANDOM));
    let body = series(&[0, 1]).replace(
        "]}}",
        r#",{"metric":{"instance":"web-1:80"},"value":[1,"1"]},{"metric":{"pod":"x"},"value":[1,"1"]}]}}"#,
    );
    for _ in 0..3 {
        report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, body.as_bytes()));
    }
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 1]));
    let logs = world.logs();
    let said = logs.iter().filter(|line| {
        line.contains("2 of 4 series have no address and are left out: web-1:80, no label instance")
    });
    assert_eq!(said.count(), 1, "{logs:?}");
}

fn addresses_unknown_to_envoy_are_logged(mut world: impl World) {
    let sources = format!(r#""static":["{}","{}","{}"],{}"#, address(0), address(7), address(8), by_envoy());
    let crew = crew(&mut world, 2, &plugin(&sources, RANDOM));
    report_hosts(&mut world, &crew, &healthy(&[0, 1]));
    report_hosts(&mut world, &crew, &healthy(&[0, 1, 2]));
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 1, 2]));
    let logs = world.logs();
    let said: Vec<_> = logs.iter().filter(|line| line.contains("not in Envoy's cluster")).collect();
    assert!(said.len() == 1 && said[0].contains(&address(7)), "{logs:?}");
}

fn the_proxys_own_zone_is_taken_from_its_node(mut world: impl World) {
    let list = format!(
        r#""static":[{{"address":"{}","zone":"a"}},{{"address":"{}","zone":"b"}}]"#,
        address(0),
        address(1)
    );
    let json = plugin(&list, r#""zone":{"local":"node"}"#);
    let nowhere = crew(&mut world, 1, &json);
    assert!(world.logs().iter().any(|line| line.contains("node.locality has no zone")));
    let counts = picks(&mut world, nowhere[0], 400);
    assert_eq!(counts.len(), 2, "as without zones: {counts:?}");
    for (zone, local) in [("a", 0), ("b", 1)] {
        world.set_node_zone(zone);
        let thread = world.thread();
        let plugin = load(&mut world, thread, &json);
        assert_eq!(targets(&mut world, plugin), addresses(&[local]), "{zone}");
    }
}

/// The response may have been too large.
fn batch_without_an_answer_is_halved(mut world: impl World) {
    let names = ["web", "api", "img", "pay"];
    let upstreams = names
        .map(|name| format!(r#"{{"cluster":"{name}","policy":"random","endpoints":{{{}}}}}"#, by_envoy()));
    let crew = crew(&mut world, 1, &format!(r#"{{"upstreams":[{}]}}"#, upstreams.join(",")));
    let mut named = Vec::new();
    for _ in 0..3 {
        let path = asked(&mut world, &crew, ADMIN).path;
        named.push(names.iter().filter(|name| path.contains(**name)).count());
        report(&mut world, &crew, ADMIN, &Answer::Failed);
    }
    assert_eq!(named, [4, 2, 1]);
}

fn one_question_names_all_upstreams_and_what_envoy_adds_is_passed_over(mut world: impl World) {
    let upstream =
        |name: &str| format!(r#"{{"cluster":"{name}","policy":"random","endpoints":{{{}}}}}"#, by_envoy());
    let json = format!(r#"{{"upstreams":[{},{}]}}"#, upstream("web"), upstream("api"));
    let crew = crew(&mut world, 1, &json);
    let call = asked(&mut world, &crew, ADMIN);
    assert_eq!(call.path, "/clusters?format=json&filter=%5E%28%3F%3Aweb%7Capi%29%24");
    assert_eq!(world.calls().iter().filter(|call| call.cluster == ADMIN).count(), 1);
    // Envoy before 1.38 responds with all of its clusters, more than is held at a time.
    let web = healthy(&[0, 1]);
    let strangers = healthy(&(0..50).collect::<Vec<_>>())
        .replace("\"web\"", "\"stranger\"")
        .replace(r#"{"cluster_statuses":["#, "")
        .replace("]}]}", "]}");
    let many = vec![strangers.as_str(); (9 << 20) / strangers.len() + 1].join(",");
    let body = web.replacen("[{\"name\"", &format!("[{many},{{\"name\""), 1);
    assert!(body.len() > 9 << 20);
    report_hosts(&mut world, &crew, &body);
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 1]));
    let logs = world.logs();
    assert_eq!(logs.iter().filter(|line| line.contains("ignores filter=")).count(), 1, "{logs:?}");
    assert!(
        logs.iter().any(|line| line.contains(r#"cluster=api endpoints: Envoy has no cluster of that name"#)),
        "{logs:?}"
    );
}

both!(
    a_prometheus_that_starts_again_removes_no_endpoint,
    answers_that_alternate_leave_every_endpoint_its_share,
    an_endpoint_that_is_left_out_and_serves_well_stays,
    an_endpoint_that_is_left_out_and_gets_no_requests_goes_after_a_minute,
    an_endpoint_that_is_left_out_and_fails_goes_soon,
    an_endpoint_that_returns_within_minutes_is_no_newcomer,
    hosts_that_await_their_removal_serve,
    a_canary_keeps_its_locality_weight,
    a_canary_keeps_its_weight_while_envoy_does_not_tell_it,
    locality_weights_outlast_a_reload_and_a_move_of_the_lease,
    locality_weight_equal_to_the_sum_of_endpoints_is_ignored,
    locality_weights_can_be_left_alone,
    what_cannot_be_steered_to_gets_its_part,
    what_cannot_be_steered_to_may_come_and_go,
    series_without_address_are_logged_with_their_labels,
    addresses_unknown_to_envoy_are_logged,
    the_proxys_own_zone_is_taken_from_its_node,
    batch_without_an_answer_is_halved,
    one_question_names_all_upstreams_and_what_envoy_adds_is_passed_over,
);
