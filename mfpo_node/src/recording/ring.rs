//! The way of a tick from the control thread to the recorder: slots that are made beforehand travel back and forth
//! between two rings. The control thread copies into a slot and never waits, allocates or frees; where no slot is free
//! the tick is left out and counted. Its end keeps no policy: each slot takes its own share of those that the loop holds at
//! that moment, and the reader gives it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mfpo_policy::sampler::Depth;
use mfpo_policy::spec::RobotSpec;
use rtrb::{Consumer, Producer, RingBuffer};

use super::tick::{Stamp, TickMessage, fallback_code};
use crate::control_loop::{Before, ControlLoop, Tick};
use crate::safety::{Rule, SafeCommand};
use crate::time::MonoTime;
use crate::weights::PolicyIdentity;

/// The recorder may be this far behind, s: a disk that hesitates for a moment loses nothing.
const SLACK: f64 = 4.0;
/// Slots, whatever the rate.
const SLOTS: std::ops::RangeInclusive<usize> = 256..=8192;

/// What of a tick the loop itself does not know.
#[derive(Debug, Clone, Copy)]
pub struct TickContext {
    /// Number of the deadline.
    pub sequence: u64,
    /// When the command was handed over, on the node's clock, ns.
    pub stamp: i64,
    /// Stamp of the oldest joint state in use, ns, and its arrival.
    pub oldest: (i64, MonoTime),
    /// When the states were taken.
    pub taken: MonoTime,
    /// When the command was ready.
    pub decided: MonoTime,
    /// When it was with rmw.
    pub handed_over: MonoTime,
    /// Deadlines that were missed with it.
    pub missed: u64,
}

/// One tick, in memory that is used again.
#[derive(Debug)]
pub struct Slot {
    context: TickContext,
    policy: Option<Arc<PolicyIdentity>>,
    previous: Option<Arc<PolicyIdentity>>,
    asked: Option<(u64, Depth)>,
    before: Option<Before>,
    observation: Box<[f32]>,
    action: Box<[f32]>,
    raw: Box<[f64]>,
    command: Box<[f64]>,
    rules: Box<[Option<Rule>]>,
    blend: f64,
    fallback: u8,
}

impl Slot {
    fn new(spec: &RobotSpec) -> Self {
        let never = MonoTime::from_nanos(0);
        let size = spec.action_size();
        Self {
            context: TickContext {
                sequence: 0,
                stamp: 0,
                oldest: (0, never),
                taken: never,
                decided: never,
                handed_over: never,
                missed: 0,
            },
            policy: None,
            previous: None,
            asked: None,
            before: None,
            observation: vec![0.0; spec.observation_size()].into(),
            action: vec![0.0; size].into(),
            raw: vec![0.0; size].into(),
            command: vec![0.0; size].into(),
            rules: vec![None; size].into(),
            blend: 0.0,
            fallback: 0,
        }
    }

    /// When its command was with rmw.
    pub fn handed_over(&self) -> MonoTime {
        self.context.handed_over
    }

    /// The policy that acted, and the one that it was taking over from.
    pub fn policies(&self) -> [Option<&Arc<PolicyIdentity>>; 2] {
        [self.policy.as_ref(), self.previous.as_ref()]
    }

    /// As it is recorded.
    pub fn message(&self) -> TickMessage {
        let context = &self.context;
        let policy = self.policy.as_deref();
        let seconds = |nanoseconds: u64| nanoseconds as f64 * 1e-9;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (draw, depth) = self.asked.unzip();
        let before = self.before.map(|before| before.depth);
        TickMessage {
            stamp: Stamp::of(context.stamp),
            sequence: context.sequence,
            state_stamp: Stamp::of(context.oldest.0),
            state_age: seconds(context.taken.since(context.oldest.1)),
            run: policy.map(|p| p.run.clone()).unwrap_or_default(),
            version: policy.map(|p| p.version).unwrap_or_default(),
            digest: policy.map(|p| p.digest.clone()).unwrap_or_default(),
            previous_digest: self
                .previous
                .as_ref()
                .map(|p| p.digest.clone())
                .unwrap_or_default(),
            policy_weight: self.before.map_or(1.0, |before| before.weight),
            observation: depth.map(|_| self.observation.to_vec()).unwrap_or_default(),
            draw: draw.unwrap_or_default(),
            steps: depth.map_or(0, |depth| count(depth.steps)),
            candidates: depth.map_or(0, |depth| count(depth.candidates)),
            in_stages: depth.is_some_and(|depth| depth.in_stages),
            previous_steps: before.map_or(0, |depth| count(depth.steps)),
            previous_candidates: before.map_or(0, |depth| count(depth.candidates)),
            previous_in_stages: before.is_some_and(|depth| depth.in_stages),
            action: self.action.to_vec(),
            command_raw: self.raw.to_vec(),
            command: self.command.to_vec(),
            rules: self
                .rules
                .iter()
                .map(|rule| rule.map_or(0, |r| r as u8 + 1))
                .collect(),
            blend: self.blend,
            fallback: self.fallback,
            compute_time: seconds(context.decided.since(context.taken)),
            latency: seconds(context.handed_over.since(context.taken)),
            missed: u32::try_from(context.missed).unwrap_or(u32::MAX),
        }
    }
}

/// The control thread's end.
#[derive(Debug)]
pub struct TickTap {
    free: Consumer<Box<Slot>>,
    filled: Producer<Box<Slot>>,
    lost: Arc<AtomicU64>,
}

/// The recorder's end.
#[derive(Debug)]
pub struct TickStream {
    filled: Consumer<Box<Slot>>,
    free: Producer<Box<Slot>>,
    lost: Arc<AtomicU64>,
}

/// Both ends, with slots that fit the robot.
pub fn tick_ring(spec: &RobotSpec) -> (TickTap, TickStream) {
    let slots = ((SLACK / spec.control_period()) as usize).clamp(*SLOTS.start(), *SLOTS.end());
    let (filled, to_read) = RingBuffer::new(slots);
    let (mut back, free) = RingBuffer::new(slots);
    for _ in 0..slots {
        // There is room for every one.
        let _ = back.push(Box::new(Slot::new(spec)));
    }
    let lost = Arc::new(AtomicU64::new(0));
    let tap = TickTap {
        free,
        filled,
        lost: Arc::clone(&lost),
    };
    let stream = TickStream {
        filled: to_read,
        free: back,
        lost,
    };
    (tap, stream)
}

impl TickTap {
    /// Notes a tick.
    pub fn note(&mut self, tick: &Tick<'_>, context: TickContext) {
        self.fill(context, tick.policy, tick.command, |slot| {
            slot.previous = tick.previous.cloned();
            slot.asked = tick.asked.map(|asked| (asked.draw, asked.depth));
            slot.before = tick.asked.and_then(|asked| asked.before);
            if let Some(asked) = tick.asked {
                copy(&mut slot.observation, asked.observation);
            }
            copy(&mut slot.action, tick.action);
            copy(&mut slot.raw, tick.raw);
            slot.blend = tick.blend;
            slot.fallback = fallback_code(tick.fallback.as_ref());
        });
    }

    /// Notes the last command of a loop, which is neither the policy's nor the fallback's: of a stop or, with what the probe
    /// wanted, of a probe.
    pub fn note_other(
        &mut self,
        code: u8,
        control: &ControlLoop,
        wanted: Option<&[f64]>,
        context: TickContext,
    ) {
        let Some(command) = control.commanded() else {
            return;
        };
        self.fill(context, control.slot().current().identity(), command, |slot| {
            (slot.asked, slot.before) = (None, None);
            slot.action.fill(0.0);
            copy(&mut slot.raw, wanted.unwrap_or(command.values()));
            slot.blend = 0.0;
            slot.fallback = code;
        });
    }

    fn fill(
        &mut self,
        context: TickContext,
        policy: &Arc<PolicyIdentity>,
        command: &SafeCommand,
        rest: impl FnOnce(&mut Slot),
    ) {
        let Ok(mut slot) = self.free.pop() else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        slot.context = context;
        // A slot that was read names none: nothing is freed here.
        slot.policy = Some(Arc::clone(policy));
        copy(&mut slot.command, command.values());
        copy(&mut slot.rules, command.rules());
        rest(&mut slot);
        // As many slots as places: there is room.
        let _ = self.filled.push(slot);
    }
}

/// Copies without any way to fail; the sizes are those of the robot.
fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

impl TickStream {
    /// Ticks that wait to be read.
    pub fn waiting(&self) -> usize {
        self.filled.slots()
    }

    /// Reads the oldest tick that waits and makes its slot free again.
    pub fn read<R>(&mut self, read: impl FnOnce(&Slot) -> R) -> Option<R> {
        let mut slot = self.filled.pop().ok()?;
        let result = read(&slot);
        (slot.policy, slot.previous) = (None, None);
        let _ = self.free.push(slot);
        Some(result)
    }

    /// Ticks that found no free slot since this was asked last.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Has the control loop given up this robot, and is everything read?
    pub fn has_ended(&self) -> bool {
        self.filled.is_abandoned() && self.filled.is_empty()
    }
}
