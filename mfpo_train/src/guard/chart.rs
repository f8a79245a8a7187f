//! The curve of detections over false alarms, one line a signal.

use std::path::Path;

use mfpo_policy::guard::Signal;
use plotters::prelude::*;

use super::IN_TIME;
use super::curve::Curve;
use crate::plot::{FONT, PlotError, SIZE, replace};

const COLOURS: [RGBColor; Signal::ALL.len()] = [
    RGBColor(31, 98, 168),
    RGBColor(214, 106, 26),
    RGBColor(110, 168, 120),
];
/// What has no false alarm at all is drawn here, an hour.
const NONE_AT: f64 = 0.1;

/// Draws the signals of `results` to `path`.
pub(super) fn draw(title: &str, results: &[Curve], path: &Path) -> Result<(), PlotError> {
    replace(path, |temporary| draw_chart(title, results, temporary))
}

fn draw_chart(title: &str, results: &[Curve], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = BitMapBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 26))
        .margin(20)
        .x_label_area_size(55)
        .y_label_area_size(80)
        .build_cartesian_2d((NONE_AT..100_000.0).log_scale(), 0.0..1.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.10))
        .x_desc("false alarms an hour")
        .y_desc(format!("faults detected within {IN_TIME} s"))
        .y_label_formatter(&|share| format!("{:.0} %", 100.0 * share))
        .label_style((FONT, 20))
        .axis_desc_style((FONT, 22))
        .draw()?;
    for (curve, colour) in results.iter().zip(COLOURS) {
        let points = curve.points.iter().map(|p| (p.rate.max(NONE_AT), p.detected()));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(3)).point_size(3))?
            .label(curve.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .legend_area_size(34)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.25))
        .label_font((FONT, 20))
        .margin(12)
        .draw()?;
    Ok(root.present()?)
}
