//! The control thread: it spins its node inline, drains the joint states at every wake-up, and ticks. What it has to
//! tell goes into rings that it never waits on; policies arrive in a ring and leave in one, to be freed elsewhere.

mod clock;
mod ending;
mod goals;
mod probing;
mod rings;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mfpo_ros::{Inbox, qos, shutdown, time};

use super::messages::{CommandPublisher, Receivers, Stamps, TickTimes, fill_action, fill_stop};
use super::publishers::SeveralSources;
use super::qos_overrides::{End, Overrides};
use super::r2r;
use r2r::geometry_msgs::msg::PointStamped;
use r2r::mfpo_msgs::msg::PolicyAction;
use r2r::sensor_msgs::msg::JointState;
use r2r::std_msgs::msg::Bool;

use super::running::{Mode, Refusals, Running};
use super::subscribers::Audience;
use clock::ClockTopic;
pub use probing::ProbeEnd;
pub use rings::{MOST_ORDERS, MOST_RETIRED, Order, Retired, Rings};

use crate::config::Config;
use crate::control_loop::{ControlLoop, Decision};
use crate::joint_states::JointStates;
use crate::metrics::{Live, LoopState, TickRecord, add};
use crate::realtime::Realtime;
use crate::recording::tick::STOPPING;
use crate::recording::{TickContext, TickTap};
use crate::schedule::Trigger;
use crate::status::{Cause, LoopEvent};
use crate::time::MonoTime;

/// The longest wait, ns: how long a signal or a new policy may go unseen while nothing else happens.
const LONGEST_WAIT: u64 = 10_000_000;
/// A wait in the middleware ends this much before a deadline, ns; the exact rest is slept.
const MARGIN: u64 = 400_000;
/// Messages taken at one wake-up; more than the middleware's queue holds.
const MOST_MESSAGES: usize = 64;
/// A stop that has not ended by then is cut, ns: whoever ends this process waits no longer than 5 s.
const LONGEST_STOP: u64 = 4_000_000_000;

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
    /// Where its ticks are recorded.
    pub tap: Option<TickTap>,
}

impl Robot {
    /// Records the command of a stop or of a probe, and what the probe wanted.
    fn record_other(&mut self, code: u8, wanted: Option<&[f64]>, context: TickContext) {
        if let Some(tap) = &mut self.tap {
            tap.note_other(code, &self.control, wanted, context);
        }
    }
}

/// The control thread, before it runs.
pub struct ControlThread {
    node: r2r::Node,
    inbox: Inbox<JointState>,
    several_sources: SeveralSources,
    /// Simulated time, where the node goes by it.
    clock: Option<ClockTopic>,
    /// The heartbeat, where one is needed.
    enable: Option<Inbox<Bool>>,
    goals: Inbox<PointStamped>,
    /// When a refused goal was told last.
    goal_refused: Option<MonoTime>,
    commands: CommandPublisher,
    actions: r2r::Publisher<PolicyAction>,
    pub(super) action: PolicyAction,
    stamps: Stamps,
    pub(super) rings: Rings,
    trigger: Trigger,
    realtime: Realtime,
    pub(super) running: Option<Running>,
    /// Records of robots that were given up.
    records: u64,
    refusals: Refusals,
}

impl ControlThread {
    /// Announces the topics.
    ///
    /// # Errors
    /// When rcl refuses one.
    pub fn new(
        mut node: r2r::Node,
        config: &Config,
        rings: Rings,
        (stamps, overrides): (Stamps, &mut Overrides),
    ) -> anyhow::Result<Self> {
        let inbox = overrides.subscribe(&mut node, "joint_states", qos::JOINT_STATES)?;
        let clock = ClockTopic::subscribe(&mut node, &stamps, overrides)?;
        let enable = if config.settings.enable_timeout > 0 {
            Some(overrides.subscribe(&mut node, "enable", qos::ENABLE)?)
        } else {
            None
        };
        let goals = overrides.subscribe(&mut node, "goal", qos::GOAL)?;
        let commands = if config.dry_run {
            overrides.profile("commands", End::Publisher, qos::COMMANDS)?;
            CommandPublisher::Nothing
        } else {
            let kind = config.command_topic.kind();
            let commands = overrides.offer(&node, "commands", (qos::COMMANDS, kind), Audience::Robot)?;
            CommandPublisher::new(&mut node, config.command_topic, commands)
                .context("creating the publisher of commands")?
        };
        let records = (qos::POLICY_ACTION, "mfpo_msgs/msg/PolicyAction");
        let actions = overrides.offer(&node, "policy/action", records, Audience::Anybody)?;
        let actions = node
            .create_publisher("policy/action", actions)
            .context("creating the publisher of policy/action")?;
        Ok(Self {
            node,
            inbox,
            several_sources: SeveralSources::default(),
            clock,
            enable,
            goals,
            goal_refused: None,
            commands,
            actions,
            action: PolicyAction {
                dry_run: config.dry_run,
                ..PolicyAction::default()
            },
            stamps,
            rings,
            trigger: config.trigger,
            realtime: config.realtime.clone(),
            running: None,
            records: 0,
            refusals: Refusals::default(),
        })
    }

    /// From now on it is known whether several publishers report joints.
    pub fn heed(&mut self, several_sources: SeveralSources) {
        self.several_sources = several_sources;
    }

    /// Who receives the commands.
    pub fn receivers(&self) -> Receivers {
        self.commands.receivers()
    }

    /// Until the process is asked to end; the robot then has its last safe command.
    pub fn run(mut self) {
        self.realtime.set_up();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            while !shutdown::requested() {
                self.rings.pulse.beat(MonoTime::now());
                self.wait();
                self.take_orders();
                self.tick_if_due();
            }
        }));
        let stopped = self.stop(ended.is_err());
        if stopped.is_ok() {
            // The robot has what it is to have; to destroy the node may take any time.
            self.rings.pulse.finish(MonoTime::now());
        }
        if let Err(panic) = ended.and(stopped) {
            // To destroy the node needs what the panic may have left locked; a second one would end the process at once.
            std::mem::forget(self);
            resume_unwind(panic);
        }
    }

    /// Waits for a state or a deadline, whichever the trigger asks for, and takes over the states that came.
    fn wait(&mut self) {
        let running = self.running.as_mut();
        let wake_at = running.and_then(Running::begin_waiting);
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

    /// Waits for a message, then takes over all that are there. To ask the middleware whether there are more costs as much as
    /// a tick, between the state and its command: it is not asked where none can be.
    fn spin(&mut self, longest: u64) {
        let began = MonoTime::now();
        self.node.spin_once(Duration::from_nanos(longest));
        let waited = MonoTime::now().since(began);
        let taken = self.take_states();
        let is_newest = self.running.as_ref().is_some_and(|running| {
            taken == 1 && !self.several_sources.are_there() && running.has_newest(waited)
        });
        if taken > 0 && !is_newest {
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
        if let Some(clock) = &mut self.clock {
            clock.take();
        }
        self.take_heartbeats();
        self.take_goals();
        while let Some(message) = self.inbox.pop() {
            taken += 1;
            let now = MonoTime::now();
            let Some(running) = &mut self.running else {
                continue;
            };
            let states = &mut running.robot.states;
            states.set_several_sources(self.several_sources.are_there());
            states.set_system_ahead(time::system_nanoseconds().saturating_sub(now.nanos().cast_signed()));
            if let Err(refusal) = running.take_state(&message, now, &mut self.rings.tell) {
                add(&running.robot.live.refused_states, 1);
                self.refusals.tell(refusal, now, &mut self.rings.tell);
            }
        }
        taken
    }

    fn take_heartbeats(&mut self) {
        let Some(enable) = &mut self.enable else { return };
        while let Some(heartbeat) = enable.pop() {
            if let Some(running) = &mut self.running {
                let now = MonoTime::now();
                running.robot.control.heard_enable(heartbeat.data, now);
                running.robot.live.set_heartbeat(heartbeat.data, now);
            }
        }
    }

    /// A tick boundary: orders that have arrived are carried out.
    fn take_orders(&mut self) {
        while let Some(order) = self.rings.order() {
            self.carry_out(order);
        }
    }

    fn carry_out(&mut self, order: Order) {
        let now = MonoTime::now();
        let Some(running) = &mut self.running else {
            // The service sends the robot first, and nothing to one that is given up.
            if let Order::Probe(probe) = order {
                self.begin_probe(probe, now);
            } else if let Order::Start { robot, autostart } = order {
                self.commands.prepare(robot.control.slot().current().spec());
                self.running = Some(Running::new(robot, self.trigger, self.records));
                self.went_live(false, None);
                self.begin_trying(autostart);
            }
            return;
        };
        match order {
            Order::Start { robot, .. } => self.rings.retire(Retired::Robot(robot)),
            Order::Swap(policy) => self.begin_swap(policy),
            Order::RollBack => self.roll_back(),
            Order::Activate { persistent: true } => self.begin_trying(true),
            Order::Activate { .. } if running.mode == Mode::Active => self.rings.tell(LoopEvent::Activated),
            Order::Activate { persistent: false } => {
                let event = match running.activate(now) {
                    Ok(()) => LoopEvent::Activated,
                    Err(not_ready) => LoopEvent::NotReady(not_ready),
                };
                self.rings.tell(event);
            }
            Order::Resume => {
                let Robot { control, states, .. } = &mut *running.robot;
                let stage = control.stage();
                let event = match control.resume(states, now) {
                    Ok(()) => LoopEvent::Resumed,
                    Err(not_ready) => LoopEvent::NotReady(not_ready),
                };
                self.rings.tell(event);
                self.note_cut(stage);
            }
            Order::Probe(probe) => self.begin_probe(probe, now),
            Order::Halt => {
                running.halt(&mut self.rings.tell);
                self.end_probe(ProbeEnd::Hindered(Cause::Stopped), now);
                self.rings.tell(LoopEvent::Halted);
            }
            Order::Deactivate => {
                if running.mode.is_probing() {
                    self.end_probe(ProbeEnd::Overtaken, now);
                    return self.carry_out(Order::Deactivate);
                }
                if running.begin_stop(now) {
                    return;
                }
                running.forget_goal();
                running.enter(LoopState::Inactive, &mut self.rings.tell);
                self.rings.tell(LoopEvent::Deactivated);
            }
            Order::Tune(mut tuning) => {
                running.tune(&mut tuning);
                self.rings.retire(Retired::Tuning(tuning));
            }
            Order::Forget => {
                if let Some(running) = self.running.take() {
                    self.records = running.next;
                    self.rings.retire(Retired::Robot(running.robot));
                }
            }
        }
    }

    /// From now on the robot is commanded as soon as it is ready.
    fn begin_trying(&mut self, is_wanted: bool) {
        let Some(running) = &mut self.running else { return };
        if is_wanted && running.mode == Mode::Inactive {
            running.mode = Mode::Starting;
            running.enter(LoopState::WaitingForStates, &mut self.rings.tell);
        }
    }

    fn tick_if_due(&mut self) {
        let now = MonoTime::now();
        let Some(running) = &mut self.running else { return };
        match running.mode {
            Mode::Inactive => running.complete = false,
            Mode::Starting if running.complete => {
                if running.try_to_start(now, &mut self.rings.tell) {
                    self.tick(now);
                }
            }
            Mode::Starting => {}
            Mode::Active if running.schedule.is_due(now, running.complete) => {
                self.tick(now);
                self.after_tick();
            }
            Mode::Active => {}
            Mode::Probing { .. } if running.schedule.is_due(now, running.complete) => {
                self.step_of_a_probe(now)
            }
            Mode::Probing { .. } => {}
            Mode::Stopping { began } if running.schedule.is_due(now, running.complete) => {
                self.step_of_a_stop(now, began);
            }
            Mode::Stopping { .. } => {}
        }
    }

    fn tick(&mut self, now: MonoTime) {
        let Some(running) = &mut self.running else { return };
        let arrived = std::mem::take(&mut running.complete);
        let taken = running.tick_begins(now);
        let is_due = running.is_reason_due(now);
        let Robot {
            control,
            states,
            live,
            tap,
            ..
        } = &mut *running.robot;
        let standing = running.standing;
        let news = match control.step_since(states, taken, now) {
            Decision::Wait(reason) => standing.news(LoopState::WaitingForStates, Some(&reason), is_due),
            Decision::Command(tick) => {
                let decided = MonoTime::now();
                let sent = self.commands.publish(tick.command).is_ok();
                let handed_over = MonoTime::now();
                let deadline = running.schedule.serve(now, arrived);
                let is_fallback = tick.fallback.is_some();
                let missed = if sent {
                    deadline.missed(handed_over, is_fallback)
                } else {
                    deadline.missed_without_command()
                };
                add(&live.ticks, 1 + deadline.skipped);
                add(&live.missed_ticks, missed);
                add(&live.fallback_ticks, u64::from(is_fallback));
                live.count_interventions(tick.command);
                live.set_guard_signals(&tick.signals);
                let record = TickRecord {
                    taken,
                    handed_over,
                    latency: handed_over.since(taken),
                    depth: tick.asked.map(|asked| asked.depth),
                };
                add(
                    &live.lost_records,
                    u64::from(self.rings.record.push(record).is_err()),
                );
                let times = TickTimes {
                    sequence: running.earlier + deadline.index,
                    oldest: states.oldest().unwrap_or((0, taken)),
                    taken,
                    decided,
                    handed_over,
                };
                running.next = times.sequence + 1;
                running.took = decided.since(now) as f64 * 1e-9;
                fill_action(&mut self.action, &tick, &times);
                self.action.stamp = self.stamps.now();
                // A record that is not taken is no reason to stop commanding; rcl has logged it.
                let _ = self.actions.publish(&self.action);
                if let Some(tap) = tap {
                    let context = TickContext {
                        sequence: times.sequence,
                        stamp: time::nanoseconds(&self.action.stamp),
                        oldest: times.oldest,
                        taken,
                        decided,
                        handed_over,
                        missed,
                    };
                    tap.note(&tick, context);
                }
                match &tick.fallback {
                    None => standing.news(LoopState::Active, None, is_due),
                    reason => standing.news(LoopState::Fallback, reason.as_ref(), is_due),
                }
            }
        };
        running.note(news, &mut self.rings.tell);
    }

    /// One command on the way from active to inactive.
    fn step_of_a_stop(&mut self, now: MonoTime, began: MonoTime) {
        let Some(running) = &mut self.running else { return };
        running.complete = false;
        running.schedule.serve(now, false);
        if !self.send_stop(now, began) {
            return;
        }
        let Some(running) = &mut self.running else { return };
        running.rest();
        running.forget_goal();
        running.enter(LoopState::Inactive, &mut self.rings.tell);
        self.end_stages();
        self.rings.tell(LoopEvent::Deactivated);
    }

    /// Sends the next command of a stop that `began` then; is it over?
    fn send_stop(&mut self, now: MonoTime, began: MonoTime) -> bool {
        let Some(running) = &mut self.running else {
            return true;
        };
        let Robot { control, states, .. } = &mut *running.robot;
        let is_too_long = now.since(began) > LONGEST_STOP;
        let step = if is_too_long {
            self.rings.tell(LoopEvent::StopCut(LONGEST_STOP));
            control.cut_stop().map(|command| (command, true))
        } else {
            control.stop(states, now)
        };
        let Some((command, there)) = step else { return true };
        // Nothing is left to do about a command that is not taken: the robot's own timeout has to act.
        let _ = self.commands.publish(command);
        fill_stop(&mut self.action, command, running.next);
        running.next += 1;
        self.action.stamp = self.stamps.now();
        let _ = self.actions.publish(&self.action);
        let context = other_context(&self.action, now);
        running.robot.record_other(STOPPING, None, context);
        there
    }
}

/// When a command of a stop or of a probe was sent, for the recording.
fn other_context(sent: &PolicyAction, now: MonoTime) -> TickContext {
    TickContext {
        sequence: sent.sequence,
        stamp: time::nanoseconds(&sent.stamp),
        oldest: (time::nanoseconds(&sent.state_stamp), now),
        taken: now,
        decided: now,
        handed_over: now,
        missed: 0,
    }
}
