//! The order of the demo.
//!
//! Robot and trainer start at once; the control node as soon as the trainer has sealed version 0, with swaps frozen.
//! The robot goes through its starts under version 0 while the trainer already trains. Then swaps are allowed, and
//! each newer policy goes live while the robot moves. When the trainer has ended and its last policy is live, the
//! robot goes through the same starts again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mfpo_policy::bundle;
use mfpo_ros::time::system_nanoseconds;
use nix::sys::signal::Signal;

use crate::budget;
use crate::children::{self, Priority, Process, Program};
use crate::report;
use crate::ros::{Heard, RosLink};
use crate::story::{NodeState, PartState, Phase, Story};
use crate::trainer::{self, Report};
use crate::trial::{Episode, Trial};

/// Task of the demo.
const TASK: &str = "swing_arm";
/// The control thread goes before everything else; where that is not permitted, the node goes on without.
const REALTIME: &str = "realtime_priority:=50";
/// Until the policy commands the robot for the first time.
const STARTING: Duration = Duration::from_secs(60);
/// A control node that is silent for longer has failed.
const SILENCE: Duration = Duration::from_secs(10);
/// The last policy is live this long after the trainer's end.
const LAST_SWAP: Duration = Duration::from_secs(10);
/// Without a trainer no newer policy comes once this has passed.
const SETTLED: Duration = Duration::from_secs(3);
/// The demo may take this much longer than its budget before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The robot's starts come from another list than the trainer's evaluation: nothing was ever measured there.
const UNSEEN: u64 = 1_000_003;

/// What the demo is told.
pub struct Options {
    /// How long it may take.
    pub budget: Duration,
    /// Seed of the training.
    pub seed: u64,
    /// Where robot, control and mfpo_train are.
    pub programs: PathBuf,
    /// Where everything is left.
    pub folder: PathBuf,
}

/// How the trainer ended.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainerEnd {
    /// All steps are done.
    Finished,
    /// The time was over.
    Stopped,
    /// It died.
    Died(String),
}

impl TrainerEnd {
    /// For a person.
    pub fn words(&self) -> String {
        match self {
            Self::Finished => "all steps done".to_owned(),
            Self::Stopped => "stopped when its time was over".to_owned(),
            Self::Died(how) => format!("the trainer {how}"),
        }
    }
}

/// The policy that the last trial is for.
struct LastPolicy {
    digest: String,
    version: u64,
    /// When the trainer had ended.
    since: Instant,
}

/// Conducts robot, control node and trainer.
pub struct Conductor {
    /// All that is known.
    pub story: Story,
    /// Angles of the first successful episode of the last policy, rad.
    pub poses: Vec<f64>,
    options: Options,
    ros: RosLink,
    robot: Process,
    trainer: Process,
    control: Option<Process>,
    reports: Receiver<Report>,
    heard_status: Instant,
    is_trainer_stopped: bool,
    trainer_end: Option<TrainerEnd>,
    /// Since when swaps are allowed and the trainer has ended, or newer.
    settling: Instant,
    last: Option<LastPolicy>,
}

impl Conductor {
    /// Starts robot and trainer.
    ///
    /// # Errors
    /// When ROS 2 or a process does not start.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let starts = budget::starts(options.budget);
        let mut story = Story::new(options.budget, options.seed, starts);
        let robot = robot(&options, starts).start()?;
        let (trainer, output) = trainer(&options, starts).start_and_read()?;
        let reports = trainer::listen(output)?;
        let ros = RosLink::open()?;
        story.parts[0].state = PartState::Running;
        story.parts[2].state = PartState::Running;
        story.say("robot and trainer started; waiting for the untrained policy");
        story.realtime = robot.is_realtime();
        if !story.realtime {
            story
                .say("no permission for real-time priorities: ticks may be missed while the machine is busy");
        }
        if starts < budget::STARTS {
            story.say(format!(
                "{} s hold only {starts} of {} starts before and after",
                options.budget.as_secs(),
                budget::STARTS
            ));
        }
        Ok(Self {
            story,
            poses: Vec::new(),
            options,
            ros,
            robot,
            trainer,
            control: None,
            reports,
            heard_status: Instant::now(),
            is_trainer_stopped: false,
            trainer_end: None,
            settling: Instant::now(),
            last: None,
        })
    }

    /// One look at everything; the phase moves on when it is over.
    ///
    /// # Errors
    /// When the loop cannot be ended any more: a process died, or nothing is heard.
    pub fn advance(&mut self) -> anyhow::Result<()> {
        self.listen()?;
        self.look_after_processes()?;
        match self.story.phase {
            Phase::Starting => self.starting(),
            Phase::Before => self.before(),
            Phase::Learning => self.learning(),
            Phase::After => self.after(),
            Phase::Done => Ok(()),
        }
    }

    /// How the trainer ended.
    pub fn trainer_end(&self) -> TrainerEnd {
        self.trainer_end.clone().unwrap_or(TrainerEnd::Finished)
    }

    /// Ends every process.
    pub fn stop(&mut self, hurry: &dyn Fn() -> bool) {
        children::stop(
            self.control.as_mut(),
            Some(&mut self.robot),
            Some(&mut self.trainer),
            hurry,
        );
    }

    fn listen(&mut self) -> anyhow::Result<()> {
        while let Ok(report) = self.reports.try_recv() {
            self.story.training.take(report);
        }
        for heard in self.ros.heard() {
            match heard {
                Heard::Status(status) => {
                    self.heard_status = Instant::now();
                    self.story.take_status(status);
                }
                Heard::Episode(episode) => self.take_episode(episode),
                Heard::Angle(angle) => self.story.take_angle(system_nanoseconds(), angle),
                Heard::AcceptBundles(Ok(())) => {
                    self.story
                        .say("the control node takes newer policies from now on");
                }
                Heard::AcceptBundles(Err(error)) => {
                    bail!("the control node does not take the parameter accept_bundles: {error}")
                }
            }
        }
        if !self.ros.is_alive() {
            bail!("the thread that listens to ROS 2 has ended; see demo.log");
        }
        if self.control.is_some() && self.heard_status.elapsed() > SILENCE {
            bail!("nothing was heard on policy/status for {} s", SILENCE.as_secs());
        }
        if self.story.elapsed() > self.options.budget + PATIENCE {
            bail!(
                "the loop did not end within {} s; the machine is too busy, try a larger --seconds",
                (self.options.budget + PATIENCE).as_secs()
            );
        }
        Ok(())
    }

    fn take_episode(&mut self, episode: Episode) {
        self.story.episodes.push(episode);
        match self.story.phase {
            Phase::Before => {
                if let Some(trial) = &mut self.story.before {
                    trial.take(&episode);
                }
            }
            Phase::After => {
                let counted = self
                    .story
                    .after
                    .as_mut()
                    .is_some_and(|trial| trial.take(&episode));
                if counted && episode.success && self.poses.is_empty() {
                    self.poses = report::poses(self.story.angles.iter().copied(), &episode);
                }
            }
            Phase::Starting | Phase::Learning | Phase::Done => {}
        }
    }

    /// Robot and control node have to live; the trainer may die, and the robot goes on.
    fn look_after_processes(&mut self) -> anyhow::Result<()> {
        if self.robot.ended().is_some() {
            self.story.parts[0].state = PartState::Died;
            bail!("{}", self.robot.obituary());
        }
        if let Some(control) = &mut self.control
            && control.ended().is_some()
        {
            self.story.parts[1].state = PartState::Died;
            bail!("{}", control.obituary());
        }
        let Some(status) = self.trainer.ended().filter(|_| self.trainer_end.is_none()) else {
            return Ok(());
        };
        self.settling = Instant::now();
        // One that was asked to end tells that it was not done, as a shell does.
        let is_cut = self.is_trainer_stopped && status.code() == Some(i32::from(crate::INTERRUPTED));
        if status.success() || is_cut {
            self.story.parts[2].state = PartState::Finished;
            let end = if is_cut {
                TrainerEnd::Stopped
            } else {
                TrainerEnd::Finished
            };
            self.story.say(format!("training has ended: {}", end.words()));
            self.trainer_end = Some(end);
            return Ok(());
        }
        self.story.parts[2].state = PartState::Died;
        let how = children::describe(status);
        if self.control.is_none() {
            bail!("{}", self.trainer.obituary());
        }
        self.story.say(format!(
            "the trainer {how}; the robot goes on with the policy it has"
        ));
        self.trainer_end = Some(TrainerEnd::Died(how));
        Ok(())
    }

    /// Version 0 is sealed: the control node starts. It commands: the first trial begins.
    fn starting(&mut self) -> anyhow::Result<()> {
        if self.control.is_none() {
            let first = self.run_folder().join("bundles/v000000.safetensors");
            if first.exists() {
                self.control = Some(control(&self.options, &first).start()?);
                self.story.parts[1].state = PartState::Running;
                self.heard_status = Instant::now();
                self.story
                    .say("the untrained policy is sealed; control node started with it");
            }
        }
        if let Some(node) = self
            .story
            .node
            .as_ref()
            .filter(|node| node.state == NodeState::Active)
        {
            // Nothing was live before, so that every episode counts.
            self.story.before = Some(Trial::new(self.story.starts, &node.digest, node.version, 0));
            self.story.phase = Phase::Before;
            self.story.say(format!(
                "the robot moves: {} unseen starts under the untrained policy",
                self.story.starts
            ));
            return Ok(());
        }
        if self.story.elapsed() > STARTING {
            bail!(
                "the policy did not command the robot within {} s; {}",
                STARTING.as_secs(),
                self.story
                    .node
                    .as_ref()
                    .map_or("nothing was heard of the control node", |node| node
                        .message
                        .as_str())
            );
        }
        Ok(())
    }

    fn before(&mut self) -> anyhow::Result<()> {
        self.stop_trainer_in_time();
        if self.story.before.as_ref().is_some_and(Trial::is_complete) {
            self.ros.accept_bundles();
            self.settling = Instant::now();
            self.story.phase = Phase::Learning;
            let trial = self.story.before.as_ref();
            let (successes, starts) = trial.map_or((0, 0), |t| (t.successes(), t.starts()));
            self.story.say(format!(
                "untrained, the robot succeeded at {successes} of {starts} starts"
            ));
        }
        Ok(())
    }

    /// Waits for the trainer's end, then for its last policy on the robot.
    fn learning(&mut self) -> anyhow::Result<()> {
        self.stop_trainer_in_time();
        let Some(end) = &self.trainer_end else {
            return Ok(());
        };
        if matches!(end, TrainerEnd::Died(_)) && self.settling.elapsed() < SETTLED {
            return Ok(());
        }
        if self.last.is_none() {
            self.last = Some(self.last_policy(end)?);
        }
        let (Some(last), Some(node)) = (&self.last, &self.story.node) else {
            return Ok(());
        };
        if node.digest == last.digest {
            let trial = Trial::new(self.story.starts, &last.digest, last.version, node.stamp);
            let news = format!(
                "the last policy, version {}, is live: the same {} starts again",
                last.version, self.story.starts
            );
            self.story.after = Some(trial);
            self.story.phase = Phase::After;
            self.story.say(news);
        } else if last.since.elapsed() > LAST_SWAP {
            bail!(
                "the last policy, version {}, did not go live; version {} acts; {}",
                last.version,
                node.version,
                node.last_rejection
            );
        }
        Ok(())
    }

    fn after(&mut self) -> anyhow::Result<()> {
        let (Some(trial), Some(node)) = (&self.story.after, &self.story.node) else {
            return Ok(());
        };
        if node.digest != trial.digest {
            bail!(
                "version {} took the place of the last policy, version {}; is another trainer on this ROS domain?",
                node.version,
                trial.version
            );
        }
        if trial.is_complete() {
            let news = format!(
                "trained, the robot succeeded at {} of {} starts",
                trial.successes(),
                trial.starts()
            );
            self.story.phase = Phase::Done;
            self.story.say(news);
        }
        Ok(())
    }

    /// The policy of the last trial: the trainer's last one; the live one where the trainer died.
    fn last_policy(&self, end: &TrainerEnd) -> anyhow::Result<LastPolicy> {
        let since = Instant::now();
        if let (TrainerEnd::Died(_), Some(node)) = (end, &self.story.node) {
            return Ok(LastPolicy {
                digest: node.digest.clone(),
                version: node.version,
                since,
            });
        }
        let path = self.run_folder().join("last.safetensors");
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let bundle = bundle::open(&bytes).with_context(|| format!("{} is refused", path.display()))?;
        Ok(LastPolicy {
            digest: bundle.digest().to_owned(),
            version: bundle.manifest().version,
            since,
        })
    }

    fn stop_trainer_in_time(&mut self) {
        let at = budget::stop_training_at(self.options.budget, self.story.starts, self.story.episode_time());
        if self.trainer_end.is_none() && !self.is_trainer_stopped && self.story.elapsed() >= at {
            self.is_trainer_stopped = true;
            self.story
                .say("time for the last trial: the trainer is asked for its last policy");
            self.trainer.signal(Signal::SIGINT);
        }
    }

    fn run_folder(&self) -> PathBuf {
        self.options.folder.join("train")
    }
}

/// The robot, with starts that the trainer never evaluates on.
fn robot(options: &Options, starts: u64) -> Program {
    let seed = options.seed.wrapping_add(UNSEEN).to_string();
    let starts = starts.to_string();
    let words = ["--task", TASK, "--seed", &seed, "--starts", &starts];
    program(options, "robot", "robot", &words)
}

/// The trainer, with the lowest priority.
fn trainer(options: &Options, starts: u64) -> Program {
    let seed = options.seed.to_string();
    let out = options.folder.join("train").display().to_string();
    let least = budget::shortest_training(starts).as_secs().to_string();
    let mut words = vec!["train", "--task", TASK, "--seed", &seed, "--out", &out];
    words.extend(["--topic", "--json-progress", "--min-seconds", &least]);
    program(options, "trainer", "mfpo_train", &words)
}

/// The control node, with the policy of a file and swaps frozen.
fn control(options: &Options, policy: &Path) -> Program {
    let policy = format!("policy:='{}'", policy.display());
    let seed = format!("seed:={}", options.seed);
    let robot = format!("robot:={TASK}");
    let mut words = vec!["--ros-args"];
    // A simulated arm takes no harm from a policy that acts at once.
    let fixed = ["accept_bundles:=false", "fade_in:=0.0", REALTIME];
    for parameter in [&policy, &robot, &seed]
        .into_iter()
        .map(String::as_str)
        .chain(fixed)
    {
        words.extend(["-p", parameter]);
    }
    program(options, "control", "control", &words)
}

fn program(options: &Options, name: &'static str, executable: &str, words: &[&str]) -> Program {
    let priority = match name {
        "trainer" => Priority::Last,
        _ => Priority::First,
    };
    Program {
        name,
        path: options.programs.join(executable),
        arguments: words.iter().map(|word| (*word).to_owned()).collect(),
        log: options.folder.join(format!("{name}.log")),
        priority,
    }
}
