//! What keeps the ROS 2 of a process, and of those that it starts, to this machine: environment variables.

/// Variables that may name other machines, whatever the range of discovery is: for a process that keeps to this one they have
/// to go.
pub const ELSEWHERE: [&str; 7] = [
    "ROS_STATIC_PEERS",
    "ROS_DISCOVERY_SERVER",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_ENVIRONMENT_FILE",
    "ROS2_EASY_MODE",
    "CYCLONEDDS_URI",
];

/// The variable and its value under the distribution `distro` (ROS_DISTRO): Humble does not know the range of discovery and
/// would talk to the whole network, and what it knows instead is deprecated everywhere else.
#[must_use]
pub fn variable(distro: Option<&str>) -> (&'static str, &'static str) {
    match distro {
        Some("humble") => ("ROS_LOCALHOST_ONLY", "1"),
        _ => ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn humble_is_told_in_its_own_words() {
        assert_eq!(variable(Some("humble")), ("ROS_LOCALHOST_ONLY", "1"));
        for distro in [None, Some("jazzy"), Some("kilted"), Some("rolling")] {
            assert_eq!(variable(distro), ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"));
        }
    }
}
