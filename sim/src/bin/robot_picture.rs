//! `robot_picture`: draws the robot of a task into a PNG, as a film strip of poses.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use mfpo_sim::picture::film_strip;
use mfpo_sim::registry;

/// Draws the robot of a task off-screen: one picture a pose, side by side, as a PNG.
#[derive(Debug, Parser)]
#[command(name = "robot_picture", version)]
struct Arguments {
    /// Where to write the PNG
    #[arg(long)]
    out: PathBuf,
    /// The task whose robot to draw
    #[arg(long, default_value = "swing_arm")]
    task: String,
    /// Poses as JSON, joint positions in rad: [[3.1],[0.0]]; for one joint also [3.1, 0.0] [default: a start]
    #[arg(long, value_name = "JSON", conflicts_with = "poses_file")]
    poses: Option<String>,
    /// File that holds the poses as JSON
    #[arg(long, value_name = "FILE")]
    poses_file: Option<PathBuf>,
    /// Width of one picture, pixels, up to 1920
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(16..=1920))]
    width: u32,
    /// Height of one picture, pixels, up to 1080
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(16..=1080))]
    height: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("robot_picture: {cause:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let task = registry::robot(&arguments.task)?;
    let poses = poses(arguments)?;
    let picture = film_strip(task.as_ref(), &poses, arguments.width, arguments.height)?;
    let out = &arguments.out;
    picture
        .save(out)
        .with_context(|| format!("cannot write {}", out.display()))?;
    println!("{}: {} x {} pixels", out.display(), picture.width, picture.height);
    Ok(())
}

fn poses(arguments: &Arguments) -> Result<Vec<Vec<f64>>> {
    let text = match (&arguments.poses, &arguments.poses_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        (None, None) => return Ok(Vec::new()),
    };
    if let Ok(poses) = serde_json::from_str::<Vec<Vec<f64>>>(&text) {
        return Ok(poses);
    }
    match serde_json::from_str::<Vec<f64>>(&text) {
        Ok(angles) => Ok(angles.into_iter().map(|angle| vec![angle]).collect()),
        Err(error) => bail!("the poses are not a JSON list of poses such as [[3.1],[0.0]]: {error}"),
    }
}
