//! Command lines that carry ROS 2 arguments: `control --verbose --ros-args -r __ns:=/left -- --more`.

/// The arguments that are not for ROS: everything outside `--ros-args ... [--]`. What is left is for clap.
pub fn without_ros_args(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut for_ros = false;
    let mut kept = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "--ros-args" => for_ros = true,
            "--" if for_ros => for_ros = false,
            _ if for_ros => {}
            _ => kept.push(argument),
        }
    }
    kept
}

/// The level of `--ros-args --log-level LEVEL` (or `--log-level LOGGER:=LEVEL`), as a tracing level.
pub fn ros_log_level(arguments: impl IntoIterator<Item = String>) -> Option<&'static str> {
    let mut arguments = arguments.into_iter().skip_while(|a| a != "--ros-args");
    let mut level = None;
    while let Some(argument) = arguments.next() {
        if argument == "--log-level" {
            let value = arguments.next()?;
            let name = value.rsplit(":=").next().unwrap_or(&value).to_lowercase();
            level = match name.as_str() {
                "debug" => Some("debug"),
                "info" => Some("info"),
                "warn" => Some("warn"),
                "error" | "fatal" => Some("error"),
                _ => level,
            };
        }
    }
    level
}

/// The files of `--ros-args --params-file FILE`, in order.
pub fn params_files(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut arguments = arguments.into_iter();
    let (mut for_ros, mut files) = (false, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--ros-args" => for_ros = true,
            "--" if for_ros => for_ros = false,
            "--params-file" if for_ros => files.extend(arguments.next()),
            _ => {}
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn ros_arguments_are_taken_out_of_the_command_line() {
        let line = words("control --a --ros-args -r __ns:=/left -p rate:=50.0 -- --b");
        assert_eq!(without_ros_args(line), words("control --a --b"));
    }

    #[test]
    fn parameter_files_are_those_of_the_ros_arguments() {
        let line = "control --params-file no --ros-args --params-file a.yaml -p rate:=1.0 --params-file b.yaml -- --params-file no";
        assert_eq!(params_files(words(line)), words("a.yaml b.yaml"));
    }

    #[test]
    fn the_log_level_of_the_launch_file_is_understood() {
        let line = words("control --ros-args --log-level control:=DEBUG");
        assert_eq!(ros_log_level(line), Some("debug"));
        assert_eq!(ros_log_level(words("control --log-level debug")), None);
    }
}
