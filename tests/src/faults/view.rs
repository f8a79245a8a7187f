//! What the robot saw from some moment on: its commands, the node's records of them, and what they amount to.
//!
//! "Without a gap" means three things: no tick is left out of the records, the command of every record has come, and no
//! two commands are further apart than [`MOST_APART`], up to the moment of the look.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use mfpo_policy::spec::{ActionJoint, CommandInterface, JointSpec, RobotSpec};
use serde_json::Value;

use super::stand::TICK;
use crate::peer::arrived;

/// Commands that come further apart are a gap, s: after so long a time the simulated robot brakes on its own.
pub const MOST_APART: f64 = 0.1;
/// Commands that differ by no more than this are the same.
const SAME: f64 = 1e-9;
/// Of so many commands of a policy that asks for more than the limits give, the filter has altered some.
const ENOUGH: usize = 10;

/// Commands and records, in the order of their arrival.
pub struct View {
    /// The last commands before that moment.
    pub before: Vec<Value>,
    /// The commands since.
    pub commands: Vec<Value>,
    /// The records since, and some of before.
    pub records: Vec<Value>,
    /// When all this was looked at, [`crate::peer::now`].
    pub at: f64,
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

/// What a joint may be commanded.
fn range(interface: CommandInterface, joint: &JointSpec) -> RangeInclusive<f64> {
    match interface {
        CommandInterface::Effort => -joint.effort_max..=joint.effort_max,
        CommandInterface::Velocity => -joint.velocity_max..=joint.velocity_max,
        CommandInterface::Position => {
            joint.position_min.unwrap_or(f64::MIN)..=joint.position_max.unwrap_or(f64::MAX)
        }
    }
}

/// The joints in the order of the commands, each with what its command is made of.
fn commanded(spec: &RobotSpec) -> impl Iterator<Item = (&JointSpec, &ActionJoint)> {
    spec.action.joints.iter().map(move |action| {
        let joint = spec.joints.iter().find(|j| j.name == action.joint);
        (joint.expect("the commanded joint"), action)
    })
}

impl View {
    /// There are commands, every one is finite and inside the robot's limits, and none is further from the one before than its
    /// rate allows. Where the policy asks for more, the filter is seen at work.
    pub fn check_limits(&self, spec: &RobotSpec) {
        assert!(!self.commands.is_empty(), "no command at all");
        for command in &self.commands {
            let values = numbers(&command["data"]);
            assert_eq!(values.len(), spec.action_size(), "{command}");
            for (value, (joint, _)) in values.iter().zip(commanded(spec)) {
                let allowed = range(spec.action.interface, joint);
                let inside = allowed.start() - SAME..=allowed.end() + SAME;
                assert!(
                    inside.contains(value),
                    "{}: {value} is not in {inside:?}",
                    joint.name
                );
            }
        }
        self.check_rates(spec);
        self.check_filter(spec);
    }

    /// A rate holds for whoever commands: policy, fallback or stop. What may go past it to zero - a joint at its limit, a
    /// stop that takes too long - either does not happen in these rows, or has zero within one tick's reach.
    fn check_rates(&self, spec: &RobotSpec) {
        let explained = self.explained();
        for pair in explained.windows(2) {
            let ((before, from), (after, to)) = (&pair[0], &pair[1]);
            // A command that has no record here may have come in between.
            let tick = |record: &Value| record["sequence"].as_f64().unwrap_or(f64::NAN);
            let seconds = spec.control_period() * (tick(after) - tick(before));
            for (j, (joint, _)) in commanded(spec).enumerate() {
                let most = joint.command_rate_max.map_or(f64::MAX, |rate| rate * seconds);
                let change = (to[j] - from[j]).abs();
                assert!(
                    change <= most + SAME,
                    "{}: from {} to {} within {seconds:.3} s; expected {most} at most",
                    joint.name,
                    from[j],
                    to[j]
                );
            }
        }
    }

    /// The limits that these commands keep are the filter's doing, where the policy asks for more than they give.
    fn check_filter(&self, spec: &RobotSpec) {
        let mut joints = commanded(spec);
        let asks_for_more = joints.any(|(joint, action)| {
            *range(spec.action.interface, joint).end() < action.offset + action.scale.abs()
        });
        let acted: Vec<&Value> = self.records.iter().filter(|r| r["fallback"] == false).collect();
        if !asks_for_more || acted.len() < ENOUGH {
            return;
        }
        let altered = acted.iter().filter(|r| r["interventions"].as_u64() > Some(0));
        assert!(
            altered.count() > 0,
            "the filter has altered none of {} commands of a policy that asks for more than the limits give",
            acted.len()
        );
    }

    /// Commands that no record tells of.
    pub fn unexplained(&self) -> usize {
        // Each record tells of one command: equal ones, as of a fallback at rest, need as many.
        let mut told: HashMap<Vec<u64>, usize> = HashMap::new();
        for record in &self.records {
            *told.entry(bits(&record["command"])).or_default() += 1;
        }
        let is_told = |command: &&Value| {
            let left = told.get_mut(&bits(&command["data"])).filter(|left| **left > 0);
            left.map(|left| *left -= 1).is_some()
        };
        self.commands.len() - self.commands.iter().filter(is_told).count()
    }

    /// Records whose command has not come, although that of a later one has: what is younger may be on its way.
    fn unsent(&self) -> usize {
        let mut records = self.records.iter().collect::<Vec<_>>();
        records.sort_by_key(|r| r["sequence"].as_u64());
        let commands: Vec<Vec<u64>> = self
            .before
            .iter()
            .chain(&self.commands)
            .map(|c| bits(&c["data"]))
            .collect();
        let (mut from, mut waiting, mut unsent) = (0, 0, 0);
        for record in records {
            let wanted = bits(&record["command"]);
            let rest = commands.get(from..).unwrap_or_default();
            match rest.iter().position(|command| *command == wanted) {
                Some(at) => {
                    from += at + 1;
                    unsent += std::mem::take(&mut waiting);
                }
                None => waiting += 1,
            }
        }
        unsent
    }

    /// The longest time without a command, s, from the last one before to the moment of the look.
    fn longest_gap(&self) -> f64 {
        let commands = self.before.last().into_iter().chain(&self.commands);
        let times: Vec<f64> = commands.map(arrived).chain([self.at]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }

    /// The policy alone commanded, tick by tick.
    pub fn policy_alone(&self) -> String {
        self.policy_but_for(0);
        "the policy's commands, without a gap".to_owned()
    }

    /// The policy alone commanded, and was left out of so many ticks at most.
    pub fn policy_but_for(&self, most: u64) {
        let left_out = self.left_out();
        assert!(
            left_out <= most,
            "{left_out} ticks are missing; expected {most} at most"
        );
        assert!(!self.commands.is_empty(), "no command at all");
        let unsent = self.unsent();
        assert_eq!(
            unsent,
            0,
            "commands that {} records tell of have not come",
            self.records.len()
        );
        let (gap, most) = (self.longest_gap(), MOST_APART + most as f64 * TICK);
        assert!(
            gap <= most,
            "no command came for {gap:.3} s; expected one every {most} s at least, from {} of them",
            self.commands.len()
        );
    }

    /// The policy alone commanded; the number of ticks that it was left out.
    fn left_out(&self) -> u64 {
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
    use crate::peer::ARRIVED;

    /// What the policy commands at a tick, and the record of it.
    fn tick(sequence: u32) -> (Value, Value) {
        let values = [f64::from(sequence), 0.5];
        let command = json!({"data": values, ARRIVED: f64::from(sequence) * TICK});
        (
            command,
            json!({"sequence": sequence, "command": values, "fallback": false}),
        )
    }

    /// Ticks 10 to 29 of a policy; the newest record's command is on its way.
    fn twenty_ticks() -> View {
        let (mut commands, records): (Vec<_>, Vec<_>) = (8..31).map(tick).unzip();
        commands.pop();
        View {
            commands: commands.split_off(2),
            before: commands,
            records,
            at: 30.0 * TICK,
        }
    }

    fn is_without_a_gap(view: &View) -> bool {
        std::panic::catch_unwind(|| view.policy_alone()).is_ok()
    }

    #[test]
    fn a_policys_commands_are_without_a_gap_where_every_tick_has_its_own_in_time() {
        let mut view = twenty_ticks();
        assert!(is_without_a_gap(&view));
        view.at += MOST_APART;
        assert!(!is_without_a_gap(&view), "the commands have ended");

        let mut view = twenty_ticks();
        view.commands.clear();
        assert!(!is_without_a_gap(&view), "no command at all");

        let mut view = twenty_ticks();
        view.commands.remove(5);
        assert!(!is_without_a_gap(&view), "one command has not come");
        view.records.remove(7);
        assert!(!is_without_a_gap(&view), "a tick was left out");
        view.policy_but_for(1);

        let mut view = twenty_ticks();
        for command in &mut view.commands[12..] {
            command[ARRIVED] = json!(arrived(command) + MOST_APART);
        }
        view.at += MOST_APART;
        assert!(!is_without_a_gap(&view), "the robot has waited too long");
    }

    #[test]
    #[should_panic(expected = "no command at all")]
    fn no_command_is_not_inside_the_limits() {
        let view = View {
            commands: Vec::new(),
            ..twenty_ticks()
        };
        view.check_limits(&two_joints(CommandInterface::Effort));
    }

    /// Ticks, and what both joints are commanded at them.
    fn commanded_at(ticks: &[(u64, f64)]) -> View {
        let command = |(_, value): &(u64, f64)| json!({"data": [value, value]});
        let record = |(sequence, value): &(u64, f64)| json!({"sequence": sequence, "command": [value, value], "fallback": false, "interventions": 0});
        View {
            before: Vec::new(),
            commands: ticks.iter().map(command).collect(),
            records: ticks.iter().map(record).collect(),
            at: 0.0,
        }
    }

    fn keeps_limits(ticks: &[(u64, f64)], spec: &RobotSpec) -> bool {
        let view = commanded_at(ticks);
        std::panic::catch_unwind(|| view.check_limits(spec)).is_ok()
    }

    /// By 0.1 N m a tick, within 1 N m.
    #[test]
    fn commands_keep_their_range_and_their_rate_from_record_to_record() {
        let mut spec = two_joints(CommandInterface::Effort);
        for joint in &mut spec.joints {
            joint.command_rate_max = Some(5.0);
        }
        assert!(keeps_limits(&[(1, 0.8), (2, 0.9), (3, 1.0), (4, 0.9)], &spec));
        assert!(!keeps_limits(&[(1, 1.0), (2, 1.1)], &spec), "out of its range");
        assert!(
            !keeps_limits(&[(1, 0.2), (2, 0.35)], &spec),
            "faster than its rate"
        );
        assert!(!keeps_limits(&[(1, 0.2), (2, 0.0)], &spec), "to zero, too");
        assert!(
            keeps_limits(&[(1, 0.2), (3, 0.4)], &spec),
            "the command between them has not come"
        );
        for joint in &mut spec.joints {
            joint.command_rate_max = None;
        }
        assert!(keeps_limits(&[(1, 0.2), (2, 0.9)], &spec), "without a rate");
    }

    #[test]
    fn a_filter_that_does_nothing_for_a_policy_that_asks_for_too_much_is_found_out() {
        let ticks: Vec<(u64, f64)> = (0..ENOUGH as u64).map(|tick| (tick, 0.5)).collect();
        let mut spec = two_joints(CommandInterface::Effort);
        assert!(keeps_limits(&ticks, &spec), "the policy asks for no more");
        spec.action.joints[0].scale = -2.0;
        assert!(!keeps_limits(&ticks, &spec));
        let mut view = commanded_at(&ticks);
        view.records[3]["interventions"] = json!(1);
        view.check_limits(&spec);
    }

    /// A record overtook the policy's last command; the fallback then held that command.
    #[test]
    fn a_late_command_of_the_policy_is_not_the_fallbacks() {
        let command = |value: f64| json!({"data": [value, value]});
        let record = |sequence: u64, value: f64, fallback: bool| json!({"sequence": sequence, "command": [value, value], "fallback": fallback});
        let view = View {
            before: Vec::new(),
            at: 0.0,
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
