//! A simulated robot: commands in, states out, in real time. It knows nothing of ROS: a [`RobotLink`] brings
//! commands and carries states away, and `ros.rs` has one for ROS 2.
//!
//! The robot goes through the evaluation starts of its task again and again. At the end of each episode it reports
//! whether the goal was held, judged by the same words as the trainer's evaluation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mfpo_policy::spec::JointSpec;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tracing::{info, warn};

use crate::env::evaluation_seed;
use crate::error::check_vector;
use crate::randomize::Draw;
use crate::tasks::{Body, Hold, RobotTask};
use crate::{Mode, SimError, registry};

/// A robot that is further behind the clock than this gives up catching up, and its real-time factor drops.
const MAX_CATCH_UP: Duration = Duration::from_millis(20);
/// The goal is told at the start of an episode, and again each time this has passed, s: whoever comes later hears it too.
const GOAL_PERIOD: f64 = 1.0;
/// Least time between two warnings about refused commands.
const WARNING_PERIOD: Duration = Duration::from_secs(1);

/// What the robot is and how it behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct RobotOptions {
    /// Task in the registry.
    pub task: String,
    /// Seed of the list of evaluation starts.
    pub seed: u64,
    /// Number of starts, which are gone through again and again.
    pub starts: u64,
    /// Joint states a second, Hz.
    pub rate: f64,
    /// Length of an episode, s; `None` for the task's own.
    pub episode_seconds: Option<f64>,
    /// Time without a command after which the robot acts on its own, s.
    pub command_timeout: f64,
    /// Does the first episode wait for the first command?
    pub wait_for_command: bool,
}

impl Default for RobotOptions {
    fn default() -> Self {
        Self {
            task: "swing_arm".into(),
            seed: 0,
            starts: 20,
            rate: 250.0,
            episode_seconds: None,
            command_timeout: 0.1,
            wait_for_command: true,
        }
    }
}

impl RobotOptions {
    fn validate(&self, timestep: f64) -> Result<(), SimError> {
        if self.starts == 0 {
            return Err(SimError::Option {
                what: "starts",
                expected: "1 or more",
                got: 0.0,
            });
        }
        if !(self.rate > 0.0 && self.rate * timestep <= 1.0 + 1e-9) {
            return Err(SimError::Option {
                what: "rate",
                expected: "a positive number, at most one joint state a physics step",
                got: self.rate,
            });
        }
        Ok(())
    }
}

/// The state of all joints at one instant, in the order of the robot's spec.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JointStates {
    /// Positions, rad.
    pub positions: Vec<f64>,
    /// Velocities, rad/s.
    pub velocities: Vec<f64>,
    /// Motor efforts, N m.
    pub efforts: Vec<f64>,
}

/// How an episode went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EpisodeResult {
    /// Counts episodes from 0.
    pub index: u64,
    /// Seed of the start.
    pub seed: u64,
    /// Was the goal held at the end?
    pub success: bool,
    /// Sum of rewards, one a control period.
    pub episode_return: f64,
    /// Simulated time, s.
    pub duration: f64,
    /// Simulated time over wall time.
    pub real_time_factor: f64,
    /// Commands that were accepted.
    pub commands_received: u64,
    /// Commands that were refused.
    pub commands_refused: u64,
    /// How often commands failed to come in time.
    pub timeouts: u64,
}

/// What the robot did until it was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct RobotSummary {
    /// Finished episodes.
    pub episodes: u64,
    /// Successful episodes.
    pub successes: u64,
    /// Simulated time over wall time.
    pub real_time_factor: f64,
    /// How often the robot gave up catching up with the clock.
    pub stalls: u64,
}

/// Brings commands to the robot and carries its states away.
pub trait RobotLink {
    /// The oldest command that has arrived and not been read yet, in the unit of the robot's interface. Never waits.
    fn receive(&mut self) -> Option<Vec<f64>>;

    /// Carries a joint state away.
    fn publish_states(&mut self, states: &JointStates);

    /// Carries the episode's goal away, m, in the frame called `frame`; only of a robot that has goals.
    fn publish_goal(&mut self, frame: &str, goal: [f64; 3]);

    /// Carries the result of an episode away.
    fn publish_episode(&mut self, result: &EpisodeResult);
}

/// Counters of the episode that is under way.
#[derive(Debug, Clone, Copy)]
struct Episode {
    index: u64,
    seed: u64,
    steps: u64,
    started: Instant,
    hold: Hold,
    episode_return: f64,
    commands_received: u64,
    commands_refused: u64,
    timeouts: u64,
}

impl Episode {
    fn begin(index: u64, seed: u64) -> Self {
        Self {
            index,
            seed,
            steps: 0,
            started: Instant::now(),
            hold: Hold::default(),
            episode_return: 0.0,
            commands_received: 0,
            commands_refused: 0,
            timeouts: 0,
        }
    }
}

/// A robot in MuJoCo that goes through its task's starts.
pub struct Robot {
    task: Arc<dyn RobotTask>,
    body: Body,
    options: RobotOptions,
    /// Joint states in a physics step, at most 1.
    states_per_step: f64,
    /// Joint states published so far.
    published: u64,
    /// Physics steps of an episode.
    episode_steps: u64,
    /// Physics steps in a control period.
    control_steps: u64,
    /// Physics steps without a command after which the robot acts on its own.
    timeout_steps: u64,
    episode: Episode,
    /// Is the robot still waiting for its first command?
    waiting: bool,
    /// The last accepted command.
    command: Vec<f64>,
    /// Physics steps since then; `None` when there is no command to follow.
    command_age: Option<u64>,
    /// Physics steps since the start.
    steps: u64,
    /// Physics step at which the goal is told next.
    goal_due: u64,
    last_warning: Option<Instant>,
    states: JointStates,
    summary: RobotSummary,
}

impl Robot {
    /// Loads the robot and puts it at the first start.
    ///
    /// # Errors
    /// [`SimError::UnknownTask`], [`SimError::Option`], or a model that was refused.
    pub fn new(options: RobotOptions) -> Result<Self, SimError> {
        let task = registry::robot(&options.task)?;
        let body = Body::new(task.as_ref())?;
        let timestep = body.timestep();
        let control_period = task.spec().control_period();
        let own_seconds = task.episode_steps() as f64 * control_period;
        let episode_seconds = options.episode_seconds.unwrap_or(own_seconds);
        options.validate(timestep)?;
        let mut robot = Self {
            states_per_step: options.rate * timestep,
            published: 0,
            episode_steps: steps("episode-seconds", episode_seconds, timestep)?,
            timeout_steps: steps("command-timeout", options.command_timeout, timestep)?,
            control_steps: u64::from(crate::tasks::robot_env::substeps(control_period, timestep)?),
            episode: Episode::begin(0, 0),
            waiting: options.wait_for_command,
            command: vec![0.0; task.spec().action_size()],
            command_age: None,
            steps: 0,
            goal_due: 0,
            last_warning: None,
            states: JointStates::default(),
            summary: RobotSummary::default(),
            task,
            body,
            options,
        };
        robot.begin_episode(0);
        Ok(robot)
    }

    /// The robot's joints, in the order of its states.
    pub fn joints(&self) -> &[JointSpec] {
        &self.task.spec().joints
    }

    /// Does it have goals?
    pub fn has_goal(&self) -> bool {
        self.task.spec().observes_goal()
    }

    /// Physics step, s.
    pub fn timestep(&self) -> f64 {
        self.body.timestep()
    }

    /// Runs in real time until `stop` says so.
    ///
    /// # Errors
    /// [`SimError::Unstable`] when the physics diverges.
    pub fn run(
        &mut self,
        link: &mut dyn RobotLink,
        stop: &dyn Fn() -> bool,
    ) -> Result<RobotSummary, SimError> {
        let period = Duration::from_secs_f64(self.timestep());
        let began = Instant::now();
        self.episode.started = began;
        let mut deadline = began;
        while !stop() {
            self.advance(link)?;
            deadline += period;
            deadline = self.wait_until(deadline);
        }
        let simulated = self.steps as f64 * self.timestep();
        self.summary.real_time_factor = simulated / began.elapsed().as_secs_f64();
        Ok(self.summary)
    }

    /// Sleeps until `deadline`. A robot that is far behind does not catch up: its schedule moves to now.
    fn wait_until(&mut self, deadline: Instant) -> Instant {
        let now = Instant::now();
        if now.saturating_duration_since(deadline) > MAX_CATCH_UP {
            self.summary.stalls += 1;
            return now;
        }
        std::thread::sleep(deadline.saturating_duration_since(now));
        deadline
    }

    /// One physics step: takes in commands, moves, publishes what is due.
    ///
    /// # Errors
    /// [`SimError::Unstable`] when the physics diverges.
    pub fn advance(&mut self, link: &mut dyn RobotLink) -> Result<(), SimError> {
        while let Some(command) = link.receive() {
            self.accept(&command);
        }
        self.apply_command();
        self.body.advance()?;
        self.steps += 1;
        // The margin keeps rounding from delaying a state that is due by a whole step.
        let due = (self.steps as f64 * self.states_per_step + 1e-6) as u64;
        if due > self.published {
            self.published = due;
            self.read_states();
            link.publish_states(&self.states);
        }
        self.tell_goal(link);
        if !self.waiting {
            self.judge(link);
        }
        Ok(())
    }

    /// Takes a command over, or refuses it and keeps the one before.
    fn accept(&mut self, command: &[f64]) {
        if let Err(error) = check_vector("command", command, self.command.len()) {
            self.episode.commands_refused += 1;
            let quiet = self.last_warning.is_some_and(|at| at.elapsed() < WARNING_PERIOD);
            if !quiet {
                self.last_warning = Some(Instant::now());
                let refused = self.episode.commands_refused;
                warn!("command refused ({refused} in this episode), the one before stays: {error}");
            }
            return;
        }
        if self.waiting {
            info!("first command received; episode 0 begins");
            self.waiting = false;
            self.begin_episode(0);
        }
        self.command.copy_from_slice(command);
        self.command_age = Some(0);
        self.episode.commands_received += 1;
    }

    /// Hands the command, or what the robot does without one, to the body.
    fn apply_command(&mut self) {
        match self.command_age {
            Some(age) if age < self.timeout_steps => {
                self.command_age = Some(age + 1);
                self.body.send(&self.command);
                return;
            }
            Some(_) => {
                self.command_age = None;
                self.episode.timeouts += 1;
            }
            None => {}
        }
        // `command` is no longer followed, so that it can hold the robot's own.
        self.task.safe_command(self.body.state(), &mut self.command);
        self.body.send(&self.command);
    }

    fn read_states(&mut self) {
        let state = self.body.state();
        self.states.positions.clear();
        self.states.positions.extend(state.positions.iter());
        self.states.velocities.clear();
        self.states.velocities.extend(state.velocities.iter());
        self.body.efforts(&mut self.states.efforts);
    }

    fn tell_goal(&mut self, link: &mut dyn RobotLink) {
        let Some(goal) = self.task.spec().goal.as_ref().filter(|_| self.has_goal()) else {
            return;
        };
        if self.steps >= self.goal_due {
            link.publish_goal(&goal.frame, self.body.state().goal);
            self.goal_due = self.steps + (GOAL_PERIOD / self.timestep()) as u64;
        }
    }

    /// Counts the step for the episode, and ends it when its time is over.
    fn judge(&mut self, link: &mut dyn RobotLink) {
        let state = self.body.state();
        self.episode.steps += 1;
        self.episode.hold.update(self.task.holds(state));
        if self.episode.steps.is_multiple_of(self.control_steps) {
            self.episode.episode_return += self.task.reward(state);
        }
        if self.episode.steps >= self.episode_steps {
            let result = self.result();
            self.summary.episodes += 1;
            self.summary.successes += u64::from(result.success);
            link.publish_episode(&result);
            self.begin_episode(result.index + 1);
        }
    }

    fn result(&self) -> EpisodeResult {
        let episode = &self.episode;
        let duration = episode.steps as f64 * self.timestep();
        EpisodeResult {
            index: episode.index,
            seed: episode.seed,
            success: episode.hold.lasted(self.task.hold_seconds(), self.timestep()),
            episode_return: episode.episode_return,
            duration,
            real_time_factor: duration / episode.started.elapsed().as_secs_f64(),
            commands_received: episode.commands_received,
            commands_refused: episode.commands_refused,
            timeouts: episode.timeouts,
        }
    }

    /// Puts the robot at the start of episode `index`. The command in effect stays in effect.
    fn begin_episode(&mut self, index: u64) {
        let seed = evaluation_seed(self.options.seed, index % self.options.starts);
        let start = self
            .task
            .start(Mode::Evaluate, &mut ChaCha8Rng::seed_from_u64(seed));
        self.body
            .restart(&start, self.command.clone(), Draw::NOMINAL, false);
        self.episode = Episode::begin(index, seed);
        self.goal_due = self.steps;
    }
}

/// `seconds` as a whole number of physics steps, at least one.
fn steps(what: &'static str, seconds: f64, timestep: f64) -> Result<u64, SimError> {
    let steps = (seconds / timestep).round();
    if (1.0..1e9).contains(&steps) {
        return Ok(steps as u64);
    }
    Err(SimError::Option {
        what,
        expected: "a positive number of seconds, at least one physics step",
        got: seconds,
    })
}
