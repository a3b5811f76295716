//! Load that endpoints report in their responses, truthfully or not.

use crate::scene::{Ending, address, config, ms, pass, serve, single};
use crate::world::{Plugin, World};

const REPORTS: &str = r#""policy":"random","slow_start":"0s",
    "load_reports":[{"name":"load","header":"endpoint-load-metrics","metric":"application_utilization","max":1}]"#;

fn telling(report: &str) -> Ending {
    let mut ending = Ending::good();
    ending.headers.as_mut().expect("headers").push(("endpoint-load-metrics", report.as_bytes().to_vec()));
    ending
}

/// How many of 1,000 requests to ten endpoints the first gets after a while, with the end `its`; the others have
/// `others`.
fn share_of_the_first<W: World>(world: &mut W, plugin: Plugin, its: &Ending, others: &Ending) -> usize {
    let mut got = 0;
    for round in 0..150 {
        for _ in 0..10 {
            let to = serve(world, plugin, |to| if to == address(1) { its.clone() } else { others.clone() });
            got += usize::from(round >= 50 && to == address(1));
        }
        pass(world, &[plugin], ms(100));
    }
    got
}

fn a_busy_endpoint_gets_less<W: World>(mut world: W) {
    let calm = telling("TEXT application_utilization=0.3");
    for busy in [
        r#"JSON {"application_utilization": 0.95}"#,
        "TEXT cpu_utilization=0.1,application_utilization=0.95",
        "BIN SWZmZmZmZu4/",
    ] {
        let plugin = single(&mut world, &config(10, REPORTS, ""));
        let got = share_of_the_first(&mut world, plugin, &telling(busy), &calm);
        assert!(got < 40, "{busy}: {got} of a fair 100");
    }
}

/// Five standard deviations of a binomial share above twice the fair share.
const MOST: usize = 200 + 5 * 13;

fn flattery_brings_at_most_twice_the_fair_part<W: World>(mut world: W) {
    for (its, others) in [
        ("TEXT application_utilization=0", "TEXT application_utilization=1"),
        ("TEXT application_utilization=0", "TEXT application_utilization=1e308"),
        ("TEXT application_utilization=-5", "TEXT application_utilization=0.9"),
        ("TEXT application_utilization=NaN", "TEXT application_utilization=0.9"),
        ("TEXT application_utilization=-inf", "TEXT application_utilization=1"),
        ("JSON {\"applicationUtilization\": 1e-308}", "TEXT application_utilization=2"),
    ] {
        let plugin = single(&mut world, &config(10, REPORTS, ""));
        let got = share_of_the_first(&mut world, plugin, &telling(its), &telling(others));
        assert!((40..=MOST).contains(&got), "{its}: {got} of a fair 100");
    }
}

fn what_cannot_be_used_is_counted<W: World>(mut world: W) {
    let plugin = single(&mut world, &config(10, REPORTS, crate::following::STATUS));
    let hostile = telling("TEXT application_utilization=nonsense");
    let got = share_of_the_first(&mut world, plugin, &hostile, &telling("TEXT application_utilization=0.5"));
    assert!((50..=150).contains(&got), "{got}");
    pass(&mut world, &[plugin], ms(2_000));
    assert!(crate::following::shown(&mut world, plugin, "unusable_reports") > 100);
}

fn trailers_tell_as_well<W: World>(mut world: W) {
    let call = |value: &str| {
        let mut ending = Ending::grpc_trailers("0");
        let trailers = ending.trailers.as_mut().expect("trailers");
        trailers.push(("endpoint-load-metrics", value.as_bytes().to_vec()));
        ending
    };
    let plugin = single(&mut world, &config(10, REPORTS, ""));
    let (busy, calm) = (call("TEXT application_utilization=0.97"), call("TEXT application_utilization=0.2"));
    let got = share_of_the_first(&mut world, plugin, &busy, &calm);
    assert!(got < 40, "{got}");
}

both!(
    a_busy_endpoint_gets_less,
    flattery_brings_at_most_twice_the_fair_part,
    what_cannot_be_used_is_counted,
    trailers_tell_as_well,
);
