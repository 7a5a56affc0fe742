//! The plot of a run: loss and metric over steps.

use std::path::PathBuf;

use anyhow::anyhow;
use peft::data::metrics::Metric;
use peft::format::write_atomically;
use peft::train::{Entry, RunDirectory};
use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 480);
const LOSS: RGBColor = RGBColor(31, 119, 180);
const VALID: RGBColor = RGBColor(214, 39, 40);

/// Where a run has its plot.
pub fn path(run: &RunDirectory) -> PathBuf {
    run.path().join("plot.svg")
}

/// Writes an SVG of what a run has logged: the training loss (smoothed, with the single steps faint
/// behind it) and the metric of each evaluation.
pub fn write(run: &RunDirectory, metric: Metric) -> anyhow::Result<()> {
    let (path, entries) = (path(run), run.entries()?);
    let losses: Vec<(f64, f64)> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Step { step, loss, .. } => Some((*step as f64, f64::from(*loss))),
            Entry::Valid { .. } => None,
        })
        .collect();
    let metrics: Vec<(f64, f64)> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Valid { step, metrics, .. } => Some((*step as f64, metrics.get(metric)?)),
            Entry::Step { .. } => None,
        })
        .collect();
    let mut svg = String::new();
    draw(&mut svg, &losses, &metrics, metric)
        .map_err(|e| anyhow!("{}: cannot be drawn: {e}", path.display()))?;
    Ok(write_atomically(&path, |file| file.write_all(svg.as_bytes()))?)
}

fn draw(
    svg: &mut String,
    losses: &[(f64, f64)],
    metrics: &[(f64, f64)],
    metric: Metric,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let last = losses.iter().chain(metrics).map(|p| p.0).fold(1.0, f64::max);
    let highest = losses.iter().map(|p| p.1).fold(f64::MIN_POSITIVE, f64::max);
    let (low, high) = span(metrics);
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .right_y_label_area_size(64)
        .caption("Training", ("sans-serif", 20))
        .build_cartesian_2d(0.0..last, 0.0..highest * 1.05)?
        .set_secondary_coord(0.0..last, low..high);
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("loss")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.2}"))
        .light_line_style(WHITE)
        .draw()?;
    if !metrics.is_empty() {
        let axis = format!("{} (validation)", metric.name());
        chart
            .configure_secondary_axes()
            .y_desc(axis)
            .y_label_formatter(&|y| format!("{y:.3}"))
            .draw()?;
    }
    chart.draw_series(LineSeries::new(losses.iter().copied(), LOSS.mix(0.25)))?;
    chart
        .draw_series(LineSeries::new(smooth(losses), LOSS.stroke_width(2)))?
        .label("loss")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], LOSS.stroke_width(2)));
    if !metrics.is_empty() {
        let line = LineSeries::new(metrics.iter().copied(), VALID.stroke_width(2)).point_size(4);
        chart
            .draw_secondary_series(line)?
            .label(metric.name())
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], VALID.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperMiddle)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

/// A range with some room around the points.
fn span(points: &[(f64, f64)]) -> (f64, f64) {
    let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return (0.0, 1.0);
    }
    let room = ((high - low) * 0.15).max(0.01);
    (low - room, high + room)
}

/// A running mean over a twentieth of the points.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let window = (points.len() / 20).max(1);
    (0..points.len())
        .map(|end| {
            let start = (end + 1).saturating_sub(window);
            let mean = points[start..=end].iter().map(|p| p.1).sum::<f64>();
            (points[end].0, mean / (end + 1 - start) as f64)
        })
        .collect()
}
