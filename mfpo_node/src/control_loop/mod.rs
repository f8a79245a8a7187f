//! One joint state becomes one command: watchdog, observation, policy, safety filter. One page, no ROS, no async; a
//! step allocates nothing, takes no lock and makes no system call. Time and noise come from outside; only a limited
//! budget looks at the clock itself, which Linux answers in user space (vDSO) with the usual clock sources.

mod decision;
mod settings;
mod swaps;

pub use decision::{Asked, Before, Decision, NotReady, Reason, Tick};
pub use settings::{CannotControl, Settings, Tuning};
pub use swaps::{Begun, CutShort, Progress};

pub mod probing;

use std::sync::Arc;

use mfpo_policy::noise::NormalNoise;
use mfpo_policy::observation::{ActionMap, ObservationBuilder, RobotState};
use mfpo_policy::sampler::{ActionSampler, Depth, SampleError};
use mfpo_policy::spec::RobotSpec;

use crate::budget::Budget;
use crate::goal::{Goal, GoalRefusal};
use crate::joint_states::JointStates;
use crate::safety::fallback::StopAt;
use crate::safety::{
    Enable, Fade, Fallback, Guard, Recovery, SafeCommand, SafetyFilter, Unknown, Verdict, Watchdog,
};
use crate::sim_time::SimTime;
use crate::time::MonoTime;
use crate::weights::stages::Stages;
use crate::weights::{Policy, Slot};

/// The control loop of one robot.
pub struct ControlLoop {
    settings: Settings,
    period: f64,
    slot: Slot,
    watchdog: Watchdog,
    enable: Enable,
    goal: Goal,
    recovery: Recovery,
    guard: Guard,
    is_stopped: bool,
    observations: ObservationBuilder,
    noise: NormalNoise,
    /// Number of the next sequence of noise.
    draw: u64,
    budget: Budget,
    /// What the last action came from.
    asked: Recipe,
    stages: Stages,
    /// What came of the last step, for [`ControlLoop::after`].
    outcome: Outcome,
    /// What came of the last step in which the policy that acts was asked.
    answered: Outcome,
    actions: ActionMap,
    fade: Fade,
    fallback: Fallback,
    safety: SafetyFilter,
    // What a step writes; as large from the start as it will ever be.
    state: RobotState,
    observation: Vec<f32>,
    normals: Vec<f32>,
    action: Vec<f32>,
    /// The action of the policy before or of the one in the shadow.
    other: Vec<f32>,
    raw: Vec<f64>,
}

/// What an action came from, besides the observation.
#[derive(Debug, Clone, Copy)]
struct Recipe {
    draw: u64,
    depth: Depth,
    before: Option<Before>,
}

impl Recipe {
    const fn of(self, observation: &[f32]) -> Asked<'_> {
        Asked {
            observation,
            draw: self.draw,
            depth: self.depth,
            before: self.before,
        }
    }
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// The policy commanded.
    Acted,
    /// The policy gave no action.
    Failed,
    /// The policy's action was not used: it does not know what it saw.
    Guarded(Unknown),
    /// It was not asked.
    Idle,
    /// It was not asked, although the inputs are good: it failed or was guarded before, and it is too early.
    Waiting,
}

impl Outcome {
    /// Is the policy itself why it does not act?
    const fn is_hindrance(self) -> bool {
        matches!(self, Self::Failed | Self::Guarded(_))
    }
}

impl ControlLoop {
    /// A loop that has commanded nothing yet.
    ///
    /// # Errors
    /// When the settings do not fit the robot.
    pub fn new(spec: &RobotSpec, policy: Box<Policy>, settings: Settings) -> Result<Self, CannotControl> {
        let observations = ObservationBuilder::new(spec)?;
        let Tuning {
            settings,
            fallback,
            limits,
        } = Tuning::new(spec, settings)?;
        let (size, period) = (spec.action_size(), spec.control_period());
        Ok(Self {
            period,
            slot: Slot::new(policy),
            watchdog: Watchdog::new(spec.joints.len(), settings.stale_after),
            enable: Enable::new(settings.enable_timeout),
            goal: Goal::new(spec, settings.goal_timeout),
            recovery: Recovery::new(settings.recovery_inputs),
            guard: Guard::new(settings.guard),
            is_stopped: false,
            observation: vec![0.0; observations.size()],
            observations,
            noise: NormalNoise::new(settings.seed),
            draw: 0,
            budget: Budget::new(settings.compute_budget),
            asked: Recipe {
                draw: 0,
                depth: Depth::FIRST,
                before: None,
            },
            stages: Stages::new(settings.stages, size, period),
            outcome: Outcome::Idle,
            answered: Outcome::Idle,
            normals: vec![0.0; ActionSampler::MOST_CANDIDATES * size],
            actions: ActionMap::new(spec)?,
            fade: Fade::new(size, settings.fade_in, period),
            action: vec![0.0; size],
            other: vec![0.0; size],
            raw: vec![0.0; size],
            fallback,
            safety: SafetyFilter::new(spec, limits),
            state: RobotState::zeros(spec),
            settings,
        })
    }

    /// Of a robot in simulated time, which has to pass for the policy to act.
    #[must_use]
    pub fn in_simulated_time(mut self, clock: Option<Arc<SimTime>>) -> Self {
        self.watchdog.set_clock(clock);
        self
    }

    /// Decides what to send now, from the newest joint states.
    pub fn step(&mut self, states: &JointStates, now: MonoTime) -> Decision<'_> {
        self.step_since(states, now, now)
    }

    /// [`ControlLoop::step`] of a tick that began when a state was `taken`, before `now`: a limited budget counts from there.
    pub fn step_since(&mut self, states: &JointStates, taken: MonoTime, now: MonoTime) -> Decision<'_> {
        self.outcome = Outcome::Idle;
        if let Some(reason) = self.hindrance(states, now) {
            let is_too_early = matches!(reason, Reason::Recovering { .. } | Reason::Guard(_));
            if is_too_early && self.answered.is_hindrance() {
                self.outcome = Outcome::Waiting;
            }
            return self.fall_back(reason);
        }
        if let Err(error) = self.ask_policy(taken) {
            self.came_of_it(Outcome::Failed);
            return self.fall_back(Reason::Policy(error));
        }
        if let Some(unknown) = self.guard.unknown() {
            self.came_of_it(Outcome::Guarded(unknown));
            self.recovery.unfit();
            return self.fall_back(Reason::Guard(unknown));
        }
        if self.recovery.recovered() {
            self.fade.start(self.safety.references(&self.state));
        }
        self.came_of_it(Outcome::Acted);
        let (wanted, blend) = self.fade.blend(&self.raw);
        Decision::Command(Tick {
            command: self.safety.enforce(wanted, &self.state),
            policy: self.slot.current().identity(),
            previous: self.asked.before.and(self.slot.previous()).map(Policy::identity),
            raw: &self.raw,
            action: &self.action,
            asked: Some(self.asked.of(&self.observation)),
            blend,
            signals: self.guard.signals(),
            fallback: None,
        })
    }

    /// Lets the policy begin, as at the start of an episode, where the robot may be commanded; also after a stop.
    ///
    /// # Errors
    /// Why it may not; nothing has changed then.
    pub fn activate(&mut self, states: &JointStates, now: MonoTime) -> Result<(), NotReady> {
        self.check_ready(states, now)?;
        self.check_goal(now)?;
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
        self.check_goal(now)?;
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

    /// Takes over a goal that has come `now`, in the frame called `frame`, m; `true` where there was none before. The policy
    /// observes it from the next step on.
    ///
    /// # Errors
    /// A [`GoalRefusal`]; the goal before stays.
    pub fn give_goal(&mut self, frame: &str, position: [f64; 3], now: MonoTime) -> Result<bool, GoalRefusal> {
        let is_first = self.goal.give(frame, position, now)?;
        self.state.goal = position;
        Ok(is_first)
    }

    /// The policy may not begin again before somebody gives a new goal, where it needs one.
    pub fn forget_goal(&mut self) {
        self.goal.forget();
    }

    /// Takes over other settings; `tuning` is left with what they replace.
    pub fn tune(&mut self, tuning: &mut Tuning) {
        std::mem::swap(&mut self.settings, &mut tuning.settings);
        let settings = &mut self.settings;
        // The seed and the heartbeat stay those of the start.
        settings.seed = tuning.settings.seed;
        settings.enable_timeout = tuning.settings.enable_timeout;
        self.watchdog.set_stale_after(settings.stale_after);
        self.goal.set_timeout(settings.goal_timeout);
        self.recovery.set_needed(settings.recovery_inputs);
        self.fade.set_duration(settings.fade_in, self.period);
        self.budget.set_limit(settings.compute_budget);
        self.guard.set(settings.guard);
        self.stages.set(settings.stages);
        self.safety.exchange_limits(&mut tuning.limits);
        std::mem::swap(&mut self.fallback, &mut tuning.fallback);
    }

    /// One step of a stop that nothing will follow, and whether it is there; `None` when nothing was commanded. The limits
    /// go by where the joints are by now: a position holds only once none of them alters it, as the acceleration does
    /// while the last command is still being braked.
    pub fn stop(&mut self, states: &JointStates, now: MonoTime) -> Option<(&SafeCommand, bool)> {
        self.watchdog.check(states, now, &mut self.state);
        let end = self.fallback.stop(self.safety.last()?.values(), &mut self.raw);
        let command = self.safety.enforce(&self.raw, &self.state);
        let there = match end {
            StopAt::Here => command.interventions() == 0,
            StopAt::Zero => command.values().iter().all(|value| *value == 0.0),
        };
        Some((command, there))
    }

    /// Ends a stop that takes too long: zero at once, or the position that is commanded; `None` when nothing was.
    pub fn cut_stop(&mut self) -> Option<&SafeCommand> {
        self.safety.last()?;
        Some(self.safety.cut())
    }

    /// The last command, however it came about.
    pub fn commanded(&self) -> Option<&SafeCommand> {
        self.safety.last()
    }

    /// The policy that acts, and the one before.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// For a swap between two steps.
    pub fn slot_mut(&mut self) -> &mut Slot {
        &mut self.slot
    }

    /// The policy was asked, with this outcome.
    const fn came_of_it(&mut self, outcome: Outcome) {
        self.outcome = outcome;
        self.answered = outcome;
    }

    /// What speaks against asking the policy.
    fn hindrance(&mut self, states: &JointStates, now: MonoTime) -> Option<Reason> {
        let verdict = self.watchdog.check(states, now, &mut self.state);
        let enabled = self.enable.check(now);
        let goal = self.goal.check(now);
        let is_fit = verdict == Verdict::Fresh && enabled.is_ok() && goal.is_ok() && !self.is_stopped;
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
        if let Err(missing) = goal {
            return Some(Reason::NoGoal(missing));
        }
        if self.recovery.is_over() {
            return None;
        }
        let (good, needed) = self.recovery.progress();
        // Until it is asked again, what the policy did not know keeps it from acting.
        let unknown = self.guard.unknown().map(Reason::Guard);
        Some(unknown.unwrap_or(Reason::Recovering { good, needed }))
    }

    fn check_ready(&mut self, states: &JointStates, now: MonoTime) -> Result<(), NotReady> {
        match self.watchdog.check(states, now, &mut self.state) {
            Verdict::Fresh => {}
            unfit => return Err(NotReady::States(unfit)),
        }
        self.enable.check(now).map_err(NotReady::NotEnabled)?;
        self.safety.inside(&self.state).map_err(NotReady::Outside)
    }

    fn check_goal(&self, now: MonoTime) -> Result<(), NotReady> {
        self.goal.check(now).map_err(NotReady::NoGoal)
    }

    fn begin(&mut self) {
        self.is_stopped = false;
        self.stages.restart();
        self.guard.restart();
        self.recovery.recovered();
        self.state.previous_action.fill(0.0);
        self.fade.start(self.safety.references(&self.state));
    }

    /// Numbers of noise that an action is sampled from.
    fn noise_size(&self) -> usize {
        (self.settings.candidates * self.action.len()).min(self.normals.len())
    }

    /// Observation and noise of this tick.
    fn observe(&mut self) {
        let size = self.noise_size();
        let (normals, _) = self.normals.split_at_mut(size);
        self.observations.build(&self.state, &mut self.observation);
        // Every tick has a sequence of its own, so that it can be repeated without those before it.
        self.noise.begin(self.draw);
        self.noise.fill(normals);
    }

    /// Observation, noise, action, and the command that the policy wants.
    fn ask_policy(&mut self, taken: MonoTime) -> Result<(), SampleError> {
        self.observe();
        let candidates = self.settings.candidates;
        let (normals, _) = self.normals.split_at(self.noise_size());
        let (policy, before) = self.slot.both_mut();
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
        if self.guard.is_on() {
            let signals = policy.signals(normals, depth)?;
            self.guard.check(policy.identity().guard, signals);
        }
        self.asked = Recipe {
            draw: self.draw,
            depth,
            before: None,
        };
        self.draw += 1;
        if let (Some(weight), Some(before)) = (self.stages.weight(), before) {
            let depth = before.depth_like(depth, policy.steps());
            let normals = normals
                .get(..depth.candidates * self.other.len())
                .unwrap_or_default();
            // Where the policy before gives no action any more, the new one acts alone.
            if before.act(observation, normals, depth, &mut self.other).is_ok() {
                mix(&mut self.action, &self.other, weight);
                self.asked.before = Some(Before { weight, depth });
            }
        }
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
        // What the guard refused was asked for all the same.
        let was_asked = matches!(self.outcome, Outcome::Guarded(_));
        let before = self.asked.before.and(self.slot.previous()).filter(|_| was_asked);
        Decision::Command(Tick {
            command: self.safety.enforce(&self.raw, &self.state),
            policy: self.slot.current().identity(),
            previous: before.map(Policy::identity),
            raw: &self.raw,
            action: &self.action,
            asked: was_asked.then(|| self.asked.of(&self.observation)),
            blend: 0.0,
            signals: self.guard.signals(),
            fallback: Some(reason),
        })
    }
}

/// `action = before + weight (action - before)`: the one formula that the loop and a replay share.
pub fn mix(action: &mut [f32], before: &[f32], weight: f64) {
    for (action, before) in action.iter_mut().zip(before) {
        *action = before + weight as f32 * (*action - before);
    }
}
