//! One joint state becomes one command: watchdog, observation, policy, safety filter. One page, no ROS, no async; a
//! step allocates nothing, takes no lock and makes no system call. Time and noise come from outside; only a limited
//! budget looks at the clock itself, which Linux answers in user space (vDSO) with the usual clock sources.

mod decision;
mod settings;

pub use decision::{Asked, Decision, NotReady, Reason, Tick};
pub use settings::{CannotControl, Settings, Tuning};

use mfpo_policy::noise::NormalNoise;
use mfpo_policy::observation::{ActionMap, ObservationBuilder, RobotState};
use mfpo_policy::sampler::{ActionSampler, Depth, SampleError};
use mfpo_policy::spec::RobotSpec;

use crate::budget::Budget;
use crate::joint_states::JointStates;
use crate::safety::fallback::StopAt;
use crate::safety::{Enable, Fade, Fallback, Recovery, SafeCommand, SafetyFilter, Verdict, Watchdog};
use crate::time::MonoTime;
use crate::weights::{Policy, Slot};

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
    /// Number of the next sequence of noise.
    draw: u64,
    budget: Budget,
    /// What the last action came from.
    asked: (u64, Depth),
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
            draw: 0,
            budget: Budget::new(settings.compute_budget),
            asked: (0, Depth::FIRST),
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
        if let Err(error) = self.ask_policy(now) {
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
            asked: Some(Asked {
                observation: &self.observation,
                draw: self.asked.0,
                depth: self.asked.1,
            }),
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
        self.budget.set_limit(settings.compute_budget);
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
    fn ask_policy(&mut self, taken: MonoTime) -> Result<(), SampleError> {
        let candidates = self.settings.candidates;
        let count = (candidates * self.action.len()).min(self.normals.len());
        let (normals, _) = self.normals.split_at_mut(count);
        self.observations.build(&self.state, &mut self.observation);
        // Every tick has a sequence of its own, so that it can be repeated without those before it.
        self.noise.begin(self.draw);
        self.noise.fill(normals);
        let policy = self.slot.current_mut();
        let observation = &self.observation;
        let depth = if self.budget.is_limited() {
            self.budget.begin(taken);
            let budget = &mut self.budget;
            let allows = &mut |next| budget.allows(next);
            let depth = policy.act_within(observation, normals, candidates, &mut self.action, allows);
            self.budget.end();
            depth?
        } else {
            let depth = policy.full_depth(candidates);
            policy.act(observation, normals, depth, &mut self.action)?;
            depth
        };
        self.asked = (self.draw, depth);
        self.draw += 1;
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
            asked: None,
            blend: 0.0,
            fallback: Some(reason),
        })
    }
}
