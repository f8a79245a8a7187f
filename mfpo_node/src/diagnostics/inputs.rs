//! The part `inputs`: how old joint states, heartbeat and goal are and how regularly they arrive, and whether simulated time
//! passes. Each is judged by its timeout, joint states by the control period as well:
//!
//! - Silent for longer than its timeout is stale: the fallback commands, or the node does not become active.
//! - A gap of more than half of its timeout, in the last two full windows of [`Periods`] or since, is a warning: whoever is warned
//!   can act before the fallback has to. (Of joint states: in the last second, by [`crate::metrics::Rounds`].)
//! - Joint states whose times apart deviate by more than half of the control period are a warning: what the policy sees is then
//!   sometimes fresh and sometimes a period old.

use super::{Diagnostic, Level, Sources, moments, value};
use crate::arrivals::Periods;
use crate::goal::NoGoal;
use crate::metrics::read;
use crate::safety::{NotEnabled, Verdict};
use crate::status::Cause;
use crate::time::MonoTime;

/// An input that has used up so much of its timeout is worth a warning.
const NEAR: f64 = 0.5;
/// So are joint states whose times apart have a standard deviation above this part of the control period ...
const IRREGULAR: f64 = 0.5;
/// ... where there are so many of them in a window.
const ENOUGH: u64 = 5;

/// What is found, and how bad it is.
type Finding = (Level, String);

pub(super) fn inputs(sources: &Sources<'_>, now: MonoTime) -> Diagnostic {
    let ages = sources.live.joint_ages(now);
    let (level, message) = judge_clock(sources, now).unwrap_or_else(|| judge(sources, &ages, now));
    Diagnostic {
        name: "inputs",
        level,
        message,
        values: values(sources, &ages, now),
    }
}

fn values(sources: &Sources<'_>, ages: &[f64], now: MonoTime) -> Vec<(String, String)> {
    let (status, live) = (sources.status, sources.live);
    let of_joints = status.joint_names.iter().zip(ages);
    let mut values: Vec<_> = of_joints
        .map(|(name, age)| value(&format!("age.{name}"), age))
        .collect();
    let goal = live.goal();
    values.push((
        "goal".to_owned(),
        goal.map_or_else(|| "none".to_owned(), |[x, y, z]| format!("{x:.4} {y:.4} {z:.4}")),
    ));
    if let Some(age) = live.goal_age(now) {
        values.push(value("goal.age", age));
        period("goal", &status.periods.goal, now, &mut values);
    }
    if sources.enable_timeout > 0.0 {
        let heartbeat = live.heartbeat(now);
        let says = heartbeat.map_or_else(|| "none".to_owned(), |(permits, _)| permits.to_string());
        values.push(value("enable", says));
        if let Some((_, age)) = heartbeat {
            values.push(value("enable.age", age));
            period("enable", &status.periods.enable, now, &mut values);
        }
    }
    if let Some(clock) = sources.clock {
        values.push(value("sim_time", clock.newest() as f64 * 1e-9));
        let age = clock.rest(now).map(|rest| rest as f64 * 1e-9);
        values.extend(age.map(|age| value("sim_time.age", age)));
    }
    values.extend([
        value("refused_states", read(&live.refused_states)),
        value("rate", status.rounds.rate),
        value("longest_gap", status.rounds.longest_gap),
        value("backlog", live.backlog()),
    ]);
    if let Some(complete) = status.periods.states.complete() {
        moments("period", complete, &mut values);
    }
    values
}

/// The times between two arrivals of an input, s.
fn period(name: &str, periods: &Periods, now: MonoTime, values: &mut Vec<(String, String)>) {
    values.push(value(&format!("{name}.longest_gap"), periods.longest_gap(now)));
    if let Some(complete) = periods.complete() {
        moments(&format!("{name}.period"), complete, values);
    }
}

/// Simulated time that does not pass, in the words of the reason for which nothing is commanded by it.
fn judge_clock(sources: &Sources<'_>, now: MonoTime) -> Option<Finding> {
    let stale_after = nanoseconds(sources.stale_timeout);
    let verdict = Verdict::of_clock(sources.clock?, stale_after, now)?;
    Some((Level::Stale, sources.status.explain(&Cause::States(verdict))))
}

/// What is wrong with any input, the worst giving the level; where nothing is, how old the joint states are.
fn judge(sources: &Sources<'_>, ages: &[f64], now: MonoTime) -> Finding {
    if ages.is_empty() {
        let message = "no policy says which joints to listen to";
        return (Level::Stale, message.to_owned());
    }
    let findings = [
        judge_states(sources, ages),
        judge_regularity(sources),
        judge_enable(sources, now),
        judge_goal(sources, now),
    ];
    let mut findings: Vec<Finding> = findings.into_iter().flatten().collect();
    // The worst first; of two that are as bad the order stays.
    findings.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    let Some((level, _)) = findings.first() else {
        let oldest = ages.iter().copied().fold(0.0, f64::max) * 1e3;
        let message = format!("every joint reports; the oldest state is {oldest:.0} ms old");
        return (Level::Ok, message);
    };
    let words: Vec<&str> = findings.iter().map(|(_, words)| words.as_str()).collect();
    (*level, words.join("; "))
}

/// Joints that are silent, or states that come near to being stale.
fn judge_states(sources: &Sources<'_>, ages: &[f64]) -> Option<Finding> {
    let of_joints = sources.status.joint_names.iter().zip(ages);
    let silent: Vec<&str> = of_joints
        .filter(|(_, age)| **age > sources.stale_timeout)
        .map(|(name, _)| name.as_str())
        .collect();
    if !silent.is_empty() {
        let silent = silent.join(", ");
        return Some((Level::Stale, format!("no fresh state of joints [{silent}]")));
    }
    let much = NEAR * sources.stale_timeout;
    let figures = [
        (
            sources.status.rounds.longest_gap,
            "between two states of every joint, in the last second",
        ),
        (
            sources.live.backlog(),
            "longer than at best on their way: its publisher, a bridge or the network falls behind",
        ),
    ];
    let told = figures.map(|(got, what)| (got > much).then(|| format!("{:.0} ms {what}", got * 1e3)));
    let near: Vec<String> = told.into_iter().flatten().collect();
    (!near.is_empty()).then(|| {
        let message = format!(
            "the states are near to being stale: {} (expected at most {:.0} ms, half of stale_timeout)",
            near.join("; "),
            much * 1e3
        );
        (Level::Warn, message)
    })
}

/// Joint states that do not come evenly; those of a simulator come as it gets on.
fn judge_regularity(sources: &Sources<'_>) -> Option<Finding> {
    let complete = sources.status.periods.states.complete()?;
    if sources.clock.is_some() || sources.rate <= 0.0 || complete.count() < ENOUGH {
        return None;
    }
    let (deviation, most) = (complete.standard_deviation(), IRREGULAR / sources.rate);
    (deviation > most).then(|| {
        let message = format!(
            "the states arrive irregularly: the time between two of every joint is {:.1} ms on average with a standard deviation \
             of {:.1} ms, in the last second (expected at most {:.1} ms, half the control period): its publisher, a bridge or the \
             network holds some of them up, or this machine is too busy to take them",
            complete.average() * 1e3,
            deviation * 1e3,
            most * 1e3
        );
        (Level::Warn, message)
    })
}

/// The heartbeat, where one is needed; one that says `false` is there.
fn judge_enable(sources: &Sources<'_>, now: MonoTime) -> Option<Finding> {
    let timeout = sources.enable_timeout;
    if timeout <= 0.0 {
        return None;
    }
    let missing = match sources.live.heartbeat(now) {
        None => NotEnabled::Never,
        Some((false, _)) => return None,
        Some((true, age)) if age > timeout => NotEnabled::Late {
            age: nanoseconds(age),
        },
        Some((true, _)) => {
            let gap = sources.status.periods.enable.longest_gap(now);
            return near("heartbeat on topic enable", gap, (timeout, "enable_timeout"));
        }
    };
    let words = sources.status.explain(&Cause::NotEnabled(missing));
    Some((Level::Stale, words))
}

/// The goal, where there is one and it ages.
fn judge_goal(sources: &Sources<'_>, now: MonoTime) -> Option<Finding> {
    let timeout = sources.goal_timeout;
    let age = sources.live.goal_age(now).filter(|_| timeout > 0.0)?;
    if age > timeout {
        let missing = NoGoal::Late {
            age: nanoseconds(age),
            timeout: nanoseconds(timeout),
        };
        let words = sources.status.explain(&Cause::NoGoal(missing));
        return Some((Level::Stale, words));
    }
    let gap = sources.status.periods.goal.longest_gap(now);
    near("goal on topic goal", gap, (timeout, "goal_timeout"))
}

/// A gap between two messages that has used up much of what the parameter allows, s.
fn near(what: &str, gap: f64, (timeout, parameter): (f64, &str)) -> Option<Finding> {
    let much = NEAR * timeout;
    (gap > much).then(|| {
        let message = format!(
            "the {what} is near to being late: {:.0} ms without one (expected at most {:.0} ms, half of {parameter}): send it more \
             often, or see what holds it up",
            gap * 1e3,
            much * 1e3
        );
        (Level::Warn, message)
    })
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}
