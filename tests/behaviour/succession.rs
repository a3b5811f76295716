//! A new configuration in the same VM, and two plugins side by side.

use crate::scene::{Ending, address, begin, config, give, load, ms, pass, picks, picks_of, respond, target};
use crate::world::{Plugin, Stream, World};

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

both!(
    a_third_configuration_learns_from_the_second,
    a_refused_configuration_costs_nothing_of_what_was_learnt,
    a_new_configuration_adopts_what_was_learnt,
    requests_of_the_old_configuration_end_in_it,
    the_old_configuration_may_tick_beside_the_new,
    new_questions_are_asked_though_the_old_configuration_lingers,
    two_plugins_in_one_thread_do_not_meddle,
);
