//! A robot that has a policy, and what the control thread is doing with it.

use mfpo_ros::time;

use super::control_thread::Robot;
use super::r2r;
use r2r::sensor_msgs::msg::JointState;

use crate::control_loop::{NotReady, Reason, Tuning};
use crate::joint_states::{JointStateMessage, Refusal};
use crate::metrics::{LoopState, add};
use crate::probe::{self, Probe};
use crate::schedule::{Schedule, Trigger};
use crate::status::{Cause, LoopEvent};
use crate::time::MonoTime;

/// Refusals of one kind are told once in this time, ns.
pub const TELL_EVERY: u64 = 1_000_000_000;
/// The reason of a fallback that goes on is told anew after this time, ns: it may be another joint's by then.
const REFRESH_EVERY: u64 = 250_000_000;

/// What the loop does with its robot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It commands nothing.
    Inactive,
    /// It commands nothing yet, and looks at each state whether the robot is ready.
    Starting,
    /// It commands at each deadline.
    Active,
    /// A probe is under way.
    Probing {
        /// Does it command?
        moves: bool,
    },
    /// It brings the robot to a stop.
    Stopping {
        /// Since when.
        began: MonoTime,
    },
}

impl Mode {
    /// Do commands leave?
    pub fn is_commanding(self) -> bool {
        matches!(
            self,
            Self::Active | Self::Stopping { .. } | Self::Probing { moves: true }
        )
    }

    /// Is a probe under way?
    pub fn is_probing(self) -> bool {
        matches!(self, Self::Probing { .. })
    }

    /// What follows when it is to stop; `None` where nothing is commanded that could be stopped. A stop that is under way goes
    /// on: whoever asks for it again does not put off the moment at which it is cut.
    fn stopped(self, now: MonoTime) -> Option<Self> {
        match self {
            Self::Stopping { .. } => Some(self),
            _ => self.is_commanding().then_some(Self::Stopping { began: now }),
        }
    }
}

/// What the status says of the loop, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    state: LoopState,
    /// The kind of its reason.
    reason: Option<u8>,
}

impl Standing {
    /// The new standing and its cause, where it differs: nothing is put into words at every tick. Of a fallback that goes on,
    /// the cause as it is by now, where that `is_due`.
    pub fn news(self, state: LoopState, reason: Option<&Reason>, is_due: bool) -> Option<(Self, Cause)> {
        let new = Self {
            state,
            reason: reason.map(Reason::kind),
        };
        if new != self {
            return Some((new, reason.map_or(Cause::None, Cause::of)));
        }
        let reason = reason.filter(|_| is_due && state == LoopState::Fallback)?;
        Some((new, Cause::moving(reason)?))
    }
}

/// A robot with its schedule.
pub struct Running {
    /// Loop, joints and counters.
    pub robot: Box<Robot>,
    /// When to tick.
    pub schedule: Schedule,
    /// What is being done.
    pub mode: Mode,
    /// What the status says.
    pub standing: Standing,
    /// Every joint has reported since the last tick.
    pub complete: bool,
    /// When the state was taken with which every joint had reported, if one came at this wake-up; the first of several.
    collected: Option<MonoTime>,
    /// Ticks of earlier activations: the node's records are numbered through.
    pub earlier: u64,
    /// Number of the next record.
    pub next: u64,
    /// Time of the last step, s.
    pub took: f64,
    /// The probe that is under way.
    pub probe: Option<Box<Probe>>,
    trigger: Trigger,
    knows_unknown: bool,
    /// When the reason of the standing was told last.
    reasoned: Option<MonoTime>,
    /// Why the robot was not ready, as it was told last.
    told: Option<NotReady>,
}

impl Running {
    /// A robot that nothing commands yet; its records are numbered from `next` on.
    pub fn new(robot: Box<Robot>, trigger: Trigger, next: u64) -> Self {
        robot.live.set_state(LoopState::Inactive);
        Self {
            schedule: Schedule::new(trigger, robot.period),
            mode: Mode::Inactive,
            standing: Standing {
                state: LoopState::Inactive,
                reason: None,
            },
            complete: false,
            collected: None,
            earlier: 0,
            next,
            took: 0.0,
            probe: None,
            trigger,
            knows_unknown: false,
            reasoned: None,
            told: None,
            robot,
        }
    }

    /// Begins to command the robot, where it is ready.
    ///
    /// # Errors
    /// Why it is not; what was being done goes on.
    pub fn activate(&mut self, now: MonoTime) -> Result<(), NotReady> {
        self.robot.control.activate(&self.robot.states, now)?;
        self.schedule = Schedule::new(self.trigger, self.robot.period);
        self.earlier = self.next;
        self.mode = Mode::Active;
        self.told = None;
        // The first command answers the states that made it ready.
        self.complete = true;
        Ok(())
    }

    /// [`Running::activate`], which tells each reason against it once.
    pub fn try_to_start(&mut self, now: MonoTime, tell: &mut rtrb::Producer<LoopEvent>) -> bool {
        let event = match self.activate(now) {
            Ok(()) => LoopEvent::Activated,
            Err(not_ready) => {
                self.complete = false;
                let is_told = self.told.is_some_and(|told| told.is_like(&not_ready));
                self.told = Some(not_ready);
                if is_told {
                    return false;
                }
                LoopEvent::NotYetReady(not_ready)
            }
        };
        let is_active = self.mode == Mode::Active;
        let _ = tell.push(event);
        is_active
    }

    /// The fallback commands from the next deadline on; a robot that is not commanded stays so.
    pub fn halt(&mut self, tell: &mut rtrb::Producer<LoopEvent>) {
        self.robot.control.halt();
        if self.mode == Mode::Starting {
            self.rest();
            self.enter(LoopState::Inactive, tell);
        }
    }

    /// Begins to stop; `false` where nothing is commanded that could be stopped.
    pub fn begin_stop(&mut self, now: MonoTime) -> bool {
        let Some(stopping) = self.mode.stopped(now) else {
            self.rest();
            return false;
        };
        self.mode = stopping;
        true
    }

    /// Begins a probe at the next deadline.
    pub fn begin_probing(&mut self, probe: Box<Probe>) {
        self.schedule = Schedule::new(self.trigger, self.robot.period);
        self.mode = Mode::Probing {
            moves: probe.mode() == probe::Mode::Move,
        };
        self.probe = Some(probe);
        self.told = None;
        self.complete = true;
    }

    /// Commands nothing from now on; no deadline is to be waited for any more.
    pub fn rest(&mut self) {
        self.mode = Mode::Inactive;
        self.schedule = Schedule::new(self.trigger, self.robot.period);
        self.complete = false;
    }

    /// A robot that is activated again needs a new goal.
    pub fn forget_goal(&mut self) {
        self.robot.control.forget_goal();
        self.robot.live.set_goal(None);
    }

    /// Takes over other settings.
    pub fn tune(&mut self, tuning: &mut Tuning) {
        self.robot.states.set_stale_after(tuning.settings().stale_after);
        self.robot.control.tune(tuning);
    }

    /// Takes over a joint state.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn take_state(
        &mut self,
        message: &JointState,
        now: MonoTime,
        tell: &mut rtrb::Producer<LoopEvent>,
    ) -> Result<(), Refusal> {
        let states = &mut self.robot.states;
        states.apply(
            JointStateMessage {
                stamp: time::nanoseconds(&message.header.stamp),
                names: &message.name,
                positions: &message.position,
                velocities: &message.velocity,
            },
            now,
        )?;
        for joint in 0..states.names().len() {
            self.robot.live.set_received(joint, states.received(joint));
        }
        self.robot.live.set_backlog(states.longest_backlog());
        if !self.knows_unknown && states.unknown(&message.name).next().is_some() {
            self.knows_unknown = true;
            let names = states.unknown(&message.name).cloned().collect();
            let _ = tell.push(LoopEvent::UnknownJoints(names));
        }
        if states.all_collected() {
            states.start_collecting();
            self.robot.live.note_round(now);
            self.schedule.state_arrived(now);
            self.complete = true;
            self.collected.get_or_insert(now);
        }
        Ok(())
    }

    /// Is the one state that a wait of `waited` ns has brought the newest there is, from a single publisher?
    pub fn has_newest(&self, waited: u64) -> bool {
        self.schedule
            .is_newest(waited, self.robot.states.longest_backlog())
    }

    /// The loop begins to wait, for what woke it before asks for nothing any more: until when, where no state comes.
    pub fn begin_waiting(&mut self) -> Option<MonoTime> {
        self.collected = None;
        self.schedule.wake_at()
    }

    /// Where the tick begins that is due `now`.
    pub fn tick_begins(&self, now: MonoTime) -> MonoTime {
        self.trigger.begins(self.collected, now)
    }

    /// The loop is in a state that needs no reason.
    pub fn enter(&mut self, state: LoopState, tell: &mut rtrb::Producer<LoopEvent>) {
        self.note(self.standing.news(state, None, false), tell);
    }

    /// The node ends; has it commanded until now?
    pub fn end(&mut self, has_commanded: bool, tell: &mut rtrb::Producer<LoopEvent>) {
        let standing = Standing {
            state: LoopState::Stopped,
            reason: None,
        };
        let cause = if has_commanded { Cause::None } else { Cause::Idle };
        self.note(Some((standing, cause)), tell);
    }

    /// Is it time to tell the reason of a fallback anew? Where it is, it counts as told.
    pub fn is_reason_due(&mut self, now: MonoTime) -> bool {
        let is_due = self.reasoned.is_none_or(|at| now.since(at) >= REFRESH_EVERY);
        if is_due {
            self.reasoned = Some(now);
        }
        is_due
    }

    /// Notes a change of state or of its reason.
    pub fn note(&mut self, news: Option<(Standing, Cause)>, tell: &mut rtrb::Producer<LoopEvent>) {
        let Some((standing, cause)) = news else { return };
        if standing == self.standing {
            let _ = tell.push(LoopEvent::Reason(cause));
            return;
        }
        let falls = standing.state == LoopState::Fallback && self.standing.state != LoopState::Fallback;
        add(&self.robot.live.fallbacks, u64::from(falls));
        self.standing = standing;
        self.robot.live.set_state(standing.state);
        let _ = tell.push(LoopEvent::State(standing.state, cause));
    }
}

/// Limits how often a kind of refusal is told.
#[derive(Default)]
pub struct Refusals {
    last: [Option<MonoTime>; Refusal::KINDS],
    untold: [u64; Refusal::KINDS],
}

impl Refusals {
    /// Tells a refusal, unless one of its kind was told a moment ago.
    pub fn tell(&mut self, refusal: Refusal, now: MonoTime, tell: &mut rtrb::Producer<LoopEvent>) {
        let kind = refusal.kind();
        let (Some(last), Some(untold)) = (self.last.get_mut(kind), self.untold.get_mut(kind)) else {
            return;
        };
        if last.is_some_and(|last| now.since(last) < TELL_EVERY) {
            *untold += 1;
            return;
        }
        *last = Some(now);
        let untold = std::mem::take(untold);
        let _ = tell.push(LoopEvent::Refused { refusal, untold });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safety::Verdict;

    fn silent(joint: usize) -> Reason {
        let age = 300_000_000;
        Reason::States(Verdict::Stale { joint, age })
    }

    #[test]
    fn a_stop_that_is_asked_for_again_is_cut_no_later() {
        let at = |ms: u64| MonoTime::from_nanos(1_000_000 * ms);
        let stopping = Mode::Active.stopped(at(1_000));
        assert_eq!(stopping, Some(Mode::Stopping { began: at(1_000) }));
        let again = stopping.and_then(|mode| mode.stopped(at(4_500)));
        assert_eq!(again, stopping, "it began when it began");
        let by_probe = Mode::Probing { moves: true }.stopped(at(0));
        assert_eq!(by_probe, Some(Mode::Stopping { began: at(0) }));
        for idle in [Mode::Inactive, Mode::Starting, Mode::Probing { moves: false }] {
            assert_eq!(idle.stopped(at(0)), None, "{idle:?}");
        }
    }

    #[test]
    fn a_fallback_that_goes_on_tells_whose_fault_it_is_by_now() {
        let standing = Standing {
            state: LoopState::Fallback,
            reason: Some(silent(0).kind()),
        };
        let news = |reason: &Reason, is_due| standing.news(LoopState::Fallback, Some(reason), is_due);
        assert_eq!(news(&silent(1), false), None, "not at every tick");
        assert_eq!(
            news(&silent(1), true),
            Some((standing, Cause::of(&silent(1)))),
            "the standing is the same"
        );
        let stopped = news(&Reason::Stopped, false).map(|(standing, cause)| (standing.reason, cause));
        assert_eq!(
            stopped,
            Some((Some(Reason::Stopped.kind()), Cause::Stopped)),
            "another kind is told at once"
        );
        let active = Standing {
            state: LoopState::Active,
            reason: None,
        };
        assert_eq!(active.news(LoopState::Active, None, true), None);
    }
}
