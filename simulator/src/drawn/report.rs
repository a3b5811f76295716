//! The results of all fleets, as text and as a picture.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;

use super::judge::{Judged, METRICS, PEERS};
use super::statistics::quantile;

/// Number of the worst fleets shown.
const WORST: usize = 20;
/// Ratio above which a loss is large.
const MUCH: f64 = 1.15;
const QUANTILES: [f64; 7] = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99];
const SIZE: (u32, u32) = (960, 420);
const FONT: (&str, u32) = ("sans-serif", 16);

/// The report as text.
pub fn text(judged: &[Judged]) -> String {
    let mut text = String::new();
    let (faulty, well): (Vec<&Judged>, Vec<&Judged>) =
        judged.iter().partition(|j| !j.fleet.faults.is_empty());
    let all: Vec<&Judged> = judged.iter().collect();
    for (label, fleets) in [("without faults", &well), ("with faults", &faulty), ("all", &all)] {
        section(&mut text, label, fleets);
    }
    let mut worst: Vec<&Judged> = judged.iter().filter(|j| j.lost()).collect();
    worst.sort_by(|a, b| b.worst().total_cmp(&a.worst()));
    let _ = writeln!(text, "the worst, with what is lost (here / best built-in):");
    for judged in worst.into_iter().take(WORST) {
        let lost =
            METRICS.iter().zip(&judged.against).filter(|(_, a)| a.lost).map(|(metric, a)| {
                format!("{} {:.3} / {:.3} {}", metric.name(), a.values.0, a.values.1, a.best)
            });
        let lost: Vec<String> = lost.collect();
        let _ = writeln!(text, "{:.2}  {}\n      {}", judged.worst(), lost.join(", "), judged.fleet);
    }
    text
}

fn section(text: &mut String, label: &str, fleets: &[&Judged]) {
    if fleets.is_empty() {
        return;
    }
    let share = |count: usize| 100.0 * count as f64 / fleets.len() as f64;
    let lost = fleets.iter().filter(|j| j.lost()).count();
    let to_any = fleets.iter().filter(|j| j.lost_to_any).count();
    let much = fleets.iter().filter(|j| j.worst() > MUCH).count();
    let _ = writeln!(
        text,
        "{} fleets {label}: {lost} lose by more than 5 % ({:.1} %), {much} by more than 15 % ({:.1} %); {to_any} where the latency of \
         policies that fail more requests counts, too ({:.1} %)",
        fleets.len(),
        share(lost),
        share(much),
        share(to_any)
    );
    for (at, metric) in METRICS.iter().enumerate() {
        let mut ratios: Vec<f64> = fleets.iter().map(|j| j.against[at].ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let quantiles = QUANTILES.map(|q| format!("{:.2}", quantile(&ratios, q)));
        let lost = fleets.iter().filter(|j| j.against[at].lost).count();
        let _ = writeln!(
            text,
            "  {:7} over the best built-in: geometric mean {:.3}, lost {:.1} %, quantiles 1/10/25/50/75/90/99 {}",
            metric.name(),
            geometric(ratios.iter().copied()),
            share(lost),
            quantiles.join(" ")
        );
    }
    let others = std::iter::once("least_request+od").chain(PEERS).enumerate();
    let others = others.map(|(at, name)| {
        format!("{name} {:.3}", geometric(fleets.iter().filter_map(|j| j.p99_over.get(at).copied())))
    });
    let _ = writeln!(text, "  p99 over others', geometric mean: {}", others.collect::<Vec<_>>().join(", "));
    let mean = |of: &dyn Fn(&Judged) -> f64| fleets.iter().map(|j| of(j)).sum::<f64>() / fleets.len() as f64;
    let _ = writeln!(
        text,
        "  evenness of shares by slots (Jain): {:.3}, least_request {:.3}\n",
        mean(&|j| j.fairness.0),
        mean(&|j| j.fairness.1)
    );
}

fn geometric(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), v| (count + 1.0, sum + v.ln()));
    (sum / f64::max(count, 1.0)).exp()
}

/// The sorted ratios as an SVG: which fraction of the fleets is below which ratio.
pub fn picture(path: &Path, judged: &[Judged]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("latency over that of Envoy's best policy: drawn fleets, sorted", FONT)
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..100.0, (0.2..5.0).log_scale())?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("per cent of the fleets").draw()?;
    chart.draw_series(LineSeries::new([(0.0, 1.0), (100.0, 1.0)], BLACK.mix(0.5)))?;
    for (at, metric) in METRICS.iter().enumerate().take(3) {
        let mut ratios: Vec<f64> = judged.iter().map(|j| j.against[at].ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let last = ratios.len().saturating_sub(1).max(1) as f64;
        let points = ratios.iter().enumerate().map(|(n, r)| (100.0 * n as f64 / last, r.clamp(0.2, 5.0)));
        let stroke = Palette99::pick(at).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points, stroke))?
            .label(metric.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], stroke));
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
