//! The control thread: it spins its node inline, drains the joint states at every wake-up, and ticks. What it has to
//! tell goes into rings that it never waits on; policies arrive in a ring and leave in one, to be freed elsewhere.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mfpo_ros::{Inbox, qos, shutdown, time};

use super::messages::{CommandPublisher, Stamps, TickTimes, fill_action, fill_identity};
use super::r2r;
use r2r::mfpo_msgs::msg::PolicyAction;
use r2r::sensor_msgs::msg::JointState;

use crate::config::Config;
use crate::control_loop::{ControlLoop, Decision, Reason};
use crate::joint_states::{JointStateMessage, JointStates, Refusal};
use crate::metrics::{Live, LoopState, TickRecord, add};
use crate::safety::Verdict;
use crate::schedule::{Schedule, Trigger};
use crate::status::{Cause, LoopEvent};
use crate::time::MonoTime;
use crate::weights::Policy;

/// The longest wait, ns: how long a signal or a new policy may go unseen while nothing else happens.
const LONGEST_WAIT: u64 = 10_000_000;
/// A wait in the middleware ends this much before a deadline, ns; the exact rest is slept.
const MARGIN: u64 = 400_000;
/// Messages taken at one wake-up; more than the middleware's queue holds.
const MOST_MESSAGES: usize = 64;
/// Refusals of one kind are told once in this time, ns.
const TELL_EVERY: u64 = 1_000_000_000;
/// A stop that has not ended by then is ended, ns.
const LONGEST_STOP: u64 = 1_000_000_000;
/// The middleware has this long to deliver the last command.
const FLUSH: Duration = Duration::from_millis(150);

/// Everything that a robot needs; made off the control thread when its first policy is accepted.
pub struct Robot {
    /// The loop.
    pub control: ControlLoop,
    /// Its joints.
    pub states: JointStates,
    /// What it tells.
    pub live: Arc<Live>,
    /// The policy's period, ns.
    pub period: u64,
}

/// What the service tells the loop.
pub enum Order {
    /// The first policy.
    Start(Box<Robot>),
    /// A better one.
    Swap(Box<Policy>),
}

/// The loop's ends of the rings.
pub struct Rings {
    /// Policies that come.
    pub orders: rtrb::Consumer<Order>,
    /// Policies that go.
    pub retire: rtrb::Producer<Box<Policy>>,
    /// Events.
    pub tell: rtrb::Producer<LoopEvent>,
    /// What ticks took.
    pub record: rtrb::Producer<TickRecord>,
}

/// The control thread, before it runs.
pub struct ControlThread {
    node: r2r::Node,
    inbox: Inbox<JointState>,
    commands: CommandPublisher,
    actions: r2r::Publisher<PolicyAction>,
    action: PolicyAction,
    stamps: Stamps,
    rings: Rings,
    trigger: Trigger,
    candidates: usize,
    realtime_priority: u64,
    running: Option<Running>,
    refusals: Refusals,
}

struct Running {
    robot: Box<Robot>,
    schedule: Schedule,
    state: LoopState,
    /// Every joint has reported since the last tick.
    complete: bool,
    knows_unknown: bool,
}

/// Limits how often a kind of refusal is told.
#[derive(Default)]
struct Refusals {
    last: [Option<MonoTime>; Refusal::KINDS],
    untold: [u64; Refusal::KINDS],
}

impl ControlThread {
    /// Announces the topics.
    ///
    /// # Errors
    /// When rcl refuses one.
    pub fn new(mut node: r2r::Node, config: &Config, rings: Rings, stamps: Stamps) -> anyhow::Result<Self> {
        let inbox = Inbox::subscribe(&mut node, "joint_states", qos::JOINT_STATES)?;
        let commands = CommandPublisher::new(&mut node, config.command_topic)
            .context("creating the publisher of commands")?;
        let actions = node
            .create_publisher("policy/action", qos::POLICY_ACTION)
            .context("creating the publisher of policy/action")?;
        Ok(Self {
            node,
            inbox,
            commands,
            actions,
            action: PolicyAction::default(),
            stamps,
            rings,
            trigger: config.trigger,
            candidates: config.candidates,
            realtime_priority: config.realtime_priority,
            running: None,
            refusals: Refusals::default(),
        })
    }

    /// Until the process is asked to end; the robot then has its last safe command.
    pub fn run(mut self) {
        precise_timers();
        if self.realtime_priority > 0 {
            go_realtime(self.realtime_priority);
        }
        let ended = catch_unwind(AssertUnwindSafe(|| {
            while !shutdown::requested() {
                self.wait();
                self.take_orders();
                self.tick_if_due();
            }
        }));
        self.stop();
        if let Err(panic) = ended {
            resume_unwind(panic);
        }
    }

    /// Waits for a state or a deadline, whichever the trigger asks for, and takes over the states that came.
    fn wait(&mut self) {
        let wake_at = self.running.as_ref().and_then(|r| r.schedule.wake_at());
        let now = MonoTime::now();
        let exact = wake_at.filter(|at| at.since(now) <= MARGIN);
        if let Some(deadline) = exact {
            if self.trigger == Trigger::FixedRate {
                deadline.sleep_until();
                self.drain();
                return;
            }
            self.spin(deadline.since(now));
            return;
        }
        let left = wake_at.map_or(LONGEST_WAIT, |at| at.since(now) - MARGIN);
        self.spin(left.min(LONGEST_WAIT));
    }

    /// Waits for a message, then takes over all that are there.
    fn spin(&mut self, longest: u64) {
        self.node.spin_once(Duration::from_nanos(longest));
        if self.take_states() > 0 {
            self.drain();
        }
    }

    fn drain(&mut self) {
        for _ in 0..MOST_MESSAGES {
            self.node.spin_once(Duration::ZERO);
            if self.take_states() == 0 {
                return;
            }
        }
    }

    fn take_states(&mut self) -> usize {
        let mut taken = 0;
        while let Some(message) = self.inbox.pop() {
            taken += 1;
            let now = MonoTime::now();
            let Some(running) = &mut self.running else {
                continue;
            };
            if let Err(refusal) = running.take_state(&message, now, &mut self.rings.tell) {
                add(&running.robot.live.refused_states, 1);
                self.refusals.tell(refusal, now, &mut self.rings.tell);
            }
        }
        taken
    }

    /// A tick boundary: policies that have arrived go live.
    fn take_orders(&mut self) {
        while let Ok(order) = self.rings.orders.pop() {
            match (order, &mut self.running) {
                (Order::Start(robot), running) => {
                    self.commands.prepare(robot.control.slot().current().spec());
                    *running = Some(Running::new(robot, self.trigger));
                    self.went_live(false);
                }
                (Order::Swap(policy), Some(running)) => {
                    let freed = running.robot.control.slot_mut().swap(policy);
                    add(&running.robot.live.swaps, 1);
                    if let Some(policy) = freed {
                        // A full ring would free the policy here; the service empties it 50 times a second.
                        let _ = self.rings.retire.push(policy);
                    }
                    self.went_live(true);
                }
                // The service sends the robot first.
                (Order::Swap(_), None) => {}
            }
        }
    }

    fn went_live(&mut self, is_swap: bool) {
        let Some(running) = &self.running else { return };
        let slot = running.robot.control.slot();
        fill_identity(&mut self.action, slot.current().identity(), self.candidates);
        let _ = self.rings.tell.push(LoopEvent::WentLive {
            current: Arc::clone(slot.current().identity()),
            previous: slot.previous().map(|p| Arc::clone(p.identity())),
            is_swap,
        });
        if !is_swap {
            let _ = self
                .rings
                .tell
                .push(LoopEvent::State(LoopState::WaitingForStates, Cause::None));
        }
    }

    fn tick_if_due(&mut self) {
        let taken = MonoTime::now();
        let Some(running) = &mut self.running else { return };
        if !running.schedule.is_due(taken, running.complete) {
            return;
        }
        let arrived = std::mem::take(&mut running.complete);
        let Robot {
            control,
            states,
            live,
            ..
        } = &mut *running.robot;
        let (state, cause) = match control.step(states, taken) {
            Decision::Wait(reason) => (LoopState::WaitingForStates, cause_if_new(running.state, &reason)),
            Decision::Command(tick) => {
                let decided = MonoTime::now();
                let sent = self.commands.publish(tick.command).is_ok();
                let handed_over = MonoTime::now();
                let deadline = running.schedule.serve(taken, arrived);
                let is_fallback = tick.fallback.is_some();
                let missed = if sent {
                    deadline.missed(handed_over, is_fallback)
                } else {
                    deadline.missed_without_command()
                };
                add(&live.ticks, 1 + deadline.skipped);
                add(&live.missed_ticks, missed);
                add(&live.fallback_ticks, u64::from(is_fallback));
                add(&live.interventions, u64::from(tick.command.interventions() > 0));
                let record = TickRecord {
                    handed_over,
                    latency: handed_over.since(taken),
                };
                add(
                    &live.lost_records,
                    u64::from(self.rings.record.push(record).is_err()),
                );
                let times = TickTimes {
                    sequence: deadline.index,
                    oldest: states.oldest().unwrap_or((0, taken)),
                    taken,
                    decided,
                };
                fill_action(&mut self.action, &tick, &times);
                self.action.stamp = self.stamps.now();
                // A record that is not taken is no reason to stop commanding; rcl has logged it.
                let _ = self.actions.publish(&self.action);
                match &tick.fallback {
                    None => (LoopState::Active, Cause::None),
                    Some(reason) => (LoopState::Fallback, cause_if_new(running.state, reason)),
                }
            }
        };
        running.enter(state, cause, &mut self.rings.tell);
    }

    /// Brings the robot to its last safe command and gives the middleware time to deliver it.
    fn stop(&mut self) {
        let began = MonoTime::now();
        if let Some(running) = &mut self.running {
            let mut next = began;
            while let Some((command, there)) = running.robot.control.stop() {
                // Nothing is left to do about a command that is not taken: the robot's own timeout has to act.
                let _ = self.commands.publish(command);
                if there || next.since(began) > LONGEST_STOP {
                    std::thread::sleep(FLUSH);
                    break;
                }
                next = next.plus(running.robot.period);
                next.sleep_until();
            }
            running.enter(LoopState::Stopped, Cause::None, &mut self.rings.tell);
        }
    }
}

impl Running {
    fn new(robot: Box<Robot>, trigger: Trigger) -> Self {
        robot.live.set_state(LoopState::WaitingForStates);
        Self {
            schedule: Schedule::new(trigger, robot.period),
            state: LoopState::WaitingForStates,
            complete: false,
            knows_unknown: false,
            robot,
        }
    }

    fn take_state(
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
        if !self.knows_unknown && states.unknown(&message.name).next().is_some() {
            self.knows_unknown = true;
            let names = states.unknown(&message.name).cloned().collect();
            let _ = tell.push(LoopEvent::UnknownJoints(names));
        }
        if states.all_collected() {
            states.start_collecting();
            self.schedule.state_arrived(now);
            self.complete = true;
        }
        Ok(())
    }

    /// Notes a change of state; the loop tells only changes.
    fn enter(&mut self, state: LoopState, cause: Cause, tell: &mut rtrb::Producer<LoopEvent>) {
        if state != self.state {
            self.state = state;
            self.robot.live.set_state(state);
            let _ = tell.push(LoopEvent::State(state, cause));
        }
    }
}

impl Refusals {
    fn tell(&mut self, refusal: Refusal, now: MonoTime, tell: &mut rtrb::Producer<LoopEvent>) {
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

/// The cause in words, where the state has just changed: nothing is put into words at every tick.
fn cause_if_new(state: LoopState, reason: &Reason) -> Cause {
    match reason {
        Reason::States(verdict) => Cause::States(*verdict),
        Reason::Policy(_) if matches!(state, LoopState::Fallback) => Cause::States(Verdict::Fresh),
        Reason::Policy(error) => Cause::Policy(error.to_string()),
    }
}

/// Puts this thread before every ordinary one; where that is not permitted, says what to do and goes on without.
fn go_realtime(priority: u64) {
    let parameters = libc::sched_param {
        sched_priority: i32::try_from(priority).unwrap_or(1),
    };
    // SAFETY: the pointer is valid for the call; 0 is the calling thread. A failure changes nothing.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) };
    if result == 0 {
        tracing::info!("the control thread runs with real-time priority {priority}");
        return;
    }
    tracing::warn!(
        "real-time priority {priority} is not permitted ({}); going on without. To permit it, write the line \
         '@realtime - rtprio 98' to /etc/security/limits.d/realtime.conf, add the user to the group realtime, and log \
         in again",
        std::io::Error::last_os_error()
    );
}

/// Asks the kernel to end this thread's sleeps on time, not up to 50 us later.
fn precise_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes a number and concerns only the calling thread; a failure changes nothing.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
}
