//! `guard`: how well the policy's own signals tell that the observation is not what the policy knows. A policy that was
//! trained as a flow has three at hand ([`mfpo_policy::guard`]): how far the answer in one step is from the answer in all
//! steps, how far candidates are spread, and the critics' value. Episodes without a fault give the false alarms, episodes
//! whose sensors or motors fail on the way give the detections; the curve of one over the other is drawn. `--write` puts
//! thresholds of one signal or of several into a bundle: what the control node's `guard` acts on. A rate of false alarms is
//! stated where the episodes without a fault can vouch for it. A guard that the bundle carries already is measured, too.
//! guard/training.rs makes the guard of a run's own bundles.

mod chart;
mod curve;
mod evidence;
mod report;
pub(crate) mod training;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use candle_core::Device;
use mfpo_policy::bundle;
use mfpo_policy::guard::{GuardManifest, Signal, Signals};
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::sampler::{ActionSampler, Depth};
use mfpo_sim::Env;
use mfpo_sim::env::evaluation_seed;

use crate::cli::print;
use crate::conditions::ConditionArgs;
use crate::eval::{open_bundle, read_bundle, task_of};
use crate::plot::check_format;
use crate::publish::{check_folder, write_atomically};
use curve::{Curve, Point, evidence_of};
use evidence::Evidence;
use report::{in_words, of_own, own_summary, summary};

/// Candidates that are spread and that the critics choose from.
const CANDIDATES: usize = 8;
/// A signal beyond its threshold in so many ticks in a row is an alarm.
const IN_A_ROW: u32 = 3;
/// A detection counts when it comes within this time of the fault, s.
const IN_TIME: f64 = 0.5;
/// False alarms an hour that the table is made at.
const RATES: [f64; 3] = [60.0, 10.0, 1.0];

/// What to measure.
#[derive(clap::Args)]
pub struct GuardArgs {
    /// The bundle, a safetensors file with critics
    bundle: PathBuf,
    /// Task to measure it on [default: the bundle's own]
    #[arg(long)]
    task: Option<String>,
    /// Episodes without a fault, and of each fault
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(2..))]
    episodes: u64,
    /// Another seed, other starts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    conditions: ConditionArgs,
    /// Draw the curve: png, jpg or bmp
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    /// Write the bundle with a guard: the thresholds that detect most
    #[arg(long, value_name = "FILE.safetensors")]
    write: Option<PathBuf>,
    /// Signals that it has a threshold for, separated by commas; one beyond its own is an alarm. Only the spread was worth it
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "spread",
        requires = "write"
    )]
    signals: Vec<Choice>,
    /// False alarms an hour that these thresholds may give together
    #[arg(long, value_name = "RATE", default_value_t = RATES[1], requires = "write")]
    false_alarms: f64,
    /// Write it also where so few episodes cannot vouch for that rate: as many false alarms were measured, no more is known
    #[arg(long, requires = "write")]
    force: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What fails on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// One component of the observation has the other sign.
    Flipped,
    /// One component stays as it is.
    Frozen,
    /// One component is in degrees.
    Degrees,
    /// Two components have changed places.
    Swapped,
    /// Every component has noise of 0.5.
    Noisy,
    /// Actions have a third of their effect.
    Weak,
}

impl Fault {
    const ALL: [Self; 6] = [
        Self::Flipped,
        Self::Frozen,
        Self::Degrees,
        Self::Swapped,
        Self::Noisy,
        Self::Weak,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Flipped => "sign flipped",
            Self::Frozen => "frozen",
            Self::Degrees => "degrees",
            Self::Swapped => "swapped",
            Self::Noisy => "noisy",
            Self::Weak => "weak motor",
        }
    }

    /// What the policy sees of an observation; `held` is the one at the onset.
    fn distort(self, observation: &mut [f32], held: &[f32], component: usize, noise: &mut NormalNoise) {
        let other = (component + 1) % observation.len();
        match self {
            Self::None | Self::Weak => {}
            Self::Flipped => observation[component] = -observation[component],
            Self::Frozen => observation[component] = held[component],
            Self::Degrees => observation[component] *= 180.0 / std::f32::consts::PI,
            Self::Swapped => observation.swap(component, other),
            Self::Noisy => {
                let mut draw = vec![0.0; observation.len()];
                noise.fill(&mut draw);
                for (value, draw) in observation.iter_mut().zip(draw) {
                    *value += 0.5 * draw;
                }
            }
        }
    }
}

/// A signal that a guard may go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    /// How far the answer in one step is from that in all steps
    Disagreement,
    /// How far the candidates are spread
    Spread,
    /// The critics' value of the best candidate
    Value,
}

impl Choice {
    const fn signal(self) -> Signal {
        match self {
            Self::Disagreement => Signal::Disagreement,
            Self::Spread => Signal::Spread,
            Self::Value => Signal::Value,
        }
    }
}

/// Asks for every signal, and allows whatever there is; no bundle carries it.
const EVERY_SIGNAL: GuardManifest = GuardManifest {
    disagreement_max: Some(f64::INFINITY),
    spread_max: Some(f64::INFINITY),
    value_min: Some(f64::NEG_INFINITY),
    candidates: CANDIDATES,
    in_a_row: IN_A_ROW,
};

/// One episode: the signals of each tick, when the fault began, and the return.
#[derive(Clone)]
struct Episode {
    signals: Vec<Signals>,
    onset: usize,
    total: f64,
}

/// What episodes are run with.
struct Measurement {
    env: Box<dyn Env>,
    sampler: ActionSampler,
    seed: u64,
}

/// Measures the signals of a bundle.
///
/// # Errors
/// When the bundle is refused, holds no critics, or an episode cannot be run.
pub fn run(args: &GuardArgs) -> anyhow::Result<()> {
    check(args)?;
    let bundle = open_bundle(&args.bundle)?;
    let manifest = bundle.manifest();
    let task = args.task.as_deref().unwrap_or(manifest.subject.name());
    let conditions = args.conditions.resolve(&args.bundle, manifest, task)?;
    let env = task_of(&manifest.subject, task, &conditions)?;
    let sampler = bundle.sampler(&Device::Cpu)?;
    if !sampler.has_critics() {
        bail!("{} holds no critics; expected some", args.bundle.display());
    }
    ensure!(
        sampler.steps() > 1,
        "the policy takes one step; expected more, to compare with one"
    );
    let period = manifest.subject.control_period();
    let title = format!(
        "{}, {} version {}",
        env.spec().name,
        manifest.run,
        manifest.version
    );
    let mut measurement = Measurement {
        env,
        sampler,
        seed: args.seed,
    };
    let nominal = measurement.episodes(Fault::None, 0..args.episodes)?;
    let evidence = evidence_of(&nominal, period);
    if args.write.is_some() {
        check_rate(args, &evidence)?;
    }
    let faults = Fault::ALL
        .into_iter()
        .map(|fault| {
            Ok((
                fault,
                measurement.episodes(fault, args.episodes..2 * args.episodes)?,
            ))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let curve = |signals: &[Signal]| Curve::of(signals, &nominal, &faults, period);
    let results = Signal::ALL.map(|signal| curve(&[signal]));
    // The signals of other numbers of candidates are not those that were measured.
    let comparable = manifest.guard.filter(|guard| guard.candidates == CANDIDATES);
    let own = comparable.map(|guard| Point::of(guard, &nominal, &faults, period));
    let told = if args.json {
        let mut told = summary(&results, &nominal, &faults, &evidence);
        told["conditions"] = serde_json::to_value(&conditions)?;
        told["own_guard"] = own.map_or(serde_json::Value::Null, |point| own_summary(&point, &faults));
        format!("{told}\n")
    } else {
        format!(
            "{title}: {} episodes without a fault and of each, {conditions}; an alarm is {IN_A_ROW} ticks in a row\n{}{}",
            args.episodes,
            in_words(&results, &nominal, &faults, &evidence)?,
            own.map(|point| of_own(&point)).transpose()?.unwrap_or_default()
        )
    };
    // Files before words: whoever reads those may have seen enough. The words are told even where a file fails.
    let drawn = args.out.as_ref().map(|path| chart::draw(&title, &results, path));
    let written = args
        .write
        .as_ref()
        .map(|path| write_guard(args, &curve(&args.wanted()), path));
    print(&told)?;
    drawn.transpose()?;
    match written.transpose()? {
        Some(line) if !args.json => print(&line),
        _ => Ok(()),
    }
}

/// Refuses what cannot be, before minutes of episodes.
fn check(args: &GuardArgs) -> anyhow::Result<()> {
    ensure!(
        args.false_alarms.is_finite() && args.false_alarms > 0.0,
        "--false-alarms is {}; expected a number above 0: no measurement shows that there are none",
        args.false_alarms
    );
    args.out.as_deref().map_or(Ok(()), check_format)?;
    for path in args.out.iter().chain(&args.write) {
        check_folder(path)?;
    }
    Ok(())
}

/// A threshold for a rate that nothing vouches for is written only where somebody insists.
fn check_rate(args: &GuardArgs, evidence: &Evidence) -> anyhow::Result<()> {
    let (rate, lowest) = (args.false_alarms, evidence.lowest_rate());
    ensure!(
        args.force || lowest <= rate,
        "{} episodes without a fault, {:.0} s, cannot vouch for {rate} false alarms an hour: with 95 % confidence no less than \
         {lowest:.1}; take --episodes {} ({:.0} s), a higher --false-alarms, or --force to write what was measured",
        evidence.episodes,
        evidence.seconds,
        evidence.episodes_for(rate),
        lowest / rate * evidence.seconds
    );
    Ok(())
}

/// Writes the bundle with the thresholds that may give so many false alarms together; the line that says so.
fn write_guard(args: &GuardArgs, curve: &Curve, path: &Path) -> anyhow::Result<String> {
    let rate = args.false_alarms;
    let point = if args.force {
        curve.measured_at(rate)
    } else {
        curve.at(rate)
    };
    let point = point.with_context(|| {
        format!(
            "no thresholds of [{}] give at most {rate} false alarms an hour; expected a higher --false-alarms, or other \
             --signals",
            curve.name()
        )
    })?;
    let guard = rounded(&point.guard);
    let bytes = read_bundle(&args.bundle)?;
    let had_signature = bundle::open(&bytes)?.signer().is_some();
    let guarded = bundle::with_guard(&bytes, guard)?;
    write_atomically(path, &guarded).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(format!(
        "\n{}: guarded where {}, {IN_A_ROW} ticks in a row: {:.1} false alarms an hour measured, {:.0} % of the faults detected{}\n",
        path.display(),
        report::beyond(&guard),
        point.rate,
        100.0 * point.detected(),
        if had_signature { "; sign it again" } else { "" }
    ))
}

impl GuardArgs {
    /// The signals of the guard that is to be written, each once.
    fn wanted(&self) -> Vec<Signal> {
        let is_wanted = |signal: &Signal| self.signals.iter().any(|choice| choice.signal() == *signal);
        Signal::ALL.into_iter().filter(is_wanted).collect()
    }
}

/// The guard with thresholds of four decimals, which allow a little more: never more alarms than were measured.
fn rounded(guard: &GuardManifest) -> GuardManifest {
    let stated = Signal::ALL
        .into_iter()
        .filter_map(|signal| Some((signal, guard.limit(signal)?)));
    let none = GuardManifest::without_limits(guard.candidates, guard.in_a_row);
    stated.fold(none, |rounded, (signal, limit)| {
        let severity = signal.severity(limit);
        // A number that is too large for four decimals stays what it is.
        let least = ((severity * 1e4).ceil() / 1e4).max(severity);
        // A guard without any room is none.
        let least = if signal == Signal::Value {
            least
        } else {
            least.max(1e-4)
        };
        rounded.with_limit(signal, signal.severity(least))
    })
}

/// The signals that `wanted` asks for where `observation` is seen, of candidates sampled from `noise`, `[K, A]`.
///
/// # Errors
/// When one of them is not finite: what is not a number is beyond every threshold or beyond none.
fn measured(
    sampler: &mut ActionSampler,
    observation: &[f32],
    noise: &[f32],
    wanted: &GuardManifest,
) -> anyhow::Result<Signals> {
    let mut best = vec![0.0; sampler.action_size()];
    let depth = Depth {
        steps: sampler.steps(),
        candidates: wanted.candidates,
        in_stages: false,
    };
    sampler.sample_at(observation, noise, depth, &mut best)?;
    let signals = sampler.signals(noise, depth, wanted)?;
    let signals = signals.context("the candidates are too few to be compared")?;
    for signal in Signal::ALL {
        if let Some(value) = signals.get(signal).filter(|value| !value.is_finite()) {
            bail!(
                "the signal '{}' is {value}; expected a finite number, so that the policy is not fit for a guard",
                signal.name()
            );
        }
    }
    Ok(signals)
}

impl Measurement {
    fn episodes(&mut self, fault: Fault, indices: std::ops::Range<u64>) -> anyhow::Result<Vec<Episode>> {
        indices
            .map(|index| {
                self.episode(fault, index)
                    .with_context(|| format!("episode {index}, {}", fault.name()))
            })
            .collect()
    }

    fn episode(&mut self, fault: Fault, index: u64) -> anyhow::Result<Episode> {
        let mut noise = NormalNoise::new(self.seed);
        noise.begin(index);
        let mut observation = self.env.reset(evaluation_seed(self.seed, index))?;
        let length = self.env.spec().max_episode_steps.min(400);
        // Onset and component from the index, so that every fault meets the same ones.
        let onset = length / 5 + (index as usize * 7919) % (length / 5).max(1);
        let component = index as usize % observation.len();
        let mut held = observation.clone();
        let mut episode = Episode {
            signals: Vec::new(),
            onset,
            total: 0.0,
        };
        for tick in 0..length {
            if tick < onset {
                held.clone_from(&observation);
            } else {
                fault.distort(&mut observation, &held, component, &mut noise);
            }
            let (mut action, signals) = self.ask(&observation, &mut noise)?;
            episode.signals.push(signals);
            if fault == Fault::Weak && tick >= onset {
                action.iter_mut().for_each(|a| *a *= 0.33);
            }
            let step = self.env.step(&action)?;
            episode.total += step.reward;
            if step.terminated || step.truncated {
                break;
            }
            observation = step.observation;
        }
        Ok(episode)
    }

    /// The action that the robot would get (one candidate), and the signals.
    fn ask(&mut self, observation: &[f32], noise: &mut NormalNoise) -> anyhow::Result<(Vec<f32>, Signals)> {
        let size = self.sampler.action_size();
        let mut draws = vec![0.0; CANDIDATES * size];
        noise.fill(&mut draws);
        let mut action = vec![0.0; size];
        self.sampler
            .sample_into(observation, &draws[..size], 1, &mut action)?;
        let signals = measured(&mut self.sampler, observation, &draws, &EVERY_SIGNAL)?;
        Ok((action, signals))
    }
}

fn mean_return(episodes: &[Episode]) -> f64 {
    episodes.iter().map(|e| e.total).sum::<f64>() / episodes.len().max(1) as f64
}

#[cfg(test)]
mod tests;
