//! What a bundle says about itself, for a person.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use mfpo_policy::bundle::{Manifest, VerifiedBundle};
use mfpo_policy::spec::{Axis, JointSpec, ObservationTerm, RobotSpec};
use mfpo_policy::subject::{Subject, TaskSpec};

/// The manifest as text.
pub fn describe(bundle: &VerifiedBundle) -> String {
    let manifest = bundle.manifest();
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_policy(&mut text, manifest);
    if let Ok(digest) = bundle.weights_digest() {
        let _ = writeln!(text, "weights' digest   {digest}");
    }
    let _ = writeln!(text, "signed by         {}", signer_line(bundle));
    let _ = match &manifest.subject {
        Subject::Robot(robot) => write_robot(&mut text, robot),
        Subject::Task(task) => write_task(&mut text, task),
    };
    text
}

fn write_policy(text: &mut String, manifest: &Manifest) -> std::fmt::Result {
    writeln!(text, "run               {}", manifest.run)?;
    writeln!(text, "version           {}", manifest.version)?;
    writeln!(text, "sealed            {}", date(manifest.created_unix_s))?;
    writeln!(text, "digest            {}", manifest.digest)?;
    writeln!(text, "format            {}", manifest.format)?;
    writeln!(text, "sampling steps T  {}", manifest.sampling_steps)?;
    writeln!(text, "hidden sizes      {:?}", manifest.hidden_sizes)?;
    writeln!(text, "critics           {}", critics_line(manifest))?;
    writeln!(text, "guard             {}", guard_line(manifest))?;
    writeln!(
        text,
        "golden probes     {} within {}",
        manifest.probes.len(),
        manifest.probe_tolerance
    )
}

/// The last second that a date of four digits has.
const LAST: u64 = 253_402_300_799;

/// Seconds since 1970 as a date, UTC; whoever made the bundle may have stated any number.
fn date(unix_s: u64) -> String {
    if unix_s > LAST {
        return format!("{unix_s} s after the Unix epoch");
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_s)).to_string()
}

fn signer_line(bundle: &VerifiedBundle) -> String {
    bundle
        .signer()
        .map_or_else(|| "nobody".to_owned(), |key| key.to_string())
}

fn critics_line(manifest: &Manifest) -> String {
    manifest.critics.map_or_else(
        || "none, so no best of N".to_owned(),
        |critics| {
            let (support, pair) = (
                critics.support,
                if critics.clipped_double_q {
                    "smaller"
                } else {
                    "mean"
                },
            );
            format!(
                "{} atoms from {} to {}, {pair} of two",
                support.atoms, support.minimum, support.maximum
            )
        },
    )
}

fn guard_line(manifest: &Manifest) -> String {
    manifest
        .guard
        .map_or_else(|| "none".to_owned(), |guard| guard.to_string())
}

fn write_task(text: &mut String, task: &TaskSpec) -> std::fmt::Result {
    let period_ms = task.control_period_ns as f64 * 1e-6;
    writeln!(text, "\ntask              {}", task.name)?;
    writeln!(text, "control period    {period_ms} ms")?;
    writeln!(text, "observation       {} numbers", task.observation_size)?;
    writeln!(text, "action            {} numbers in [-1, 1]", task.action_size)?;
    for (name, value) in &task.options {
        writeln!(text, "option            {name} = {value}")?;
    }
    Ok(())
}

fn write_robot(text: &mut String, robot: &RobotSpec) -> std::fmt::Result {
    let unit = robot.action.interface.unit();
    writeln!(text, "\nrobot             {}", robot.robot)?;
    writeln!(text, "spec hash         {}", robot.hash())?;
    writeln!(text, "control period    {} ms", robot.control_period() * 1e3)?;
    writeln!(text, "\njoints")?;
    for joint in &robot.joints {
        writeln!(text, "  {}", joint_line(joint, unit))?;
    }
    writeln!(text, "\nobservation, {} numbers", robot.observation_size())?;
    for (index, term) in robot.observation.terms.iter().enumerate() {
        writeln!(text, "  {index:>2}  {}", term_line(term))?;
    }
    if let Some(goal) = &robot.goal {
        writeln!(text, "\ngoal, in frame {}", goal.frame)?;
        for axis in Axis::ALL {
            let (min, max) = (goal.min[axis.index()], goal.max[axis.index()]);
            writeln!(text, "  {}   {min} to {max} m", axis.name())?;
        }
    }
    writeln!(text, "\naction, {} numbers in [-1, 1]", robot.action_size())?;
    for (index, joint) in robot.action.joints.iter().enumerate() {
        writeln!(
            text,
            "  {index:>2}  {} = {} + {} a  [{unit}]",
            joint.joint, joint.offset, joint.scale
        )?;
    }
    Ok(())
}

fn joint_line(joint: &JointSpec, unit: &str) -> String {
    let range = match (joint.position_min, joint.position_max) {
        (None, None) => "continuous".to_owned(),
        (low, high) => {
            let bound =
                |limit: Option<f64>| limit.map_or_else(|| "free".to_owned(), |limit| limit.to_string());
            format!("{} to {} rad", bound(low), bound(high))
        }
    };
    let rate = joint
        .command_rate_max
        .map_or_else(String::new, |rate| format!(", command rate {rate} {unit}/s"));
    let acceleration = joint
        .acceleration_max
        .map_or_else(String::new, |most| format!(", acceleration {most} rad/s^2"));
    format!(
        "{}: {range}, velocity {} rad/s, effort {} N m{rate}{acceleration}",
        joint.name, joint.velocity_max, joint.effort_max
    )
}

fn term_line(term: &ObservationTerm) -> String {
    match term {
        ObservationTerm::Position { joint, scale } => format!("{scale} * position of {joint} [rad]"),
        ObservationTerm::SinPosition { joint } => format!("sin(position of {joint})"),
        ObservationTerm::CosPosition { joint } => format!("cos(position of {joint})"),
        ObservationTerm::Velocity { joint, scale } => format!("{scale} * velocity of {joint} [rad/s]"),
        ObservationTerm::PreviousAction { index } => format!("previous action {index}"),
        ObservationTerm::Goal { axis, scale } => format!("{scale} * {} of the goal [m]", axis.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_tells_its_date_whatever_it_states() {
        assert_eq!(date(1_795_910_400), "2026-11-29T00:00:00Z");
        assert_eq!(date(LAST), "9999-12-31T23:59:59Z");
        assert_eq!(date(u64::MAX), format!("{} s after the Unix epoch", u64::MAX));
    }

    #[test]
    fn a_robot_that_is_told_where_to_go_says_in_which_frame_and_range() {
        let mut text = String::new();
        let robot = mfpo_sim::registry::robot("reach_arm").unwrap();
        write_robot(&mut text, robot.spec()).unwrap();
        for part in [
            "3 * y of the goal [m]",
            "goal, in frame base",
            "x   0.15 to 0.38 m",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
