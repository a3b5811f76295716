//! Clusters with subsets are left to Envoy: they are asked about as soon as their hosts are known, and what is not known
//! changes nothing.

use crate::discovery::{ADMIN, Crew, RANDOM, by_envoy, crew, healthy, members, plugin};
use crate::following::lines;
use crate::scene::{Ending, begin, candidates, ms, pass_with, respond};
use crate::world::{Answer, Call, Plugin, Stream, World};

/// Lets time pass with traffic, with these answers to polls for hosts and for stats. The stats are `None` for a poll that
/// fails. Returns the polls for stats.
fn live<W: World>(
    world: &mut W,
    crew: &Crew,
    seconds: u64,
    hosts: impl Fn(&Call) -> String,
    stats: impl Fn(&Call) -> Option<String>,
) -> Vec<Call> {
    let all: Vec<Plugin> = [crew.main()].into_iter().chain(crew.iter().copied()).collect();
    let mut asked = Vec::new();
    for _ in 0..seconds {
        for plugin in crew.iter() {
            let mut stream = begin(world, *plugin);
            respond(&mut stream, &Ending::good());
            stream.log();
            stream.done();
        }
        pass_with(world, &all, ms(1000), |world| {
            for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
                if !call.path.starts_with("/stats") {
                    world.answer(&call, &Answer::Http(200, hosts(&call).as_bytes()));
                    continue;
                }
                match stats(&call) {
                    Some(stats) => world.answer(&call, &Answer::Http(200, stats.as_bytes())),
                    None => world.answer(&call, &Answer::Failed),
                }
                asked.push(call);
            }
        });
    }
    asked
}

/// The stats of a cluster: subsets now, subsets ever, zones computed, and given up.
fn stats(cluster: &str, [active, created, computed, small]: [u64; 4]) -> String {
    format!(
        "cluster.{cluster}.lb_recalculate_zone_structures: {computed}\n\
         cluster.{cluster}.lb_subsets_active: {active}\ncluster.{cluster}.lb_subsets_created: {created}\n\
         cluster.{cluster}.lb_zone_cluster_too_small: {small}\n"
    )
}

/// Whether requests for this cluster are left to Envoy, by each worker.
fn left<W: World>(world: &mut W, crew: &Crew, cluster: &str) -> Vec<bool> {
    let mut left = Vec::new();
    for plugin in crew.iter() {
        let headers: [(&str, &[u8]); 3] = [(":method", b"GET"), (":path", b"/"), (":authority", b"web")];
        let mut stream = world.stream(*plugin, &headers);
        stream.property(&["xds", "cluster_name"], cluster.as_bytes());
        assert!(stream.request_headers(), "it continues");
        left.push(candidates(&stream).is_empty());
    }
    left
}

/// A list of these clusters, which have two hosts each.
fn listed(clusters: &[&str]) -> String {
    let one = |(at, cluster): (usize, &&str)| {
        let list = healthy(&[2 * at, 2 * at + 1]);
        let from = list.find('[').map_or(0, |at| at + 1);
        list[from..list.len() - 2].replacen("\"web\"", &format!("\"{cluster}\""), 1)
    };
    let all: Vec<String> = clusters.iter().enumerate().map(one).collect();
    format!(r#"{{"cluster_statuses":[{}]}}"#, all.join(","))
}

fn upstreams(clusters: &[String]) -> String {
    let one =
        |cluster: &String| format!(r#"{{"cluster":"{cluster}","endpoints":{{{}}},{RANDOM}}}"#, by_envoy());
    let all: Vec<String> = clusters.iter().map(one).collect();
    format!(r#"{{"upstreams":[{}]}}"#, all.join(","))
}

/// A cluster whose hosts become known after the others were asked about does not wait for their next turn.
fn hosts_that_become_known_are_asked_about_at_once<W: World>(mut world: W) {
    let crew = crew(&mut world, 2, &upstreams(&["web".to_owned(), "api".to_owned()]));
    let says = |_: &Call| Some(stats("web", [0; 4]) + &stats("api", [2, 2, 0, 0]));
    let empty = r#"{"name":"api","host_statuses":[]}"#;
    let only_web = listed(&["web"]).replacen('[', &format!("[{empty},"), 1);
    let asked = live(&mut world, &crew, 30, |_| only_web.clone(), says);
    assert!(asked.len() == 1 && !asked[0].path.contains("api"), "{asked:?}");
    let both = listed(&["web", "api"]);
    for _ in 0..2 {
        let asked = live(&mut world, &crew, 20, |_| both.clone(), says);
        assert!(asked.len() == 1 && asked[0].path.contains("api"), "{asked:?}");
        assert!(!asked[0].path.contains("web"), "that is known: {asked:?}");
        assert_eq!(left(&mut world, &crew, "api"), [true, true]);
        assert_eq!(left(&mut world, &crew, "web"), [false, false]);
        // Nothing is asked about a cluster without hosts, and it stays left to Envoy.
        assert!(live(&mut world, &crew, 20, |_| only_web.clone(), says).is_empty());
        assert_eq!(left(&mut world, &crew, "api"), [true, true]);
    }
}

/// More names than one poll may have are asked for in turns.
fn many_clusters_are_asked_about_in_turns<W: World>(mut world: W) {
    let names: Vec<String> = (0..30).map(|at| format!("web_{at:02}_{}", "x".repeat(190))).collect();
    let crew = crew(&mut world, 1, &upstreams(&[&["web".to_owned()], &names[..]].concat()));
    let in_path = |call: &Call| {
        let named = names.iter().map(String::as_str).filter(|name| call.path.contains(name));
        named.collect::<Vec<&str>>()
    };
    let hosts = |call: &Call| listed(&[&["web"], &in_path(call)[..]].concat());
    let says = |call: &Call| Some(in_path(call).iter().map(|name| stats(name, [1, 1, 0, 0])).collect());
    let asked = live(&mut world, &crew, 30, hosts, says);
    for name in &names {
        let times = asked.iter().filter(|call| call.path.contains(name)).count();
        assert_eq!(times, 1, "{name}");
        assert_eq!(left(&mut world, &crew, name), [true], "{name}");
    }
    assert!(asked.iter().all(|call| call.path.len() < 20 << 10), "as the limit on headers has it");
}

/// Neither a poll that fails nor an answer without the stats says that a cluster has no subsets.
fn what_stats_do_not_say_changes_nothing<W: World>(mut world: W) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), RANDOM));
    let hosts = |_: &Call| healthy(&[0, 1]);
    let (unknown, failed) = ("whether Envoy has subsets there is unknown", "/stats: timed out");
    let asked = live(&mut world, &crew, 100, hosts, |_| None);
    assert!((3..=8).contains(&asked.len()), "soon, and ever more rarely: {}", asked.len());
    assert!(asked[1].timeout > asked[0].timeout && asked[2].timeout > asked[1].timeout);
    assert_eq!([lines(&world, unknown), lines(&world, failed)], [1, 1], "{:?}", world.logs());
    assert_eq!(left(&mut world, &crew, "web"), [false, false]);
    // It is asked again within its back-off.
    live(&mut world, &crew, 200, hosts, |_| Some(stats("web", [2, 2, 0, 0])));
    assert_eq!(left(&mut world, &crew, "web"), [true, true]);
    for says in [None, Some("cluster.web.lb_healthy_panic: 0\n".to_owned())] {
        let asked = live(&mut world, &crew, 310, hosts, |_| says.clone());
        assert!(!asked.is_empty());
        assert_eq!(left(&mut world, &crew, "web"), [true, true], "{says:?}");
    }
    let missing = "/stats: its stats lb_subsets_* are missing: stats_matcher must admit them";
    assert_eq!([lines(&world, failed), lines(&world, missing)], [2, 1], "{:?}", world.logs());
}

/// Subsets disappear from the gauge while a cluster has no hosts.
fn a_cluster_that_had_subsets_is_believed_to_have_none_when_it_says_so_twice<W: World>(mut world: W) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), RANDOM));
    let hosts = |_: &Call| healthy(&[0, 1]);
    let turn = core::cell::Cell::new(0);
    let script = [[2, 2, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]];
    for (at, gone) in [(1, false), (2, false), (3, false), (4, false), (5, false), (6, true)] {
        while turn.get() < at {
            live(&mut world, &crew, 2, hosts, |_| {
                let says = script[turn.get().min(script.len() - 1)];
                turn.set(turn.get() + 1);
                Some(stats("web", says))
            });
        }
        assert_eq!(left(&mut world, &crew, "web"), [!gone; 2], "{at}");
    }
}

/// Hosts without an address that get all requests are no subsets, which a new leader would go by until it has asked.
fn hosts_without_an_address_that_get_all_requests_are_no_subsets<W: World>(mut world: W) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), RANDOM));
    let second = healthy(&[0, 1]).replace(r#""weight":1"#, r#""weight":1,"priority":1"#);
    let pipe = r#"{"address":{"pipe":{"path":"/run/x.sock"}},"weight":1}"#;
    let with_pipe = second.replace("\"host_statuses\":[", &format!("\"host_statuses\":[{pipe},"));
    live(&mut world, &crew, 3, |_| with_pipe.clone(), |_| None);
    assert_eq!(left(&mut world, &crew, "web"), [true, true]);
    // The main thread, which holds the lease, is silent.
    let rest = Crew { all: crew.all[1..].to_vec() };
    live(&mut world, &rest, 8, |_| with_pipe.clone(), |_| None);
    live(&mut world, &rest, 3, |_| second.clone(), |_| None);
    assert_eq!(left(&mut world, &crew, "web"), [false, false]);
}

/// A request that was meant for one subset does not go to another because it is the first.
fn subsets_are_known_before_the_first_request<W: World>(mut world: W) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), RANDOM));
    // A proxy that has started a while ago, and has had no request.
    for second in 0..60 {
        let all: Vec<Plugin> = [crew.main()].into_iter().chain(crew.iter().copied()).collect();
        pass_with(&mut world, &all, ms(1000), |world| {
            for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
                let answer = match call.path.starts_with("/stats") {
                    true => stats("web", [2, 2, 0, 0]),
                    false => healthy(if second < 40 { &[] } else { &[0, 1] }),
                };
                world.answer(&call, &Answer::Http(200, answer.as_bytes()));
            }
        });
    }
    assert_eq!(left(&mut world, &crew, "web"), [true, true]);
}

/// A cluster that was too small for zone-aware routing at the start has grown.
fn zones_count_since_the_last_poll<W: World>(_: W) {
    let in_zone = |zone: &str| format!(r#""eds_health_status":"HEALTHY"}},"locality":{{"zone":"{zone}""#);
    let (a, b) = (in_zone("a"), in_zone("b"));
    for (counters, said) in [
        ([[1, 1], [3, 1]], 1),
        ([[1, 1], [3, 3]], 0),
        ([[4, 1], [4, 1]], 0),
        // They have begun anew, as after a hot restart.
        ([[9, 9], [3, 0]], 1),
        ([[9, 9], [3, 3]], 0),
    ] {
        let mut world = W::new(6);
        let crew = crew(&mut world, 1, &plugin(&by_envoy(), RANDOM));
        for [computed, small] in counters {
            let says = |_: &Call| Some(stats("web", [0, 0, computed, small]));
            let asked = live(&mut world, &crew, 301, |_| members(&[(0, &a), (1, &b)]), says);
            assert!(!asked.is_empty());
        }
        assert_eq!(lines(&world, "prefers its own zone"), said, "{counters:?}");
    }
}

both!(
    hosts_that_become_known_are_asked_about_at_once,
    many_clusters_are_asked_about_in_turns,
    what_stats_do_not_say_changes_nothing,
    a_cluster_that_had_subsets_is_believed_to_have_none_when_it_says_so_twice,
    hosts_without_an_address_that_get_all_requests_are_no_subsets,
    subsets_are_known_before_the_first_request,
    zones_count_since_the_last_poll,
);
