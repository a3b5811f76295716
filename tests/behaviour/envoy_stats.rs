//! evenkeel's metrics among Envoy's own stats add up over workers that come and go, and cost requests nothing.

use std::time::Duration;

use crate::scene::{Ending, address, config, give, load, ms, pass, pass_with, picks, serve, single};
use crate::wasm::Wasm;
use crate::world::{Answer, Plugin, World};

fn named(labels: &str, name: &str) -> String {
    format!("evenkeel.upstream=.=web;.;{labels}fleet_{name}")
}

fn by_policy(world: &impl World) -> u64 {
    world.counter(&named("reason=.=policy;.;", "decisions_total")).unwrap_or(0)
}

fn counts_add_up_over_workers_and_configurations(mut world: impl World) {
    let threads = [world.thread(), world.thread(), world.thread()];
    let mut crew: Vec<Plugin> =
        threads.iter().map(|thread| load(&mut world, *thread, &config(3, "", ""))).collect();
    let mut served = 0;
    for round in 0..4 {
        for (at, plugin) in crew.iter().enumerate() {
            picks(&mut world, *plugin, 5 + at);
            served += 5 + at as u64;
        }
        pass(&mut world, &crew, ms(500));
        assert_eq!(by_policy(&world), served);
        // The old configuration lives on for a while, and has published everything.
        let json = config(3, &format!(r#""slow_start":"{}s""#, round + 1), "");
        let next: Vec<Plugin> = threads.iter().map(|thread| load(&mut world, *thread, &json)).collect();
        pass(&mut world, &crew, ms(500));
        crew = next;
    }
    assert_eq!(by_policy(&world), served);
}

/// A worker that does not tick for a while is marked expired and its counts are retired; then it continues.
fn one_that_was_taken_for_gone_is_counted_on(mut world: impl World) {
    let threads = [world.thread(), world.thread()];
    let crew: Vec<Plugin> =
        threads.iter().map(|thread| load(&mut world, *thread, &config(3, "", ""))).collect();
    crew.iter().for_each(|plugin| _ = picks(&mut world, *plugin, 20));
    pass(&mut world, &crew, ms(500));
    assert_eq!(by_policy(&world), 40);
    pass(&mut world, &crew[..1], ms(20_000));
    pass(&mut world, &crew, ms(1000));
    for served in [47, 54] {
        picks(&mut world, crew[1], 7);
        pass(&mut world, &crew, ms(500));
        assert_eq!(by_policy(&world), served);
    }
}

/// Lets time pass while Prometheus answers every query.
fn answered<W: World>(world: &mut W, crew: &[Plugin], time: Duration) {
    let answer = format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"instance":"{}"}},"value":[1,"7"]}}]}}}}"#,
        address(1)
    );
    pass_with(world, crew, time, |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(200, answer.as_bytes()));
        }
    });
}

fn one_worker_tells_of_changes_and_shows_what_is<W: World>(mut world: W) {
    world.add_cluster("prometheus");
    let upstream = r#""policy":"round_robin","health":{"fail_after":2},"signals":[{"name":"queue","query":"q"}],
        "load_reports":[{"name":"load","header":"x-load","max":1}]"#;
    let root = r#""prometheus":{"cluster":"prometheus","interval":"1s"}"#;
    let json = config(4, upstream, root);
    // As in Envoy: one worker that carries no traffic, and several that do, some of them idle.
    let threads: Vec<_> = (0..4).map(|_| world.thread()).collect();
    let crew: Vec<Plugin> = threads.into_iter().map(|thread| load(&mut world, thread, &json)).collect();
    crew[1..].iter().for_each(|plugin| _ = picks(&mut world, *plugin, 4));
    answered(&mut world, &crew, ms(5000));
    give(&mut world, crew[2], &address(1), &Ending::local("504", "response_timeout"));
    answered(&mut world, &crew, ms(1000));
    for (labels, name) in [("", "ejections_total"), ("state=.=failed;.;", "state_changes_total")] {
        assert_eq!(world.counter(&named(labels, name)), Some(1), "{name}");
    }
    let expected = [
        ("endpoints", 4),
        ("eligible_endpoints", 3),
        ("panic", 0),
        ("guard_aside", 0),
        ("pressure_known", 0),
    ];
    for (gauge, value) in expected {
        assert_eq!(world.gauge(&named("", gauge)), Some(value), "{gauge}");
    }
    assert_eq!(
        world.gauge(&named("signal=.=load;.;", "signal_age_seconds")),
        None,
        "Prometheus has no part in it"
    );
    assert_eq!(world.gauge(&named("signal=.=queue;.;", "signal_age_seconds")), Some(0));
    let polls = world.counter("evenkeel.fleet_polls_total").expect("asked");
    assert!((5..=7).contains(&polls), "{polls}");
    assert_eq!(world.counter("evenkeel.fleet_poll_failures_total"), Some(0));
    assert_eq!(world.gauge("evenkeel.fleet_last_poll_success_age_seconds"), Some(0));
    pass(&mut world, &crew, ms(4000));
    let age = world.gauge("evenkeel.fleet_last_poll_success_age_seconds").expect("answered");
    assert!((3..=5).contains(&age), "{age}");
    let logged = world.logs().iter().filter(|line| line.contains("ejected: consecutive failures")).count();
    assert_eq!(logged, 1, "by one for all");
}

/// Envoy lets go of all workers of a listener, or their VMs end, and one begins anew.
fn polls_of_workers_that_are_gone_are_not_counted_again(mut world: impl World) {
    world.add_cluster("prometheus");
    let root = r#""prometheus":{"cluster":"prometheus","interval":"1s"}"#;
    let json = config(4, r#""signals":[{"name":"queue","query":"q"}]"#, root);
    let polls = |world: &dyn Fn(&str) -> Option<u64>| world("evenkeel.fleet_polls_total").expect("asked");
    let mut before = 0;
    for _ in 0..4 {
        let thread = world.thread();
        let plugin = load(&mut world, thread, &json);
        picks(&mut world, plugin, 4);
        answered(&mut world, &[plugin], ms(5000));
        let now = polls(&|name| world.counter(name));
        assert!((4..=8).contains(&(now - before)), "{before}, {now}");
        before = now;
        world.advance(ms(60_000));
    }
}

/// In the units of their names.
fn gauges_show_what_the_page_shows(mut world: impl World) {
    let upstream = r#""policy":"round_robin","health":{"fail_after":2,"max_ejected_percent":100},
        "autoscale":{"pressure":[{"signal":"latency_ms","at":40}]}"#;
    let plugin = single(&mut world, &config(4, upstream, crate::following::STATUS));
    picks(&mut world, plugin, 40);
    pass(&mut world, &[plugin], ms(20_000));
    let shown = |world: &mut _| crate::following::page(world, plugin)["upstreams"][0].clone();
    let gauge = |world: &dyn Fn(&str) -> Option<u64>, name: &str| world(&named("", name)).expect("a gauge");
    let page = shown(&mut world);
    let of = |name: &str| gauge(&|name| world.gauge(name), name) as f64;
    let typical_us = page["typical_latency_ms"].as_f64().expect("answered") * 1e3;
    assert!((of("typical_latency_microseconds") / typical_us - 1.0).abs() < 0.05, "{typical_us}");
    let percent = page["pressure"].as_f64().expect("pressure") * 100.0;
    assert!(percent > 2.0 && (of("pressure_percent") - percent).abs() <= 1.0, "{percent}");
    assert_eq!(
        (of("panic"), of("endpoints"), of("eligible_endpoints"), of("pressure_known")),
        (0.0, 4.0, 4.0, 1.0)
    );
    let ill = Ending::local("504", "response_timeout");
    for _ in 0..40 {
        serve(&mut world, plugin, |to| if to == address(4) { Ending::good() } else { ill.clone() });
    }
    pass(&mut world, &[plugin], ms(1000));
    for _ in 0..40 {
        pass(&mut world, &[plugin], ms(50));
        let shown = (shown(&mut world)["panic"].clone(), world.gauge(&named("", "panic")));
        assert_eq!(shown, (true.into(), Some(1)));
    }
}

fn some_decisions_are_timed(mut world: impl World) {
    let plugin = single(&mut world, &config(3, "", ""));
    picks(&mut world, plugin, 200);
    pass(&mut world, &[plugin], ms(500));
    assert_eq!(world.histogram(&named("", "decision_nanoseconds")).len(), 3);
}

fn envoy_stats_can_be_disabled(mut world: impl World) {
    let plugin = single(&mut world, &config(3, "", r#""envoy_stats":false"#));
    picks(&mut world, plugin, 100);
    pass(&mut world, &[plugin], ms(500));
    assert_eq!(world.counter(&named("reason=.=policy;.;", "decisions_total")), None);
}

both!(
    counts_add_up_over_workers_and_configurations,
    one_that_was_taken_for_gone_is_counted_on,
    one_worker_tells_of_changes_and_shows_what_is,
    polls_of_workers_that_are_gone_are_not_counted_again,
    gauges_show_what_the_page_shows,
    some_decisions_are_timed,
    envoy_stats_can_be_disabled,
);

#[test]
fn reloads_define_nothing_twice() {
    let mut world = Wasm::new(3);
    let thread = world.thread();
    let mut defined = |slow_start: usize| {
        let plugin =
            load(&mut world, thread, &config(3, &format!(r#""slow_start":"{}s""#, 1 + slow_start), ""));
        picks(&mut world, plugin, 3);
        (0..10)
            .map(|_| {
                world.advance(ms(50));
                let (vm, root) = world.vm(plugin);
                vm.tick(root);
                vm.last_cost().hostcalls.get("proxy_define_metric").copied().unwrap_or(0)
            })
            .sum::<u64>()
    };
    assert!(defined(0) > 10);
    assert_eq!((1..5).map(defined).sum::<u64>(), 0);
}
