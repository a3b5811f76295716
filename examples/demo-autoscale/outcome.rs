//! The outcome: one table, one chart, one file of figures.

use std::path::PathBuf;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::chart::{self, Panel, Series};
use testbed::load::Report;
use testbed::serde_json::{self, Value, json};
use testbed::{table, tools};

use crate::replicas::{Replicas, State};
use crate::stage::Number;
use crate::story::{self, Story};

/// The state at one time.
pub struct Moment {
    at: f64,
    serving: usize,
    starting: usize,
    number: Number,
    multiple: f64,
}

impl Moment {
    pub fn new(at: Duration, number: &Number, replicas: &Replicas, multiple: f64) -> Moment {
        Moment {
            at: at.as_secs_f64(),
            serving: replicas.count(State::Serving),
            starting: replicas.count(State::Starting),
            number: *number,
            multiple,
        }
    }
}

/// Prints the table, writes the chart and the figures.
pub fn show(story: &Story, report: &Report, moments: &[Moment]) -> Result<()> {
    let parts = report.parts(story.length, 6);
    let rows: Vec<Vec<String>> = (0..)
        .zip(&parts)
        .map(|(part, summary)| {
            let edge = |part| story.length.as_secs_f64() * f64::from(part) / 6.0;
            let (from, to) = (edge(part), edge(part + 1));
            let within: Vec<&Moment> = moments.iter().filter(|m| (from..to).contains(&m.at)).collect();
            let mean = |value: &dyn Fn(&Moment) -> f64| {
                within.iter().map(|moment| value(moment)).sum::<f64>() / within.len().max(1) as f64
            };
            vec![
                format!("{from:.0} to {to:.0} s"),
                format!("{:.0}", summary.requests as f64 / (to - from)),
                format!("{:.1}", mean(&|moment| moment.serving as f64)),
                format!("{:.1}", mean(&|moment| story.needed(moment.multiple))),
                table::milliseconds(summary.percentile_ms(50.0)),
                table::milliseconds(summary.percentile_ms(99.0)),
                summary.failed.to_string(),
            ]
        })
        .collect();
    let header = ["", "req/s", "replicas", "needed at the target", "p50", "p99", "failed"];
    println!("\n{}", table::render(&header, &rows));
    let all = report.summary();
    let most = moments.iter().map(|moment| moment.serving).max().unwrap_or(0);
    let mean = moments.iter().map(|m| m.serving as f64).sum::<f64>() / moments.len().max(1) as f64;
    println!(
        "{} requests, {} failed, p99 {}; {mean:.1} replicas on average, {most} at the most",
        all.requests,
        all.failed,
        table::milliseconds(all.percentile_ms(99.0)),
    );

    let directory = std::env::var_os("OUT").map_or_else(|| tools::root().join("out"), PathBuf::from);
    std::fs::create_dir_all(&directory)?;
    let picture = directory.join("demo-autoscale.svg");
    chart::write_svg(&picture, &[replicas(story, moments), latency(story, report)])?;
    let figures = directory.join("demo-autoscale.json");
    std::fs::write(&figures, serde_json::to_vec_pretty(&figures_of(report, moments))?)?;
    println!("chart:   {}\nfigures: {}", picture.display(), figures.display());
    Ok(())
}

fn line(name: &str, points: impl Iterator<Item = (f64, f64)>) -> Series {
    Series { name: name.to_owned(), points: points.collect() }
}

fn replicas(story: &Story, moments: &[Moment]) -> Panel {
    let asked = moments.iter().filter_map(|m| Some((m.at, f64::from(m.number.desired?))));
    Panel {
        title: "Replicas, as the load goes up and down".to_owned(),
        y_label: "replicas".to_owned(),
        linear: true,
        series: vec![
            line("needed to hold the target", moments.iter().map(|m| (m.at, story.needed(m.multiple)))),
            line("asked for", asked),
            line("serving", moments.iter().map(|m| (m.at, m.serving as f64))),
        ],
        marks: Vec::new(),
    }
}

fn latency(story: &Story, report: &Report) -> Panel {
    let parts = report.parts(story.length, story.length.as_secs() as u32);
    let at = |second: usize| second as f64 + 0.5;
    let percentile = |percentile: f64| {
        let points = parts.iter().enumerate();
        points.map(|(second, part)| (at(second), part.percentile_ms(percentile))).collect::<Vec<_>>()
    };
    Panel {
        title: "Latency of each second".to_owned(),
        y_label: "milliseconds".to_owned(),
        series: vec![line("p99", percentile(99.0).into_iter()), line("p50", percentile(50.0).into_iter())],
        ..Panel::default()
    }
}

fn figures_of(report: &Report, moments: &[Moment]) -> Value {
    let all = report.summary();
    let moments = moments.iter().map(|m| {
        json!({
            "at": m.at, "serving": m.serving, "starting": m.starting, "desired": m.number.desired,
            "pressure": m.number.pressure, "load": m.multiple,
        })
    });
    json!({
        "requests": all.requests,
        "failed": all.failed,
        "p50_ms": all.percentile_ms(50.0),
        "p99_ms": all.percentile_ms(99.0),
        "replica_can_do": story::capacity(),
        "moments": moments.collect::<Vec<_>>(),
    })
}
