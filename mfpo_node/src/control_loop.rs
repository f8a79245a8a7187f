//! One joint state becomes one command: watchdog, observation, policy, safety filter. One page, no ROS, no async; a
//! step allocates nothing, takes no lock and makes no system call. Time and noise come from outside.

pub mod probing;

use mfpo_policy::noise::NormalNoise;
use mfpo_policy::observation::{ActionMap, ObservationBuilder, RobotState};
use mfpo_policy::sampler::{ActionSampler, SampleError};
use mfpo_policy::spec::{RobotSpec, SpecError};

use crate::joint_states::JointStates;
use crate::safety::fallback::{DoesNotFit, StopAt};
use crate::safety::{
    Enable, Fade, Fallback, FallbackChoice, Limits, NotEnabled, Outside, Recovery, SafeCommand, SafetyFilter,
    Tightening, TooTight, Verdict, Watchdog,
};
use crate::time::MonoTime;
use crate::weights::{Policy, Slot};

/// What the loop needs to know besides the policy.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// Time over which the policy fades in, s; 0 is at once.
    pub fade_in: f64,
    /// Good inputs after which the policy takes over from the fallback; 0 waits for an explicit start.
    pub recovery_inputs: u64,
    /// How long a heartbeat permits motion, ns; 0 needs none.
    pub enable_timeout: u64,
    /// Limits below those of the spec.
    pub tightening: Tightening,
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
    /// The limits leave a joint no room.
    #[error(transparent)]
    Limits(#[from] TooTight),
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

/// Settings that fit a robot, with all that they need: made where there is time, taken over between two steps.
#[derive(Debug)]
pub struct Tuning {
    settings: Settings,
    fallback: Fallback,
    limits: Limits,
}

impl Tuning {
    /// Checks settings against a robot.
    ///
    /// # Errors
    /// When they do not fit it.
    pub fn new(spec: &RobotSpec, settings: Settings) -> Result<Self, CannotControl> {
        if settings.stale_after < spec.control_period_ns {
            return Err(CannotControl::StaleTimeout {
                expected: spec.control_period(),
                got: settings.stale_after as f64 * 1e-9,
            });
        }
        Ok(Self {
            settings,
            fallback: Fallback::new(spec, settings.fallback, settings.damping)?,
            limits: Limits::new(spec, &settings.tightening)?,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Why the policy does not act in this tick.
#[derive(Debug)]
pub enum Reason {
    /// The joint states are not fit to act on.
    States(Verdict),
    /// The policy gave no action.
    Policy(SampleError),
    /// Somebody has stopped the robot, and nobody has started it again.
    Stopped,
    /// The heartbeat that permits motion is missing.
    NotEnabled(NotEnabled),
    /// The fallback commanded, and it is too early to act again.
    Recovering {
        /// Good inputs so far.
        good: u64,
        /// Good inputs that are needed; `None` waits for an explicit start.
        needed: Option<u64>,
    },
}

impl Reason {
    /// A small number for each kind, to tell a change of reason by.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::States(_) => 0,
            Self::Policy(_) => 1,
            Self::Stopped => 2,
            Self::NotEnabled(_) => 3,
            Self::Recovering { .. } => 4,
        }
    }
}

/// Why the policy may not begin to act.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NotReady {
    /// The joint states are not fit to act on.
    States(Verdict),
    /// The heartbeat that permits motion is missing.
    NotEnabled(NotEnabled),
    /// The robot is not inside its limits.
    Outside(Outside),
}

impl NotReady {
    /// Is it the same joint and the same trouble?
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::States(Verdict::Missing { joint: a }), Self::States(Verdict::Missing { joint: b }))
            | (
                Self::States(Verdict::Stale { joint: a, .. }),
                Self::States(Verdict::Stale { joint: b, .. }),
            ) => a == b,
            (Self::NotEnabled(a), Self::NotEnabled(b)) => {
                std::mem::discriminant(a) == std::mem::discriminant(b)
            }
            (Self::Outside(a), Self::Outside(b)) => (a.joint, a.rule) == (b.joint, b.rule),
            _ => false,
        }
    }
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
    /// The command before fade and safety filter.
    pub raw: &'a [f64],
    /// The policy's action, in `[-1, 1]`; the last one where the fallback commands.
    pub action: &'a [f32],
    /// The policy's weight in the command, below 1 while it fades in.
    pub blend: f64,
    /// Why the fallback commands, when it does.
    pub fallback: Option<Reason>,
}

/// The control loop of one robot.
pub struct ControlLoop {
    settings: Settings,
    period: f64,
    slot: Slot,
    watchdog: Watchdog,
    enable: Enable,
    recovery: Recovery,
    is_stopped: bool,
    observations: ObservationBuilder,
    noise: NormalNoise,
    actions: ActionMap,
    fade: Fade,
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
    /// When the settings do not fit the robot.
    pub fn new(spec: &RobotSpec, policy: Box<Policy>, settings: Settings) -> Result<Self, CannotControl> {
        let observations = ObservationBuilder::new(spec)?;
        let tuning = Tuning::new(spec, settings)?;
        let (size, period) = (spec.action_size(), spec.control_period());
        Ok(Self {
            period,
            slot: Slot::new(policy),
            watchdog: Watchdog::new(spec.joints.len(), settings.stale_after),
            enable: Enable::new(settings.enable_timeout),
            recovery: Recovery::new(settings.recovery_inputs),
            is_stopped: false,
            observation: vec![0.0; observations.size()],
            observations,
            noise: NormalNoise::new(settings.seed),
            normals: vec![0.0; ActionSampler::MOST_CANDIDATES * size],
            actions: ActionMap::new(spec)?,
            fade: Fade::new(size, settings.fade_in, period),
            action: vec![0.0; size],
            raw: vec![0.0; size],
            fallback: tuning.fallback,
            safety: SafetyFilter::new(spec, tuning.limits),
            state: RobotState::zeros(spec),
            settings,
        })
    }

    /// Decides what to send now, from the newest joint states.
    pub fn step(&mut self, states: &JointStates, now: MonoTime) -> Decision<'_> {
        if let Some(reason) = self.hindrance(states, now) {
            return self.fall_back(reason);
        }
        if let Err(error) = self.ask_policy() {
            return self.fall_back(Reason::Policy(error));
        }
        if self.recovery.recovered() {
            self.fade.start(self.safety.references(&self.state));
        }
        let (wanted, blend) = self.fade.blend(&self.raw);
        Decision::Command(Tick {
            command: self.safety.enforce(wanted, &self.state),
            raw: &self.raw,
            action: &self.action,
            blend,
            fallback: None,
        })
    }

    /// Lets the policy begin, as at the start of an episode, where the robot may be commanded; also after a stop.
    ///
    /// # Errors
    /// Why it may not; nothing has changed then.
    pub fn activate(&mut self, states: &JointStates, now: MonoTime) -> Result<(), NotReady> {
        self.check_ready(states, now)?;
        self.safety.restart();
        self.begin();
        Ok(())
    }

    /// Lets the policy take over from the fallback or from a stop, where the robot may be commanded.
    ///
    /// # Errors
    /// Why it may not; nothing has changed then.
    pub fn resume(&mut self, states: &JointStates, now: MonoTime) -> Result<(), NotReady> {
        if !self.is_stopped && self.recovery.is_over() {
            return Ok(());
        }
        self.check_ready(states, now)?;
        self.begin();
        Ok(())
    }

    /// The fallback commands from the next step on, until [`ControlLoop::resume`] or [`ControlLoop::activate`].
    pub fn halt(&mut self) {
        self.is_stopped = true;
    }

    /// A heartbeat has arrived.
    pub fn heard_enable(&mut self, permits: bool, now: MonoTime) {
        self.enable.heard(permits, now);
    }

    /// Takes over other settings; `tuning` is left with what they replace.
    pub fn tune(&mut self, tuning: &mut Tuning) {
        // The seed and the heartbeat stay those of the start.
        let Settings {
            seed, enable_timeout, ..
        } = self.settings;
        let settings = Settings {
            seed,
            enable_timeout,
            ..tuning.settings
        };
        self.watchdog.set_stale_after(settings.stale_after);
        self.recovery.set_needed(settings.recovery_inputs);
        self.fade.set_duration(settings.fade_in, self.period);
        self.safety.exchange_limits(&mut tuning.limits);
        std::mem::swap(&mut self.fallback, &mut tuning.fallback);
        self.settings = settings;
    }

    /// Another policy acts from the next step on; what is no longer kept is handed back, to be freed elsewhere.
    pub fn swap(&mut self, policy: Box<Policy>) -> Option<Box<Policy>> {
        self.fade.start(self.safety.references(&self.state));
        self.slot.swap(policy)
    }

    /// The policy before acts from the next step on; `false` where there is none.
    pub fn roll_back(&mut self) -> bool {
        let is_done = self.slot.rollback();
        if is_done {
            self.fade.start(self.safety.references(&self.state));
        }
        is_done
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

    /// What speaks against asking the policy.
    fn hindrance(&mut self, states: &JointStates, now: MonoTime) -> Option<Reason> {
        let verdict = self.watchdog.check(states, now, &mut self.state);
        let enabled = self.enable.check(now);
        let is_fit = verdict == Verdict::Fresh && enabled.is_ok() && !self.is_stopped;
        self.recovery
            .seen(is_fit, states.oldest().map(|(_, arrived)| arrived));
        if self.is_stopped {
            return Some(Reason::Stopped);
        }
        if verdict != Verdict::Fresh {
            return Some(Reason::States(verdict));
        }
        if let Err(missing) = enabled {
            return Some(Reason::NotEnabled(missing));
        }
        let (good, needed) = self.recovery.progress();
        (!self.recovery.is_over()).then_some(Reason::Recovering { good, needed })
    }

    fn check_ready(&mut self, states: &JointStates, now: MonoTime) -> Result<(), NotReady> {
        match self.watchdog.check(states, now, &mut self.state) {
            Verdict::Fresh => {}
            unfit => return Err(NotReady::States(unfit)),
        }
        self.enable.check(now).map_err(NotReady::NotEnabled)?;
        self.safety.inside(&self.state).map_err(NotReady::Outside)
    }

    fn begin(&mut self) {
        self.is_stopped = false;
        self.recovery.recovered();
        self.state.previous_action.fill(0.0);
        self.fade.start(self.safety.references(&self.state));
    }

    /// Observation, noise, action, and the command that the policy wants.
    fn ask_policy(&mut self) -> Result<(), SampleError> {
        let candidates = self.settings.candidates;
        let count = (candidates * self.action.len()).min(self.normals.len());
        let (normals, _) = self.normals.split_at_mut(count);
        self.observations.build(&self.state, &mut self.observation);
        self.noise.fill(normals);
        self.slot
            .current_mut()
            .act(&self.observation, normals, candidates, &mut self.action)?;
        self.actions.command(&self.action, &mut self.raw);
        self.state.previous_action.copy_from_slice(&self.action);
        Ok(())
    }

    fn fall_back(&mut self, reason: Reason) -> Decision<'_> {
        let Some(last) = self.safety.last() else {
            return Decision::Wait(reason);
        };
        self.recovery.fell();
        let velocities = self.state.velocities.as_slice();
        self.fallback
            .command(last.values(), velocities, self.watchdog.fresh(), &mut self.raw);
        // The policy starts anew afterwards, as at the beginning of an episode.
        self.state.previous_action.fill(0.0);
        Decision::Command(Tick {
            command: self.safety.enforce(&self.raw, &self.state),
            raw: &self.raw,
            action: &self.action,
            blend: 0.0,
            fallback: Some(reason),
        })
    }
}
