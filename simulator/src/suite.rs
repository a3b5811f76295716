//! Many runs: every scenario with every contender and seed, on all cores, reduced to medians.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::catalogue;
use crate::contender::Contender;
use crate::run::Run;
use crate::scenario::{Measure, Scenario};
use crate::world;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Scenario names.
    pub scenarios: Vec<&'static str>,
    /// Contenders with their names.
    pub contenders: Vec<(&'static str, Contender)>,
    /// Seeds 1..=seeds.
    pub seeds: u64,
}

/// One figure, the median over the seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The value.
    pub value: f64,
    /// How many requests failed, where the figure is a latency.
    pub failed: Option<f64>,
    /// Smallest and largest value over the seeds.
    pub range: (f64, f64),
}

/// A measured value, and how many requests failed where it is a latency.
type Measured = (f64, Option<f64>);

/// One line: the same figure of every contender.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The scenario.
    pub scenario: &'static str,
    /// Which part of it; empty for the whole.
    pub label: &'static str,
    /// One of the whole run's lesser percentiles, seldom of interest.
    pub minor: bool,
    /// What the figures are.
    pub what: Measure,
    /// In the order of the plan's contenders.
    pub figures: Vec<Figure>,
}

/// The percentiles that stand for a whole run, the first in the table.
pub const WHOLE: [(&str, f64); 4] = [("", 0.99), ("p50", 0.50), ("p90", 0.90), ("p95", 0.95)];

/// Runs everything; `done` is called after each run. The rows come scenario by scenario: p99, p50, p90 and p95
/// of the whole run, then the scenario's own views.
pub fn run(plan: &Plan, done: impl Fn() + Sync) -> Vec<Row> {
    let scenarios = plan.scenarios.len();
    let contenders = plan.contenders.len();
    let jobs = scenarios * contenders * plan.seeds as usize;
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Vec<Measured>>>> = Mutex::new(vec![None; jobs]);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(jobs.max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs {
                        break;
                    }
                    let (at, seed) = (job / plan.seeds as usize, job as u64 % plan.seeds + 1);
                    let (scenario, contender) = (at / contenders, at % contenders);
                    let figures = catalogue::named(plan.scenarios[scenario], seed)
                        .map(|s| figures(&s, &world::run(&s, &plan.contenders[contender].1, seed)));
                    if let Ok(mut results) = results.lock() {
                        results[job] = figures;
                    }
                    done();
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut rows = Vec::new();
    for (place, name) in plan.scenarios.iter().enumerate() {
        let Some(scenario) = catalogue::named(name, 1) else { continue };
        for (at, (label, what)) in headings(&scenario).into_iter().enumerate() {
            let figures = (0..contenders)
                .map(|contender| {
                    let from = (place * contenders + contender) * plan.seeds as usize;
                    let seeds = results[from..from + plan.seeds as usize].iter().flatten();
                    median(seeds.filter_map(|f| f.get(at).copied()).collect())
                })
                .collect();
            let minor = (1..WHOLE.len()).contains(&at);
            rows.push(Row { scenario: scenario.name, label, minor, what, figures });
        }
    }
    rows
}

fn headings(scenario: &Scenario) -> Vec<(&'static str, Measure)> {
    let whole = WHOLE.iter().map(|(label, p)| (*label, Measure::Latency(*p)));
    whole.chain(scenario.views.iter().map(|v| (v.label, v.what))).collect()
}

fn figures(scenario: &Scenario, run: &Run) -> Vec<Measured> {
    let all = (0.0, scenario.length);
    let whole = WHOLE.iter().map(|(_, p)| (run.latency(*p, all), Some(run.failed(all) as f64)));
    let views = scenario.views.iter().map(|view| {
        let failed = matches!(view.what, Measure::Latency(_)).then(|| run.failed(view.window) as f64);
        (run.measure(view, scenario), failed)
    });
    whole.chain(views).collect()
}

fn median(seeds: Vec<Measured>) -> Figure {
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let values: Vec<f64> = seeds.iter().map(|s| s.0).collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Figure {
        value: middle(values).unwrap_or(f64::NAN),
        failed: middle(seeds.iter().filter_map(|s| s.1).collect()),
        range: (least, most),
    }
}
