//! The same seed gives the same run, the same traffic to every policy, and none beats the oracle.

use simulator::suite::{self, Plan};
use simulator::{catalogue, contender, world};

fn plan(scenarios: &[&'static str], policies: &[&'static str], seeds: u64) -> Plan {
    Plan {
        scenarios: scenarios.to_vec(),
        contenders: policies.iter().map(|name| (*name, contender::named(name).unwrap())).collect(),
        seeds,
        utilisation: None,
    }
}

#[test]
fn a_run_can_be_repeated_to_the_microsecond() {
    for name in ["roaming", "newcomers", "async"] {
        for (policy, contender) in contender::all() {
            let scenario = catalogue::named(name, 4).unwrap();
            let once = world::run(&scenario, &contender, 4);
            assert_eq!(once, world::run(&scenario, &contender, 4), "{name} {policy}");
            assert_ne!(
                once,
                world::run(&scenario, &contender, 5),
                "{name} {policy}: another seed, another run"
            );
        }
    }
}

#[test]
fn all_balancers_get_the_same_traffic() {
    let scenario = catalogue::named("heavy", 1).unwrap();
    let starts = |name: &str| {
        let run = world::run(&scenario, &contender::named(name).unwrap(), 1);
        let mut starts: Vec<u32> = run.records.iter().map(|r| r.started_us).collect();
        starts.sort_unstable();
        starts
    };
    let adaptive = starts("adaptive");
    assert!(adaptive.len() > 6000);
    for name in ["random", "prequal", "oracle"] {
        assert_eq!(starts(name), adaptive, "{name}");
    }
}

#[test]
fn no_balancer_beats_the_oracle_on_speed() {
    let policies = contender::SHOWN;
    let plan = plan(&["equal-90", "three-4x-1100", "two-16x", "roaming", "three-speeds"], policies, 3);
    let oracle = policies.iter().position(|p| *p == "oracle").unwrap();
    for row in suite::run(&plan, || ()).rows.iter().filter(|r| r.label.is_empty()) {
        let best = row.figures[oracle].value;
        for (policy, figure) in policies.iter().zip(&row.figures) {
            assert!(figure.value >= 0.97 * best, "{}: {policy} {} under {best}", row.scenario, figure.value);
        }
    }
}

#[test]
fn blind_policies_suffer_where_they_must() {
    let plan = plan(&["one-10x", "crash"], &["round_robin", "random", "oracle"], 1);
    let results = suite::run(&plan, || ());
    let whole =
        |scenario: &str| results.rows.iter().find(|r| r.scenario == scenario && r.label.is_empty()).unwrap();
    for blind in 0..2 {
        assert!(whole("one-10x").figures[blind].value > 1900.0, "a tenth times out");
        assert!(whole("crash").figures[blind].failed.unwrap() > 150.0, "a tenth of a third is refused");
    }
    assert!(whole("one-10x").figures[2].value < 70.0);
    assert!(whole("crash").figures[2].failed.unwrap() < 5.0, "only what was under way");
    assert_eq!(results.courses[0][0].shares.len(), 10);
}

#[test]
fn the_utilisation_is_what_was_asked_for() {
    let plan = Plan { utilisation: Some(0.7), ..plan(&["three-4x-600", "roaming"], &["oracle"], 1) };
    for (name, speed) in [("three-4x-600", 7.75), ("roaming", 9.1)] {
        let scenario = plan.scenario(name, 1).unwrap();
        let load = scenario.rate * scenario.mean_work() / (speed * 4.0);
        assert!((load - 0.7).abs() < 1e-9, "{name}: {load}");
    }
}
