//! What happens when something breaks: every row injects one fault into a running system, asserts on what the robot
//! received, and tells what it saw. The table of `docs/faults.md` is made of what the rows tell.

mod bystanders;
mod clocks;
mod fade;
mod machine;
mod outcome;
mod permissions;
mod policies;
mod programs;
mod silences;
mod stand;
mod states;
pub mod table;
mod view;

use std::panic::{AssertUnwindSafe, catch_unwind};

use machine::Machine;
pub use outcome::{Outcome, Told};
use stand::Stand;

/// A row whose machine did not keep time says nothing of the node, and is tried again.
const ATTEMPTS: usize = 4;

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

/// Faults of one kind that one system can go through one after the other. A row asks nothing of the one before but that it left
/// a system in which the policy commands: behind a row that failed the next one has a system of its own.
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
        permissions::scenes(),
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
    /// Injects a fault, into a system of its own where there is none; `None` where it did not end as it must.
    fn tell(&self, row: &Row, stand: &mut Option<Stand>) -> Option<Told> {
        let mut forgiven = Vec::new();
        while forgiven.len() < ATTEMPTS {
            let (mut here, mut machine) = (stand.take(), None);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let here = here.get_or_insert_with(self.start);
                here.begin();
                machine = Some(Machine::watch(&here.control));
                (row.inject)(here)
            }));
            let kept = machine.map(Machine::told).unwrap_or_default();
            if let Ok(outcome) = outcome {
                *stand = here;
                let told = Told {
                    title: self.title,
                    fault: row.fault,
                    outcome,
                    forgiven,
                };
                println!("{told}");
                return Some(told);
            }
            let (attempt, words) = (forgiven.len() + 1, last_words(here.as_mut()));
            eprintln!(
                "fault '{}', attempt {attempt}: failed; {kept}; {words}",
                row.fault
            );
            forgiven.push(kept.excuse()?);
        }
        None
    }
}

/// What is known of a system in which a row has failed.
fn last_words(stand: Option<&mut Stand>) -> String {
    let Some(stand) = stand else {
        return "the system did not start".to_owned();
    };
    // The robot may be what has ended.
    let pause = catch_unwind(AssertUnwindSafe(|| stand.peer.longest_gap("robot")));
    let pause = pause.ok().flatten().unwrap_or_default();
    format!(
        "the robot's states up to {pause:.3} s apart\n{}",
        stand.last_words()
    )
}
