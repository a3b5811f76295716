//! Exactly one worker polls Prometheus for all.

use crate::scene::{config, load, ms, pass, pass_with, picks};
use crate::world::{Answer, Plugin, Thread, World};

const ANSWER: &[u8] = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

/// Threads that poll one signal per second.
pub fn crew<W: World>(world: &mut W, threads: usize, upstream: &str) -> Vec<Plugin> {
    world.add_cluster("prometheus");
    // Signals for autoscaling are polled without traffic, too.
    let upstream = format!(
        r#""autoscale":{{}},"signals":[{{"name":"queue","query":"queue","max":100,"smoothing":1}}]{upstream}"#
    );
    let root = r#""prometheus":{"cluster":"prometheus","interval":"1s","timeout":"500ms"}"#;
    let json = config(4, &upstream, root);
    (0..threads)
        .map(|_| {
            let thread = world.thread();
            load(world, thread, &json)
        })
        .collect()
}

/// Answers all outstanding calls; returns the workers that made them.
fn asked_by<W: World>(world: &mut W) -> Vec<Thread> {
    let calls = world.calls();
    calls.iter().for_each(|call| world.answer(call, &Answer::Http(200, ANSWER)));
    calls.iter().map(|call| call.thread).collect()
}

/// The workers that poll within `seconds`, while only `awake` tick.
fn watch<W: World>(world: &mut W, awake: &[Plugin], seconds: u64) -> Vec<Thread> {
    let mut askers = Vec::new();
    pass_with(world, awake, ms(1000 * seconds), |world| askers.extend(asked_by(world)));
    askers
}

fn one_holder_asks_once_an_interval(mut world: impl World) {
    let crew = crew(&mut world, 4, "");
    pass(&mut world, &crew, ms(1000));
    asked_by(&mut world);
    let askers = watch(&mut world, &crew, 30);
    assert!(askers.iter().all(|thread| *thread == askers[0]), "{askers:?}");
    assert!((26..=34).contains(&askers.len()), "one a second, with jitter: {}", askers.len());
}

fn the_call_is_an_instant_query(mut world: impl World) {
    let crew = crew(&mut world, 1, "");
    pass(&mut world, &crew, ms(1000));
    let calls = world.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].cluster.as_str(), calls[0].authority.as_str()), ("prometheus", "prometheus"));
    assert_eq!(calls[0].path, "/api/v1/query?query=queue&timeout=500ms");
    assert_eq!(calls[0].timeout, ms(500));
}

fn the_lease_moves_when_its_holder_goes_silent(mut world: impl World) {
    let crew = crew(&mut world, 3, "");
    let first = *watch(&mut world, &crew, 5).last().expect("somebody asks");
    let rest: Vec<Plugin> = crew.iter().copied().filter(|plugin| plugin.0 != first.0).collect();
    // It was renewed a second ago at most, lasts three, and is confirmed before it is used.
    let heirs = watch(&mut world, &rest, 6);
    let heir = *heirs.last().expect("somebody else asks");
    assert!(heirs.iter().all(|thread| *thread == heir && heir != first), "{first:?} then {heirs:?}");
    // The old holder wakes up, and leaves the lease to the new one.
    let after = watch(&mut world, &crew, 10);
    assert!(after.len() >= 8 && after.iter().all(|thread| *thread == heir), "{after:?}");
}

/// Reading a large response delays requests, so a worker without requests polls.
fn a_worker_without_requests_asks(mut world: impl World) {
    let crew = crew(&mut world, 2, "");
    let asking = *watch(&mut world, &crew, 5).last().expect("one of them asks");
    let asking = *crew.iter().find(|plugin| world.thread_of(**plugin) == asking).expect("a plugin");
    let mut askers = Vec::new();
    for _ in 0..10 {
        picks(&mut world, asking, 20);
        askers.extend(watch(&mut world, &crew, 1));
    }
    let last = *askers.last().expect("one of them asks");
    assert_ne!(last, world.thread_of(asking), "{askers:?}");
}

fn calls_go_on_while_prometheus_fails(mut world: impl World) {
    let crew = crew(&mut world, 2, "");
    pass(&mut world, &crew, ms(1000));
    let mut calls = 0;
    pass_with(&mut world, &crew, ms(20_000), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Failed);
            calls += 1;
        }
    });
    assert!((16..=24).contains(&calls), "{calls}");
    let complaints = world.logs().iter().filter(|line| line.contains("prometheus poll failed")).count();
    assert_eq!(complaints, 1, "the first of a row is logged, not each");
}

/// All polls of `awake` fail for a while; returns the last worker that made one.
fn in_vain<W: World>(world: &mut W, awake: &[Plugin]) -> Thread {
    let mut last = None;
    pass_with(world, awake, ms(10_000), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Failed);
            last = Some(call.thread);
        }
    });
    last.expect("somebody asks")
}

fn outage_is_logged_once_by_all_workers(mut world: impl World) {
    let crew = crew(&mut world, 3, "");
    let first = in_vain(&mut world, &crew);
    let rest: Vec<Plugin> = crew.iter().copied().filter(|plugin| plugin.0 != first.0).collect();
    assert_ne!(in_vain(&mut world, &rest), first);
    watch(&mut world, &rest, 5);
    in_vain(&mut world, &rest);
    let told = |line: &String| line.contains("poll failed") || line.contains("poll succeeded again");
    let lines: Vec<String> = world.logs().into_iter().filter(told).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].contains("poll succeeded again"), "{lines:?}");
}

fn an_unknown_cluster_is_no_disaster(mut world: impl World) {
    let json = config(
        4,
        r#""signals":[{"name":"queue","query":"queue"}]"#,
        r#""prometheus":{"cluster":"nowhere","interval":"1s","timeout":"1s"}"#,
    );
    let plugin = crate::scene::single(&mut world, &json);
    pass(&mut world, &[plugin], ms(10_000));
    assert!(world.calls().is_empty());
    assert!(world.logs().iter().any(|line| line.contains("nowhere")), "{:?}", world.logs());
    assert_eq!(crate::scene::traffic(&mut world, &[plugin], 10).len(), 4);
}

fn a_call_that_never_comes_back_does_not_stop_the_next(mut world: impl World) {
    let crew = crew(&mut world, 1, "");
    pass(&mut world, &crew, ms(10_000));
    assert!(world.calls().len() >= 5, "{}", world.calls().len());
}

both!(
    one_holder_asks_once_an_interval,
    the_call_is_an_instant_query,
    the_lease_moves_when_its_holder_goes_silent,
    a_worker_without_requests_asks,
    calls_go_on_while_prometheus_fails,
    outage_is_logged_once_by_all_workers,
    an_unknown_cluster_is_no_disaster,
    a_call_that_never_comes_back_does_not_stop_the_next,
);
