//! `guard`: how well the policy's own signals tell that the observation is not what the policy knows. A policy that was
//! trained as a flow has three at hand: how far the answer in one step is from the answer in all steps, how far
//! candidates are spread, and the critics' value. Episodes without a fault give the false alarms, episodes whose
//! sensors or motors fail on the way give the detections; the curve of one over the other is drawn. `--write` puts the
//! threshold of the spread, the one signal that finds anything, into a bundle: what the control node's `guard` acts on.
//! A rate of false alarms is stated where the episodes without a fault can vouch for it.

mod chart;
mod evidence;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use candle_core::Device;
use mfpo_policy::bundle;
use mfpo_policy::guard::GuardManifest;
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::sampler::{ActionSampler, Depth};
use mfpo_sim::Env;
use mfpo_sim::env::evaluation_seed;

use crate::cli::print;
use crate::conditions::ConditionArgs;
use crate::eval::{open_bundle, read_bundle, task_of};
use crate::plot::check_format;
use crate::publish::{check_folder, write_atomically};
use evidence::Evidence;
use report::{in_words, summary};

/// Candidates that the spread is measured over and the critics choose from.
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
    /// Write the bundle with a guard: the threshold of the spread of candidates that detects most
    #[arg(long, value_name = "FILE.safetensors")]
    write: Option<PathBuf>,
    /// False alarms an hour that this threshold may give
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

/// The names of the signals; each is larger where the policy is less at home.
const SIGNALS: [&str; 3] = [
    "one step against all",
    "spread of candidates",
    "critics' value (negative)",
];
/// The one that a bundle's guard goes by.
const SPREAD: usize = 1;

/// One episode: the signals of each tick, when the fault began, and the return.
#[derive(Clone)]
struct Episode {
    signals: Vec<[f64; SIGNALS.len()]>,
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
    let results: Vec<Signal> = (0..SIGNALS.len())
        .map(|index| Signal::of(index, &nominal, &faults, period))
        .collect();
    let told = if args.json {
        let mut told = summary(&results, &nominal, &faults, &evidence);
        told["conditions"] = serde_json::to_value(&conditions)?;
        format!("{told}\n")
    } else {
        format!(
            "{title}: {} episodes without a fault and of each, {conditions}; an alarm is {IN_A_ROW} ticks in a row\n{}",
            args.episodes,
            in_words(&results, &nominal, &faults, &evidence)?
        )
    };
    // Files before words: whoever reads those may have seen enough. The words are told even where a file fails.
    let drawn = args.out.as_ref().map(|path| chart::draw(&title, &results, path));
    let written = args
        .write
        .as_ref()
        .map(|path| write_guard(args, &results[SPREAD], path));
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

/// Writes the bundle with the threshold that may give so many false alarms; the line that says so.
fn write_guard(args: &GuardArgs, spread: &Signal, path: &Path) -> anyhow::Result<String> {
    let rate = args.false_alarms;
    let point = if args.force {
        spread.measured_at(rate)
    } else {
        spread.at(rate)
    };
    let point = point.with_context(|| {
        format!("no threshold of the spread gives at most {rate} false alarms an hour; expected a higher --false-alarms")
    })?;
    let guard = GuardManifest {
        // Never below the threshold: more alarms than were measured.
        spread_max: (point.threshold * 1e4).ceil() / 1e4,
        candidates: CANDIDATES,
        in_a_row: IN_A_ROW,
    };
    let bytes = read_bundle(&args.bundle)?;
    let had_signature = bundle::open(&bytes)?.signer().is_some();
    let guarded = bundle::with_guard(&bytes, guard)?;
    write_atomically(path, &guarded).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(format!(
        "\n{}: guarded where {CANDIDATES} candidates are spread by more than {:.4}, {IN_A_ROW} ticks in a row{}\n",
        path.display(),
        guard.spread_max,
        if had_signature { "; sign it again" } else { "" }
    ))
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
    fn ask(
        &mut self,
        observation: &[f32],
        noise: &mut NormalNoise,
    ) -> anyhow::Result<(Vec<f32>, [f64; SIGNALS.len()])> {
        let size = self.sampler.action_size();
        let mut draws = vec![0.0; CANDIDATES * size];
        noise.fill(&mut draws);
        let depth = Depth {
            steps: self.sampler.steps(),
            candidates: 1,
            in_stages: false,
        };
        let (mut action, mut quick, mut best) = (vec![0.0; size], vec![0.0; size], vec![0.0; size]);
        let first = &draws[..size];
        self.sampler.sample_at(observation, first, depth, &mut action)?;
        self.sampler
            .sample_at(observation, first, Depth::FIRST, &mut quick)?;
        let value = self
            .sampler
            .sample_into(observation, &draws, CANDIDATES, &mut best)?;
        let value = value.context("the critics gave no value of the candidates")?;
        let signals = [
            root_mean_square(action.iter().zip(&quick).map(|(a, b)| f64::from(a - b))),
            self.sampler.spread(CANDIDATES),
            -f64::from(value),
        ];
        // Nothing that is not a number is beyond a threshold: it would count as being at home.
        if let Some((name, signal)) = SIGNALS
            .iter()
            .zip(signals)
            .find(|(_, signal)| !signal.is_finite())
        {
            bail!(
                "the signal '{name}' is {signal}; expected a finite number, so that the policy is not fit for a guard"
            );
        }
        Ok((action, signals))
    }
}

fn root_mean_square(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), v| (sum + v * v, count + 1));
    (sum / f64::from(count.max(1))).sqrt()
}

/// The first tick from `from` on at which a signal has been above the threshold often enough in a row.
fn alarm(episode: &Episode, signal: usize, threshold: f64, from: usize) -> Option<usize> {
    let mut in_a_row = 0;
    for (tick, signals) in episode.signals.iter().enumerate().skip(from) {
        in_a_row = if signals[signal] > threshold {
            in_a_row + 1
        } else {
            0
        };
        if in_a_row == IN_A_ROW {
            return Some(tick);
        }
    }
    None
}

/// Alarms of an episode that nothing is wrong with; after one, the count in a row begins anew.
fn alarms(episode: &Episode, signal: usize, threshold: f64) -> u64 {
    let (mut count, mut from) = (0, 0);
    while let Some(tick) = alarm(episode, signal, threshold, from) {
        count += 1;
        from = tick + 1;
    }
    count
}

/// What a threshold gives.
struct Point {
    threshold: f64,
    /// False alarms an hour, as measured.
    rate: f64,
    /// With 95 % confidence they are no more, an hour.
    rate_at_most: f64,
    /// By fault: share detected in time, and the median time to the alarm of those detected, if any were, s.
    faults: Vec<(f64, Option<f64>)>,
}

impl Point {
    /// Share of all faults that is detected in time.
    fn detected(&self) -> f64 {
        self.faults.iter().map(|(share, _)| share).sum::<f64>() / self.faults.len().max(1) as f64
    }
}

/// One signal at all thresholds, from many false alarms to none.
struct Signal {
    name: &'static str,
    points: Vec<Point>,
}

impl Signal {
    fn of(index: usize, nominal: &[Episode], faults: &[(Fault, Vec<Episode>)], period: f64) -> Self {
        let mut values: Vec<f64> = nominal
            .iter()
            .flat_map(|e| e.signals.iter().map(|s| s[index]))
            .collect();
        values.sort_by(f64::total_cmp);
        let evidence = evidence_of(nominal, period);
        // From the median to the largest value, ever finer towards the end.
        let quantiles = (0..=60).map(|k| 1.0 - 0.5 * (1.0 - f64::from(k) / 60.0).powi(4));
        let points = quantiles.filter_map(|quantile| {
            let last = values.len().checked_sub(1)?;
            let threshold = *values.get((quantile * last as f64) as usize)?;
            let false_alarms: u64 = nominal.iter().map(|e| alarms(e, index, threshold)).sum();
            let faults = faults
                .iter()
                .map(|(_, episodes)| detections(episodes, index, threshold, period));
            Some(Point {
                threshold,
                rate: false_alarms as f64 * 3600.0 / evidence.seconds,
                rate_at_most: evidence.highest_rate(false_alarms),
                faults: faults.collect(),
            })
        });
        Self {
            name: SIGNALS[index],
            points: points.collect(),
        }
    }

    /// The point that detects most with, at 95 % confidence, at most so many false alarms an hour.
    fn at(&self, rate: f64) -> Option<&Point> {
        self.best(|point| point.rate_at_most <= rate)
    }

    /// The point that detects most with at most so many false alarms an hour as measured.
    fn measured_at(&self, rate: f64) -> Option<&Point> {
        self.best(|point| point.rate <= rate)
    }

    fn best(&self, allowed: impl Fn(&Point) -> bool) -> Option<&Point> {
        let allowed = self.points.iter().filter(|point| allowed(point));
        allowed.max_by(|a, b| a.detected().total_cmp(&b.detected()))
    }
}

/// What the episodes without a fault can vouch for.
fn evidence_of(nominal: &[Episode], period: f64) -> Evidence {
    let ticks: usize = nominal.iter().map(|episode| episode.signals.len()).sum();
    Evidence {
        seconds: ticks as f64 * period,
        episodes: nominal.len() as u64,
    }
}

fn detections(episodes: &[Episode], signal: usize, threshold: f64, period: f64) -> (f64, Option<f64>) {
    let mut delays: Vec<f64> = episodes
        .iter()
        .filter_map(|episode| {
            let tick = alarm(episode, signal, threshold, episode.onset)?;
            Some((tick + 1 - episode.onset) as f64 * period)
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    let reached = episodes.iter().filter(|e| e.signals.len() > e.onset).count();
    let in_time = delays.iter().filter(|delay| **delay <= IN_TIME).count();
    let median = delays.get(delays.len() / 2).copied();
    (in_time as f64 / reached.max(1) as f64, median)
}

fn mean_return(episodes: &[Episode]) -> f64 {
    episodes.iter().map(|e| e.total).sum::<f64>() / episodes.len().max(1) as f64
}

#[cfg(test)]
mod tests;
