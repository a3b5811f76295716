//! Many runs: every scenario with every contender and seed, on all cores, reduced to medians.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::contender::Contender;
use crate::run::{Fleet, Run, Second};
use crate::scenario::{Measure, Scenario};
use crate::{catalogue, world};

/// A plan of runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names of the scenarios.
    pub scenarios: Vec<&'static str>,
    /// The contenders with their names.
    pub contenders: Vec<(&'static str, Contender)>,
    /// Number of seeds; they are 1..=seeds.
    pub seeds: u64,
    /// If set, the rate of every scenario is this fraction of its capacity.
    pub utilisation: Option<f64>,
}

impl Plan {
    /// The scenario called `name`, for `seed`.
    pub fn scenario(&self, name: &str, seed: u64) -> Option<Scenario> {
        let mut scenario = catalogue::named(name, seed)?;
        if let Some(utilisation) = self.utilisation {
            scenario.rate = utilisation * scenario.capacity();
        }
        Some(scenario)
    }
}

/// A value, as the median over the seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The value.
    pub value: f64,
    /// Number of failed requests, if the value is a latency.
    pub failed: Option<f64>,
    /// Minimum and maximum over the seeds.
    pub range: (f64, f64),
}

/// A measured value, and the number of failed requests if it is a latency.
pub type Measured = (f64, Option<f64>);

/// One row: the same figure for all contenders.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// The part of the run; empty for the whole.
    pub label: &'static str,
    /// Whether it is one of the lower percentiles of the whole run, which are rarely of interest.
    pub minor: bool,
    /// What is measured.
    pub what: Measure,
    /// The figures, in the order of the plan's contenders.
    pub figures: Vec<Figure>,
}

/// The course of one contender in one scenario, with the first seed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// Each endpoint's share of the requests.
    pub shares: Vec<f64>,
    /// The seconds of the run.
    pub seconds: Vec<Second>,
    /// The fleet over time, if it is scaled.
    pub fleet: Vec<Fleet>,
}

/// All results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// The rows by scenario: p99, p50, p90 and p95 of the whole run, then the scenario's own views.
    pub rows: Vec<Row>,
    /// The courses by scenario, then by contender.
    pub courses: Vec<Vec<Course>>,
}

#[derive(Clone, Default)]
struct Cell {
    figures: Vec<Measured>,
    course: Course,
}

/// Percentiles reported for a whole run, the first one in the table.
pub const WHOLE: [(&str, f64); 4] = [("", 0.99), ("p50", 0.50), ("p90", 0.90), ("p95", 0.95)];

/// Runs the plan; `done` is called after each run.
pub fn run(plan: &Plan, done: impl Fn() + Sync) -> Results {
    let seeds = plan.seeds as usize;
    let contenders = plan.contenders.len();
    let jobs = plan.scenarios.len() * contenders * seeds;
    let next = AtomicUsize::new(0);
    let cells = Mutex::new(vec![Cell::default(); jobs]);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(jobs.max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs {
                        break;
                    }
                    let name = plan.scenarios[job / seeds / contenders];
                    let contender = &plan.contenders[job / seeds % contenders].1;
                    let cell = cell(plan, name, contender, (job % seeds) as u64 + 1);
                    if let Ok(mut cells) = cells.lock() {
                        cells[job] = cell;
                    }
                    done();
                }
            });
        }
    });
    let cells = cells.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    collect(plan, &cells)
}

fn cell(plan: &Plan, name: &str, contender: &Contender, seed: u64) -> Cell {
    let Some(scenario) = plan.scenario(name, seed) else { return Cell::default() };
    let run = world::run(&scenario, contender, seed);
    let mut course = Course::default();
    if seed == 1 {
        course = Course {
            shares: run.shares((0.0, scenario.length)),
            seconds: run.seconds(scenario.length),
            fleet: run.fleet.clone(),
        };
    }
    Cell { figures: measure(&scenario, &run), course }
}

fn collect(plan: &Plan, cells: &[Cell]) -> Results {
    let (seeds, contenders) = (plan.seeds as usize, plan.contenders.len());
    let mut results = Results::default();
    for (name, cells) in plan.scenarios.iter().zip(cells.chunks(seeds * contenders)) {
        let Some(scenario) = plan.scenario(name, 1) else { continue };
        let of_seeds = |cells: &[Cell]| cells.iter().map(|cell| cell.figures.clone()).collect();
        results.rows.extend(rows(&scenario, &cells.chunks(seeds).map(of_seeds).collect::<Vec<_>>()));
        results.courses.push(cells.iter().step_by(seeds).map(|c| c.course.clone()).collect());
    }
    results
}

/// The rows of one scenario: medians of what was [measured](measure), by contender and then by run.
pub fn rows(scenario: &Scenario, measured: &[Vec<Vec<Measured>>]) -> Vec<Row> {
    let row = |at: usize, label, what| Row {
        scenario: scenario.name,
        label,
        minor: (1..WHOLE.len()).contains(&at),
        what,
        figures: measured
            .iter()
            .map(|runs| median(runs.iter().filter_map(|run| run.get(at).copied()).collect()))
            .collect(),
    };
    let headings = headings(scenario).into_iter().enumerate();
    headings.map(|(at, (label, what))| row(at, label, what)).collect()
}

fn headings(scenario: &Scenario) -> Vec<(&'static str, Measure)> {
    let whole = WHOLE.iter().map(|(label, p)| (*label, Measure::Latency(*p)));
    whole.chain(scenario.views.iter().map(|v| (v.label, v.what))).collect()
}

/// What one run shows, in the order of the scenario's [`rows`].
pub fn measure(scenario: &Scenario, run: &Run) -> Vec<Measured> {
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
