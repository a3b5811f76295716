//! The table of constants in `docs/adaptive.md` matches the source and is complete.

use std::collections::{BTreeMap, BTreeSet};

use testbed::anyhow::{Result, ensure};
use testbed::tools;

use crate::shipped;

/// Source files of the policy: each constant in them must be explained.
const EXPLAINED_WHOLE: &[&str] = &[
    "ablation.rs",
    "endpoint/view.rs",
    "endpoint/state.rs",
    "health/evidence.rs",
    "health/mod.rs",
    "health/probes.rs",
    "estimate/background.rs",
    "estimate/errors.rs",
    "estimate/in_flight.rs",
    "estimate/latency.rs",
    "estimate/learnt_weight.rs",
    "estimate/noise.rs",
    "estimate/queueing.rs",
    "estimate/signal.rs",
    "estimate/survival.rs",
    "policy/adaptive.rs",
    "policy/pool.rs",
    "cluster/ejection.rs",
    "cluster/fleet_view.rs",
    "cluster/out_of_band.rs",
    "cluster/overflow.rs",
    "cluster/probes.rs",
    "cluster/quickness.rs",
    "cluster/shares.rs",
    "cluster/traffic.rs",
    "worker/tick_period.rs",
];

/// The constants of a file, `const NAME: TYPE = VALUE;`, by name; without those of tests and types.
fn constants(file: &str) -> Result<BTreeMap<String, String>> {
    let folder = ["crates/engine/src", "src"].map(|folder| tools::root().join(folder).join(file));
    let [engine, filter] = folder;
    let text = shipped::text(if engine.exists() { &engine } else { &filter })?;
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let parts = code.lines().filter_map(|line| {
        let (visibility, declared) = line.split_once("const ")?;
        let (name, rest) = declared.split_once(": ")?;
        let top_level = visibility.is_empty() || visibility.starts_with("pub");
        top_level.then_some(())?;
        Some((name.to_owned(), rest.split_once(" = ")?.1.trim_end_matches(';').to_owned()))
    });
    Ok(parts.collect())
}

/// File, name and value of each row of the table.
fn explained() -> Result<Vec<[String; 3]>> {
    let text = shipped::text(&tools::root().join("docs/adaptive.md"))?;
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let code = |at: usize| cells.get(at)?.strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
        Some([code(0).filter(|file| file.ends_with(".rs"))?, code(1)?, code(2)?])
    });
    Ok(rows.collect())
}

#[test]
fn constants_are_explained_as_they_are() -> Result<()> {
    let explained = explained()?;
    ensure!(explained.len() > 40, "{} rows", explained.len());
    for [file, name, value] in &explained {
        let real = constants(file)?.remove(name);
        assert_eq!(real.as_ref(), Some(value), "docs/adaptive.md: {name} of {file}");
    }
    let rows: BTreeSet<(&str, &str)> =
        explained.iter().map(|[file, name, _]| (file.as_str(), name.as_str())).collect();
    for file in EXPLAINED_WHOLE {
        for name in constants(file)?.keys() {
            assert!(rows.contains(&(*file, name)), "docs/adaptive.md does not explain {name} of {file}");
        }
    }
    Ok(())
}
