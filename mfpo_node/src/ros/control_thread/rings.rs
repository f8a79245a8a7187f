//! The rings between the service and the control thread: orders in, events and what is no longer needed out. The control
//! thread waits on none of them, and frees nothing.

use std::sync::Arc;

use crate::control_loop::Tuning;
use crate::metrics::TickRecord;
use crate::probe::Probe;
use crate::pulse::Pulse;
use crate::status::LoopEvent;
use crate::weights::Policy;

use super::{ProbeEnd, Robot};

/// Orders that wait to be carried out, at most.
pub const MOST_ORDERS: usize = 8;
/// Things on their way to be freed, at most.
pub const MOST_RETIRED: usize = 64;
/// Room for them without which no order is carried out. One order retires a few, and what it brings retires later
/// once: at most the robot, its three policies and a probe live at a time.
const ROOM: usize = 16;

/// What the service tells the loop; each is carried out at a tick boundary.
pub enum Order {
    /// The first policy; it begins to act once the robot is ready where `autostart` says so.
    Start {
        /// What the robot needs.
        robot: Box<Robot>,
        /// Whether it is to begin by itself.
        autostart: bool,
    },
    /// A better policy.
    Swap(Box<Policy>),
    /// Back to the policy before.
    RollBack,
    /// Begin to command the robot; where it is not ready, refuse, or keep trying.
    Activate {
        /// Keep trying?
        persistent: bool,
    },
    /// Bring the robot to a stop, then command nothing.
    Deactivate,
    /// The fallback commands until [`Order::Resume`].
    Halt,
    /// The policy commands again.
    Resume,
    /// Other settings.
    Tune(Box<Tuning>),
    /// Probe the joints of a robot that is not commanded.
    Probe(Box<Probe>),
    /// Give up the robot.
    Forget,
}

/// What the loop no longer needs, to be freed on a thread that has time.
pub enum Retired {
    /// A policy that is no longer kept.
    Policy(Box<Policy>),
    /// A robot that was given up.
    Robot(Box<Robot>),
    /// Settings that others replaced.
    Tuning(Box<Tuning>),
    /// A probe that has ended, to be judged.
    Probe {
        /// With what it has seen.
        probe: Box<Probe>,
        /// How it ended.
        end: ProbeEnd,
    },
}

/// The loop's ends of the rings.
pub struct Rings {
    /// What to do.
    pub orders: rtrb::Consumer<Order>,
    /// What is no longer needed.
    pub retire: rtrb::Producer<Retired>,
    /// Events.
    pub tell: rtrb::Producer<LoopEvent>,
    /// What ticks took.
    pub record: rtrb::Producer<TickRecord>,
    /// That the loop comes round.
    pub pulse: Arc<Pulse>,
}

impl Rings {
    /// The next order, if what it retires has room. The service makes room whenever it has sent an order.
    pub(super) fn order(&mut self) -> Option<Order> {
        if self.orders.is_empty() || self.retire.slots() < ROOM {
            return None;
        }
        self.orders.pop().ok()
    }

    /// Hands it to the service. There is room for it (see [`Rings::order`]); were there none, it would stay in memory for
    /// good rather than be freed on the control thread.
    pub(in crate::ros) fn retire(&mut self, retired: Retired) {
        if let Err(rtrb::PushError::Full(retired)) = self.retire.push(retired) {
            std::mem::forget(retired);
        }
    }

    /// Tells the service; a full ring loses it.
    pub(in crate::ros) fn tell(&mut self, event: LoopEvent) {
        let _ = self.tell.push(event);
    }
}

#[cfg(test)]
mod tests {
    use rtrb::RingBuffer;

    use super::*;

    fn ordered(places: usize) -> Option<Order> {
        let (mut orders_in, orders) = RingBuffer::new(MOST_ORDERS);
        let (retire, _retired) = RingBuffer::new(places);
        let (tell, _events) = RingBuffer::new(1);
        let (record, _records) = RingBuffer::new(1);
        let mut rings = Rings {
            orders,
            retire,
            tell,
            record,
            pulse: Arc::default(),
        };
        assert!(rings.order().is_none(), "none was sent");
        assert!(orders_in.push(Order::Halt).is_ok());
        rings.order()
    }

    #[test]
    fn an_order_waits_until_what_it_retires_has_room() {
        assert!(ordered(ROOM - 1).is_none(), "a place is missing");
        assert!(matches!(ordered(ROOM), Some(Order::Halt)));
        assert!(matches!(ordered(MOST_RETIRED), Some(Order::Halt)));
    }
}
