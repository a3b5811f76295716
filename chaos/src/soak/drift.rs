//! Drift in the second half of a soak: a table, a chart, a verdict.

use std::path::Path;

use testbed::anyhow::Result;
use testbed::chart::{Panel, Series, write_svg};

use super::Course;
use super::sample::NAMES;
use crate::chance::{Trend, median, trend};

/// The relative change up to which a series counts as flat.
const FLAT: f64 = 0.02;

/// The verdict on a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole interval is within ±2 %.
    Flat,
    /// The interval contains changes within and beyond ±2 %: the samples scatter too much to decide.
    Open,
    /// The whole interval is above 2 %.
    Grows,
    /// The whole interval is below −2 %.
    Falls,
}

impl Verdict {
    fn of(trend: Trend) -> Self {
        match trend {
            Trend { least, .. } if least > FLAT => Self::Grows,
            Trend { most, .. } if most < -FLAT => Self::Falls,
            Trend { least, most, .. } if least >= -FLAT && most <= FLAT => Self::Flat,
            _ => Self::Open,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Open => "scatters too much to tell",
            Self::Grows => "GROWS",
            Self::Falls => "falls",
        }
    }
}

/// The verdict on one of the figures.
pub struct Line {
    /// The figure's name.
    pub name: &'static str,
    /// Its median over the second half.
    pub median: f64,
    /// Its change over the second half; `None` if that was too short.
    pub trend: Option<Trend>,
    /// The verdict.
    pub verdict: Verdict,
}

/// The verdicts on all figures.
pub fn lines(course: &Course) -> Vec<Line> {
    let second = &course.cycles[course.cycles.len() / 2..];
    let line = |(index, name): (usize, &&'static str)| {
        let samples: Vec<(f64, f64)> = second.iter().map(|cycle| (cycle.at, cycle.values[index])).collect();
        let trend = trend(&samples);
        Line {
            name,
            median: median(samples.into_iter().map(|sample| sample.1).collect()).unwrap_or(0.0),
            trend,
            verdict: trend.map_or(Verdict::Open, Verdict::of),
        }
    };
    NAMES.iter().enumerate().map(line).collect()
}

/// The table for a document.
pub fn markdown(course: &Course, lines: &[Line]) -> String {
    let minutes = course.cycles.last().map_or(0.0, |cycle| (cycle.at / 60.0).ceil());
    let [with, alone] = course.arms;
    let mut text = format!(
        "{minutes:.0} minutes, {} cycles: {} of {} requests failed with evenkeel, {} of {} alone (p = {:.2}).\n\n\
         | series, second half | median | change | 95 % interval | verdict |\n|---|--:|--:|--:|---|\n",
        course.cycles.len(),
        with.failed,
        with.requests,
        alone.failed,
        alone.requests,
        course.chance(),
    );
    let percent = |share: f64| format!("{:+.1} %", share * 100.0);
    for line in lines {
        let (change, interval) = line.trend.map_or(("–".to_owned(), "–".to_owned()), |trend| {
            (percent(trend.change), format!("{} to {}", percent(trend.least), percent(trend.most)))
        });
        text += &format!(
            "| {} | {:.2} | {change} | {interval} | {} |\n",
            line.name,
            line.median,
            line.verdict.words()
        );
    }
    text
}

/// Draws all series over time.
pub fn draw(course: &Course, path: &Path) -> Result<()> {
    let panel = |title: &str, y_label: &str, indices: &[usize]| Panel {
        title: title.to_owned(),
        y_label: y_label.to_owned(),
        linear: true,
        series: indices
            .iter()
            .map(|&index| Series {
                name: NAMES[index].to_owned(),
                points: course.cycles.iter().map(|cycle| (cycle.at, cycle.values[index])).collect(),
            })
            .collect(),
        marks: Vec::new(),
    };
    let panels = [
        panel("Memory of Envoy's process", "MB", &[0, 1]),
        panel("File handles and statistics", "number", &[2, 3]),
        panel("Median latency while all is well", "ms", &[4, 5]),
        panel("99th percentile while all is well", "ms", &[7, 8]),
    ];
    write_svg(path, &panels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_takes_the_whole_interval() {
        let of = |least, most| Verdict::of(Trend { change: 0.0, least, most });
        assert_eq!(of(-0.01, 0.015), Verdict::Flat);
        assert_eq!(of(-0.01, 0.03), Verdict::Open);
        assert_eq!(of(0.021, 0.03), Verdict::Grows);
        assert_eq!(of(-0.05, -0.03), Verdict::Falls);
    }
}
