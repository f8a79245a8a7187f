//! The environment of this process. ROS 2 and Fast DDS read variables of it, and none may be changed while another thread may
//! read one: LTTng, which ROS 2 brings, has started two before `main`. So the program is started anew in its own place.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Sets variables, and removes those without a value: where one differs, this program begins anew as the same process, with
/// the same arguments and open files. Call it before anything is done that may not be done twice.
///
/// # Errors
/// When the program cannot be started again, as one whose file is gone.
pub fn restart_with(wanted: &[(&str, Option<&str>)]) -> io::Result<()> {
    let is_so =
        |(name, value): &(&str, Option<&str>)| std::env::var_os(name).as_deref() == value.map(OsStr::new);
    if wanted.iter().all(is_so) {
        return Ok(());
    }
    let mut command = Command::new(std::env::current_exe()?);
    let mut arguments = std::env::args_os();
    if let Some(own_name) = arguments.next() {
        command.arg0(own_name);
    }
    command.args(arguments);
    for (name, value) in wanted {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Err(command.exec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_whose_environment_is_so_already_goes_on() {
        let path = std::env::var("PATH").expect("every shell has one");
        let wanted = [("PATH", Some(path.as_str())), ("MFPO_NO_SUCH_VARIABLE", None)];
        assert!(restart_with(&wanted).is_ok());
    }
}
