//! The managed life cycle of ROS 2: states and transitions with the numbers and labels of lifecycle_msgs, as
//! rcl_lifecycle has them, so that `ros2 lifecycle` works. A transition begins on request, passes through a
//! transition state, and ends by its outcome:
//!
//! ```text
//! unconfigured --configure--> inactive --activate--> active        (and back: deactivate, cleanup)
//! unconfigured | inactive | active --shutdown--> finalized
//! ```
//!
//! Commands leave only in the state `active`, and during a probe in the state `inactive`. What a transition does is
//! elsewhere; here is only what may follow what.

use thiserror::Error;

/// A state; the numbers are those of `lifecycle_msgs/State`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// No state yet; a node of ours is never in it.
    Unknown = 0,
    /// Nothing is loaded.
    Unconfigured = 1,
    /// Everything is loaded that is there; nothing is commanded.
    Inactive = 2,
    /// The robot is commanded.
    Active = 3,
    /// Nothing will follow.
    Finalized = 4,
    /// On the way from unconfigured to inactive.
    Configuring = 10,
    /// On the way from inactive to unconfigured.
    CleaningUp = 11,
    /// On the way to finalized.
    ShuttingDown = 12,
    /// On the way from inactive to active.
    Activating = 13,
    /// On the way from active to inactive.
    Deactivating = 14,
    /// Something went wrong on the way.
    ErrorProcessing = 15,
}

impl State {
    /// Every state, in the order in which rcl_lifecycle lists them.
    pub const ALL: [Self; 11] = [
        Self::Unknown,
        Self::Unconfigured,
        Self::Inactive,
        Self::Active,
        Self::Finalized,
        Self::Configuring,
        Self::CleaningUp,
        Self::ShuttingDown,
        Self::Activating,
        Self::Deactivating,
        Self::ErrorProcessing,
    ];

    /// Its number.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// Its name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Unconfigured => "unconfigured",
            Self::Inactive => "inactive",
            Self::Active => "active",
            Self::Finalized => "finalized",
            Self::Configuring => "configuring",
            Self::CleaningUp => "cleaningup",
            Self::ShuttingDown => "shuttingdown",
            Self::Activating => "activating",
            Self::Deactivating => "deactivating",
            Self::ErrorProcessing => "errorprocessing",
        }
    }

    /// Does a node stay in it until it is asked to leave?
    pub const fn is_primary(self) -> bool {
        matches!(
            self,
            Self::Unconfigured | Self::Inactive | Self::Active | Self::Finalized
        )
    }
}

/// What an operator may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Load what there is to load.
    Configure,
    /// Forget it.
    CleanUp,
    /// Command the robot.
    Activate,
    /// Stop commanding it.
    Deactivate,
    /// End for good.
    ShutDown,
}

/// One way from a state to another; the numbers are those of `lifecycle_msgs/Transition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Its number.
    pub id: u8,
    /// Its name.
    pub label: &'static str,
    /// Where it starts.
    pub start: State,
    /// Where it leads.
    pub goal: State,
}

const fn transition(id: u8, label: &'static str, start: State, goal: State) -> Transition {
    Transition {
        id,
        label,
        start,
        goal,
    }
}

/// How a transition ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it was asked for.
    Success,
    /// It was refused; the node is where it was.
    Failure,
    /// It went wrong; the node starts anew.
    Error,
}

const SUCCESS: &str = "transition_success";
const FAILURE: &str = "transition_failure";
const ERROR: &str = "transition_error";

/// Every transition, in the order in which rcl_lifecycle lists them.
pub const TRANSITIONS: [Transition; 25] = {
    use State::{
        Activating, Active, CleaningUp, Configuring, Deactivating, ErrorProcessing, Finalized, Inactive,
        ShuttingDown, Unconfigured,
    };
    [
        transition(1, "configure", Unconfigured, Configuring),
        transition(10, SUCCESS, Configuring, Inactive),
        transition(11, FAILURE, Configuring, Unconfigured),
        transition(12, ERROR, Configuring, ErrorProcessing),
        transition(2, "cleanup", Inactive, CleaningUp),
        transition(20, SUCCESS, CleaningUp, Unconfigured),
        transition(21, FAILURE, CleaningUp, Inactive),
        transition(22, ERROR, CleaningUp, ErrorProcessing),
        transition(3, "activate", Inactive, Activating),
        transition(30, SUCCESS, Activating, Active),
        transition(31, FAILURE, Activating, Inactive),
        transition(32, ERROR, Activating, ErrorProcessing),
        transition(4, "deactivate", Active, Deactivating),
        transition(40, SUCCESS, Deactivating, Inactive),
        transition(41, FAILURE, Deactivating, Active),
        transition(42, ERROR, Deactivating, ErrorProcessing),
        transition(5, "shutdown", Unconfigured, ShuttingDown),
        transition(6, "shutdown", Inactive, ShuttingDown),
        transition(7, "shutdown", Active, ShuttingDown),
        transition(50, SUCCESS, ShuttingDown, Finalized),
        transition(51, FAILURE, ShuttingDown, Finalized),
        transition(52, ERROR, ShuttingDown, ErrorProcessing),
        transition(60, SUCCESS, ErrorProcessing, Unconfigured),
        transition(61, FAILURE, ErrorProcessing, Finalized),
        transition(62, ERROR, ErrorProcessing, Finalized),
    ]
};

/// A transition that does not exist where the node is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("transition {asked} is not possible in state '{state}'; expected one of [{possible}]")]
pub struct Impossible {
    asked: String,
    state: &'static str,
    possible: String,
}

/// Where the node is in its life cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    state: State,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// Unconfigured.
    pub const fn new() -> Self {
        Self {
            state: State::Unconfigured,
        }
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The transitions that start here.
    pub fn available(&self) -> impl Iterator<Item = Transition> + use<> {
        let state = self.state;
        TRANSITIONS.into_iter().filter(move |t| t.start == state)
    }

    /// Begins the transition that is asked for by label, or by number where the label is empty (as rclcpp does).
    ///
    /// # Errors
    /// When it does not start here, or is not an operator's to ask for.
    pub fn request(&mut self, id: u8, label: &str) -> Result<(Goal, Transition), Impossible> {
        let asked = |t: &Transition| {
            if label.is_empty() {
                t.id == id
            } else {
                t.label == label
            }
        };
        let found = self
            .available()
            .filter(asked)
            .find_map(|t| Some((goal(t.id)?, t)));
        let Some((goal, transition)) = found else {
            return Err(self.impossible(id, label));
        };
        self.state = transition.goal;
        Ok((goal, transition))
    }

    /// Begins the transition to a goal.
    ///
    /// # Errors
    /// When it does not start here.
    pub fn begin(&mut self, wanted: Goal) -> Result<Transition, Impossible> {
        let found = self.available().find(|t| goal(t.id) == Some(wanted));
        match found {
            Some(transition) => {
                self.state = transition.goal;
                Ok(transition)
            }
            None => Err(self.impossible(0, label_of(wanted))),
        }
    }

    /// Ends the transition that is under way; nothing happens where none is.
    pub fn finish(&mut self, outcome: Outcome) -> Option<Transition> {
        let label = match outcome {
            Outcome::Success => SUCCESS,
            Outcome::Failure => FAILURE,
            Outcome::Error => ERROR,
        };
        let transition = self.available().find(|t| t.label == label)?;
        self.state = transition.goal;
        Some(transition)
    }

    fn impossible(&self, id: u8, label: &str) -> Impossible {
        let possible: Vec<&str> = self
            .available()
            .filter(|t| goal(t.id).is_some())
            .map(|t| t.label)
            .collect();
        Impossible {
            asked: if label.is_empty() {
                id.to_string()
            } else {
                format!("'{label}'")
            },
            state: self.state.label(),
            possible: possible.join(", "),
        }
    }
}

/// What an operator wants with a transition; nothing where it is not for operators.
const fn goal(id: u8) -> Option<Goal> {
    Some(match id {
        1 => Goal::Configure,
        2 => Goal::CleanUp,
        3 => Goal::Activate,
        4 => Goal::Deactivate,
        5..=7 => Goal::ShutDown,
        _ => return None,
    })
}

const fn label_of(goal: Goal) -> &'static str {
    match goal {
        Goal::Configure => "configure",
        Goal::CleanUp => "cleanup",
        Goal::Activate => "activate",
        Goal::Deactivate => "deactivate",
        Goal::ShutDown => "shutdown",
    }
}
