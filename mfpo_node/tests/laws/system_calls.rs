//! A step makes no system call: the kernel watches. A child process gives up every system call but `read`, `write`,
//! `exit` and `sigreturn` (seccomp's strict mode) and then steps; one that asks the kernel for anything is killed.

use mfpo_node::joint_states::{JointStateMessage, JointStates};
use mfpo_node::probe::{Mode, Probe};
use mfpo_node::time::MonoTime;
use mfpo_policy::spec::CommandInterface;

use super::support::{at, best_of, control_loop, guarded, probing, robot, send};

const SECCOMP_MODE_STRICT: libc::c_ulong = 1;

/// Runs `work` in a child process that may make no system call, and tells how the child ended. Everything that `work`
/// uses must have been made before: the child has no thread but this one, and may not even allocate.
fn without_system_calls(work: impl FnOnce() -> u8) -> std::process::ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    // SAFETY: the child calls nothing but `work`, which neither allocates nor locks, and then ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: prctl takes numbers; exit (not exit_group, which libc's _exit asks for) is allowed in strict mode.
        unsafe {
            let code = if libc::prctl(libc::PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0 {
                work()
            } else {
                99
            };
            libc::syscall(libc::SYS_exit, libc::c_long::from(code));
        }
        unreachable!("the child has ended");
    }
    let mut status = 0;
    // SAFETY: the pointer is valid for the call, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child, "{}", std::io::Error::last_os_error());
    std::process::ExitStatus::from_raw(status)
}

#[test]
fn the_kernel_kills_a_child_that_makes_a_system_call() {
    use std::os::unix::process::ExitStatusExt;
    let ended = without_system_calls(|| {
        // SAFETY: getppid takes nothing and cannot fail.
        unsafe { libc::getppid() };
        0
    });
    assert_eq!(ended.signal(), Some(libc::SIGKILL), "{ended}: is seccomp there?");
    assert_eq!(without_system_calls(|| 7).code(), Some(7));
}

#[test]
fn a_step_makes_no_system_call_whether_the_policy_or_the_fallback_commands() {
    for interface in [
        CommandInterface::Position,
        CommandInterface::Velocity,
        CommandInterface::Effort,
    ] {
        let spec = robot(interface);
        for (mut control, mut states) in [control_loop(&spec), best_of(4, &spec), guarded(&spec, 1e-9)] {
            let names = ["a".to_owned(), "b".to_owned()];
            let report = |states: &mut JointStates, now: MonoTime| {
                let message = JointStateMessage {
                    stamp: 0,
                    names: &names,
                    positions: &[0.1, 0.1],
                    velocities: &[0.0, 0.0],
                };
                u8::from(states.apply(message, now).is_err())
            };
            let ended = without_system_calls(|| {
                let mut refused = 0;
                for k in 0..200u32 {
                    let now = at(20.0 * f64::from(k));
                    // Every fourth second nothing comes: the fallback.
                    if k % 200 < 150 {
                        refused += report(&mut states, now);
                    }
                    drop(control.step(&states, now));
                }
                refused
            });
            assert_eq!(ended.code(), Some(0), "{interface:?}: {ended}");
        }
    }
}

#[test]
fn a_step_of_a_probe_makes_no_system_call() {
    for interface in [
        CommandInterface::Position,
        CommandInterface::Velocity,
        CommandInterface::Effort,
    ] {
        let spec = robot(interface);
        let (mut control, mut states) = control_loop(&spec);
        let mut probe = Probe::new(&spec, Mode::Move, &[], probing()).unwrap();
        send(&mut states, at(0.0), &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
        control.begin_probe(Mode::Move, &states, at(0.0)).unwrap();
        let ended = without_system_calls(|| {
            for _ in 0..1000 {
                drop(control.probe(&mut probe, &states, at(1.0)));
            }
            u8::from(probe.joint().is_some())
        });
        assert_eq!(ended.code(), Some(0), "{interface:?}: {ended}");
    }
}
