//! Pressure and desired replicas are the same in every worker of an Envoy.

use crate::scene::{address, config, load, ms, pass_with};
use crate::world::{Answer, Plugin, World};

/// Threads that scale on CPU, assessed every two seconds.
fn crew<W: World>(world: &mut W, threads: usize) -> Vec<Plugin> {
    world.add_cluster("prometheus");
    let upstream = r#""signals":[{"name":"cpu","query":"cpu","smoothing":1}],
        "autoscale":{"min":2,"max":9,"for":2,"period":"2s","cool_down":"8s","look_ahead":"0s",
        "pressure":[{"signal":"cpu","at":75}]}"#;
    let root = r#""prometheus":{"cluster":"prometheus","interval":"500ms","timeout":"250ms"}"#;
    let json = config(4, upstream, root);
    (0..threads)
        .map(|_| {
            let thread = world.thread();
            load(world, thread, &json)
        })
        .collect()
}

/// Lets time pass while Prometheus returns this CPU for the first endpoints, or nothing.
fn report<W: World>(world: &mut W, crew: &[Plugin], seconds: u64, cpu: Option<(f64, usize)>) {
    let series = |endpoint: usize, cpu: f64| {
        format!(r#"{{"metric":{{"instance":"{}"}},"value":[1,"{cpu}"]}}"#, address(endpoint))
    };
    let body = cpu.map(|(cpu, endpoints)| {
        let series: Vec<String> = (0..endpoints).map(|endpoint| series(endpoint, cpu)).collect();
        let result = series.join(",");
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#)
    });
    pass_with(world, crew, ms(1000 * seconds), |world| {
        for call in world.calls() {
            match &body {
                Some(body) => world.answer(&call, &Answer::Http(200, body.as_bytes())),
                None => world.answer(&call, &Answer::Failed),
            }
        }
    });
}

/// The published state of autoscaling: pressure and desired replicas.
fn published<W: World>(world: &W) -> (Option<f64>, Option<u32>) {
    let key = evenkeel::sharing::asked_for(&evenkeel::sharing::prefix("evenkeel"), ["web"].into_iter());
    let key = format!("{key}/scaling");
    if !world.shared_keys().contains(&key) {
        return (None, None);
    }
    let json = config(4, "", "");
    let config = config::parse(json.as_bytes()).expect("accepted");
    let now = engine::time::Time(world.now());
    let mut engine = engine::Balancer::new(&config, now);
    evenkeel::sharing::scaling::apply(&world.shared(&key), &mut engine, now);
    let upstream = engine.upstream(0).expect("configured");
    (upstream.pressure(), upstream.desired_replicas())
}

fn load_asks_for_more_and_its_end_for_fewer(mut world: impl World) {
    let crew = crew(&mut world, 3);
    report(&mut world, &crew, 2, None);
    assert_eq!(published(&world), (None, None), "nothing is known");
    report(&mut world, &crew, 12, Some((45.0, 4)));
    let (pressure, desired) = published(&world);
    assert!((pressure.expect("known") - 0.6).abs() < 0.01, "{pressure:?}");
    assert_eq!(desired, Some(4), "as it is");
    report(&mut world, &crew, 10, Some((120.0, 4)));
    assert_eq!(published(&world).1, Some(8), "4 · 1.6 / 0.8");
    report(&mut world, &crew, 4, Some((15.0, 4)));
    assert_eq!(published(&world).1, Some(8), "not at once");
    report(&mut world, &crew, 12, Some((15.0, 4)));
    assert_eq!(published(&world).1, Some(2));
}

fn nothing_moves_on_what_is_not_known(mut world: impl World) {
    let crew = crew(&mut world, 2);
    report(&mut world, &crew, 8, Some((45.0, 4)));
    report(&mut world, &crew, 8, None);
    report(&mut world, &crew, 10, Some((150.0, 1)));
    assert_eq!(published(&world), (None, Some(4)), "one endpoint of four says nothing of the others");
    report(&mut world, &crew, 60, None);
    assert_eq!(published(&world), (None, Some(4)));
    report(&mut world, &crew, 20, Some((37.5, 2)));
    assert_eq!(published(&world).1, Some(4), "half of the endpoints at 0.5, half unknown");
}

fn new_lease_holder_continues(mut world: impl World) {
    let crew = crew(&mut world, 3);
    report(&mut world, &crew, 8, Some((120.0, 4)));
    assert_eq!(published(&world).1, Some(8));
    // Each worker falls silent for a while, including the holder of the lease.
    for silent in &crew {
        let rest: Vec<Plugin> = crew.iter().copied().filter(|plugin| plugin != silent).collect();
        report(&mut world, &rest, 8, Some((120.0, 4)));
        assert_eq!(published(&world).1, Some(8));
        assert!((published(&world).0.expect("known") - 1.6).abs() < 0.05);
    }
}

both!(
    load_asks_for_more_and_its_end_for_fewer,
    nothing_moves_on_what_is_not_known,
    new_lease_holder_continues,
);
