//! A task driven from a file: one state, then one action a line, and everything that comes of it as JSON.
//!
//! With it a task can be compared with any other implementation, in any language.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mfpo_sim::{EnvOptions, FullState, Outcome, Rollout, TaskOptions, registry};
use serde::Serialize;
use serde_json::Value;

/// In place of the file with the actions.
const STANDARD_INPUT: &str = "-";

/// What to drive, and with what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the task.
    pub task: String,
    /// The task's own options, `name=value`.
    pub options: Vec<String>,
    /// The state to start from; `None` for the random start of `seed`.
    pub state: Option<PathBuf>,
    /// One action a line, a JSON array in the actuators' own units; `-` for standard input.
    pub actions: PathBuf,
    /// Draws what the state leaves out.
    pub seed: u64,
}

/// One line of the output.
#[derive(Serialize)]
struct Line<'a> {
    observation: &'a [f64],
    reward: f64,
    terminated: bool,
    truncated: bool,
    qpos: &'a [f64],
    qvel: &'a [f64],
}

/// Runs `plan` and writes one JSON object a line to `out`: the reset, then every step; it goes on past an end. Where the
/// actions come from standard input, each line is out before the next action is read.
pub fn run(plan: &Plan, out: &mut dyn Write) -> anyhow::Result<()> {
    let options = EnvOptions {
        task: task_options(&plan.options)?,
        ..EnvOptions::evaluate()
    };
    let mut rollout = registry::rollout(&plan.task, &options)?;
    let state = plan.state.as_deref().map(read_state).transpose()?;
    let actions = lines(&plan.actions)?;
    let start = rollout.begin(&state.unwrap_or_default(), plan.seed);
    start.with_context(|| match &plan.state {
        Some(path) => path.display().to_string(),
        None => format!("the random start of seed {}", plan.seed),
    })?;
    let nothing = Outcome {
        reward: 0.0,
        terminated: false,
        truncated: false,
    };
    let is_answered = plan.actions == Path::new(STANDARD_INPUT);
    tell(rollout.as_ref(), nothing, out)?;
    if is_answered {
        out.flush()?;
    }
    for (number, line) in actions.enumerate() {
        let place = || format!("{}, line {}", plan.actions.display(), number + 1);
        let line = line.with_context(|| format!("cannot read {}", place()))?;
        if line.trim().is_empty() {
            continue;
        }
        let action: Vec<f64> = serde_json::from_str(&line)
            .with_context(|| format!("{}: expected an action as [number, ...]", place()))?;
        let outcome = rollout.apply(&action).with_context(place)?;
        tell(rollout.as_ref(), outcome, out)?;
        // A program that chooses the next action by what it is told would wait for ever.
        if is_answered {
            out.flush()?;
        }
    }
    Ok(())
}

fn tell(rollout: &dyn Rollout, outcome: Outcome, out: &mut dyn Write) -> anyhow::Result<()> {
    let line = Line {
        observation: rollout.observation(),
        reward: outcome.reward,
        terminated: outcome.terminated,
        truncated: outcome.truncated,
        qpos: rollout.qpos(),
        qvel: rollout.qvel(),
    };
    // As an error of the output, not of JSON: `main` looks for one.
    serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

fn read_state(path: &Path) -> anyhow::Result<FullState> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{}: expected one JSON object with any of qpos, qvel, act, time, qacc_warmstart, steps, model",
            path.display()
        )
    })
}

fn lines(path: &Path) -> anyhow::Result<Box<dyn Iterator<Item = std::io::Result<String>>>> {
    if path == Path::new(STANDARD_INPUT) {
        return Ok(Box::new(std::io::stdin().lines()));
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Box::new(BufReader::new(file).lines()))
}

/// `name=value`; a value that is not JSON is taken as a string.
pub fn task_options(texts: &[String]) -> anyhow::Result<TaskOptions> {
    let mut options = TaskOptions::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=') else {
            bail!("task option '{text}': expected name=value, for example frame_skip=4");
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        options.insert(name.trim().to_owned(), value);
    }
    Ok(options)
}
