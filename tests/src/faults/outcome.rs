//! What one fault did, in words and times.

use std::fmt;

use serde_json::{Value, json};

/// What was seen of one fault.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the robot received.
    pub sees: String,
    /// From the fault to what the robot saw of it, s; `None` where it saw nothing.
    pub reaction: Option<f64>,
    /// How things became good again.
    pub recovers: String,
    /// Line of the log that tells of it; empty without one.
    pub log: String,
}

/// A row with its outcome.
#[derive(Debug, Clone)]
pub struct Told {
    /// What the fault belongs to.
    pub title: &'static str,
    /// The fault.
    pub fault: &'static str,
    /// What was seen.
    pub outcome: Outcome,
    /// The attempt that counts: at those before the machine did not keep time.
    pub attempt: u32,
}

impl Told {
    /// For programs.
    pub fn json(&self) -> Value {
        let Outcome {
            sees,
            reaction,
            recovers,
            log,
        } = &self.outcome;
        json!({
            "title": self.title, "fault": self.fault, "robot_sees": sees,
            "reaction_ms": reaction.map(|s| 1e3 * s), "recovers": recovers, "log": log, "attempt": self.attempt,
        })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome {
            sees,
            reaction,
            recovers,
            log,
        } = &self.outcome;
        let reaction = reaction.map_or_else(|| "no reaction needed".to_owned(), milliseconds);
        let attempt = match self.attempt {
            1 => String::new(),
            attempt => format!(" (attempt {attempt}: at those before the machine did not keep time)"),
        };
        write!(
            f,
            "{}: {}{attempt}\n    {sees}; {reaction}\n    {recovers}\n    {log}",
            self.title, self.fault
        )
    }
}

/// A time in the words of the table.
pub fn milliseconds(seconds: f64) -> String {
    format!("{:.0} ms", 1e3 * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_after_the_first_is_told() {
        let told = |attempt| Told {
            title: "Stamps",
            fault: "one stamp",
            outcome: Outcome {
                sees: "nothing".into(),
                reaction: Some(0.012),
                recovers: "by itself".into(),
                log: String::new(),
            },
            attempt,
        };
        let words = |attempt| told(attempt).to_string();
        assert!(words(1).starts_with("Stamps: one stamp\n    nothing; 12 ms\n"));
        assert!(
            words(3).starts_with("Stamps: one stamp (attempt 3: "),
            "{}",
            words(3)
        );
    }
}
