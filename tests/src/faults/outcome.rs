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
    /// Which way it went this time, where that may be one or another; not in the table.
    pub way: Option<&'static str>,
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
    /// What the machine did at each attempt before the one that counts: why that was forgiven.
    pub forgiven: Vec<String>,
}

impl Told {
    /// For programs.
    pub fn json(&self) -> Value {
        let Outcome {
            sees,
            reaction,
            recovers,
            way,
            log,
        } = &self.outcome;
        json!({
            "title": self.title, "fault": self.fault, "robot_sees": sees,
            "reaction_ms": reaction.map(|s| 1e3 * s), "recovers": recovers, "way": way, "log": log,
            "attempt": self.forgiven.len() + 1, "forgiven": self.forgiven,
        })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome {
            sees,
            reaction,
            recovers,
            way,
            log,
        } = &self.outcome;
        let way = way.map(|way| format!(" (this time: {way})")).unwrap_or_default();
        let reaction = reaction.map_or_else(|| "no reaction needed".to_owned(), milliseconds);
        let attempt = if self.forgiven.is_empty() {
            String::new()
        } else {
            let (attempt, why) = (self.forgiven.len() + 1, self.forgiven.join("; "));
            format!(" (attempt {attempt}; forgiven, as the machine did not keep time: {why})")
        };
        write!(
            f,
            "{}: {}{attempt}\n    {sees}; {reaction}\n    {recovers}{way}\n    {log}",
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

    fn told(forgiven: &[&str]) -> Told {
        Told {
            title: "Stamps",
            fault: "one stamp",
            outcome: Outcome {
                sees: "nothing".into(),
                reaction: Some(0.012),
                recovers: "by itself, or not".into(),
                way: None,
                log: String::new(),
            },
            forgiven: forgiven.iter().map(|why| (*why).to_owned()).collect(),
        }
    }

    #[test]
    fn which_way_it_went_is_told() {
        let mut told = told(&[]);
        assert!(!told.to_string().contains("this time"), "{told}");
        assert!(told.json()["way"].is_null());
        told.outcome.way = Some("by itself");
        let words = told.to_string();
        assert!(
            words.contains("by itself, or not (this time: by itself)\n"),
            "{words}"
        );
        assert_eq!(told.json()["way"], "by itself");
    }

    #[test]
    fn what_was_forgiven_before_is_told() {
        let words = told(&[]).to_string();
        assert!(
            words.starts_with("Stamps: one stamp\n    nothing; 12 ms\n"),
            "{words}"
        );
        let third = told(&["it waited 30 ms", "it was late"]);
        let words = third.to_string();
        assert!(words.starts_with("Stamps: one stamp (attempt 3; "), "{words}");
        assert!(words.contains("it waited 30 ms; it was late"), "{words}");
        assert_eq!(third.json()["attempt"], 3);
    }
}
