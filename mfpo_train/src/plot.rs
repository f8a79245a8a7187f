//! The learning curve as a PNG: return of every training episode and of every evaluation, and the success rate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use plotters::prelude::*;
use thiserror::Error;

use crate::publish::unfinished;

/// Why there is no picture.
#[derive(Debug, Error)]
#[error("cannot draw {path}: {reason}")]
pub struct PlotError {
    /// The file.
    pub(crate) path: String,
    /// What plotters says.
    pub(crate) reason: String,
}

/// What a run measured, in the order of steps.
#[derive(Debug, Clone, Default)]
pub struct LearningCurve {
    /// Heading of the picture.
    pub title: String,
    /// Training episodes: last step, return.
    pub episodes: Vec<(u64, f64)>,
    /// Evaluations: step, mean return, standard deviation.
    pub evaluations: Vec<(u64, f64, f64)>,
    /// Evaluations with one sample an action: step, mean return.
    pub without_selection: Vec<(u64, f64)>,
    /// Evaluations: step, share of episodes that succeeded.
    pub success: Vec<(u64, f64)>,
}

pub(crate) const SIZE: (u32, u32) = (1200, 720);
pub(crate) const FONT: &str = "sans-serif";
const EPISODES: RGBColor = RGBColor(150, 160, 175);
const EVALUATIONS: RGBColor = RGBColor(31, 98, 168);
const WITHOUT_SELECTION: RGBColor = RGBColor(110, 168, 120);
const SUCCESS: RGBColor = RGBColor(214, 106, 26);

/// How a picture's file may end: what the encoders here write.
const FORMATS: [&str; 4] = ["png", "jpg", "jpeg", "bmp"];

/// Can a picture of this name be drawn? Ask before anything is measured for it.
///
/// # Errors
/// [`PlotError`] naming the formats.
pub fn check_format(path: &Path) -> Result<(), PlotError> {
    let extension = path.extension().unwrap_or_default();
    let extension = extension.to_string_lossy().to_lowercase();
    if FORMATS.contains(&extension.as_str()) {
        return Ok(());
    }
    Err(PlotError {
        path: path.display().to_string(),
        reason: format!("expected a name that ends in .{}", FORMATS.join(", .")),
    })
}

/// Draws `curve` to `path`.
pub fn draw(curve: &LearningCurve, path: &Path) -> Result<(), PlotError> {
    replace(path, |temporary| draw_chart(curve, temporary))
}

/// Puts what `draw` makes beside `path` in its place; a picture that was there is replaced by a whole one, or stays.
pub(crate) fn replace(
    path: &Path,
    draw: impl FnOnce(&Path) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), PlotError> {
    register_font();
    let mut temporary = unfinished(path).into_os_string();
    // The ending says which format is drawn.
    temporary.push(".");
    temporary.push(path.extension().unwrap_or_default());
    let temporary = PathBuf::from(temporary);
    let drawn = draw(&temporary).and_then(|()| Ok(fs::rename(&temporary, path)?));
    drawn.map_err(|error| {
        // What cannot be removed is in nobody's way.
        let _ = fs::remove_file(&temporary);
        PlotError {
            path: path.display().to_string(),
            reason: error.to_string(),
        }
    })
}

/// plotters draws text only with a font that the program brings along.
fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let font = epaint_default_fonts::UBUNTU_LIGHT;
        // The font is part of the program; if it did not parse, drawing would say that no font is there.
        let _ = plotters::style::register_font(FONT, FontStyle::Normal, font);
    });
}

fn draw_chart(curve: &LearningCurve, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = BitMapBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (steps, returns) = (step_range(curve), return_range(curve));
    let mut chart = ChartBuilder::on(&root)
        .caption(&curve.title, (FONT, 30))
        .margin(20)
        .x_label_area_size(55)
        .y_label_area_size(80)
        .right_y_label_area_size(80)
        .build_cartesian_2d(steps.clone(), returns)?
        .set_secondary_coord(steps, -0.02..1.02);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.10))
        .x_desc("environment steps")
        .y_desc("return of an episode")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|value| trim(*value))
        .label_style((FONT, 20))
        .axis_desc_style((FONT, 22))
        .draw()?;
    if !curve.success.is_empty() {
        chart
            .configure_secondary_axes()
            .y_desc("success")
            .y_label_formatter(&|share| format!("{:.0} %", 100.0 * share))
            .label_style((FONT, 20).into_font().color(&SUCCESS))
            .axis_desc_style((FONT, 22).into_font().color(&SUCCESS))
            .draw()?;
    }

    chart
        .draw_series(
            curve
                .episodes
                .iter()
                .map(|&(step, value)| Circle::new((step as f64, value), 3, EPISODES.filled())),
        )?
        .label("training episode")
        .legend(|(x, y)| Circle::new((x + 12, y), 3, EPISODES.filled()));
    chart.draw_series(std::iter::once(Polygon::new(band(curve), EVALUATIONS.mix(0.15))))?;
    let means = curve
        .evaluations
        .iter()
        .map(|&(step, mean, _)| (step as f64, mean));
    chart
        .draw_series(LineSeries::new(means, EVALUATIONS.stroke_width(3)).point_size(4))?
        .label("evaluation, mean and standard deviation")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 24, y)], EVALUATIONS.stroke_width(3)));
    if !curve.without_selection.is_empty() {
        let means = curve
            .without_selection
            .iter()
            .map(|&(step, mean)| (step as f64, mean));
        chart
            .draw_series(LineSeries::new(means, WITHOUT_SELECTION.stroke_width(2)).point_size(3))?
            .label("the same without selection")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 24, y)], WITHOUT_SELECTION.stroke_width(2)));
    }
    if !curve.success.is_empty() {
        let success = curve.success.iter().map(|&(step, share)| (step as f64, share));
        chart
            .draw_secondary_series(LineSeries::new(success, SUCCESS.stroke_width(2)).point_size(3))?
            .label("success of an evaluation")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 24, y)], SUCCESS.stroke_width(2)));
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

/// The outline of mean +- standard deviation.
fn band(curve: &LearningCurve) -> Vec<(f64, f64)> {
    let upper = curve
        .evaluations
        .iter()
        .map(|&(step, mean, deviation)| (step as f64, mean + deviation));
    let lower = curve
        .evaluations
        .iter()
        .rev()
        .map(|&(step, mean, deviation)| (step as f64, mean - deviation));
    upper.chain(lower).collect()
}

fn step_range(curve: &LearningCurve) -> std::ops::Range<f64> {
    let steps = curve
        .episodes
        .iter()
        .map(|point| point.0)
        .chain(curve.evaluations.iter().map(|point| point.0));
    0.0..steps.max().unwrap_or(0).max(1) as f64
}

/// All returns with a little room; a flat curve gets a range as well.
fn return_range(curve: &LearningCurve) -> std::ops::Range<f64> {
    let episodes = curve.episodes.iter().map(|point| point.1);
    let plain = curve.without_selection.iter().map(|point| point.1);
    let values = episodes
        .chain(plain)
        .chain(band(curve).into_iter().map(|point| point.1));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    if low > high {
        return 0.0..1.0;
    }
    let room = (0.05 * (high - low)).max(1e-3 * high.abs().max(1.0));
    low - room..high + room
}

/// A number without needless digits.
pub(crate) fn trim(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Width, height, and the share of pixels of a colour.
    fn picture(path: &Path) -> (u32, u32, Vec<u8>) {
        let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width, info.height, pixels)
    }

    fn count(pixels: &[u8], colour: RGBColor) -> usize {
        pixels
            .chunks_exact(3)
            .filter(|pixel| **pixel == [colour.0, colour.1, colour.2])
            .count()
    }

    fn sample() -> LearningCurve {
        LearningCurve {
            title: "swing_arm, seed 0".into(),
            episodes: (1..64_u64)
                .map(|i| (125 * i, 60.0 * (1.0 - (-0.05 * i as f64).exp()) + (i % 7) as f64))
                .collect(),
            evaluations: (0..9_u64).map(|i| (1_000 * i, 8.0 * i as f64, 6.0)).collect(),
            without_selection: vec![(0, 0.5), (40, 3.0)],
            success: (0..9_u64).map(|i| (1_000 * i, i as f64 / 8.0)).collect(),
        }
    }

    #[test]
    fn the_picture_shows_all_three_series_and_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.png");
        draw(&sample(), &path).unwrap();
        let (width, height, pixels) = picture(&path);
        assert_eq!((width, height), SIZE);
        for colour in [EPISODES, EVALUATIONS, SUCCESS] {
            assert!(count(&pixels, colour) > 300, "{colour:?}");
        }
        // Text is black on white: without a font there would be next to none.
        let mut untitled = sample();
        untitled.title.clear();
        draw(&untitled, &path).unwrap();
        let dark = |pixels: &[u8]| {
            pixels
                .chunks_exact(3)
                .filter(|pixel| pixel.iter().all(|&c| c < 90))
                .count()
        };
        assert!(dark(&pixels) > dark(&picture(&path).2) + 100);
    }

    #[test]
    fn a_run_without_measurements_is_drawn_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty.png");
        draw(&LearningCurve::default(), &path).unwrap();
        let flat = LearningCurve {
            evaluations: vec![(5, 2.0, 0.0)],
            ..LearningCurve::default()
        };
        draw(&flat, &path).unwrap();
        assert_eq!(picture(&path).0, SIZE.0);
    }

    #[test]
    fn a_format_that_nobody_writes_is_refused_with_those_that_are_written() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["curve.PNG", "curve.jpg", "curve.jpeg", "curve.bmp"] {
            let path = folder.path().join(name);
            check_format(&path).unwrap();
            draw(&sample(), &path).unwrap();
            assert!(path.metadata().unwrap().len() > 1_000, "{name}");
        }
        for name in ["p.pdf", "p.svg", "p"] {
            let text = check_format(Path::new(name)).unwrap_err().to_string();
            assert_eq!(
                text,
                format!("cannot draw {name}: expected a name that ends in .png, .jpg, .jpeg, .bmp")
            );
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = draw(&sample(), Path::new("/nowhere/curve.png"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/curve.png"), "{error}");
    }
}
