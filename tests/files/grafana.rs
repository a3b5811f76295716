//! The dashboards follow Grafana's own types, and their queries are PromQL for the provisioned data source.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use testbed::anyhow::{Context, Result, ensure};
use testbed::{tempfile, tools};

use crate::{prometheus, shipped};

/// A panel of a shipped dashboard.
pub struct Panel {
    /// The dashboard that it is on.
    pub file: PathBuf,
    /// Its title.
    pub title: String,
    value: Value,
}

impl Panel {
    /// Its queries, with Grafana's variables filled in.
    pub fn expressions(&self, rate_interval: &str) -> Result<Vec<String>> {
        let targets = self.value["targets"].as_array().with_context(|| self.title.clone())?;
        let expressions = targets.iter().map(|target| {
            let expression = target["expr"].as_str().context("expr")?;
            let filled = expression.replace("$__rate_interval", rate_interval);
            // No selection means all.
            let filled = filled.replace("$upstream", ".*").replace("$instance", ".*");
            ensure!(!filled.contains('$'), "a variable that this test does not know: {expression}");
            Ok(filled)
        });
        expressions.collect()
    }
}

fn dashboards() -> Result<Vec<Value>> {
    let files = shipped::files(&["json"])?;
    let files =
        files.iter().filter(|path| path.parent().is_some_and(|folder| folder.ends_with("dashboards")));
    files.map(|path| Ok(serde_json::from_str(&shipped::text(path)?)?)).collect()
}

/// Errors that the TypeScript compiler reports for these dashboards, checked against Grafana's types of dashboards and
/// of each kind of panel.
fn faults(dashboards: &[Value]) -> Result<String> {
    const KINDS: [(&str, &str, &str); 4] = [
        ("timeseries", "timeseries", "TimeSeries"),
        ("stat", "stat", "Stat"),
        ("table", "table", "Table"),
        ("state-timeline", "statetimeline", "StateTimeline"),
    ];
    let directory = tempfile::tempdir()?;
    let modules = tools::crd_schemas()?.join("node_modules");
    symlink(&modules, directory.path().join("node_modules"))?;
    let raw = "./node_modules/@grafana/schema/dist/esm/raw";
    // All fields are optional, as Grafana fills in defaults; text stands for enumerations, and unknown fields are
    // errors.
    let mut typed = format!(
        "import type {{ Dashboard }} from '{raw}/dashboard/x/dashboard_types.gen';
        type Some<T> = unknown extends T ? unknown : T extends string ? `${{T}}`
            : T extends number | boolean | null | undefined ? T
            : T extends Array<infer U> ? Some<U>[] : {{ [K in keyof T]?: Some<T[K]> }};\n"
    );
    for (_, name, file) in KINDS {
        let path = format!("{raw}/composable/{name}/panelcfg/x/{file}PanelCfg_types.gen");
        writeln!(typed, "import type * as {name} from '{path}';")?;
    }
    for (number, dashboard) in dashboards.iter().enumerate() {
        writeln!(typed, "export const d{number}: Some<Dashboard> = {dashboard};")?;
        for (at, panel) in dashboard["panels"].as_array().context("panels")?.iter().enumerate() {
            let kind = KINDS.iter().find(|(kind, ..)| panel["type"] == *kind);
            let (_, kind, _) = kind.with_context(|| format!("no types of {}", panel["type"]))?;
            writeln!(typed, "export const o{number}_{at}: Some<{kind}.Options> = {};", panel["options"])?;
            let custom = &panel["fieldConfig"]["defaults"]["custom"];
            if custom.is_object() {
                writeln!(typed, "export const c{number}_{at}: Some<{kind}.FieldConfig> = {custom};")?;
            }
        }
    }
    fs::write(directory.path().join("dashboards.ts"), typed)?;
    let options = ["--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "bundler"];
    let output = Command::new("node")
        .arg(modules.join("typescript/bin/tsc"))
        .args(options)
        .args(["--module", "esnext", "--target", "es2022", "dashboards.ts"])
        .current_dir(directory.path())
        .output()
        .context("node")?;
    let faults = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() != faults.contains("error"), "tsc failed: {faults}");
    Ok(faults)
}

#[test]
fn they_are_what_grafana_says_dashboards_are() -> Result<()> {
    let dashboards = dashboards()?;
    assert_eq!(faults(&dashboards)?, "");
    // The compiler reports only the first error of each.
    let broken = |pointer: &str, name: &str, value: &str| -> Result<Value> {
        let mut broken = dashboards[0].clone();
        broken.pointer_mut(pointer).context("a place")?[name] = value.into();
        Ok(broken)
    };
    let found = faults(&[
        broken("", "refrsh", "5s")?,
        broken("/panels/0/options", "orientaton", "auto")?,
        broken("/panels/0/gridPos", "w", "six")?,
    ])?;
    for fault in ["'\"refrsh\"'", "'\"orientaton\"'", "'string' is not assignable to type 'number'"] {
        assert!(found.contains(fault), "{fault}: {found}");
    }
    Ok(())
}

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
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel.title);
        }
    }
    for dashboard in dashboards()? {
        let variables = dashboard["templating"]["list"].as_array().context("variables")?;
        let chosen = variables.iter().find(|variable| variable["name"] == "datasource");
        assert_eq!(chosen.context("a data source")?["current"]["value"], source);
    }
    Ok(())
}

/// A mesh can scrape Envoy's own stats, but not the status path: panels show the fleet metrics found there as well.
/// Both are filtered by the selected upstream and proxy.
#[test]
fn panels_of_the_fleet_show_what_a_mesh_can_scrape_and_what_is_chosen() -> Result<()> {
    let (mut fleet, mut endpoints) = (0, 0);
    for panel in panels()?.iter().filter(|panel| panel.file.ends_with("evenkeel.json")) {
        for target in panel.value["targets"].as_array().context("targets")? {
            let asked = target["expr"].as_str().context("expr")?;
            let of_endpoints = asked.contains("evenkeel_endpoint_") || asked.contains("evenkeel_workers");
            if !of_endpoints || asked.contains("signal_age") {
                assert!(
                    asked.contains(" or ") && asked.contains("evenkeel_fleet_"),
                    "{}: {asked}",
                    panel.title
                );
                fleet += 1;
            } else {
                endpoints += 1;
            }
            for series in asked.split("evenkeel_").skip(1) {
                let (name, chosen) =
                    series.split_once('{').with_context(|| format!("{asked}: all of them"))?;
                let chosen = chosen.split('}').next().context("an end")?;
                let of_upstream = name.starts_with("endpoint") || name.starts_with("upstream");
                assert!(
                    chosen.contains("$instance") && (!of_upstream || chosen.contains("$upstream")),
                    "{asked}"
                );
            }
        }
    }
    ensure!(fleet >= 10 && endpoints >= 5, "{fleet} and {endpoints}");
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
