//! What `guard` found: a table, JSON, and the curves.

use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;
use serde_json::{Value, json};

use super::{Episode, Fault, IN_A_ROW, IN_TIME, Point, RATES, SIGNALS, Signal, mean_return};
use crate::plot::{FONT, PlotError, SIZE, register_font};

/// The table.
pub(super) fn in_words(
    results: &[Signal],
    nominal: &[Episode],
    faults: &[(Fault, Vec<Episode>)],
) -> Result<String, std::fmt::Error> {
    let mut text = format!("return without a fault: {:.1}\n", mean_return(nominal));
    let returns: Vec<String> = faults
        .iter()
        .map(|(fault, e)| format!("{} {:.1}", fault.name(), mean_return(e)))
        .collect();
    writeln!(text, "return with one: {}", returns.join(", "))?;
    for rate in RATES {
        writeln!(
            text,
            "\nat most {rate} false alarms an hour: detected within {IN_TIME} s (median time to the alarm, s)"
        )?;
        write!(text, "{:<28}", "")?;
        for (fault, _) in faults {
            write!(text, " {:>14}", fault.name())?;
        }
        writeln!(text)?;
        for signal in results {
            write!(text, "{:<28}", signal.name)?;
            match signal.at(rate) {
                None => write!(text, " no threshold")?,
                Some(point) => {
                    for (share, median) in &point.faults {
                        write!(text, " {:>5.0} % ({median:>4.2})", share * 100.0)?;
                    }
                }
            }
            writeln!(text)?;
        }
    }
    Ok(text)
}

/// Everything, as one JSON object.
pub(super) fn summary(results: &[Signal], nominal: &[Episode], faults: &[(Fault, Vec<Episode>)]) -> Value {
    let point = |point: &Point| {
        let by_fault = faults.iter().zip(&point.faults).map(|((fault, _), (share, median))| {
            json!({"fault": fault.name(), "detected": share, "median_s": median.is_finite().then_some(median)})
        });
        json!({"threshold": point.threshold, "false_alarms_per_hour": point.rate, "detected": point.detected(), "faults": by_fault.collect::<Vec<_>>()})
    };
    let signals = results.iter().map(|signal| {
        json!({"signal": signal.name, "points": signal.points.iter().map(point).collect::<Vec<_>>()})
    });
    json!({"return": mean_return(nominal), "in_a_row": IN_A_ROW, "in_time_s": IN_TIME, "signals": signals.collect::<Vec<_>>()})
}

const COLOURS: [RGBColor; SIGNALS.len()] = [
    RGBColor(31, 98, 168),
    RGBColor(214, 106, 26),
    RGBColor(110, 168, 120),
];
/// What has no false alarm at all is drawn here, an hour.
const NONE_AT: f64 = 0.1;

/// Draws the curves of faults detected over false alarms.
pub(super) fn draw(title: &str, results: &[Signal], path: &Path) -> Result<(), PlotError> {
    register_font();
    draw_chart(title, results, path).map_err(|error| PlotError {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

fn draw_chart(title: &str, results: &[Signal], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
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
    for (signal, colour) in results.iter().zip(COLOURS) {
        let points = signal.points.iter().map(|p| (p.rate.max(NONE_AT), p.detected()));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(3)).point_size(3))?
            .label(signal.name)
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
