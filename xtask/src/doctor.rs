//! `cargo xtask doctor`: a table of what is found and, for each missing thing, the line to type.

use std::env;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::environment::Environment;
use crate::models;
use crate::mujoco;
use crate::probe::{self, Gpu, MIDDLEWARE_FILES, Preemption, RealTime, SHARED_MEMORY, left_by_middleware};
use crate::process;
use crate::python::Python;
use crate::ros::{self, Ros};
use crate::setup;
use crate::system::{self, driver_line, find_program, install_line, version_line};
use crate::workspace::Workspace;

/// Oldest Rust that builds this workspace: `rust-version` in Cargo.toml.
const OLDEST_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

const SET_UP: &str = "cargo xtask setup";
const EGL_PACKAGES: [&str; 3] = ["libegl1", "libegl-mesa0", "libgl1-mesa-dri"];

/// What was found of one thing.
enum State {
    /// It is there: what it is.
    Found(String),
    /// It is not there and nothing works without it: the line to type.
    Missing(String),
    /// It is not there, and what that means, and the line to type, if any.
    Without(&'static str, Option<String>),
}

struct Row {
    name: &'static str,
    state: State,
}

/// Prints the table; the exit code says whether all that is needed is there.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let ros = Ros::of_shell(workspace.root());
    let rows = rows(workspace, &ros);
    // A reader that has seen enough, as `head`, is no error.
    let _ = std::io::stdout().write_all(table(&rows).as_bytes());
    let missing = rows
        .iter()
        .filter(|row| matches!(row.state, State::Missing(_)))
        .count();
    Ok(if missing == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn rows(workspace: &Workspace, ros: &Result<Ros>) -> Vec<Row> {
    let environment = ros.as_ref().ok().and_then(|ros| setup::found(workspace, ros));
    let row = |name, state| Row { name, state };
    vec![
        row("Rust", rust()),
        row("C and C++ compiler", compiler(workspace)),
        row("Python", python(workspace, ros.as_ref().ok())),
        row("cmake", cmake(workspace, environment.as_ref())),
        row(
            "libclang",
            of_set_up(environment.as_ref(), "from its wheel, in .deps"),
        ),
        row("ROS 2", ros_state(ros, environment.as_ref())),
        row(
            "mfpo_msgs",
            of_set_up(environment.as_ref(), "built, in .deps/overlay"),
        ),
        row("MuJoCo", mujoco_state(workspace)),
        row("task models", models_state(workspace)),
        row("EGL rendering", egl(workspace)),
        row("GPU", gpu()),
        row("CUDA", cuda(workspace, environment.as_ref())),
        row("CUDA driver", cuda_driver()),
        row("real-time priority", priority()),
        row("locked memory", locked_memory()),
        row("kernel preemption", preemption()),
        row("clean /dev/shm", shared_memory()),
    ]
}

fn rust() -> State {
    let fix = || {
        State::Missing(format!(
            "rustup toolchain install {OLDEST_RUST} && rustup default {OLDEST_RUST}"
        ))
    };
    let Some(text) = process::output(Command::new("rustc").arg("--version")) else {
        return fix();
    };
    let version = text.split(' ').nth(1).unwrap_or_default();
    if is_at_least(version, OLDEST_RUST) {
        State::Found(text)
    } else {
        fix()
    }
}

fn is_at_least(version: &str, oldest: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(['.', '-'])
            .map_while(|part| part.parse().ok())
            .collect()
    };
    numbers(version) >= numbers(oldest)
}

fn compiler(workspace: &Workspace) -> State {
    let folders = system::search_path(workspace);
    let versions =
        ["cc", "c++"].map(|name| find_program(&folders, name).and_then(|path| version_line(&path)));
    match versions {
        [Some(c), Some(_)] if !system::lacks_compiler(&folders) => State::Found(c),
        _ => State::Missing(install_line(&["build-essential"])),
    }
}

fn python(workspace: &Workspace, ros: Option<&Ros>) -> State {
    let found = Python::find(workspace);
    let missing = system::missing_python(&found, ros);
    match found {
        Err(error) => State::Missing(format!("{}    # {error}", install_line(&missing))),
        Ok(_) if !missing.is_empty() => State::Missing(install_line(&missing)),
        Ok(Python {
            program,
            version: (major, minor),
            ..
        }) => State::Found(format!("{major}.{minor}, {}", program.display())),
    }
}

fn cmake(workspace: &Workspace, environment: Option<&Environment>) -> State {
    let mut command = Command::new("cmake");
    if let Some(environment) = environment {
        environment.apply(&mut command);
    }
    let found = process::output(command.arg("--version"));
    match (found, Ros::of_shell(workspace.root())) {
        (Some(text), _) => State::Found(text.lines().next().unwrap_or_default().to_owned()),
        (None, Ok(Ros::Wheels)) => State::Missing(SET_UP.to_owned()),
        (None, _) => State::Missing(install_line(&["cmake"])),
    }
}

fn of_set_up(environment: Option<&Environment>, found: &str) -> State {
    match environment {
        Some(_) => State::Found(found.to_owned()),
        None => State::Missing(SET_UP.to_owned()),
    }
}

fn ros_state(ros: &Result<Ros>, environment: Option<&Environment>) -> State {
    match (ros, environment) {
        (Ok(Ros::Sourced { distro, prefixes }), _) => {
            let base = prefixes
                .last()
                .map(|prefix| prefix.display().to_string())
                .unwrap_or_default();
            State::Found(format!("{distro}, sourced, {base}"))
        }
        (Ok(ros @ Ros::Wheels), Some(_)) => State::Found(format!("{}, wheels in .deps", ros.distro())),
        (Ok(Ros::Wheels), None) if Ros::Wheels.exists_for(env::consts::ARCH) => {
            State::Missing(SET_UP.to_owned())
        }
        (Ok(Ros::Wheels), None) => State::Missing(format!(
            "{}    # its wheels are for x86-64 alone",
            ros::SOURCE_LINE
        )),
        (Err(_), _) => {
            State::Missing("unset AMENT_PREFIX_PATH    # no ROS 2 that can be named is in it".to_owned())
        }
    }
}

fn models_state(workspace: &Workspace) -> State {
    let folder = models::folder(workspace);
    match folder.join("gymnasium").is_dir() && folder.join("dm_control").is_dir() {
        true => State::Found("Gymnasium and DeepMind Control Suite, in .deps".to_owned()),
        false => State::Missing(SET_UP.to_owned()),
    }
}

fn mujoco_state(workspace: &Workspace) -> State {
    if mujoco::is_current(workspace) {
        State::Found(format!("{}, in .deps", mujoco::LIBRARY))
    } else {
        State::Missing(SET_UP.to_owned())
    }
}

fn egl(workspace: &Workspace) -> State {
    match probe::egl(workspace) {
        Some(vendor) => State::Found(vendor),
        None => State::Without(
            "no films and no pictures of the robot",
            Some(install_line(&EGL_PACKAGES)),
        ),
    }
}

fn gpu() -> State {
    match probe::gpu() {
        Gpu::Ready(text) => State::Found(text),
        Gpu::NoDriver => State::Without("a card without a driver", Some(driver_line())),
        Gpu::None => State::Without("none in this machine; the CPU is used", None),
    }
}

fn cuda(workspace: &Workspace, environment: Option<&Environment>) -> State {
    if let Some(cuda) = environment.and_then(Environment::cuda) {
        return State::Found(cuda.summary());
    }
    let meaning = match (probe::nvcc(workspace), probe::gpu()) {
        (Some(_), _) => "nvcc is here, but no build uses it",
        (None, Gpu::None) => "not needed without a GPU; builds with the feature cuda want it",
        (None, _) => "no builds for the GPU",
    };
    State::Without(meaning, Some(format!("{SET_UP} --cuda")))
}

fn cuda_driver() -> State {
    match (probe::cuda_driver(), probe::gpu()) {
        (true, _) => State::Found("libcuda.so.1".to_owned()),
        (false, Gpu::None) => State::Without("programs built with the feature cuda run on the CPU", None),
        (false, _) => State::Without("no libcuda.so.1", Some(driver_line())),
    }
}

/// Lets the user who types it run in real time after the next login.
const REAL_TIME_LINE: &str = "printf '%s - rtprio 98\\n%s - memlock unlimited\\n' \"$USER\" \"$USER\" \
                              | sudo tee /etc/security/limits.d/90-mfpo.conf    # then log in again";

fn priority() -> State {
    match RealTime::read() {
        Some(RealTime { priority, .. }) if priority > 0 => {
            State::Found(format!("SCHED_FIFO up to {priority}"))
        }
        _ => State::Without(
            "ticks may be late on a busy machine",
            Some(REAL_TIME_LINE.to_owned()),
        ),
    }
}

fn locked_memory() -> State {
    match RealTime::read().map(|found| found.locked_memory) {
        Some(None) => State::Found("unlimited".to_owned()),
        _ => State::Without("memory is not locked", Some(REAL_TIME_LINE.to_owned())),
    }
}

fn preemption() -> State {
    match Preemption::read() {
        Some(Preemption::Yes(model)) => State::Found(model.to_owned()),
        Some(Preemption::No(_)) => State::Without(
            "a tick may wait some ms for another program's system call; start the kernel with preempt=full, or till then",
            Some("echo full | sudo tee /sys/kernel/debug/sched/preempt".to_owned()),
        ),
        None => State::Without("unknown: the kernel does not tell how it was built", None),
    }
}

fn shared_memory() -> State {
    if left_by_middleware(Path::new(SHARED_MEMORY)) == 0 {
        return State::Found("nothing there of killed ROS 2 programs".to_owned());
    }
    let files = MIDDLEWARE_FILES.map(|start| format!("{SHARED_MEMORY}/{start}*"));
    State::Without(
        "killed ROS 2 programs have left files, and one that starts again may not be heard; while none runs",
        Some(format!("rm -f {}", files.join(" "))),
    )
}

fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    for Row { name, state } in rows {
        let (word, text, line) = match state {
            State::Found(text) => ("found", text.as_str(), None),
            State::Missing(line) => ("MISSING", "needed", Some(line)),
            State::Without(meaning, line) => ("missing", *meaning, line.as_ref()),
        };
        out.push_str(&format!("{name:<20}{word:<9}{text}\n"));
        if let Some(line) = line {
            out.push_str(&format!("{:<29}type: {line}\n", ""));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Row, State, is_at_least, table};

    #[test]
    fn every_missing_thing_comes_with_the_line_to_type() {
        let rows = [
            Row {
                name: "Rust",
                state: State::Found("rustc 1.95.0".into()),
            },
            Row {
                name: "ROS 2",
                state: State::Missing("cargo xtask setup".into()),
            },
            Row {
                name: "GPU",
                state: State::Without("none in this machine", None),
            },
        ];
        let text = table(&rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(
            lines[1].contains("MISSING") && lines[2].contains("type: cargo xtask setup"),
            "{text}"
        );
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(is_at_least("1.100.0", "1.95"));
        assert!(is_at_least("1.95.0-nightly", "1.95"));
        assert!(!is_at_least("1.94.1", "1.95"));
    }
}
