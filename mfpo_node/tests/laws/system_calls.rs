//! A step makes no system call: the kernel watches. A child process gives up every system call but `exit` (a seccomp
//! filter: the strict mode permits more, and takes the counter of the processor that the clock is read from) and then
//! steps; one that asks the kernel for anything is killed. What reads the clock - a limited budget, a policy in the shadow -
//! reads it in user space (vDSO); only on a machine whose clock cannot be read there is that one call permitted, too.

use std::process::ExitStatus;

use mfpo_node::control_loop::{ControlLoop, Decision, Settings};
use mfpo_node::joint_states::{JointStateMessage, JointStates};
use mfpo_node::probe::{Mode, Probe};
use mfpo_node::time::MonoTime;
use mfpo_node::weights::Stage;
use mfpo_policy::spec::CommandInterface;

use super::stages::STAGES;
use super::support::{
    STALE_AFTER, at, best_of, best_within, control_loop, guarded, policy, probing, reaching, robot, sampled,
    send, settings,
};

const INTERFACES: [CommandInterface; 3] = [
    CommandInterface::Position,
    CommandInterface::Velocity,
    CommandInterface::Effort,
];

/// Gives up every system call but `exit` and this one; `false` where the kernel has no seccomp.
fn give_up_system_calls(but: libc::c_long) -> bool {
    const NONE: libc::c_ulong = 0;
    const ON: libc::c_ulong = 1;
    const FILTER: libc::c_ulong = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
    let instruction = |code: u32, jump: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: jump,
        jf: 0,
        k,
    };
    let where_it_is = |call: libc::c_long, jump: u8| {
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jump, call as u32)
    };
    let mut filter = [
        // A filter sees `seccomp_data`, whose first word is the number of the call.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        where_it_is(libc::SYS_exit, 2),
        where_it_is(but, 1),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: prctl takes numbers, and a program that outlives the call. Whoever is killed leaves no core file.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, NONE, NONE, NONE, NONE) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, ON, NONE, NONE, NONE) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, FILTER, &raw const program) == 0
    }
}

/// Runs `work` in a child process that may make no system call but this one, and tells how the child ended. Everything
/// that `work` uses must have been made before: the child has no thread but this one, and may not even allocate.
fn with_no_call_but(but: libc::c_long, work: impl FnOnce() -> u8) -> ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    // SAFETY: the child calls nothing but `work`, which neither allocates nor locks, and then ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        let code = if give_up_system_calls(but) { work() } else { 99 };
        // SAFETY: exit takes a number (not exit_group, which libc's _exit asks for and the filter refuses).
        unsafe { libc::syscall(libc::SYS_exit, libc::c_long::from(code)) };
        unreachable!("the child has ended");
    }
    let mut status = 0;
    // SAFETY: the pointer is valid for the call, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child, "{}", std::io::Error::last_os_error());
    ExitStatus::from_raw(status)
}

/// [`with_no_call_but`] none.
fn without_system_calls(work: impl FnOnce() -> u8) -> ExitStatus {
    with_no_call_but(libc::SYS_exit, work)
}

/// [`without_system_calls`] for work that reads the clock.
fn reading_the_clock(work: impl FnOnce() -> u8) -> ExitStatus {
    if without_system_calls(|| u8::from(MonoTime::now().nanos() == 0)).success() {
        return without_system_calls(work);
    }
    println!("this machine's clock cannot be read in user space: the call for it is permitted, and no other");
    with_no_call_but(libc::SYS_clock_gettime, work)
}

/// Both joints report, `a` at this velocity; 1 where that is refused.
fn report(states: &mut JointStates, names: &[String; 2], velocity: f64, now: MonoTime) -> u8 {
    let message = JointStateMessage {
        stamp: now.nanos().cast_signed(),
        names,
        positions: &[0.1, 0.1],
        velocities: &[velocity, 0.0],
    };
    u8::from(states.apply(message, now).is_err())
}

fn names() -> [String; 2] {
    ["a", "b"].map(str::to_owned)
}

fn asks_for_its_parent() -> u8 {
    // SAFETY: getppid takes nothing and cannot fail.
    u8::from(unsafe { libc::getppid() } == 0)
}

fn writes_nothing() -> u8 {
    let nothing: [u8; 0] = [];
    // SAFETY: of no bytes none is read.
    u8::from(unsafe { libc::write(libc::STDERR_FILENO, nothing.as_ptr().cast(), 0) } != 0)
}

#[test]
fn the_kernel_kills_a_child_that_makes_a_system_call() {
    use std::os::unix::process::ExitStatusExt;
    for call in [asks_for_its_parent, writes_nothing] {
        let ended = without_system_calls(call);
        assert_eq!(ended.signal(), Some(libc::SIGSYS), "{ended}: is seccomp there?");
        let ended = reading_the_clock(call);
        assert_eq!(
            ended.signal(),
            Some(libc::SIGSYS),
            "{ended}: only the clock may be read"
        );
    }
    assert_eq!(without_system_calls(|| 7).code(), Some(7));
    let ended = reading_the_clock(|| 7 + u8::from(MonoTime::now().nanos() == 0));
    assert_eq!(ended.code(), Some(7), "{ended}");
}

#[test]
fn a_step_makes_no_system_call_whether_the_policy_or_the_fallback_commands() {
    for interface in INTERFACES {
        let spec = robot(interface);
        for (mut control, mut states) in [control_loop(&spec), best_of(4, &spec), guarded(&spec, 1e-9)] {
            let names = names();
            let ended = without_system_calls(|| {
                let mut refused = 0;
                for k in 0..200u32 {
                    let now = at(20.0 * f64::from(k));
                    // Every fourth second nothing comes: the fallback.
                    if k % 200 < 150 {
                        refused += report(&mut states, &names, 0.0, now);
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
fn a_step_within_a_budget_reads_the_clock_and_makes_no_system_call_however_far_it_gets() {
    // ns, and the most actions that are sampled in one tick.
    for (compute_budget, candidates) in [(1, 1), (1_000_000_000, 12)] {
        let spec = robot(CommandInterface::Effort);
        let (mut control, mut states) = best_within(compute_budget, 12, &spec);
        let names = names();
        let ended = reading_the_clock(|| {
            let mut most: usize = 0;
            for _ in 0..200 {
                // A budget is of real time.
                let now = MonoTime::now();
                if report(&mut states, &names, 0.0, now) > 0 {
                    return 98;
                }
                most = most.max(sampled(&control.step(&states, now)));
            }
            most as u8
        });
        assert_eq!(ended.code(), Some(candidates), "{compute_budget} ns: {ended}");
    }
}

#[test]
fn a_step_towards_a_goal_makes_no_system_call_nor_does_another_goal() {
    let (mut control, mut states) = control_loop(&reaching());
    let names = names();
    let ended = without_system_calls(|| {
        let mut acted = 0;
        for k in 0..100u32 {
            let now = at(20.0 * f64::from(k));
            let goal = [0.2 + 0.001 * f64::from(k), 0.1, 0.1];
            if control.give_goal("base", goal, now).is_err() || report(&mut states, &names, 0.0, now) > 0 {
                return 98;
            }
            if let Decision::Command(tick) = control.step(&states, now) {
                acted += u8::from(tick.fallback.is_none());
            }
        }
        acted
    });
    assert_eq!(ended.code(), Some(100), "{ended}");
}

#[test]
fn no_stage_of_a_swap_makes_a_system_call() {
    let spec = robot(CommandInterface::Effort);
    let settings = Settings {
        stages: STAGES,
        ..settings()
    };
    let mut control = ControlLoop::new(&spec, policy(&spec, 1), settings).unwrap();
    let mut states = JointStates::new(&spec, STALE_AFTER);
    let names = names();
    for k in 0..20u32 {
        let now = at(20.0 * f64::from(k));
        assert_eq!(report(&mut states, &names, 0.2, now), 0);
        drop(control.step(&states, now));
        assert!(control.after(1e-4).is_none());
    }
    assert_eq!(control.begin_swap(policy(&spec, 2)).stage, Some(Stage::Shadow));
    // What a turn hands back is freed elsewhere: outside of the child.
    let mut kept = Vec::with_capacity(64);
    let ended = reading_the_clock(|| {
        let (mut shadows, mut blends) = (0, 0);
        for k in 20..60u32 {
            let now = at(20.0 * f64::from(k));
            if report(&mut states, &names, 0.2, now) > 0 {
                return 98;
            }
            let is_shadow = control.stage() == Some(Stage::Shadow);
            if let Decision::Command(tick) = control.step(&states, now)
                && let Some(asked) = tick.asked
            {
                shadows += u32::from(is_shadow);
                blends += u32::from(asked.before.is_some());
            }
            kept.push(control.after(1e-4));
        }
        // Live, blended, committed.
        let turns = kept.iter().flatten().count();
        u8::from((turns, shadows, blends) != (3, 5, 4))
    });
    assert_eq!(
        ended.code(),
        Some(0),
        "expected 5 ticks in the shadow, 4 in the blend, and three turns: {ended}"
    );
}

#[test]
fn a_step_of_a_probe_makes_no_system_call() {
    for interface in INTERFACES {
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
