//! The outcome: one table, one chart, one file of figures.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use testbed::anyhow::Result;
use testbed::backend::Backend;
use testbed::chart::{self, Panel, Series};
use testbed::load::Report;
use testbed::serde_json::{self, Value, json};
use testbed::{table, tools};

use crate::act::Act;
use crate::contender::Contender;

/// The outcome of one act for one contender.
pub struct Outcome {
    pub report: Report,
    /// For each task, the time of its acceptance from the start, and its duration.
    pub tasks: Vec<(Duration, Duration)>,
    /// The backends' names in the order of their roles.
    pub backends: Vec<String>,
}

impl Outcome {
    pub fn tasks_percentile_ms(&self, percentile: f64) -> f64 {
        percentile_ms(self.tasks.iter().map(|task| task.1), percentile)
    }

    /// The p99 of each second, ms: of the tasks in act 2, of the responses otherwise.
    fn over_time(&self, act: &Act) -> Vec<(f64, f64)> {
        let second = Duration::from_secs(1);
        (0..act.length.as_secs() as u32)
            .map(|index| {
                let (from, to) = (second * index, second * (index + 1));
                let height = if act.is_asynchronous() {
                    let own = self.tasks.iter().filter(|task| (from..to).contains(&task.0));
                    percentile_ms(own.map(|task| task.1), 99.0)
                } else {
                    self.report.between(from, to).percentile_ms(99.0)
                };
                (f64::from(index) + 0.5, height)
            })
            .collect()
    }
}

/// The tasks of all workers, by time of acceptance.
pub fn tasks(backends: &[Backend], started: Instant) -> Vec<(Duration, Duration)> {
    let finished = backends.iter().flat_map(Backend::finished_tasks);
    finished.map(|task| (task.accepted.saturating_duration_since(started), task.sojourn)).collect()
}

/// Prints the table, writes the chart and the figures. `outcomes` is act by act, contender by contender.
pub fn show(acts: &[Act], contenders: &[Contender], outcomes: &[Outcome]) -> Result<()> {
    let by_act: Vec<&[Outcome]> = outcomes.chunks(contenders.len()).collect();
    let mut header = vec![""];
    header.extend(contenders.iter().map(|contender| contender.heading()));
    let mut rows = Vec::new();
    for (number, (act, outcomes)) in acts.iter().zip(&by_act).enumerate() {
        rows.extend(act_rows(number + 1, act, outcomes));
    }
    println!("\n{}", table::render(&header, &rows));

    let directory = std::env::var_os("OUT").map_or_else(|| tools::root().join("out"), PathBuf::from);
    std::fs::create_dir_all(&directory)?;
    let panels: Vec<Panel> =
        acts.iter().zip(&by_act).map(|(act, outcomes)| panel(act, contenders, outcomes)).collect();
    let chart = directory.join("demo.svg");
    chart::write_svg(&chart, &panels)?;
    let figures = directory.join("demo.json");
    let value: Vec<Value> =
        acts.iter().zip(&by_act).map(|(act, outcomes)| figures_of(act, contenders, outcomes)).collect();
    std::fs::write(&figures, serde_json::to_vec_pretty(&value)?)?;
    println!("\nchart:   {}\nfigures: {}", chart.display(), figures.display());
    Ok(())
}

fn act_rows(number: usize, act: &Act, outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let row = |name: String, cell: &dyn Fn(&Outcome) -> String| {
        std::iter::once(name).chain(outcomes.iter().map(cell)).collect::<Vec<String>>()
    };
    let latency = |name: &str, percentile: f64| {
        row(format!("  {name}"), &|outcome| {
            table::milliseconds(outcome.report.summary().percentile_ms(percentile))
        })
    };
    let mut rows = vec![row(format!("Act {number}: {}", act.title), &|_| String::new())];
    rows.extend([latency("p50", 50.0), latency("p90", 90.0), latency("p99", 99.0)]);
    if act.is_asynchronous() {
        rows.push(row("  tasks' p99".to_owned(), &|outcome| {
            table::milliseconds(outcome.tasks_percentile_ms(99.0))
        }));
    }
    rows.push(row("  failed".to_owned(), &|outcome| {
        let all = outcome.report.summary();
        format!("{} of {}", all.failed, all.requests)
    }));
    for (index, role) in act.roles.iter().enumerate() {
        rows.push(row(format!("  share of {}, {}", index + 1, role.name), &|outcome| {
            table::percent(outcome.report.summary().share(&outcome.backends[index]))
        }));
    }
    rows
}

fn panel(act: &Act, contenders: &[Contender], outcomes: &[Outcome]) -> Panel {
    let what = if act.is_asynchronous() { "tasks, from acceptance to end" } else { "answers" };
    Panel {
        title: format!("{}: p99 of the {what}", capitalised(act.title)),
        y_label: "milliseconds".to_owned(),
        series: contenders
            .iter()
            .zip(outcomes)
            .map(|(contender, outcome)| Series {
                name: contender.heading().to_owned(),
                points: outcome.over_time(act),
            })
            .collect(),
        marks: act.marks(),
        linear: false,
    }
}

fn figures_of(act: &Act, contenders: &[Contender], outcomes: &[Outcome]) -> Value {
    let runs = contenders.iter().zip(outcomes).map(|(contender, outcome)| {
        let all = outcome.report.summary();
        let shares: Vec<f64> = outcome.backends.iter().map(|name| all.share(name)).collect();
        json!({
            "balancer": contender.name(),
            "requests": all.requests,
            "failed": all.failed,
            "p50_ms": all.percentile_ms(50.0),
            "p90_ms": all.percentile_ms(90.0),
            "p99_ms": all.percentile_ms(99.0),
            "tasks_p99_ms": act.is_asynchronous().then(|| outcome.tasks_percentile_ms(99.0)),
            "shares": shares,
        })
    });
    json!({
        "act": act.title,
        "rate": act.rate,
        "seconds": act.length.as_secs(),
        "backends": act.roles.iter().map(|role| role.name).collect::<Vec<_>>(),
        "runs": runs.collect::<Vec<_>>(),
    })
}

fn percentile_ms(times: impl Iterator<Item = Duration>, percentile: f64) -> f64 {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    // Nearest rank.
    let rank = (percentile / 100.0 * times.len() as f64).ceil() as usize;
    times.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
