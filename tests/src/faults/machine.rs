//! Whether the machine kept time while a fault was injected: what threads that only sleep tell of it, and what the kernel tells
//! of the control thread, which may have been ready and had no core.

use std::fmt;
use std::time::Duration;

use crate::run_delay::{LongestWait, RunDelay};
use crate::{Process, Witness};

/// The control period of the robots here.
const PERIOD: Duration = Duration::from_millis(20);
/// A tick is left out when the control thread comes a whole period late. A tick itself takes it less than the rest of that.
const LOSES_A_TICK: Duration = Duration::from_millis(18);
/// So much work a core, over the last minute, leaves no program the time that it needs.
const MOST_LOAD: f64 = 1.5;

/// Looks on while a row runs.
pub struct Machine {
    witness: Witness,
    control: LongestWait,
}

impl Machine {
    /// From now on; the node's control thread until the node is started again.
    pub fn watch(control: &Process) -> Self {
        let delay = RunDelay::of(control.schedstat("control_loop"));
        Self {
            witness: Witness::start(PERIOD),
            control: LongestWait::within(PERIOD, delay),
        }
    }

    /// What was seen.
    pub fn told(self) -> Timekeeping {
        Timekeeping {
            sleeper: self.witness.worst(),
            waited: self.control.told(),
            load: load(),
        }
    }
}

/// How well a machine kept time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timekeeping {
    /// The latest that a thread woke up which does nothing but sleep.
    pub sleeper: Duration,
    /// The longest that the control thread was ready and waited for a core, within a period.
    pub waited: Duration,
    /// Programs that want a core, for each core, over the last minute.
    pub load: f64,
}

impl Timekeeping {
    /// What forgives a row that failed, as it says nothing of the node then; `None` where the machine kept time.
    pub fn excuse(&self) -> Option<String> {
        let Self {
            sleeper,
            waited,
            load,
        } = self;
        if *waited >= LOSES_A_TICK {
            return Some(format!("the control thread waited {waited:.1?} for a core"));
        }
        if *sleeper > PERIOD {
            return Some(format!("a thread that only sleeps was {sleeper:.1?} late"));
        }
        (*load > MOST_LOAD).then(|| format!("{load:.1} programs wanted each core"))
    }
}

impl fmt::Display for Timekeeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sleeper,
            waited,
            load,
        } = self;
        write!(
            f,
            "the machine was up to {sleeper:.1?} late, the control thread waited up to {waited:.1?} for a core, load {load:.1}"
        )
    }
}

/// Programs that want a core, for each core, over the last minute.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let programs = text.split(' ').next().and_then(|load| load.parse::<f64>().ok());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    programs.unwrap_or(0.0) / cores as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_forgiven_only_what_the_machine_is_seen_to_have_done() {
        let kept = Timekeeping {
            sleeper: Duration::from_millis(6),
            waited: Duration::from_millis(9),
            load: 1.2,
        };
        assert_eq!(kept.excuse(), None);
        let waited = Timekeeping {
            waited: Duration::from_micros(23_400),
            ..kept
        };
        assert_eq!(
            waited.excuse().as_deref(),
            Some("the control thread waited 23.4ms for a core")
        );
        let late = Timekeeping {
            sleeper: Duration::from_millis(31),
            ..kept
        };
        assert!(late.excuse().is_some_and(|why| why.contains("31.0ms late")));
        let busy = Timekeeping { load: 2.0, ..kept };
        assert!(busy.excuse().is_some());
        assert_eq!(Timekeeping::default().excuse(), None, "nothing was seen");
    }
}
