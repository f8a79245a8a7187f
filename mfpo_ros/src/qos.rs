//! Quality of service, one profile a topic, so that publishers and subscribers of this workspace always match.
//! REP-2003: sensor data is best effort; commands are reliable because the subscribers of ros2_control are, and a
//! best-effort publisher would be silent to them.

use std::time::Duration;

use r2r::QosProfile;

/// `joint_states`: sensor data. Deeper than REP-2003's 5, so that the last message of each of several publishers
/// is still there when a fixed-rate loop reads.
pub const JOINT_STATES: QosProfile = QosProfile::sensor_data().keep_last(32);

/// `commands`: reliable; only the newest counts.
pub const COMMANDS: QosProfile = QosProfile::default().reliable().volatile().keep_last(1);

/// `policy/action`: one record a tick; reliable, with room for a reader that pauses for a moment.
pub const POLICY_ACTION: QosProfile = QosProfile::default().reliable().volatile().keep_last(64);

/// `policy/status`: latched, only the newest.
pub const POLICY_STATUS: QosProfile = QosProfile::default().reliable().transient_local().keep_last(1);

/// `policy/bundle`: latched, only the newest.
pub const POLICY_BUNDLE: QosProfile = QosProfile::default().reliable().transient_local().keep_last(1);

/// `robot_description`: latched, as robot_state_publisher has it.
pub const ROBOT_DESCRIPTION: QosProfile = QosProfile::default().reliable().transient_local().keep_last(1);
/// `policy/bundle_chunk`: latched, as many parts as the largest bundle is cut into, so that whoever comes later gets all.
pub const POLICY_BUNDLE_CHUNK: QosProfile = QosProfile::default().reliable().transient_local().keep_last(256);

/// `robot/episode`: latched, the last 50 episodes.
pub const ROBOT_EPISODE: QosProfile = QosProfile::default().reliable().transient_local().keep_last(50);

/// `enable`: a heartbeat; only the newest counts, and any publisher is heard.
pub const ENABLE: QosProfile = QosProfile::sensor_data().keep_last(1);

/// `goal`: reliable, as tools publish it; only the newest counts.
pub const GOAL: QosProfile = QosProfile::default().reliable().volatile().keep_last(1);

/// `/clock`: as rclcpp has it; only the newest counts.
pub const CLOCK: QosProfile = QosProfile::default().best_effort().volatile().keep_last(1);

/// `/diagnostics`: as every publisher of diagnostics has it.
pub const DIAGNOSTICS: QosProfile = QosProfile::default().reliable().volatile().keep_last(10);

/// `/parameter_events`: as rclcpp has it.
pub const PARAMETER_EVENTS: QosProfile = QosProfile::default().reliable().volatile().keep_last(1000);

/// `/rosout`: as rcl has it, for whoever comes within ten seconds.
pub const ROSOUT: QosProfile = QosProfile::default()
    .reliable()
    .transient_local()
    .keep_last(1000)
    .lifespan(Duration::from_secs(10));
