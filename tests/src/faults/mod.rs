//! What happens when something breaks: every row injects one fault into a running system, asserts on what the robot
//! received, and tells what it saw. The table of `docs/faults.md` is made of what the rows tell.

mod bystanders;
mod clocks;
mod outcome;
mod policies;
mod programs;
mod silences;
mod stand;
mod states;
pub mod table;
mod view;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use outcome::{Outcome, Told};
use stand::Stand;

use crate::Witness;

/// A row whose machine did not keep time says nothing of the node, and is tried again.
const ATTEMPTS: u32 = 4;
/// So much work a core, over the last minute, leaves no program the time that it needs.
const MOST_LOAD: f64 = 1.5;
/// The control period of the robots here, and how late the machine may be at most.
const PERIOD: Duration = Duration::from_millis(20);

/// One fault.
pub struct Row {
    /// Its name in the table.
    pub fault: &'static str,
    /// Does it stand for others where there is little time?
    pub is_quick: bool,
    inject: Box<dyn Fn(&mut Stand) -> Outcome>,
}

impl Row {
    fn new(fault: &'static str, inject: impl Fn(&mut Stand) -> Outcome + 'static) -> Self {
        Self {
            fault,
            is_quick: false,
            inject: Box::new(inject),
        }
    }

    fn quick(self) -> Self {
        Self {
            is_quick: true,
            ..self
        }
    }
}

/// Faults of one kind that one system can go through one after the other.
pub struct Scene {
    title: &'static str,
    start: fn() -> Stand,
    rows: Vec<Row>,
}

/// Every fault, in the order of the table.
fn scenes() -> Vec<Scene> {
    [
        states::scenes(),
        silences::scenes(),
        clocks::scenes(),
        policies::scenes(),
        programs::scenes(),
        bystanders::scenes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Injects every fault that is `wanted`, and returns what was seen.
///
/// # Panics
/// At the end, when a row did not hold; the others have been run.
pub fn run(wanted: impl Fn(&Row) -> bool) -> Vec<Told> {
    let (mut told, mut failed) = (Vec::new(), Vec::new());
    for scene in scenes() {
        let mut stand = None;
        for row in scene.rows.iter().filter(|row| wanted(row)) {
            match scene.tell(row, &mut stand) {
                Some(row) => told.push(row),
                None => failed.push(row.fault),
            }
        }
    }
    assert!(
        failed.is_empty(),
        "these faults did not end as they must: {failed:?}"
    );
    told
}

impl Scene {
    /// Injects a fault; `None` where it did not end as it must.
    fn tell(&self, row: &Row, stand: &mut Option<Stand>) -> Option<Told> {
        for attempt in 1..=ATTEMPTS {
            let mut here = stand.take().unwrap_or_else(self.start);
            let witness = Witness::start(PERIOD);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                here.begin();
                (row.inject)(&mut here)
            }));
            let worst = witness.worst();
            let Ok(outcome) = outcome else {
                // The robot may be what has ended.
                let pause = catch_unwind(AssertUnwindSafe(|| here.peer.longest_gap("robot")));
                let pause = pause.ok().flatten().unwrap_or_default();
                eprintln!(
                    "fault '{}', attempt {attempt}: failed while the machine was up to {worst:?} late, load {:.1}, and the \
                     robot's states up to {pause:.3} s apart\n{}",
                    row.fault,
                    load(),
                    here.last_words()
                );
                if worst <= PERIOD && load() <= MOST_LOAD {
                    return None;
                }
                continue;
            };
            *stand = Some(here);
            let told = Told {
                title: self.title,
                fault: row.fault,
                outcome,
                attempt,
            };
            println!("{told}");
            return Some(told);
        }
        None
    }
}

/// Programs that want a core, for each core, over the last minute.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let programs = text.split(' ').next().and_then(|load| load.parse::<f64>().ok());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    programs.unwrap_or(0.0) / cores as f64
}
