//! The dashboards: what they ask is PromQL, of the data source that is provisioned.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use testbed::anyhow::{Context, Result, ensure};

use crate::{prometheus, shipped};

/// A panel of a shipped dashboard.
pub struct Panel {
    /// The dashboard it is on.
    pub file: PathBuf,
    /// What stands above it.
    pub title: String,
    value: Value,
}

impl Panel {
    /// What it asks, with Grafana's variables filled in.
    pub fn expressions(&self, rate_interval: &str) -> Result<Vec<String>> {
        let targets = self.value["targets"].as_array().with_context(|| self.title.clone())?;
        let expressions = targets.iter().map(|target| {
            let expression = target["expr"].as_str().context("expr")?;
            let filled = expression.replace("$__rate_interval", rate_interval);
            ensure!(!filled.contains('$'), "a variable that this test does not know: {expression}");
            Ok(filled)
        });
        expressions.collect()
    }
}

/// The panels of all dashboards.
pub fn panels() -> Result<Vec<Panel>> {
    let mut panels = Vec::new();
    let files = shipped::files(&["json"])?;
    for path in
        files.into_iter().filter(|path| path.parent().is_some_and(|folder| folder.ends_with("dashboards")))
    {
        let file = path.display();
        let dashboard: Value =
            serde_json::from_str(&shipped::text(&path)?).with_context(|| file.to_string())?;
        let listed = dashboard["panels"].as_array().with_context(|| format!("{file}: no panels"))?;
        ensure!(!listed.is_empty(), "{file}: no panels");
        for value in listed {
            let title =
                value["title"].as_str().with_context(|| format!("{file}: a panel without a title"))?;
            panels.push(Panel { file: path.clone(), title: title.to_owned(), value: value.clone() });
        }
    }
    ensure!(!panels.is_empty(), "no dashboard");
    Ok(panels)
}

#[test]
fn every_panel_asks_in_promql_the_data_source_that_there_is() -> Result<()> {
    let sources = shipped::yaml(&shipped::folder().join("grafana/provisioning/datasources/prometheus.yaml"))?;
    let source = sources["datasources"][0]["uid"].as_str().context("uid")?;
    for panel in panels()? {
        let expressions = panel.expressions("20s")?;
        ensure!(!expressions.is_empty(), "{}: asks nothing", panel.title);
        prometheus::check_promql(&expressions).with_context(|| panel.title.clone())?;
        for target in panel.value["targets"].as_array().context("targets")? {
            assert_eq!(target["datasource"]["uid"], source, "{}", panel.title);
        }
    }
    Ok(())
}

#[test]
fn panels_do_not_overlap() -> Result<()> {
    let mut taken = BTreeMap::new();
    for panel in panels()? {
        let side = |name: &str| panel.value["gridPos"][name].as_u64().context("gridPos");
        let (left, top, width, height) = (side("x")?, side("y")?, side("w")?, side("h")?);
        assert!(left + width <= 24, "{} leaves the grid", panel.title);
        for cell in (left..left + width).flat_map(|x| (top..top + height).map(move |y| (x, y))) {
            let before = taken.insert((panel.file.clone(), cell), panel.title.clone());
            assert_eq!(before, None, "{} is on it", panel.title);
        }
    }
    Ok(())
}
