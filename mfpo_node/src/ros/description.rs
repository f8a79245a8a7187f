//! The robot's own description, as `robot_state_publisher` publishes it: its limits tighten the bundle's, at a tick
//! boundary. One that leaves a joint no room changes nothing, and keeps the node from becoming active.

use mfpo_policy::spec::RobotSpec;

use super::control_thread::Order;
use super::service::Service;

use crate::control_loop::Tuning;
use crate::lifecycle::State;
use crate::safety::RobotDescription;

/// What has been published of the robot.
#[derive(Default)]
pub struct Described {
    /// The newest description.
    newest: Option<RobotDescription>,
    /// The one whose limits hold: the newest one that fits.
    holds: Option<RobotDescription>,
    /// Why the newest one does not.
    contradiction: Option<String>,
}

impl Described {
    /// Why the robot may not be commanded as it is described.
    pub fn contradiction(&self) -> Option<&str> {
        self.contradiction.as_deref()
    }

    /// The robot is given up; the next one is described by what was published last.
    pub fn forget_robot(&mut self) {
        self.holds = None;
        self.contradiction = None;
    }

    /// A spec with the limits that hold.
    ///
    /// # Errors
    /// Which joint they leave no room.
    pub fn limited(&self, spec: &RobotSpec) -> Result<RobotSpec, String> {
        match &self.holds {
            Some(description) => description.tighten(spec).map_err(|error| error.to_string()),
            None => Ok(spec.clone()),
        }
    }
}

impl Service {
    /// The robot's description has arrived.
    pub fn describe(&mut self, text: &str) {
        let description = match RobotDescription::parse(text) {
            Ok(description) => description,
            Err(error) => {
                tracing::warn!("{error}; the limits are as they were");
                self.status.robot_description = error.to_string();
                return;
            }
        };
        tracing::info!("robot_description: {} joints described", description.joints());
        self.described.newest = Some(description);
        self.reconsider_description();
        self.is_retuned = true;
        self.retune();
    }

    /// Do the newest description and the robot's policy fit? Where there is no policy yet, that is seen later.
    pub fn reconsider_description(&mut self) {
        let had_contradiction = self.described.contradiction.is_some();
        let (Some(newest), Some(spec)) = (self.described.newest.clone(), self.spec.clone()) else {
            self.described.contradiction = None;
            return;
        };
        let fits = newest
            .tighten(&spec)
            .map_err(|error| error.to_string())
            .and_then(
                |limited| match Tuning::new(&limited, self.config.settings.clone()) {
                    Ok(_) => Ok(limited),
                    Err(error) => Err(format!("with the limits of robot_description, {error}")),
                },
            );
        match fits {
            Ok(limited) => {
                self.status.robot_description = effect(&newest, &spec, &limited);
                tracing::info!("{}", self.status.robot_description);
                self.described.holds = Some(newest);
                self.described.contradiction = None;
            }
            Err(contradiction) => {
                tracing::error!("{contradiction}; the limits are as they were, and no activation succeeds");
                self.status.robot_description.clone_from(&contradiction);
                self.described.contradiction = Some(contradiction);
            }
        }
        self.status.is_contradicted = self.described.contradiction.is_some();
        self.start_or_wait(had_contradiction);
    }

    /// A robot that was about to be commanded waits for the contradiction to be solved, and goes on after that.
    fn start_or_wait(&mut self, had_contradiction: bool) {
        let order = match (had_contradiction, self.described.contradiction.is_some()) {
            (false, true) if self.life.state() == State::Inactive && self.has_robot => Order::Deactivate,
            (true, false) if self.wants_to_start() && self.has_robot => Order::Activate { persistent: true },
            _ => return,
        };
        if let Err(reason) = self.order(order) {
            tracing::error!("robot_description: {reason}");
        }
    }
}

/// What a description does, in words.
fn effect(description: &RobotDescription, spec: &RobotSpec, limited: &RobotSpec) -> String {
    let pairs = spec.joints.iter().zip(&limited.joints);
    let tightened: Vec<&str> = pairs
        .filter(|(before, after)| before != after)
        .map(|(joint, _)| joint.name.as_str())
        .collect();
    let missing: Vec<&str> = description.missing(spec).collect();
    let lacks = if missing.is_empty() {
        String::new()
    } else {
        format!("; it lacks joints [{}]", missing.join(", "))
    };
    format!(
        "robot_description tightens the limits of joints [{}]{lacks}",
        tightened.join(", ")
    )
}
