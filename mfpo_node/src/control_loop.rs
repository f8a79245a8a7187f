//! One joint state becomes one command: watchdog, observation, policy, safety filter. One page, no ROS, no async; a
//! step allocates nothing, takes no lock and makes no system call. Time and noise come from outside.

use mfpo_policy::noise::NormalNoise;
use mfpo_policy::observation::{ActionMap, ObservationBuilder, RobotState};
use mfpo_policy::sampler::SampleError;
use mfpo_policy::spec::{RobotSpec, SpecError};

use crate::joint_states::JointStates;
use crate::safety::fallback::{DoesNotFit, StopAt};
use crate::safety::{Fallback, FallbackChoice, SafeCommand, SafetyFilter, Verdict, Watchdog};
use crate::time::MonoTime;
use crate::weights::{Policy, Slot};

/// What the loop needs to know besides the policy.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Actions sampled at each tick, of which the critics choose.
    pub candidates: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// A joint whose newest state is older is stale, ns.
    pub stale_after: u64,
    /// What to command when the policy must not act.
    pub fallback: FallbackChoice,
    /// N m s/rad; 0 is automatic.
    pub damping: f64,
}

/// Why a loop could not be made for a robot.
#[derive(Debug, thiserror::Error)]
pub enum CannotControl {
    /// The spec is not valid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The fallback that was asked for does not fit the robot.
    #[error(transparent)]
    Fallback(#[from] DoesNotFit),
    /// States would be stale between two ticks.
    #[error(
        "parameter stale_timeout is {got} s; expected at least the policy's control period, {expected} s: raise it"
    )]
    StaleTimeout {
        /// The control period, s.
        expected: f64,
        /// The parameter, s.
        got: f64,
    },
}

/// Why the policy does not act in this tick.
#[derive(Debug)]
pub enum Reason {
    /// The joint states are not fit to act on.
    States(Verdict),
    /// The policy gave no action.
    Policy(SampleError),
}

/// What a step decides.
#[derive(Debug)]
pub enum Decision<'a> {
    /// Nothing was ever commanded, and nothing can be yet.
    Wait(Reason),
    /// Send this.
    Command(Tick<'a>),
}

/// One tick's command and what it came from.
#[derive(Debug)]
pub struct Tick<'a> {
    /// What to send, in the order of the policy's action joints.
    pub command: &'a SafeCommand,
    /// The command before the safety filter.
    pub raw: &'a [f64],
    /// The policy's action, in `[-1, 1]`; the last one where the fallback commands.
    pub action: &'a [f32],
    /// Why the fallback commands, when it does.
    pub fallback: Option<Reason>,
}

/// The control loop of one robot.
pub struct ControlLoop {
    settings: Settings,
    slot: Slot,
    watchdog: Watchdog,
    observations: ObservationBuilder,
    noise: NormalNoise,
    actions: ActionMap,
    fallback: Fallback,
    safety: SafetyFilter,
    // What a step writes; as large from the start as it will ever be.
    state: RobotState,
    observation: Vec<f32>,
    normals: Vec<f32>,
    action: Vec<f32>,
    raw: Vec<f64>,
}

impl ControlLoop {
    /// A loop that has commanded nothing yet.
    ///
    /// # Errors
    /// When the fallback or the stale timeout does not fit the robot.
    pub fn new(spec: &RobotSpec, policy: Box<Policy>, settings: Settings) -> Result<Self, CannotControl> {
        let observations = ObservationBuilder::new(spec)?;
        if settings.stale_after < spec.control_period_ns {
            return Err(CannotControl::StaleTimeout {
                expected: spec.control_period(),
                got: settings.stale_after as f64 * 1e-9,
            });
        }
        Ok(Self {
            slot: Slot::new(policy),
            watchdog: Watchdog::new(spec.joints.len(), settings.stale_after),
            observation: vec![0.0; observations.size()],
            observations,
            noise: NormalNoise::new(settings.seed),
            normals: vec![0.0; settings.candidates * spec.action_size()],
            actions: ActionMap::new(spec)?,
            action: vec![0.0; spec.action_size()],
            raw: vec![0.0; spec.action_size()],
            fallback: Fallback::new(spec, settings.fallback, settings.damping)?,
            safety: SafetyFilter::new(spec),
            state: RobotState::zeros(spec),
            settings,
        })
    }

    /// Decides what to send now, from the newest joint states.
    pub fn step(&mut self, states: &JointStates, now: MonoTime) -> Decision<'_> {
        let fallback = match self.watchdog.check(states, now, &mut self.state) {
            Verdict::Fresh => self.ask_policy().err().map(Reason::Policy),
            unfit => Some(Reason::States(unfit)),
        };
        if let Some(reason) = fallback {
            return self.fall_back(reason);
        }
        Decision::Command(Tick {
            command: self.safety.enforce(&self.raw, &self.state),
            raw: &self.raw,
            action: &self.action,
            fallback: None,
        })
    }

    /// One step of a stop that nothing will follow, and whether it is there; `None` when nothing was commanded.
    pub fn stop(&mut self) -> Option<(&SafeCommand, bool)> {
        let end = self.fallback.stop(self.safety.last()?.values(), &mut self.raw);
        let command = self.safety.enforce(&self.raw, &self.state);
        let there = end == StopAt::Here || command.values().iter().all(|value| *value == 0.0);
        Some((command, there))
    }

    /// The policy that acts, and the one before.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// For a swap between two steps.
    pub fn slot_mut(&mut self) -> &mut Slot {
        &mut self.slot
    }

    /// Observation, noise, action, and the command that the policy wants.
    fn ask_policy(&mut self) -> Result<(), SampleError> {
        self.observations.build(&self.state, &mut self.observation);
        self.noise.fill(&mut self.normals);
        self.slot.current_mut().act(
            &self.observation,
            &self.normals,
            self.settings.candidates,
            &mut self.action,
        )?;
        self.actions.command(&self.action, &mut self.raw);
        self.state.previous_action.copy_from_slice(&self.action);
        Ok(())
    }

    fn fall_back(&mut self, reason: Reason) -> Decision<'_> {
        let Some(last) = self.safety.last() else {
            return Decision::Wait(reason);
        };
        let velocities = self.state.velocities.as_slice();
        self.fallback
            .command(last.values(), velocities, self.watchdog.fresh(), &mut self.raw);
        // The policy starts anew afterwards, as at the beginning of an episode.
        self.state.previous_action.fill(0.0);
        Decision::Command(Tick {
            command: self.safety.enforce(&self.raw, &self.state),
            raw: &self.raw,
            action: &self.action,
            fallback: Some(reason),
        })
    }
}
