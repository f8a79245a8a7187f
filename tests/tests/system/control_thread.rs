//! What the control thread asks of the kernel, as the kernel tells it: processors, priority, locked memory. Where it is
//! not permitted, the log says what permits it, and the robot is commanded all the same.

use std::collections::BTreeSet;

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::{Process, TestEnv, assert_says, until};

/// Far more than the node would lock by chance, KiB.
const MUCH: u64 = 20_000;

fn kilobytes(process: &Process) -> u64 {
    let locked = process.thread("control_loop", "VmLck").expect("a control thread");
    let number = locked.trim_end_matches(" kB").parse();
    number.unwrap_or_else(|error| panic!("{locked}: {error}"))
}

/// The processors of a list as the kernel writes them: 0-3,7.
fn cpus(list: &str) -> BTreeSet<usize> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        first.parse::<usize>().expect("a number")..=last.parse().expect("a number")
    };
    list.split(',').flat_map(range).collect()
}

#[test]
fn the_control_thread_alone_stays_on_the_processors_it_is_given() {
    let env = TestEnv::new();
    let control = env.control(&[]);
    let list = || control.thread("control_loop", "Cpus_allowed_list");
    let all = cpus(&until("the control thread runs", list));
    drop(control);
    let last = *all.last().expect("a processor");
    let control = env.control(&[&format!("cpu_affinity:=[{last}]")]);
    control.says(&["the control thread stays on processors", &last.to_string()]);
    let of = |thread| cpus(&control.thread(thread, "Cpus_allowed_list").expect("a list"));
    assert_eq!(of("control_loop"), BTreeSet::from([last]));
    assert_eq!(of("service"), all);
}

/// A thread under SCHED_FIFO, as [`Process::scheduling`] tells it.
const fn first_in_first_out(priority: u64) -> (u64, u64) {
    (1, priority)
}

#[test]
fn the_control_thread_has_its_priority_and_the_middlewares_threads_go_just_behind_it() {
    let env = TestEnv::new();
    let control = env.control(&["realtime_priority:=50"]);
    let line = control.says(&["real-time priority 50"]);
    let ordinary = control.scheduling("service");
    if line.contains("not permitted") {
        assert_eq!(control.scheduling("control_loop"), ordinary, "{line}");
        return;
    }
    assert_eq!(control.scheduling("control_loop"), [first_in_first_out(50)]);
    let raised = line
        .split(" threads of the middleware")
        .next()
        .and_then(|text| text.rsplit(' ').next()?.parse::<usize>().ok());
    let raised = raised.unwrap_or_else(|| panic!("no number of threads in: {line}"));
    let middleware = control.scheduling("dds.");
    let behind = middleware.iter().filter(|of| **of == first_in_first_out(49));
    // One that such a thread has started since has its priority, too.
    assert!(
        raised > 0 && behind.count() >= raised,
        "{raised} were raised: {middleware:?}"
    );
    assert_eq!(ordinary, [(0, 0)], "nothing else of the node goes before others");
}

#[test]
fn processors_that_are_not_there_are_named_with_those_that_are() {
    let env = TestEnv::new();
    let control = env.control(&["cpu_affinity:=1000"]);
    let line = control.says(&["cpu_affinity [1000] cannot be had"]);
    let all = control
        .thread("control_loop", "Cpus_allowed_list")
        .expect("a list");
    assert_says(&line, &["going on", &all]);
    let mut control = env.control(&["cpu_affinity:=[-1]"]);
    assert_ne!(control.ended().code(), Some(0));
    control.says(&["cpu_affinity", "from 0 to", "got -1"]);
}

#[test]
fn memory_is_locked_where_that_is_permitted() {
    let env = TestEnv::new();
    let control = env.control(&["lock_memory:=true"]);
    let line = control.says(&["memory", "locked"]);
    if line.contains("not locked") {
        assert_says(&line, &["memlock unlimited"]);
        assert_eq!(kilobytes(&control), 0);
    } else {
        assert!(kilobytes(&control) > MUCH, "{} KiB", kilobytes(&control));
    }
}

#[test]
fn without_privileges_the_log_says_what_to_write_and_the_robot_is_commanded() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let control = env.control_without_privileges(&[
        "lock_memory:=true",
        "realtime_priority:=50",
        &format!("policy:={}", policy.display()),
    ]);
    control.says(&[
        "memory is not locked",
        "'@realtime - memlock unlimited'",
        "limits.d",
    ]);
    control.says(&[
        "priority 50 is not permitted",
        "'@realtime - rtprio 98'",
        "limits.d",
    ]);
    assert_eq!(kilobytes(&control), 0);
    assert_eq!(
        control.scheduling("control_loop"),
        control.scheduling("service"),
        "the control thread is scheduled as every other one"
    );
    peer.report_both_joints();
    peer.active();
    peer.next("commands", 20);
}
