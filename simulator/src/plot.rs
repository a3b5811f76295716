//! Pictures: the course of each scenario, and the distance of every balancer from the oracle.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::suite::{Course, Plan, Results, Row};

const SIZE: (u32, u32) = (960, 600);
const FONT: (&str, u32) = ("sans-serif", 16);

/// Writes `DIR/SCENARIO.svg` for every scenario: its course, or latency over load if the load rises in steps.
pub fn write(directory: &Path, plan: &Plan, results: &Results) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(directory)?;
    for (at, name) in plan.scenarios.iter().enumerate() {
        let path = directory.join(format!("{name}.svg"));
        let steps: Vec<(f64, &Row)> = results
            .rows
            .iter()
            .filter(|row| row.scenario == *name)
            .filter_map(|row| Some((row.label.strip_prefix("at ")?.parse().ok()?, row)))
            .collect();
        if steps.is_empty() {
            course(&path, plan, results, at)?;
        } else {
            ramp(&path, plan, &steps)?;
        }
    }
    Ok(())
}

/// The 99th percentile of each step, over its load.
fn ramp(path: &Path, plan: &Plan, steps: &[(f64, &Row)]) -> Result<(), Box<dyn Error>> {
    let values = || steps.iter().flat_map(|(_, row)| &row.figures).map(|figure| figure.value);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(1.0, f64::max));
    let (first, last) = (steps.first().map_or(0.0, |s| s.0), steps.last().map_or(1.0, |s| s.0));
    let root = SVGBackend::new(path, (SIZE.0, SIZE.1 * 2 / 3)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("p99 in ms over load, 1 is what the fleet was allotted", FONT)
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d(first - 0.02..last + 0.02, (least * 0.9..most * 1.2).log_scale())?;
    chart.configure_mesh().light_line_style(TRANSPARENT).draw()?;
    for (index, (name, _)) in plan.contenders.iter().enumerate().rev() {
        let points = steps.iter().filter_map(|(load, row)| Some((*load, row.figures.get(index)?.value)));
        chart
            .draw_series(LineSeries::new(points, stroke(index)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], stroke(index)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

fn colour(index: usize) -> RGBAColor {
    Palette99::pick(index).mix(1.0)
}

/// The first contender is the subject of the picture.
fn stroke(index: usize) -> ShapeStyle {
    colour(index).stroke_width(if index == 0 { 3 } else { 1 })
}

/// Above, the 99th percentile of each second; below, the share of the first endpoint, which is the failing one if only
/// one is.
fn course(path: &Path, plan: &Plan, results: &Results, at: usize) -> Result<(), Box<dyn Error>> {
    let name = plan.scenarios[at];
    let courses = &results.courses[at];
    let end = courses.iter().map(|c| c.seconds.len()).max().unwrap_or(1) as f64;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(SIZE.1 * 3 / 5);
    let most = courses.iter().flat_map(|c| &c.seconds).map(|s| s.p99_ms).fold(1.0, f64::max);
    let least = courses.iter().flat_map(|c| &c.seconds).map(|s| s.p99_ms).fold(most, f64::min);
    let mut chart = ChartBuilder::on(&upper)
        .caption(format!("{name}: p99 of each second, ms"), FONT)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, ((least * 0.9).max(0.01)..most * 1.1).log_scale())?;
    chart.configure_mesh().light_line_style(TRANSPARENT).draw()?;
    for (index, course) in courses.iter().enumerate().rev() {
        let points = course.seconds.iter().enumerate().map(|(s, second)| (s as f64 + 0.5, second.p99_ms));
        chart
            .draw_series(LineSeries::new(points, stroke(index)))?
            .label(plan.contenders[index].0)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], stroke(index)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    if courses.iter().any(|c| !c.fleet.is_empty()) {
        fleet(&lower, courses, end)?;
        return Ok(root.present()?);
    }
    let most = courses.iter().flat_map(|c| &c.seconds).map(|s| s.first_share).fold(0.05, f64::max);
    let mut chart = ChartBuilder::on(&lower)
        .caption("share of the first endpoint", FONT)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..most * 1.1)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("seconds").draw()?;
    for (index, course) in courses.iter().enumerate().rev() {
        let points =
            course.seconds.iter().enumerate().map(|(s, second)| (s as f64 + 0.5, second.first_share));
        chart.draw_series(LineSeries::new(points, stroke(index)))?;
    }
    root.present()?;
    Ok(())
}

/// The number of endpoints over time, as scaling changes it.
fn fleet(area: &DrawingArea<SVGBackend, Shift>, courses: &[Course], end: f64) -> Result<(), Box<dyn Error>> {
    let most =
        courses.iter().flat_map(|c| &c.fleet).map(|f| f.present + f.starting).max().unwrap_or(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption("endpoints that are there; thin: with those that are starting", FONT)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..most + 1.0)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("seconds").draw()?;
    for (index, course) in courses.iter().enumerate().rev() {
        let there = course.fleet.iter().map(|f| (f.at, f.present as f64));
        chart.draw_series(LineSeries::new(there, stroke(index)))?;
        let coming = course.fleet.iter().map(|f| (f.at, (f.present + f.starting) as f64));
        chart.draw_series(LineSeries::new(coming, colour(index).mix(0.5).stroke_width(1)))?;
    }
    Ok(())
}

/// One row per scenario: every contender's p99 over the oracle's, or over the best one without an oracle.
pub fn summary(path: &Path, plan: &Plan, results: &Results) -> Result<(), Box<dyn Error>> {
    let rows: Vec<_> = results.rows.iter().filter(|r| r.label.is_empty()).collect();
    let oracle = plan.contenders.iter().position(|(name, _)| *name == "oracle");
    let base = |figures: &[crate::suite::Figure]| match oracle {
        Some(oracle) => figures[oracle].value,
        None => figures.iter().map(|f| f.value).fold(f64::INFINITY, f64::min),
    };
    let ratios: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| row.figures.iter().map(|f| f.value / base(&row.figures).max(1e-9)).collect())
        .collect();
    let most = ratios.iter().flatten().copied().filter(|r| r.is_finite()).fold(2.0, f64::max);
    let height = 120 + 22 * rows.len() as u32;
    let root = SVGBackend::new(path, (SIZE.0, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let names: Vec<&str> = rows.iter().map(|r| r.scenario).collect();
    let mut chart = ChartBuilder::on(&root)
        .caption("p99 over the oracle's", FONT)
        .margin(8)
        .x_label_area_size(40)
        .y_label_area_size(150)
        .build_cartesian_2d((0.9..most * 1.2).log_scale(), -0.5..rows.len() as f64 - 0.5)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(2 * rows.len() + 1)
        .y_label_formatter(&|y| match names.get(y.round() as usize) {
            Some(name) if (y - y.round()).abs() < 1e-6 => (*name).to_owned(),
            _ => String::new(),
        })
        .draw()?;
    for index in (0..plan.contenders.len()).rev() {
        let points = ratios.iter().enumerate().map(|(y, ratios)| (ratios[index], y as f64));
        chart
            .draw_series(points.map(|point| Circle::new(point, 4, colour(index).filled())))?
            .label(plan.contenders[index].0)
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour(index).filled()));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}
