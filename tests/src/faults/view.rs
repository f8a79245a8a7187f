//! What the robot saw from some moment on: its commands, the node's records of them, and what they amount to.

use std::collections::HashSet;

use mfpo_policy::spec::{CommandInterface, RobotSpec};
use serde_json::Value;

/// Commands and records, in the order of their arrival.
pub struct View {
    pub commands: Vec<Value>,
    pub records: Vec<Value>,
}

/// The numbers of an array in a message.
pub fn numbers(values: &Value) -> Vec<f64> {
    let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
    // What is not finite comes as text.
    values.iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect()
}

fn bits(values: &Value) -> Vec<u64> {
    // Minus zero and zero are the same command.
    numbers(values).iter().map(|v| (v + 0.0).to_bits()).collect()
}

impl View {
    /// Every command is finite and inside the robot's limits.
    pub fn check_limits(&self, spec: &RobotSpec) {
        for command in &self.commands {
            let values = numbers(&command["data"]);
            assert_eq!(values.len(), spec.action_size(), "{command}");
            for (value, action) in values.iter().zip(&spec.action.joints) {
                let joint = spec.joints.iter().find(|j| j.name == action.joint);
                let joint = joint.expect("the commanded joint");
                let (low, high) = match spec.action.interface {
                    CommandInterface::Effort => (-joint.effort_max, joint.effort_max),
                    CommandInterface::Velocity => (-joint.velocity_max, joint.velocity_max),
                    CommandInterface::Position => (
                        joint.position_min.unwrap_or(f64::MIN),
                        joint.position_max.unwrap_or(f64::MAX),
                    ),
                };
                let inside = low - 1e-9..=high + 1e-9;
                assert!(
                    inside.contains(value),
                    "{}: {value} is not in {inside:?}",
                    joint.name
                );
            }
        }
    }

    /// Commands that no record tells of.
    pub fn unexplained(&self) -> usize {
        let told: HashSet<Vec<u64>> = self.records.iter().map(|r| bits(&r["command"])).collect();
        let is_unknown = |c: &&Value| !told.contains(&bits(&c["data"]));
        self.commands.iter().filter(is_unknown).count()
    }

    /// The policy alone commanded, tick by tick.
    pub fn policy_alone(&self) -> String {
        assert_eq!(self.left_out(), 0, "ticks are missing");
        "the policy's commands, without a gap".to_owned()
    }

    /// The policy alone commanded; the number of ticks that it was left out.
    pub fn left_out(&self) -> u64 {
        assert!(!self.records.is_empty(), "no record at all");
        let fallbacks = self.records.iter().filter(|r| r["fallback"] == true).count();
        assert_eq!(
            fallbacks,
            0,
            "fallback ticks among {} of the policy",
            self.records.len()
        );
        let numbers: Vec<u64> = self
            .records
            .iter()
            .filter_map(|r| r["sequence"].as_u64())
            .collect();
        let gaps = numbers.windows(2).map(|pair| pair[1].saturating_sub(pair[0] + 1));
        gaps.sum()
    }

    /// Each command that has its record, with it. Commands and records come by two topics, so that one may overtake the
    /// other: what belongs together is what is equal and comes next, never what arrived last.
    fn explained(&self) -> Vec<(&Value, Vec<f64>)> {
        let mut records = self.records.iter().collect::<Vec<_>>();
        records.sort_by_key(|r| r["sequence"].as_u64());
        let mut from = 0;
        let mut pairs = Vec::new();
        for command in &self.commands {
            let wanted = bits(&command["data"]);
            let rest = records.get(from..).unwrap_or_default();
            if let Some(at) = rest.iter().position(|r| bits(&r["command"]) == wanted) {
                pairs.push((rest[at], numbers(&command["data"])));
                from += at + 1;
            }
        }
        pairs
    }

    /// What the fallback commanded from the first record of its own until the policy did again, joint by joint.
    pub fn fallback(&self, spec: &RobotSpec) -> String {
        let explained = self.explained();
        let is_fallback = |(record, _): &&(&Value, Vec<f64>)| record["fallback"] == true;
        let before = explained.iter().take_while(|pair| !is_fallback(pair));
        let before = before.last().map(|(_, command)| command);
        let during = explained.iter().skip_while(|pair| !is_fallback(pair));
        let commands: Vec<&Vec<f64>> = during.take_while(is_fallback).map(|(_, c)| c).collect();
        assert!(!commands.is_empty(), "the fallback sent nothing");
        let joint = |j: usize| commands.iter().map(|c| c[j]).collect::<Vec<f64>>();
        let seen: Vec<String> = (0..spec.action_size())
            .map(|j| amounts_to(spec.action.interface, &joint(j), before.map(|before| before[j])))
            .collect();
        if seen.iter().all(|s| *s == seen[0]) {
            return format!("the fallback: {}", seen[0]);
        }
        let named = spec.action.joints.iter().zip(&seen);
        let named: Vec<String> = named
            .map(|(joint, s)| format!("{s} on {}", joint.joint))
            .collect();
        format!("the fallback: {}", named.join(", "))
    }
}

/// What the fallback's commands for one joint amount to.
fn amounts_to(interface: CommandInterface, commands: &[f64], before: Option<f64>) -> String {
    let is_constant = commands.iter().all(|c| *c == commands[0]);
    let last = commands[commands.len() - 1];
    match interface {
        CommandInterface::Effort if is_constant && last == 0.0 => "zero effort".into(),
        CommandInterface::Effort if is_constant => format!("a braking effort of {last} N m"),
        CommandInterface::Position if is_constant && before == Some(last) => "the last command, held".into(),
        CommandInterface::Velocity
            if last == 0.0 && commands.windows(2).all(|pair| pair[1].abs() <= pair[0].abs()) =>
        {
            "a ramp down to zero velocity".into()
        }
        _ => panic!("commands that no fallback makes: {before:?}, then {commands:.4?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bundles::two_joints;

    /// A record overtook the policy's last command; the fallback then held that command.
    #[test]
    fn a_late_command_of_the_policy_is_not_the_fallbacks() {
        let command = |value: f64| json!({"data": [value, value]});
        let record = |sequence: u64, value: f64, fallback: bool| json!({"sequence": sequence, "command": [value, value], "fallback": fallback});
        let view = View {
            commands: [0.1, 0.2, 0.2, 0.2, 0.3].map(command).to_vec(),
            records: vec![
                record(1, 0.1, false),
                record(3, 0.2, true),
                record(2, 0.2, false),
                record(4, 0.2, true),
                record(5, 0.3, false),
            ],
        };
        let sees = view.fallback(&two_joints(CommandInterface::Position));
        assert_eq!(sees, "the fallback: the last command, held");
    }
}
