//! promtool accepts every Prometheus file, and every alert is tested to fire and not to fire.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result};
use testbed::{tempfile, tools};

use crate::shipped;

/// Rule files under `envoy/prometheus` and their test cases.
const SETS: [(&str, &str); 2] = [
    ("alerts.yml", "tests/files/rules/alerts_test.yml"),
    ("alerts-evenkeel.yml", "tests/files/rules/alerts_evenkeel_test.yml"),
];

fn promtool(arguments: &[&str]) -> Result<String> {
    shipped::run(Command::new(tools::promtool()?).args(arguments))
}

/// The YAML files with this top-level member.
fn with_member(name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in shipped::files(&["yaml", "yml"])? {
        if shipped::yaml(&path)?.get(name).is_some() {
            found.push(path);
        }
    }
    Ok(found)
}

/// An error unless this is a Prometheus configuration.
pub fn check_config(text: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("prometheus.yml");
    fs::write(&path, text)?;
    promtool(&["check", "config", path.to_str().context("a path in UTF-8")?]).map(drop)
}

/// An error unless every expression is PromQL.
pub fn check_promql(expressions: &[String]) -> Result<()> {
    let rules: Vec<Value> = (0..)
        .zip(expressions)
        .map(|(number, expr): (usize, _)| json!({ "record": format!("checked:{number}"), "expr": expr }))
        .collect();
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("rules.yml");
    fs::write(&path, json!({ "groups": [{ "name": "checked", "rules": rules }] }).to_string())?;
    promtool(&["check", "rules", path.to_str().context("a path in UTF-8")?]).map(drop)
}

#[test]
fn every_configuration_and_every_rule_is_accepted() -> Result<()> {
    for (member, check) in [("scrape_configs", "config"), ("groups", "rules")] {
        let files = with_member(member)?;
        assert!(!files.is_empty(), "no file has {member}");
        for path in files {
            promtool(&["check", check, path.to_str().context("a path in UTF-8")?])?;
        }
    }
    Ok(())
}

/// Runs one set's cases against these rules.
fn test_rules((name, cases): (&str, &str), rules: &str) -> Result<String> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join(name), rules)?;
    let copy = directory.path().join("cases.yml");
    fs::copy(tools::root().join(cases), &copy)?;
    promtool(&["test", "rules", copy.to_str().context("a path in UTF-8")?])
}

/// Asserts that a set's cases fail with each of these other thresholds.
fn check_set(set: (&str, &str), others: &[(&str, &str)]) -> Result<()> {
    let rules = shipped::text(&shipped::folder().join("prometheus").join(set.0))?;
    test_rules(set, &rules)?;
    for (threshold, other) in others {
        assert!(rules.contains(threshold), "{threshold}");
        assert!(test_rules(set, &rules.replace(threshold, other)).is_err(), "{threshold}: {other} would do");
    }
    Ok(())
}

#[test]
fn alerts_fire_when_they_should_and_only_then() -> Result<()> {
    check_set(
        SETS[0],
        &[
            ("> 50", "> 90"),
            ("> 0.05", "> 0.5"),
            ("> 0.005", "> 0.0005"),
            (">= 0.01", ">= 0.0001"),
            ("== 0", "== 2"),
            ("rate1m >= 0.05", "rate1m >= 0.0005"),
            ("> 2.5", "> 0"),
            ("rq_xx{envoy_cluster_name=\"prometheus\"}[", "rq_total{envoy_cluster_name=\"prometheus\"}["),
        ],
    )
}

#[test]
fn alerts_on_evenkeels_own_metrics_do_too() -> Result<()> {
    check_set(
        SETS[1],
        &[
            ("endpoint_pressure) > 1", "endpoint_pressure) > 1.3"),
            ("and on (job, upstream) min by (job, upstream) (evenkeel_upstream_pressure) > 1", ""),
            ("> 0.05", "> 0.5"),
            ("> 0.005", "> 0.0005"),
            ("endpoints == 0", "endpoints == 3"),
            ("panic == 1", "panic == 2"),
            ("upstream_guard_aside == 1", "upstream_guard_aside == 2"),
            ("fleet_guard_aside == 1", "fleet_guard_aside == 2"),
            ("signal_matched_series) == 0", "signal_matched_series) == 1"),
            ("failed|draining\"}) == 0", "failed|draining\"}) == 2"),
            ("evenkeel_upstream_endpoints_left_out > 0", "evenkeel_upstream_endpoints_left_out > 900"),
            ("fleet_eligible_endpoints == 0", "fleet_eligible_endpoints == 3"),
            ("evenkeel_upstream_endpoints > 0", "evenkeel_upstream_endpoints >= 0"),
            ("evenkeel_fleet_endpoints > 0", "evenkeel_fleet_endpoints >= 0"),
            ("evenkeel_upstream_endpoints == 0", "evenkeel_upstream_endpoints == 1"),
            ("increase(evenkeel_upstream_decisions_total", "max_over_time(evenkeel_upstream_decisions_total"),
            ("increase(evenkeel_fleet_decisions_total", "max_over_time(evenkeel_fleet_decisions_total"),
            ("evenkeel_configuration_refused == 1", "evenkeel_configuration_refused == 2"),
            ("fleet_configuration_refused == 1", "fleet_configuration_refused == 2"),
            (") / 100 > 1", ") / 100 > 2"),
            ("fleet_pressure_known == 1", "fleet_pressure_known == 0"),
            ("seconds, 30)", "seconds, 900)"),
            ("(30 + 0", "(900 + 0"),
            ("(2 * instance", "(20 * instance"),
            (") > 60\n            unless", ") > 600\n            unless"),
            ("          unless on (job) min by", "          and on (job) min by"),
            (">= 0.05", ">= 0.005"),
            (">= 0.05", ">= 0.5"),
            ("requests_total[5m]", "requests_total[1m]"),
            ("evenkeel_endpoint_requests_total[2m])) == 0", "evenkeel_endpoint_requests_total[2m])) == 7"),
            ("evenkeel_fleet_decisions_total[2m])) == 0", "evenkeel_fleet_decisions_total[2m])) == 7"),
            ("          ) > 0\n          or max by", "          ) > 1\n          or max by"),
            ("signal_series) == 0", "signal_series) == 7"),
            ("|safe_endpoint", ""),
            ("{exported_endpoint!=\"\"}", "{exported_endpoint=\"\"}"),
            ("decisions_total[30m])) == 0", "decisions_total[30m])) == 7"),
            ("decisions_total offset 30m)", "decisions_total offset 3h)"),
            ("known == 1\n            unless on", "known == 1\n            and on"),
            (
                "          )\n          unless on (job, instance",
                "          )\n          and on (job, instance",
            ),
            ("aside == 1 unless on", "aside == 1 and on"),
            ("changes(", "last_over_time("),
            ("age_seconds offset 30m", "age_seconds offset 3h"),
            ("group_left () instance:evenkeel_prometheus_patience", "instance:evenkeel_prometheus_patience"),
            ("group_left () max by (job, instance) (", "group_left () sum by (job, instance, cluster) ("),
            ("failures:rate1m >= 0.05", "failures:rate1m >= 0.0005"),
            ("polls_total[5m]) > 2.5", "polls_total[5m]) > 0"),
            ("polls_total[20m]) > 2.5", "polls_total[20m]) > 25"),
        ],
    )
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() -> Result<()> {
    let (mut fires, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    let mut cases = Vec::new();
    for (_, file) in SETS {
        let set = shipped::yaml(&tools::root().join(file))?;
        cases.extend(set["tests"].as_array().context("tests")?.iter().cloned());
    }
    for case in cases {
        for check in case["alert_rule_test"].as_array().context("alert_rule_test")? {
            let name = check["alertname"].as_str().context("alertname")?.to_owned();
            let expected = check["exp_alerts"].as_array().context("exp_alerts")?;
            if expected.is_empty() {
                quiet.insert(name)
            } else {
                fires.insert(name)
            };
        }
    }
    let mut alerts = BTreeSet::new();
    for path in with_member("groups")? {
        let rules = shipped::yaml(&path)?;
        let mut objects = Vec::new();
        shipped::objects(&rules, &mut objects);
        alerts.extend(objects.iter().filter_map(|rule| rule.get("alert")?.as_str().map(str::to_owned)));
    }
    assert_eq!(alerts, fires);
    assert_eq!(alerts, quiet);
    Ok(())
}

#[test]
fn what_is_not_promql_is_noticed() {
    assert!(check_promql(&["rate(http_requests_total[1m])".to_owned()]).is_ok());
    assert!(check_promql(&["rate(http_requests_total[1m)".to_owned()]).is_err());
}
