//! What `/diagnostics` says: each part of the node with a level, a message for whoever is called at night, and the
//! figures behind it. Periodicity and execution time are those of ros2_control's controller_manager: average, standard
//! deviation, smallest and largest of the last second, with thresholds by parameter.

mod inputs;
use mfpo_policy::guard::Signal;

use crate::lifecycle;
use crate::metrics::{Live, LoopState, Moments, Regularity, read};
use crate::recording::Health;
use crate::safety::Rule;
use crate::sim_time::SimTime;
use crate::status::{DRY_RUN, Status, UNRECEIVED};
use crate::time::MonoTime;

/// How bad it is; the numbers are those of `diagnostic_msgs/DiagnosticStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// All is well.
    Ok = 0,
    /// Somebody should look at it.
    Warn = 1,
    /// It does not work.
    Error = 2,
    /// Nothing is heard.
    Stale = 3,
}

/// From where on a figure is worth a warning, and an error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// A warning.
    pub warn: f64,
    /// An error.
    pub error: f64,
}

impl Threshold {
    fn level(self, value: f64) -> Level {
        if value > self.error {
            Level::Error
        } else if value > self.warn {
            Level::Warn
        } else {
            Level::Ok
        }
    }
}

/// The thresholds of the control loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Between the policy's rate and the average, Hz.
    pub periodicity_mean_error: Threshold,
    /// Of the rate, Hz.
    pub periodicity_deviation: Threshold,
    /// Average of the time from state taken to command handed over, us.
    pub execution_mean: Threshold,
    /// Its standard deviation, us.
    pub execution_deviation: Threshold,
}

/// One part of the node.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    /// Which part.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What it is, in words.
    pub message: String,
    /// The figures behind it.
    pub values: Vec<(String, String)>,
}

/// What the diagnostics are made of.
pub struct Sources<'a> {
    /// What the status knows.
    pub status: &'a Status,
    /// The loop's counters.
    pub live: &'a Live,
    /// Where the node is in its life cycle.
    pub life: lifecycle::State,
    /// The policy's rate, Hz; 0 without one.
    pub rate: f64,
    /// Age at which a joint's state is stale, s.
    pub stale_timeout: f64,
    /// How long a heartbeat permits motion, s; 0 needs none.
    pub enable_timeout: f64,
    /// How long a goal holds, s; 0 until the next one.
    pub goal_timeout: f64,
    /// Simulated time, where the node goes by it.
    pub clock: Option<&'a SimTime>,
    /// When to warn.
    pub thresholds: Thresholds,
    /// How the recorder gets on, where there is one.
    pub recording: Option<Health>,
}

/// Every part of the node at this moment.
pub fn diagnose(sources: &Sources<'_>, now: MonoTime) -> Vec<Diagnostic> {
    vec![
        control_loop(sources, now),
        policy(sources),
        inputs::inputs(sources, now),
        connections(sources),
        safety(sources),
        recording(sources.recording.as_ref(), now),
    ]
}

fn value(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn control_loop(sources: &Sources<'_>, now: MonoTime) -> Diagnostic {
    let (status, live) = (sources.status, sources.live);
    let figures = status.figures.shown(now);
    let regularity = status.figures.regularity(now);
    let mut values = vec![
        value("lifecycle", sources.life.label()),
        value("update_rate", sources.rate),
        value("dry_run", status.is_dry_run),
    ];
    if let Some(regularity) = &regularity {
        moments("periodicity", &regularity.periodicity, &mut values);
        moments("execution_time", &regularity.execution, &mut values);
    }
    values.extend([
        value("tick_rate", figures.tick_rate),
        value("latency_p50_us", figures.latency_p50 * 1e6),
        value("latency_p99_us", figures.latency_p99 * 1e6),
        value("latency_max_us", figures.latency_max * 1e6),
        value("ticks", read(&live.ticks)),
        value("missed_ticks", read(&live.missed_ticks)),
        value("lost_records", read(&live.lost_records)),
    ]);
    let (level, message) = match status.state(live) {
        _ if status.standstill().is_some() => (Level::Error, status.message(live, now)),
        LoopState::Active => timing(sources, regularity.as_ref()),
        LoopState::Fallback => (Level::Error, status.message(live, now)),
        LoopState::WaitingForPolicy | LoopState::WaitingForStates => (Level::Warn, status.message(live, now)),
        LoopState::Inactive | LoopState::Stopped | LoopState::Probing => {
            (Level::Ok, status.message(live, now))
        }
    };
    let is_ticking = status.state(live) == LoopState::Active && status.standstill().is_none();
    let message = if status.is_dry_run && is_ticking {
        format!("{DRY_RUN}{message}")
    } else {
        message
    };
    Diagnostic {
        name: "control loop",
        level,
        message,
        values,
    }
}

fn moments(name: &str, moments: &Moments, values: &mut Vec<(String, String)>) {
    values.extend([
        value(&format!("{name}.average"), moments.average()),
        value(
            &format!("{name}.standard_deviation"),
            moments.standard_deviation(),
        ),
        value(&format!("{name}.min"), moments.min()),
        value(&format!("{name}.max"), moments.max()),
    ]);
}

/// The worst of the thresholds, and the figures that break one.
fn timing(sources: &Sources<'_>, regularity: Option<&Regularity>) -> (Level, String) {
    let Some(Regularity {
        periodicity,
        execution,
        ..
    }) = regularity
    else {
        return (Level::Ok, "the policy commands the robot".to_owned());
    };
    let thresholds = &sources.thresholds;
    let figures = [
        (
            thresholds.periodicity_mean_error,
            (periodicity.average() - sources.rate).abs(),
            "Hz between the policy's rate and the average",
        ),
        (
            thresholds.periodicity_deviation,
            periodicity.standard_deviation(),
            "Hz standard deviation of the rate",
        ),
        (
            thresholds.execution_mean,
            execution.average(),
            "us from state to command on average",
        ),
        (
            thresholds.execution_deviation,
            execution.standard_deviation(),
            "us standard deviation from state to command",
        ),
    ];
    let judged = figures.map(|(threshold, got, what)| {
        let level = threshold.level(got);
        let limit = if level == Level::Error {
            threshold.error
        } else {
            threshold.warn
        };
        (level, format!("{got:.1} {what} (expected at most {limit})"))
    });
    let worst = judged.iter().map(|(level, _)| *level).max().unwrap_or(Level::Ok);
    let broken: Vec<&str> = judged
        .iter()
        .filter(|(level, _)| *level > Level::Ok)
        .map(|(_, text)| text.as_str())
        .collect();
    if broken.is_empty() {
        return (Level::Ok, "the policy commands the robot".to_owned());
    }
    (worst, format!("the loop is not regular: {}", broken.join("; ")))
}

fn policy(sources: &Sources<'_>) -> Diagnostic {
    let (status, live) = (sources.status, sources.live);
    let mut values = Vec::new();
    let mut message = "no policy is loaded".to_owned();
    if let Some(current) = &status.current {
        message = format!("version {} of run '{}'", current.version, current.run);
        values.extend([
            value("robot", &current.robot),
            value("run", &current.run),
            value("version", current.version),
            value("digest", &current.digest),
            value("weights_digest", &current.weights_digest),
        ]);
    }
    if let Some(previous) = &status.previous {
        values.extend([
            value("previous_run", &previous.run),
            value("previous_version", previous.version),
        ]);
    }
    values.extend([
        value("swaps", read(&live.swaps)),
        value("rollbacks", read(&live.rollbacks)),
        value("swap_returns", read(&live.swap_returns)),
        value("last_swap_return", status.swap.last_return()),
        value("rejections", status.rejections),
        value("last_rejection", &status.last_rejection),
        value("competing_runs", status.competing_runs.join(", ")),
    ]);
    if let Some(compared) = status.swap.compared() {
        values.extend([
            value("shadow.ticks", compared.ticks),
            value("shadow.difference_rms", compared.rms),
            value("shadow.difference_max", compared.largest),
            value("shadow.latency_us", compared.latency * 1e6),
        ]);
    }
    let level = match &status.current {
        None => Level::Warn,
        Some(_) if status.was_just_rejected() => {
            message = format!(
                "{message}; the last bundle was refused: {}",
                status.last_rejection
            );
            Level::Warn
        }
        Some(_) if !status.competing_runs.is_empty() => {
            let runs = status.competing_runs.join(", ");
            message = format!("{message}; runs [{runs}] publish bundles at the same time");
            Level::Warn
        }
        Some(_) => Level::Ok,
    };
    Diagnostic {
        name: "policy",
        level,
        message,
        values,
    }
}

fn connections(sources: &Sources<'_>) -> Diagnostic {
    let status = sources.status;
    let unheard: Vec<&str> = status
        .unheard
        .iter()
        .map(|unheard| unheard.words.as_str())
        .collect();
    let mut values = vec![
        value("unheard_publishers", unheard.len()),
        value("publishers_of_joint_states", status.reporters.heard.len()),
    ];
    values.extend(
        status
            .receivers
            .map(|count| value("receivers_of_commands", count)),
    );
    let wrong: Vec<&str> = unheard
        .into_iter()
        .chain(status.reach_nobody().then_some(UNRECEIVED))
        .chain(status.unserved.iter().map(String::as_str))
        .chain(status.rivals.iter().map(String::as_str))
        .collect();
    let (level, message) = if wrong.is_empty() {
        (
            Level::Ok,
            "every publisher on the node's topics is heard".to_owned(),
        )
    } else if status.rivals.is_empty() {
        (Level::Warn, wrong.join("; "))
    } else {
        (Level::Error, wrong.join("; "))
    };
    Diagnostic {
        name: "connections",
        level,
        message,
        values,
    }
}

fn safety(sources: &Sources<'_>) -> Diagnostic {
    let (status, live) = (sources.status, sources.live);
    let mut values = vec![
        value("fallbacks", read(&live.fallbacks)),
        value("fallback_ticks", read(&live.fallback_ticks)),
        value("interventions", read(&live.interventions)),
        value("robot_description", &status.robot_description),
    ];
    let (signals, guard) = (
        live.guard_signals(),
        status.current.as_ref().and_then(|policy| policy.guard),
    );
    for signal in Signal::ALL {
        let limit = guard.and_then(|guard| guard.limit(signal));
        for (name, number) in [(signal.name(), signals.get(signal)), (signal.limit_name(), limit)] {
            values.extend(number.map(|number| value(&format!("guard.{name}"), format!("{number:.4}"))));
        }
    }
    let counts = live.interventions_by_rule();
    let by_joint = counts.chunks(Rule::NAMES.len()).zip(&status.command_joints);
    for (counts, joint) in by_joint {
        let counted = Rule::NAMES.iter().zip(counts).filter(|(_, count)| **count > 0);
        values.extend(counted.map(|(rule, count)| value(&format!("interventions.{rule}.{joint}"), count)));
    }
    let (level, message) = match status.state(live) {
        LoopState::Fallback => (
            Level::Error,
            format!("the fallback commands the robot: {}", status.reason()),
        ),
        _ if status.is_contradicted => (Level::Error, status.robot_description.clone()),
        _ => (
            Level::Ok,
            format!(
                "{} commands altered by a limit, {} fallbacks since the start",
                read(&live.interventions),
                read(&live.fallbacks)
            ),
        ),
    };
    Diagnostic {
        name: "safety",
        level,
        message,
        values,
    }
}

fn recording(health: Option<&Health>, now: MonoTime) -> Diagnostic {
    let (level, message) = match health {
        None => (Level::Ok, "nothing is recorded".to_owned()),
        Some(health) => recorder(health, now),
    };
    let values = health.map_or_else(Vec::new, |health| {
        let file = health.file.as_ref().map(|path| path.display().to_string());
        vec![
            value("file", file.unwrap_or_default()),
            value("file_bytes", health.file_bytes),
            value("ticks_written", health.written),
            value("ticks_dropped", health.dropped),
            value("ticks_in_memory", health.kept),
            value("failures", health.failures),
        ]
    });
    Diagnostic {
        name: "recording",
        level,
        message,
        values,
    }
}

fn recorder(health: &Health, now: MonoTime) -> (Level, String) {
    if let Some(failure) = &health.failure {
        return (
            Level::Error,
            format!("the recording does not reach the disk: {failure}"),
        );
    }
    if health.has_dropped_lately(now) {
        return (
            Level::Warn,
            format!(
                "the recorder falls behind: {} ticks are missing from the recordings",
                health.dropped
            ),
        );
    }
    let message = match &health.file {
        Some(file) => format!("recording to {}", file.display()),
        None => format!("{} ticks are in memory, in no file yet", health.kept),
    };
    (Level::Ok, message)
}
