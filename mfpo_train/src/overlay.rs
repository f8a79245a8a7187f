//! `plot`: the evaluations of several runs in one picture, runs that differ only in their seed as one curve.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use plotters::prelude::*;
use serde::Deserialize;

use crate::config::TrainConfig;
use crate::evaluate::Evaluation;
use crate::plot::{FONT, PlotError, SIZE, replace, trim};
use crate::run_info::RunInfo;
use crate::statistics::{Estimate, interquartile_mean};

/// What lies along the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// Environment steps.
    Steps,
    /// Seconds of training.
    Seconds,
}

/// The evaluations of one run.
#[derive(Debug, Clone)]
pub struct RunCurve {
    /// Where it lies, as the user named it.
    folder: String,
    info: RunInfo,
    config: TrainConfig,
    /// Step, seconds, mean return.
    evaluations: Vec<(u64, f64, f64)>,
}

impl RunCurve {
    /// Reads a run folder.
    ///
    /// # Errors
    /// When it is not one.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let info = RunInfo::read(folder)?;
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let config = TrainConfig::parse(&read("config.toml")?, &[]);
        let config = config.with_context(|| format!("cannot take {}/config.toml", folder.display()))?;
        let mut evaluations = Vec::new();
        let text = read("metrics.jsonl")?;
        // What follows the last line break is being written, or waits for a disk that is full: it is no line yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (index, line) in whole.lines().enumerate() {
            let point = evaluation(line).with_context(|| {
                let (place, line) = (folder.display(), index + 1);
                format!("line {line} of {place}/metrics.jsonl is not what a run writes")
            })?;
            evaluations.extend(point);
        }
        Ok(Self {
            folder: folder.display().to_string(),
            info,
            config,
            evaluations,
        })
    }

    /// The return of the last evaluation.
    pub fn last_return(&self) -> Option<f64> {
        self.evaluations.last().map(|(.., value)| *value)
    }
}

/// So many differences are named in a curve's label; of more it tells their number and the run's folder.
const MOST_NAMED: usize = 3;

/// Step, seconds and return of an evaluation's line; `None` for other lines.
fn evaluation(line: &str) -> anyhow::Result<Option<(u64, f64, f64)>> {
    #[derive(Deserialize)]
    struct Head {
        kind: String,
        step: u64,
        seconds: f64,
    }
    let head: Head = serde_json::from_str(line)?;
    if head.kind != "evaluation" {
        return Ok(None);
    }
    let evaluation: Evaluation = serde_json::from_str(line)?;
    Ok(Some((head.step, head.seconds, evaluation.mean_return)))
}

/// Runs that differ in their seed only.
struct Group {
    label: String,
    /// The last step at which every run was measured, and the return of each seed there.
    last: Option<(u64, Vec<f64>)>,
    /// The last step at which only some of them were measured, where that is a later one: it is not drawn.
    beyond: Option<u64>,
    /// Place, mean, lowest and highest return over the seeds.
    points: Vec<(f64, f64, f64, f64)>,
}

/// Folders of runs lie in one another no deeper: `runs`, one of an experiment, one of its seeds.
const DEEPEST: u32 = 3;

/// The runs below `folders`: each is a run, or holds runs, or folders of runs. A run that is named twice, also through the
/// folder that holds it, is one.
///
/// A run below a folder that was not measured yet is left out, with a warning.
///
/// # Errors
/// When one holds none, or is one that was not measured yet.
pub fn find_runs(folders: &[PathBuf]) -> anyhow::Result<Vec<RunCurve>> {
    let (mut runs, mut known) = (Vec::new(), BTreeSet::new());
    for folder in folders {
        for path in run_folders(folder)? {
            let place = path.canonicalize();
            let place = place.with_context(|| format!("cannot find {}", path.display()))?;
            if !known.insert(place) {
                continue;
            }
            let run = RunCurve::read(&path)?;
            let place = path.display();
            if !run.evaluations.is_empty() {
                runs.push(run);
            } else if path == *folder {
                bail!("the run in {place} was not measured yet; wait for its first evaluation");
            } else {
                tracing::warn!("the run in {place} was not measured yet and is left out");
            }
        }
    }
    ensure!(
        !runs.is_empty(),
        "no run was measured yet; wait for a first evaluation"
    );
    Ok(runs)
}

/// The folder itself where it is a run, else the runs below it.
fn run_folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    // Its own error: what cannot be read below it is no run.
    if let Err(error) = fs::read_dir(folder) {
        bail!(
            "cannot read {}: {error}; expected the folder that `train --out` or `train --seeds` leaves",
            folder.display()
        );
    }
    let found = runs_within(folder, DEEPEST);
    ensure!(
        !found.is_empty(),
        "{} is no run and holds none: expected the folder that `train --out` or `train --seeds` leaves",
        folder.display()
    );
    Ok(found)
}

/// `folder` where it is a run, else the runs in it and, `depth` folders down, below it. What a run holds is no other run.
fn runs_within(folder: &Path, depth: u32) -> Vec<PathBuf> {
    if folder.join("run.json").exists() {
        return vec![folder.to_owned()];
    }
    if depth == 0 {
        return Vec::new();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut below: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    below.sort();
    let found = below.iter().filter(|path| path.is_dir());
    found.flat_map(|path| runs_within(path, depth - 1)).collect()
}

/// Draws `runs` to `path`; a picture that was there stays until this one is whole.
///
/// # Errors
/// When the picture cannot be written.
pub fn draw(runs: &[RunCurve], along: Along, path: &Path) -> Result<(), PlotError> {
    replace(path, |temporary| draw_chart(runs, along, temporary))
}

fn groups(runs: &[RunCurve], along: Along) -> Vec<Group> {
    let mut sorted: Vec<(&RunCurve, Vec<&RunCurve>)> = Vec::new();
    for run in runs {
        let same = |other: &&RunCurve| {
            other.info.task == run.info.task && other.config.differences(&run.config).is_empty()
        };
        match sorted.iter_mut().find(|(first, _)| same(first)) {
            Some((_, members)) => members.push(run),
            None => sorted.push((run, vec![run])),
        }
    }
    let several_tasks = runs.iter().any(|run| run.info.task != runs[0].info.task);
    sorted
        .into_iter()
        .map(|(first, members)| Group {
            label: label(first, runs, several_tasks, &members),
            last: last(&members),
            beyond: beyond(&members),
            points: points(&members, along),
        })
        .collect()
}

fn label(run: &RunCurve, runs: &[RunCurve], several_tasks: bool, members: &[&RunCurve]) -> String {
    let algorithm = format!("{:?}", run.info.algorithm).to_uppercase();
    let task = if several_tasks {
        format!("{}, ", run.info.task)
    } else {
        String::new()
    };
    let same =
        |other: &&RunCurve| other.info.task == run.info.task && other.info.algorithm == run.info.algorithm;
    // What the first run of this task and algorithm has otherwise.
    let differences = runs
        .iter()
        .find(same)
        .map(|first| first.config.differences(&run.config));
    let differences = differences.unwrap_or_default();
    let differences: String = if differences.len() > MOST_NAMED {
        format!(", {} other settings in {}", differences.len(), run.folder)
    } else {
        differences
            .iter()
            .map(|difference| format!(", {difference}"))
            .collect()
    };
    format!("{task}{algorithm}{differences} ({})", seeds_of(members))
}

/// What a curve is made of. Runs of one seed repeat one another: they are told apart from as many seeds.
fn seeds_of(members: &[&RunCurve]) -> String {
    let seeds: BTreeSet<u64> = members.iter().map(|run| run.info.seed).collect();
    match (members, seeds.len()) {
        ([run], _) => format!("seed {}", run.info.seed),
        (_, seeds) if seeds == members.len() => format!("mean and range of {seeds} seeds"),
        (_, seeds) => format!("mean and range of {} runs of {seeds} seed(s)", members.len()),
    }
}

/// The last step at which every member was measured, and the return of each seed there.
fn last(members: &[&RunCurve]) -> Option<(u64, Vec<f64>)> {
    let mut steps = members.first()?.evaluations.iter().rev().map(|(step, ..)| *step);
    steps.find_map(|step| Some((step, returns_at(members, step)?)))
}

/// The last step at which any member was measured, where the others were not.
fn beyond(members: &[&RunCurve]) -> Option<u64> {
    let ends = members.iter().filter_map(|run| run.evaluations.last());
    let farthest = ends.map(|(step, ..)| *step).max();
    let common = last(members).map(|(step, _)| step);
    farthest.filter(|_| farthest > common)
}

/// The return of each seed at `step`, where every member was measured then; of a seed with several runs their mean: it is
/// no more evidence than one.
fn returns_at(members: &[&RunCurve], step: u64) -> Option<Vec<f64>> {
    let mut of_seeds: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for run in members {
        let (.., value) = run.evaluations.iter().rfind(|(at, ..)| *at == step)?;
        of_seeds.entry(run.info.seed).or_default().push(*value);
    }
    let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    Some(of_seeds.values().map(mean).collect())
}

/// For each curve its last returns in a line: their interquartile mean with the 95 % interval of a bootstrap over seeds, and
/// how far some of its runs have come that the others have not.
pub fn summary(runs: &[RunCurve]) -> String {
    let line = |group: &Group| {
        let label = &group.label;
        let cut = group.beyond.map_or_else(String::new, |step| {
            format!("; left out: steps at which not all of them were measured, up to {step}")
        });
        let Some((step, returns)) = &group.last else {
            return Some(format!("{label}: no step at which all were measured{cut}\n"));
        };
        let Estimate { mean, low, high } = interquartile_mean(returns)?;
        Some(format!(
            "{label}: step {step}, interquartile mean {mean:.1} [{low:.1}, {high:.1}], lowest {:.1}{cut}\n",
            returns.iter().copied().fold(f64::INFINITY, f64::min)
        ))
    };
    groups(runs, Along::Steps).iter().filter_map(line).collect()
}

/// The steps at which every member was measured.
fn points(members: &[&RunCurve], along: Along) -> Vec<(f64, f64, f64, f64)> {
    let mut at: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for run in members {
        let measured = run.evaluations.iter();
        // A run that programs before this one have measured twice at a step counts once there, as it was measured last.
        let newest: BTreeMap<u64, (f64, f64)> = measured
            .map(|(step, time, value)| (*step, (*time, *value)))
            .collect();
        for (step, point) in newest {
            at.entry(step).or_default().push(point);
        }
    }
    let complete = at.into_iter().filter(|(_, values)| values.len() == members.len());
    complete
        .map(|(step, values)| {
            let count = values.len() as f64;
            let mean = |of: fn(&(f64, f64)) -> f64| values.iter().map(of).sum::<f64>() / count;
            let place = match along {
                Along::Steps => step as f64,
                Along::Seconds => mean(|v| v.0),
            };
            let low = values.iter().map(|v| v.1).fold(f64::INFINITY, f64::min);
            let high = values.iter().map(|v| v.1).fold(f64::NEG_INFINITY, f64::max);
            (place, mean(|v| v.1), low, high)
        })
        .collect()
}

fn draw_chart(runs: &[RunCurve], along: Along, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let groups = groups(runs, along);
    // The legend lies below, where it hides nothing.
    let legend = LEGEND_LINE * groups.len() as u32 + 10;
    let root = BitMapBackend::new(path, (SIZE.0, SIZE.1 + legend)).into_drawing_area();
    root.fill(&WHITE)?;
    let (above, below) = root.split_vertically(SIZE.1);
    let (right, returns) = ranges(&groups);
    let mut tasks: Vec<&str> = runs.iter().map(|run| run.info.task.as_str()).collect();
    tasks.dedup();
    let title = if tasks.len() == 1 {
        tasks[0]
    } else {
        "several tasks"
    };
    let mut chart = ChartBuilder::on(&above)
        .caption(title, (FONT, 30))
        .margin(20)
        .margin_right(50)
        .x_label_area_size(55)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..right, returns)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.10))
        .x_desc(match along {
            Along::Steps => "environment steps",
            Along::Seconds => "seconds of training",
        })
        .y_desc("return of an evaluation")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|value| trim(*value))
        .label_style((FONT, 20))
        .axis_desc_style((FONT, 22))
        .draw()?;
    for (index, group) in groups.iter().enumerate() {
        let color = color(index);
        let upper = group.points.iter().map(|p| (p.0, p.3));
        let lower = group.points.iter().rev().map(|p| (p.0, p.2));
        chart.draw_series(std::iter::once(Polygon::new(
            upper.chain(lower).collect::<Vec<_>>(),
            color.mix(0.15),
        )))?;
        let means = group.points.iter().map(|p| (p.0, p.1));
        chart.draw_series(LineSeries::new(means, color.stroke_width(3)).point_size(3))?;
        let y = index as i32 * LEGEND_LINE as i32 + 4;
        let line = [(110, y + 10), (140, y + 10)];
        below.draw(&PathElement::new(line, color.stroke_width(3)))?;
        below.draw(&Text::new(group.label.clone(), (150, y), (FONT, 20)))?;
    }
    Ok(root.present()?)
}

/// Height of a line of the legend, pixels.
const LEGEND_LINE: u32 = 26;

/// Seven colours that people with other colour vision tell apart, too (Okabe and Ito, without black).
fn color(index: usize) -> RGBAColor {
    const COLORS: [RGBColor; 7] = [
        RGBColor(0, 114, 178),
        RGBColor(213, 94, 0),
        RGBColor(0, 158, 115),
        RGBColor(204, 121, 167),
        RGBColor(230, 159, 0),
        RGBColor(86, 180, 233),
        RGBColor(240, 228, 66),
    ];
    COLORS[index % COLORS.len()].to_rgba()
}

/// The farthest place, and all returns with a little room.
fn ranges(groups: &[Group]) -> (f64, std::ops::Range<f64>) {
    let points = || groups.iter().flat_map(|group| &group.points);
    let right = points().map(|p| p.0).fold(1.0, f64::max);
    let low = points().map(|p| p.2).fold(f64::INFINITY, f64::min);
    let high = points().map(|p| p.3).fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return (right, 0.0..1.0);
    }
    let room = (0.05 * (high - low)).max(1e-3 * high.abs().max(1.0));
    (right, low - room..high + room)
}

#[cfg(test)]
mod tests;
