//! The latency that all proxies have measured, read back from Prometheus: the query is built in, and no value gains an
//! endpoint much.

use crate::scene::{address, config, ms, pass_with, picks, single};
use crate::world::{Answer, Plugin, World};

const TOLD: &str =
    r#""policy":"random","slow_start":"0s","signals":[{"name":"others","builtin":"fleet_latency"}]"#;
const PROMETHEUS: &str = r#""prometheus":{"cluster":"prometheus","interval":"1s","timeout":"500ms"}"#;

fn plugin<W: World>(world: &mut W) -> Plugin {
    world.add_cluster("prometheus");
    single(world, &config(4, TOLD, PROMETHEUS))
}

/// Some seconds in which every query yields these values for the four endpoints; returns the queries.
fn report<W: World>(world: &mut W, plugin: Plugin, values: [&str; 4]) -> Vec<String> {
    let series = values.iter().enumerate().map(|(endpoint, value)| {
        format!(r#"{{"metric":{{"endpoint":"{}"}},"value":[1,"{value}"]}}"#, address(endpoint))
    });
    let series: Vec<String> = series.collect();
    let result = series.join(",");
    let body = format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#);
    let mut asked = Vec::new();
    pass_with(world, &[plugin], ms(5_000), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(200, body.as_bytes()));
            asked.push(call.path.clone() + call.form.as_deref().unwrap_or_default());
        }
    });
    asked
}

fn what_others_find_slow_is_spared(mut world: impl World) {
    let plugin = plugin(&mut world);
    let asked = report(&mut world, plugin, ["0.02", "0.02", "0.5", "0.02"]);
    assert!(!asked.is_empty());
    for query in asked {
        assert!(query.contains("evenkeel_endpoint_latency_seconds"), "{query}");
        assert!(query.contains("upstream%3D%22web%22"), "{query}");
    }
    let counts = picks(&mut world, plugin, 400);
    // 400 · 1/50 of what each of the others gets is 2.6.
    assert!(counts.get(&address(2)).copied().unwrap_or(0) < 14, "{counts:?}");
}

fn no_value_buys_more_than_twice_a_fair_part(mut world: impl World) {
    for values in [
        ["0", "1e308", "1e308", "1e308"],
        ["1e-308", "1", "1", "1"],
        ["-5", "0.5", "0.5", "0.5"],
        ["NaN", "0.5", "1e9", "+Inf"],
        ["-Inf", "0.02", "1e308", "-1e308"],
        ["0.02", "0.02", "1e9", "1e9"],
        ["0.02", "1e3", "1e6", "1e9"],
    ] {
        let plugin = plugin(&mut world);
        report(&mut world, plugin, values);
        let counts = picks(&mut world, plugin, 400);
        // Five standard deviations above twice a quarter.
        assert!(counts.values().all(|got| *got <= 250), "{values:?}: {counts:?}");
        assert_eq!(counts.values().sum::<usize>(), 400);
    }
}

both!(what_others_find_slow_is_spared, no_value_buys_more_than_twice_a_fair_part);
