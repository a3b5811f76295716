//! A new configuration in the same VM, and two plugins side by side.

use std::collections::BTreeMap;

use crate::polling::vector;
use crate::scene::{
    Ending, address, begin, candidates, config, give, load, ms, pass, pass_with, picks, picks_of, respond,
    target,
};
use crate::world::{Answer, Plugin, Stream, World};

const HEALTH: &str = r#""policy":"round_robin","health":{"fail_after":2}"#;

fn break_one<W: World>(world: &mut W, plugin: Plugin) {
    give(world, plugin, &address(1), &Ending::local("504", "response_timeout"));
    assert_eq!(picks_of(world, plugin, &address(1), 20), 0);
}

fn a_new_configuration_adopts_what_was_learnt(mut world: impl World) {
    let thread = world.thread();
    let old = load(&mut world, thread, &config(4, HEALTH, ""));
    break_one(&mut world, old);
    // Another policy, more endpoints, fewer candidates: the endpoints are the same.
    let new =
        load(&mut world, thread, &config(6, r#""policy":"least_request""#, r#""steering":{"candidates":1}"#));
    let counts = picks(&mut world, new, 200);
    assert_eq!((counts.len(), counts.get(&address(1))), (5, None), "{counts:?}");
    assert_eq!(picks_of(&mut world, old, &address(1), 20), 0, "streams of the old one finish with it");
}

fn requests_of_the_old_configuration_end_in_it(mut world: impl World) {
    let thread = world.thread();
    let json = config(2, r#""policy":"least_request""#, "");
    let old = load(&mut world, thread, &json);
    let mut before: Vec<_> = (0..20).map(|_| begin(&mut world, old)).collect();
    let new = load(&mut world, thread, &json);
    let after: Vec<_> = (0..20).map(|_| begin(&mut world, new)).collect();
    for stream in &mut before {
        respond(stream, &Ending::good());
        stream.log();
        stream.done();
    }
    let more: Vec<_> = (0..20).map(|_| begin(&mut world, new)).collect();
    let all = after.iter().chain(&more);
    assert_eq!(all.filter(|stream| target(*stream) == address(0)).count(), 20, "given back elsewhere");
}

fn the_old_configuration_may_tick_beside_the_new(mut world: impl World) {
    let thread = world.thread();
    let old = load(&mut world, thread, &config(4, HEALTH, ""));
    picks(&mut world, old, 4);
    let new = load(&mut world, thread, &config(4, HEALTH, ""));
    picks(&mut world, new, 4);
    pass(&mut world, &[old, new], ms(2000));
    break_one(&mut world, new);
    // Envoy removes the old one; its report expires and does not vouch for the failing endpoint.
    pass(&mut world, &[new], ms(500));
    assert_eq!(picks_of(&mut world, new, &address(1), 20), 0);
}

/// Each of two listeners has a filter of this name, and each is configured anew in turn.
fn a_configuration_adopts_from_the_one_before_it_on_its_listener<W: World>(_: W) {
    let mut world = W::new(1);
    let thread = world.thread();
    let json = |cluster: &str, more: &str| {
        config(4, &format!("{HEALTH}{more}"), "").replace(r#""web""#, &format!("{cluster:?}"))
    };
    let old = load(&mut world, thread, &json("web", ""));
    break_one(&mut world, old);
    let other = load(&mut world, thread, &json("api", ""));
    let new = load(&mut world, thread, &json("web", r#","slow_start":"11s""#));
    assert_eq!(picks_of(&mut world, new, &address(1), 20), 0);
    let mut begins = |plugin| {
        let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/")]);
        stream.property(&["xds", "cluster_name"], b"api");
        stream.request_headers();
        target(&stream)
    };
    assert!((0..8).any(|_| begins(other) == address(1)), "of the other's endpoints none has failed");
}

fn new_questions_are_asked_though_the_old_configuration_lingers<W: World>(mut world: W) {
    let thread = world.thread();
    world.add_cluster("prometheus");
    let prometheus = r#""prometheus":{"cluster":"prometheus","interval":"1s","timeout":"500ms"}"#;
    let asking =
        |query: &str| config(2, &format!(r#""signals":[{{"name":"load","query":"{query}"}}]"#), prometheus);
    let old = load(&mut world, thread, &asking("before"));
    pass(&mut world, &[old], ms(2000));
    let asked = |world: &W, query: &str| world.calls().iter().any(|call| call.path.contains(query));
    assert!(asked(&world, "before"));
    let new = load(&mut world, thread, &asking("after"));
    // Envoy drains the old listener for minutes, and its plugin ticks meanwhile.
    pass(&mut world, &[old, new], ms(6000));
    assert!(asked(&world, "after"), "{:?}", world.calls());
}

/// Two listeners with a configuration each, under the same plugin name: both are asked for, however long they live.
fn plugins_of_one_name_for_other_clusters_are_both_asked_for<W: World>(mut world: W) {
    world.add_cluster("prometheus");
    let prometheus = r#""prometheus":{"cluster":"prometheus","interval":"1s","timeout":"500ms"}"#;
    let asking = |cluster: &str| {
        let signals = format!(r#""autoscale":{{}},"signals":[{{"name":"load","query":"of_{cluster}"}}]"#);
        config(2, &signals, prometheus).replace("\"web\"", &format!("{cluster:?}"))
    };
    let mut all = Vec::new();
    for thread in [world.thread(), world.thread()] {
        for cluster in ["web", "api"] {
            all.push(load(&mut world, thread, &asking(cluster)));
        }
    }
    let mut asked = BTreeMap::<String, usize>::new();
    pass_with(&mut world, &all, ms(10_000), |world| {
        for call in world.calls() {
            let query = call.path.split(['=', '&']).nth(1).unwrap_or_default().to_owned();
            *asked.entry(query).or_default() += 1;
            world.answer(&call, &Answer::Http(200, VECTOR));
        }
    });
    assert!(asked.len() == 2 && asked.values().all(|times| (6..=12).contains(times)), "{asked:?}");
}

const VECTOR: &[u8] = br#"{"status":"success","data":{"resultType":"vector","result":[
    {"metric":{"instance":"10.0.0.1:80"},"value":[0,"1"]},{"metric":{"instance":"10.0.0.2:80"},"value":[0,"1"]}]}}"#;

/// A configuration with one cluster more steers to what the one before had found.
fn what_was_found_is_there_at_once_beside_a_new_cluster<W: World>(mut world: W) {
    world.add_cluster("prometheus");
    let thread = world.thread();
    let json = |clusters: &[&str]| {
        let entry = |cluster: &&str| {
            format!(r#"{{"cluster":"{cluster}","endpoints":{{"prometheus":{{"query":"up"}}}}}}"#)
        };
        let entries: Vec<String> = clusters.iter().map(entry).collect();
        format!(
            r#"{{"prometheus":{{"cluster":"prometheus","interval":"1s"}},"upstreams":[{}]}}"#,
            entries.join(",")
        )
    };
    let old = load(&mut world, thread, &json(&["web"]));
    pass_with(&mut world, &[old], ms(2000), |world| {
        world.calls().iter().for_each(|call| world.answer(call, &Answer::Http(200, VECTOR)));
    });
    assert_eq!(candidates(&begin(&mut world, old)).len(), 2);
    let new = load(&mut world, thread, &json(&["api", "web"]));
    assert_eq!(candidates(&begin(&mut world, new)).len(), 2);
}

fn two_plugins_in_one_thread_do_not_meddle(mut world: impl World) {
    let thread = world.thread();
    let json = config(4, HEALTH, "");
    let one = world.configure(thread, "one", &json).expect("accepted");
    let two = world.configure(thread, "two", &json).expect("accepted");
    picks(&mut world, two, 4);
    break_one(&mut world, one);
    for _ in 0..10 {
        pass(&mut world, &[one, two], ms(50));
        assert!(picks_of(&mut world, two, &address(1), 20) >= 4);
    }
    let keys = world.shared_keys();
    for name in ["one", "two"] {
        assert!(keys.iter().any(|key| key.contains(&format!("/{name}/"))), "{keys:?}");
    }
    let again = world.configure(thread, "two", &json).expect("accepted");
    assert!(picks_of(&mut world, again, &address(1), 20) >= 4, "it succeeds its own predecessor");
}

fn a_refused_configuration_costs_nothing_of_what_was_learnt(mut world: impl World) {
    let thread = world.thread();
    let plugin = load(&mut world, thread, &config(4, HEALTH, ""));
    break_one(&mut world, plugin);
    assert!(world.configure(thread, "evenkeel", "{").is_err());
    let next = load(&mut world, thread, &config(4, &format!(r#"{HEALTH},"slow_start":"3s""#), ""));
    assert_eq!(picks_of(&mut world, next, &address(1), 20), 0);
}

/// The first lives on for as long as it has requests.
fn a_third_configuration_learns_from_the_second(mut world: impl World) {
    let thread = world.thread();
    let configured = |world: &mut _, slow_start: usize| {
        let upstream = format!(
            r#""policy":"round_robin","slow_start":"{slow_start}s","health":{{"fail_after":1,"suspect_after":1}}"#
        );
        load(world, thread, &config(4, &upstream, ""))
    };
    let first = configured(&mut world, 1);
    let open = begin(&mut world, first);
    let second = configured(&mut world, 2);
    crate::scene::give(&mut world, second, &address(2), &Ending::local("504", "response_timeout"));
    assert_eq!(picks_of(&mut world, second, &address(2), 40), 0);
    let third = configured(&mut world, 3);
    assert_eq!(picks_of(&mut world, third, &address(2), 40), 0);
    drop(open);
}

/// Shared data has no delete, and a deployment may have another set of clusters each time.
fn what_was_found_is_released_with_the_last_configuration_of_its_clusters(mut world: impl World) {
    world.add_cluster("prometheus");
    let json = r#"{"prometheus":{"cluster":"prometheus","authority":"p","interval":"1s","timeout":"500ms"},
        "upstreams":[{"cluster":"web","endpoints":{"prometheus":{"query":"up"}},"signals":[{"name":"queue","query":"queue"}]}]}"#;
    let crew = [0; 3].map(|_| {
        let thread = world.thread();
        load(&mut world, thread, json)
    });
    let found = vector(&[("10.0.0.1:80", 1.0, "1"), ("10.0.0.2:80", 1.0, "2")]);
    for at in 0..crew.len() {
        pass_with(&mut world, &crew[at..], ms(6000), |world| {
            let calls = world.calls();
            calls.iter().for_each(|call| world.answer(call, &Answer::Http(200, found.as_bytes())));
        });
        assert!(kept(&world).iter().all(|bytes| *bytes > 50), "{at}: {:?}", kept(&world));
        assert_eq!(picks(&mut world, crew[at], 20).len(), 2, "{at}");
        world.end(crew[at]);
    }
    assert_eq!(kept(&world), [0, 0]);
    let thread = world.thread();
    let back = load(&mut world, thread, json);
    assert!(candidates(&begin(&mut world, back)).is_empty(), "nothing is known yet");
}

/// The bytes of endpoints and of samples in shared data.
fn kept<W: World>(world: &W) -> [usize; 2] {
    ["/fleet", "/signals"].map(|kind| {
        let keys = world.shared_keys().into_iter().filter(|key| key.ends_with(kind));
        keys.map(|key| world.shared(&key).len()).sum()
    })
}

both!(
    what_was_found_is_released_with_the_last_configuration_of_its_clusters,
    a_configuration_adopts_from_the_one_before_it_on_its_listener,
    a_third_configuration_learns_from_the_second,
    a_refused_configuration_costs_nothing_of_what_was_learnt,
    plugins_of_one_name_for_other_clusters_are_both_asked_for,
    what_was_found_is_there_at_once_beside_a_new_cluster,
    a_new_configuration_adopts_what_was_learnt,
    requests_of_the_old_configuration_end_in_it,
    the_old_configuration_may_tick_beside_the_new,
    new_questions_are_asked_though_the_old_configuration_lingers,
    two_plugins_in_one_thread_do_not_meddle,
);
