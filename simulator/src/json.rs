//! All results as JSON.

use serde_json::{Map, Value, json};

use crate::scenario::Measure;
use crate::suite::{Plan, Results};

/// `{"seeds", "utilisation", "scenarios": {NAME: {POLICY: {LABEL: {"value", "failed", "least", "most"}, "shares",
/// "fleet"}}}}`, latencies in milliseconds; the 99th percentile of a whole run is called `p99`.
pub fn render(plan: &Plan, results: &Results) -> Value {
    let mut scenarios = Map::new();
    for (name, courses) in plan.scenarios.iter().zip(&results.courses) {
        let mut policies = Map::new();
        for (at, ((policy, _), course)) in plan.contenders.iter().zip(courses).enumerate() {
            let mut entry = Map::new();
            for row in results.rows.iter().filter(|r| r.scenario == *name) {
                let figure = row.figures[at];
                let label = if row.label.is_empty() { "p99" } else { row.label };
                let mut value =
                    json!({ "value": figure.value, "least": figure.range.0, "most": figure.range.1 });
                if let (Measure::Latency(_), Some(failed)) = (row.what, figure.failed) {
                    value["failed"] = json!(failed);
                }
                entry.insert(label.into(), value);
            }
            entry.insert("shares".into(), json!(course.shares));
            if !course.fleet.is_empty() {
                let fleet = course.fleet.iter().map(|f| {
                    json!({ "at": f.at, "present": f.present, "starting": f.starting, "wanted": f.wanted,
                            "pressure": f.pressure })
                });
                entry.insert("fleet".into(), fleet.collect());
            }
            policies.insert((*policy).into(), entry.into());
        }
        scenarios.insert((*name).into(), policies.into());
    }
    json!({ "seeds": plan.seeds, "utilisation": plan.utilisation, "scenarios": scenarios })
}
