//! Line charts over time as SVG files.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

const WIDTH: u32 = 960;
const PANEL_HEIGHT: u32 = 340;
const HEAD_HEIGHT: u32 = 62;
const LEGEND_STEP: i32 = 240;
/// Colours that remain distinguishable with common colour blindness (palette of Okabe and Ito): orange, blue, green,
/// grey.
const COLOURS: [RGBColor; 4] =
    [RGBColor(230, 159, 0), RGBColor(0, 114, 178), RGBColor(0, 158, 115), RGBColor(90, 90, 90)];
const LEFT: i32 = 76;
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One set of axes: seconds on the horizontal one; milliseconds on a logarithmic or numbers on a linear vertical one.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// The title above it.
    pub title: String,
    /// The label of the vertical axis.
    pub y_label: String,
    /// Whether the vertical axis is linear and begins at 0.
    pub linear: bool,
    /// The lines.
    pub series: Vec<Series>,
    /// Vertical marks: time and label.
    pub marks: Vec<(f64, String)>,
}

/// A line of a chart.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Seconds and milliseconds (or numbers). On a logarithmic scale values that are not positive are left out.
    pub points: Vec<(f64, f64)>,
}

/// Draws the panels one below the other.
pub fn write_svg(path: &Path, panels: &[Panel]) -> Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    draw(path, panels).with_context(|| format!("cannot draw {}", path.display()))
}

fn draw(path: &Path, panels: &[Panel]) -> Result<()> {
    let rows = panels.len().max(1);
    let size = (WIDTH, PANEL_HEIGHT * u32::try_from(rows)?);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE).map_err(drawing)?;
    for (panel, area) in panels.iter().zip(area.split_evenly((rows, 1))) {
        draw_panel(panel, &area)?;
    }
    area.present().map_err(drawing)
}

fn draw_panel(panel: &Panel, area: &Area<'_>) -> Result<()> {
    let points = || panel.series.iter().flat_map(|line| &line.points).filter(|point| point.1 > 0.0);
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let most = points().map(|point| point.1);
    let (head, area) = area.split_vertically(HEAD_HEIGHT);
    draw_head(panel, &head)?;
    let mut builder = ChartBuilder::on(&area);
    builder.margin(12).margin_top(0).x_label_area_size(34).y_label_area_size(64);
    if panel.linear {
        let top = most.fold(1.0, f64::max) * 1.15;
        let chart = builder.build_cartesian_2d(0.0..right, 0.0..top).map_err(drawing)?;
        return draw_lines(panel, chart, (right, 0.0, top));
    }
    let bottom = most.clone().fold(f64::INFINITY, f64::min).min(10.0);
    let top = most.fold(100.0, f64::max) * 1.6;
    let chart = builder.build_cartesian_2d(0.0..right, (bottom..top).log_scale()).map_err(drawing)?;
    draw_lines(panel, chart, (right, bottom, top))
}

fn draw_lines<Y>(
    panel: &Panel,
    mut chart: ChartContext<'_, SVGBackend<'_>, Cartesian2d<RangedCoordf64, Y>>,
    (right, bottom, top): (f64, f64, f64),
) -> Result<()>
where
    Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(RGBColor(245, 245, 245))
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc("seconds")
        .y_desc(&panel.y_label)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style((FONT, 13))
        .draw()
        .map_err(drawing)?;
    for (at, what) in &panel.marks {
        let style = ShapeStyle::from(BLACK.mix(0.45)).stroke_width(1);
        chart.draw_series([PathElement::new([(*at, bottom), (*at, top)], style)]).map_err(drawing)?;
        let label = Text::new(what.clone(), (*at + right * 0.005, top * 0.9), (FONT, 12).into_font());
        chart.draw_series([label]).map_err(drawing)?;
    }
    for (line, colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
        let style = ShapeStyle::from(colour).stroke_width(2);
        let visible = line.points.iter().copied().filter(|point| panel.linear || point.1 > 0.0);
        chart.draw_series(LineSeries::new(visible, style)).map_err(drawing)?;
    }
    Ok(())
}

/// Draws the title, and below it the legend, which never covers the lines.
fn draw_head(panel: &Panel, area: &Area<'_>) -> Result<()> {
    area.draw(&Text::new(panel.title.clone(), (LEFT, 14), (FONT, 18))).map_err(drawing)?;
    let mut left = LEFT;
    for (line, colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
        let style = ShapeStyle::from(colour).stroke_width(3);
        area.draw(&PathElement::new([(left, 47), (left + 18, 47)], style)).map_err(drawing)?;
        area.draw(&Text::new(line.name.clone(), (left + 25, 40), (FONT, 13))).map_err(drawing)?;
        left += LEGEND_STEP;
    }
    Ok(())
}

/// Copies a message: Plotters' errors borrow from the drawing area.
fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_every_name_and_line() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("out/chart.svg");
        let line = |name: &str, height| Series {
            name: name.to_owned(),
            points: (0..20).map(|x| (f64::from(x), height)).collect(),
        };
        let panel = Panel {
            title: "Latency".to_owned(),
            y_label: "p99, ms".to_owned(),
            series: vec![line("round_robin", 2000.0), line("evenkeel", 60.0)],
            marks: vec![(10.0, "one fails".to_owned())],
            linear: false,
        };
        write_svg(&path, &[panel.clone(), Panel { linear: true, ..panel }])?;
        let svg = std::fs::read_to_string(path)?;
        for text in ["Latency", "p99, ms", "round_robin", "evenkeel", "one fails"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.matches("<polyline").count() >= 4);
        Ok(())
    }

    #[test]
    fn nothing_measured_is_still_a_chart() -> Result<()> {
        let directory = tempfile::tempdir()?;
        write_svg(&directory.path().join("chart.svg"), &[Panel::default()])
    }
}
