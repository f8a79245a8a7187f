//! The environment of a [`RobotTask`].

use std::collections::BTreeMap;
use std::sync::Arc;

use mfpo_policy::observation::{ActionMap, ObservationBuilder};
use mfpo_policy::subject::Subject;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::benchmark::keeps_nothing;
use super::body::Body;
use super::options::NoOptions;
use super::robot_task::{Hold, RobotTask};
use super::rollout::{FullState, Outcome, Rollout, copy_part};
use crate::error::check_vector;
use crate::physics::Physics;
use crate::randomize::{Draw, add_noise};
use crate::{Camera, Env, EnvOptions, EnvSpec, Info, Mode, Randomization, SimError, Step};

/// Name of the goal among the model values of a rollout's state.
const GOAL: &str = "goal";

/// A robot task as the trainer sees it.
pub struct RobotEnv {
    task: Arc<dyn RobotTask>,
    spec: EnvSpec,
    mode: Mode,
    randomization: Randomization,
    observation_builder: ObservationBuilder,
    action_map: ActionMap,
    body: Body,
    /// Physics steps in a control period.
    substeps: u32,
    rng: ChaCha8Rng,
    hold: Hold,
    /// Control steps of the episode so far; `None` before the first reset.
    steps: Option<usize>,
    over: bool,
    /// Scratch for commands, `[A]`.
    command: Vec<f64>,
    /// The last observation of a rollout.
    precise: Vec<f64>,
}

impl RobotEnv {
    /// Loads the task's model.
    ///
    /// # Errors
    /// A [`SimError`] for an option outside its range or a model that does not fit the spec.
    pub fn new(task: Arc<dyn RobotTask>, options: &EnvOptions) -> Result<Self, SimError> {
        options.randomization.validate()?;
        NoOptions::check(task.name(), &options.task)?;
        let robot = task.spec();
        let body = Body::new(task.as_ref())?;
        let max_episode_steps = options.max_episode_steps.unwrap_or(task.episode_steps());
        if max_episode_steps == 0 {
            return Err(SimError::Option {
                what: "max_episode_steps",
                expected: "1 or more",
                got: 0.0,
            });
        }
        let spec = EnvSpec {
            name: task.name().to_owned(),
            observation_size: robot.observation_size(),
            action_size: robot.action_size(),
            max_episode_steps,
            subject: Subject::Robot(robot.clone()),
            reward_range: task.reward_range(),
            success_threshold: Some(task.success_threshold()),
        };
        Ok(Self {
            observation_builder: ObservationBuilder::new(robot)?,
            action_map: ActionMap::new(robot)?,
            substeps: substeps(robot.control_period(), body.timestep())?,
            command: vec![0.0; robot.action_size()],
            mode: options.mode,
            randomization: options.randomization.clone(),
            rng: ChaCha8Rng::seed_from_u64(0),
            hold: Hold::default(),
            steps: None,
            over: false,
            precise: Vec::new(),
            task,
            spec,
            body,
        })
    }

    /// The action that was sent before the episode began: any in training, since a robot that is put back to its
    /// start has been controlled until then; none in evaluation.
    fn draw_previous_action(&mut self) -> Vec<f32> {
        let rng = &mut self.rng;
        (0..self.spec.action_size)
            .map(|_| match self.mode {
                Mode::Train => rng.random_range(-1.0..=1.0),
                Mode::Evaluate => 0.0,
            })
            .collect()
    }

    /// Takes the goal of a rollout's state over; a robot has no other value that belongs to its model.
    fn set_goal(&mut self, values: &BTreeMap<String, Vec<f64>>) -> Result<(), SimError> {
        let has_goal = self.task.spec().observes_goal();
        if let Some(name) = values.keys().find(|name| !has_goal || *name != GOAL) {
            if !has_goal {
                return Err(keeps_nothing(name));
            }
            return Err(SimError::StartState {
                what: "model value".into(),
                expected: "'goal', its x, y and z in m, and no other".into(),
                got: format!("'{name}'"),
            });
        }
        let mut goal = self.body.state().goal;
        copy_part(GOAL, values.get(GOAL), &mut goal)?;
        self.body.set_goal(goal);
        Ok(())
    }

    /// What the policy sees, `[S]`.
    fn observe(&mut self) -> Vec<f32> {
        let mut observation = vec![0.0; self.spec.observation_size];
        let Randomization {
            position_noise,
            velocity_noise,
            ..
        } = self.randomization;
        if position_noise == 0.0 && velocity_noise == 0.0 {
            self.observation_builder
                .build(self.body.state(), &mut observation);
        } else {
            let mut state = self.body.state().clone();
            add_noise(state.positions.as_mut_slice(), position_noise, &mut self.rng);
            add_noise(state.velocities.as_mut_slice(), velocity_noise, &mut self.rng);
            self.observation_builder.build(&state, &mut observation);
        }
        observation
    }
}

impl Env for RobotEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, SimError> {
        // The start is drawn first: the simulated robot draws nothing else from the same seed.
        self.rng = ChaCha8Rng::seed_from_u64(seed);
        let start = self.task.start(self.mode, &mut self.rng);
        let previous_action = self.draw_previous_action();
        let draw: Draw = self.randomization.draw(&mut self.rng, self.body.timestep());
        let mut acting = vec![0.0; self.spec.action_size];
        self.action_map.command(&previous_action, &mut acting);
        let rescale = !self.randomization.keeps_parameters();
        self.body.restart(&start, acting, draw, rescale);
        self.body.set_previous_action(&previous_action);
        self.hold = Hold::default();
        self.steps = Some(0);
        self.over = false;
        Ok(self.observe())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, SimError> {
        let steps = self.steps.ok_or(SimError::NotReset)?;
        if self.over {
            return Err(SimError::EpisodeOver { steps });
        }
        check_vector("action", action, self.spec.action_size)?;
        self.action_map.command(action, &mut self.command);
        self.body.send(&self.command);
        for _ in 0..self.substeps {
            // Physics that diverged cannot go on: the next step needs a reset.
            self.body.advance().inspect_err(|_| self.over = true)?;
            self.hold.update(self.task.holds(self.body.state()));
        }
        let clipped: Vec<f32> = action.iter().map(|a| a.clamp(-1.0, 1.0)).collect();
        self.body.set_previous_action(&clipped);
        let steps = steps + 1;
        self.steps = Some(steps);
        self.over = steps >= self.spec.max_episode_steps;
        let success = self.hold.lasted(self.task.hold_seconds(), self.body.timestep());
        Ok(Step {
            observation: self.observe(),
            reward: self.task.reward(self.body.state()),
            terminated: false,
            truncated: self.over,
            info: Info {
                success: self.over.then_some(success),
            },
        })
    }
    fn physics(&mut self) -> &mut Physics {
        self.body.physics_mut()
    }

    fn camera(&self) -> Camera {
        Camera::Named(self.task.camera())
    }
}

/// Actions are commands in the unit of the robot's interface; positions and velocities in the order of the model.
impl Rollout for RobotEnv {
    fn begin(&mut self, state: &FullState, seed: u64) -> Result<(), SimError> {
        self.reset(seed)?;
        self.set_goal(&state.model)?;
        self.body.place(state)?;
        self.body.set_previous_action(&vec![0.0; self.spec.action_size]);
        self.steps = Some(state.steps.unwrap_or(0) as usize);
        self.precise = self.observe().iter().copied().map(f64::from).collect();
        check_vector("observation", &self.precise, self.spec.observation_size)
    }

    fn apply(&mut self, action: &[f64]) -> Result<Outcome, SimError> {
        check_vector("action", action, self.spec.action_size)?;
        self.body.send(action);
        for _ in 0..self.substeps {
            self.body.advance()?;
        }
        let joints = self.task.spec().action.joints.iter();
        let scaled = joints
            .zip(action)
            .map(|(joint, a)| ((a - joint.offset) / joint.scale) as f32);
        self.body.set_previous_action(&scaled.collect::<Vec<f32>>());
        self.precise = self.observe().iter().copied().map(f64::from).collect();
        check_vector("observation", &self.precise, self.spec.observation_size)?;
        let reward = self.task.reward(self.body.state());
        check_vector("reward", &[reward], 1)?;
        let steps = self.steps.unwrap_or(0) + 1;
        self.steps = Some(steps);
        Ok(Outcome {
            reward,
            terminated: false,
            truncated: steps >= self.spec.max_episode_steps,
        })
    }

    fn observation(&self) -> &[f64] {
        &self.precise
    }

    fn qpos(&self) -> &[f64] {
        self.body.physics().qpos()
    }

    fn qvel(&self) -> &[f64] {
        self.body.physics().qvel()
    }

    fn contacts(&self) -> usize {
        self.body.physics().ncon()
    }
}

/// Physics steps in a control period; the period has to be a whole number of them.
pub(crate) fn substeps(control_period: f64, timestep: f64) -> Result<u32, SimError> {
    let ratio = control_period / timestep;
    let whole = ratio.round();
    if whole < 1.0 || (ratio - whole).abs() > 1e-6 {
        return Err(SimError::Option {
            what: "control period",
            expected: "a whole number of physics steps",
            got: control_period,
        });
    }
    Ok(whole as u32)
}
