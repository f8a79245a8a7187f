//! Programs that end, are killed, come back, or lose sight of each other.

use std::time::Duration;

use mfpo_policy::spec::CommandInterface;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::outcome::{Outcome, milliseconds};
use super::stand::{Stand, TICK, without_stages};
use super::view::{MOST_APART, numbers};
use super::{Row, Scene};
use crate::bundles::sealed;
use crate::peer::{arrived, now, state};
use crate::{Cut, Qos, TestEnv, until};

/// A participant of DDS that says nothing for so long is given up by the others (Fast DDS: 20 s), s.
const LEASE: f64 = 20.0;
/// How long a robot stays away that is to be given up, s.
const AWAY: f64 = 25.0;
/// By then whoever comes back is found, or not at all.
const FOUND: Duration = Duration::from_secs(5);

pub(super) fn scenes() -> Vec<Scene> {
    let scene = |start: fn() -> Stand, rows| Scene {
        title: "Programs and the network",
        start,
        rows,
    };
    vec![
        scene(
            || Stand::of(CommandInterface::Effort, &[]),
            vec![
                Row::new("the node gets SIGTERM", node_is_ended).quick(),
                Row::new(
                    "the node is killed (SIGKILL) and comes back without a policy of its own",
                    node_comes_back,
                ),
            ],
        ),
        scene(
            simulated_robot,
            vec![
                Row::new("the node is killed (SIGKILL)", node_is_killed),
                Row::new("the robot gets SIGTERM and comes back", |s| {
                    robot_ends(s, Signal::SIGTERM)
                }),
                Row::new("the robot is killed (SIGKILL) and comes back", |s| {
                    robot_ends(s, Signal::SIGKILL)
                }),
            ],
        ),
        // Alone: DDS still knows the robot that was killed, and the test itself may not hear this one again, either.
        scene(
            simulated_robot,
            vec![Row::new(
                "the robot is suspended (SIGSTOP) for 25 s, longer than DDS waits for it",
                robot_is_suspended,
            )],
        ),
        scene(
            simulated_robot,
            vec![Row::new(
                "the network between robot and node is gone for 25 s, longer than DDS waits",
                network_is_gone,
            )],
        ),
        scene(
            learning_robot,
            vec![
                Row::new("the trainer is killed (SIGKILL)", |s| {
                    trainer_ends(s, Signal::SIGKILL)
                }),
                Row::new("the trainer comes back as a new run", trainer_comes_back_anew),
                Row::new(
                    "the trainer goes on with its run (train --resume)",
                    trainer_resumes,
                ),
                Row::new("the trainer gets SIGTERM", |s| trainer_ends(s, Signal::SIGTERM)),
            ],
        ),
    ]
}

fn node_is_ended(stand: &mut Stand) -> Outcome {
    let asked = now();
    stand.control.signal(Signal::SIGTERM);
    let zero = until("the last safe command arrives", || {
        let last = stand.peer.newest("commands")?;
        let is_zero = numbers(&last["data"]).iter().all(|v| *v == 0.0);
        is_zero.then(|| arrived(&last))
    });
    assert_eq!(stand.control.ended().code(), Some(0), "it ends in good order");
    stand.commands_have_ended();
    let view = stand.view();
    let last = view.commands.last().map(|c| numbers(&c["data"]));
    assert_eq!(last, Some(vec![0.0, 0.0]), "the last safe command is the last");
    let status = stand.peer.newest("policy/status").unwrap_or_default();
    assert_eq!(status["state"], state::STOPPED);
    let log = stand.says(&["stopped; the last safe command has been sent"]);
    let back = comes_back(stand);
    Outcome {
        sees: "the policy's commands until the signal, then one of zero effort, then nothing".into(),
        reaction: Some(zero - asked),
        recovers: format!("when the node is started again ({back})"),
        way: None,
        log,
    }
}

/// Starts the node again; how long it takes until the policy commands, in words.
fn comes_back(stand: &mut Stand) -> String {
    let started = now();
    stand.restart_control();
    let acts = stand.acts(started);
    stand.says(&["every joint reports: the policy commands the robot"]);
    milliseconds(acts - started)
}

/// The newest bundle is with whoever has published it, and comes to whoever comes later.
fn node_comes_back(stand: &mut Stand) -> Outcome {
    stand.next_good_bundle();
    stand.begin();
    let killed = kill(stand);
    let last = stand.peer.newest("commands").unwrap_or_default();
    stand.parameters.retain(|p| !p.starts_with("policy:="));
    let back = comes_back(stand);
    let log = stand.says(&["starting with policy version"]);
    let status = stand.waits_until_active();
    assert_eq!(status["version"], stand.version, "the newest one acts again");
    Outcome {
        sees: "nothing more from the signal on: its own command timeout has to act".into(),
        reaction: Some(arrived(&last) - killed).map(|s| s.max(0.0)),
        recovers: format!(
            "when the node is started again: the newest bundle comes from its publisher ({back})"
        ),
        way: None,
        log,
    }
}

fn kill(stand: &mut Stand) -> f64 {
    // So that there is something to look at.
    stand.peer.next("commands", 10);
    let killed = now();
    stand.control.signal(Signal::SIGKILL);
    assert!(!stand.control.ended().success());
    stand.commands_have_ended();
    let view = stand.view();
    let last = view.commands.last().map(arrived).unwrap_or_default();
    assert!(
        last < killed + 0.1,
        "a command came {} s after the end",
        last - killed
    );
    killed
}

/// The simulated robot `swing_arm`, commanded by a policy with random weights.
fn simulated_robot() -> Stand {
    let env = TestEnv::alone();
    let spec = swing_arm();
    let policy = env.file("first.safetensors", &sealed(&spec, 1));
    let mut parameters = without_stages();
    parameters.push(format!("policy:={}", policy.display()));
    beside_robot(env, parameters)
}

fn swing_arm() -> mfpo_policy::spec::RobotSpec {
    let arm = mfpo_sim::registry::robot("swing_arm").expect("the task");
    arm.spec().clone()
}

fn beside_robot(env: TestEnv, parameters: Vec<String>) -> Stand {
    let mut peer = env.peer("");
    peer.listen("joint_states", "sensor_msgs/JointState", Qos::Sensor);
    let robot = start_robot(&env);
    let words: Vec<&str> = parameters.iter().map(String::as_str).collect();
    let control = env.control(&words);
    let mut stand = Stand::around(env, peer, control, swing_arm());
    stand.parameters = parameters;
    stand.others.push(robot);
    stand
}

fn start_robot(env: &TestEnv) -> crate::Process {
    env.start("robot", &["--rate", "100", "--episode-seconds", "60"])
}

/// The simulated robot brakes on its own when commands end.
fn node_is_killed(stand: &mut Stand) -> Outcome {
    let killed = kill(stand);
    let last = stand.peer.newest("commands").unwrap_or_default();
    let states = stand.peer.messages("joint_states", 0);
    let braking = acts_on_its_own(&states, arrived(&last));
    let began = arrived(&braking[0]);
    let after = began - arrived(&last);
    // Its own timeout, and what states and commands take on their way.
    let expected = MOST_APART - 2.0 * TICK..=MOST_APART + 5.0 * TICK;
    assert!(
        expected.contains(&after),
        "it brakes {after:.3} s after the last command; expected {expected:?}"
    );
    for moment in braking {
        let (velocity, effort) = (numbers(&moment["velocity"])[0], numbers(&moment["effort"])[0]);
        // The effort is that of the step before, in which the joint may have turned round: by 0.08 rad/s at most.
        assert!(velocity * effort <= 1e-4, "it does not brake: {moment}");
    }
    assert!(braking.len() > 5, "{} states tell of it", braking.len());
    let back = comes_back(stand);
    Outcome {
        sees: "nothing more from the signal on; the simulated robot's own timeout (100 ms) lets it brake"
            .into(),
        reaction: Some(began - killed),
        recovers: format!("when the node is started again ({back})"),
        way: None,
        log: String::new(),
    }
}

/// The states from the first one on in which the simulated robot does what it does without commands; the last command
/// arrived at `last`, and its effort stays until the robot's own timeout.
fn acts_on_its_own(states: &[Value], last: f64) -> &[Value] {
    let effort = |state: &Value| numbers(&state["effort"])[0];
    let held = states.iter().position(|s| arrived(s) >= last + TICK);
    let held = held.expect("states after the last command");
    let since = states.get(held..).unwrap_or_default();
    let own = since
        .iter()
        .position(|s| (effort(s) - effort(&since[0])).abs() > 1e-6);
    let own = own.unwrap_or_else(|| panic!("it never brakes: {:?}", since.last()));
    since.get(own..).unwrap_or_default()
}

/// When the last state of the robot arrived.
fn last_state(stand: &Stand) -> f64 {
    stand
        .peer
        .newest("joint_states")
        .map_or(f64::NAN, |state| arrived(&state))
}

fn robot_ends(stand: &mut Stand, signal: Signal) -> Outcome {
    until("the robot reports to this test, too", || {
        (now() - last_state(stand) < 0.1).then_some(())
    });
    stand.others[0].signal(signal);
    stand.others[0].ended();
    let began = last_state(stand);
    let words = ["the fallback commands", "has not reported for"];
    let outcome = stand.falls_back(began, &words, |stand| {
        let started = now();
        stand.others[0] = start_robot(&stand.env);
        started
    });
    let recovers = outcome
        .recovers
        .replace("with the first good state", "when the robot is started again");
    Outcome { recovers, ..outcome }
}

/// Waits until so many publish the joint states, as far as DDS shows it to the test.
fn publishers_are(stand: &mut Stand, number: usize, what: &str) {
    until(what, || {
        let publishers = stand.peer.endpoints("joint_states")["publishers"].take();
        (publishers.as_array().map(Vec::len) == Some(number)).then_some(())
    });
}

fn both_see_the_robot(stand: &mut Stand) {
    publishers_are(stand, 1, "DDS knows the robot");
    until("the robot reports to this test, too", || {
        (now() - last_state(stand) < 0.1).then_some(())
    });
}

/// Waits until DDS has given up the robot, which it heard last at `began`, and then until it was away for [`AWAY`].
fn stays_away(stand: &mut Stand, began: f64) {
    publishers_are(stand, 0, "DDS has given up the robot");
    assert!(now() - began > LEASE - 5.0, "that was not the lease");
    std::thread::sleep(Duration::from_secs_f64((began + AWAY - now()).max(0.0)));
}

/// Both sides run on, and give each other up. When packets come through again they find each other by themselves.
fn network_is_gone(stand: &mut Stand) -> Outcome {
    both_see_the_robot(stand);
    let began = last_state(stand);
    let cut = Cut::off(&stand.others[0], &[&stand.control, stand.peer.process()]);
    let words = ["the fallback commands", "has not reported for"];
    let outcome = stand.falls_back(began, &words, |stand| {
        stays_away(stand, began);
        let mended = now();
        drop(cut);
        mended
    });
    let recovers = outcome.recovers.replace(
        "with the first good state",
        "when discovery has found the robot again",
    );
    Outcome { recovers, ..outcome }
}

/// A process that is suspended has missed what the others said meanwhile, and what it had to do itself. Fast DDS does not
/// always come to terms with that: its discovery then waits for endpoints that the robot's side believes to have sent.
/// Whoever joins anew is told of them.
fn robot_is_suspended(stand: &mut Stand) -> Outcome {
    both_see_the_robot(stand);
    let began = last_state(stand);
    stand.others[0].signal(Signal::SIGSTOP);
    let fell = stand.falls(began);
    let log = stand.says(&["the fallback commands", "has not reported for"]);
    stays_away(stand, began);
    let sees = stand.view().fallback(&stand.spec);
    let continued = now();
    stand.others[0].signal(Signal::SIGCONT);
    std::thread::sleep(FOUND);
    let is_found = stand.has_acted(continued);
    if !is_found {
        stand.control.signal(Signal::SIGTERM);
        stand.control.ended();
        stand.restart_control();
    }
    stand.acts(continued);
    Outcome {
        sees,
        reaction: Some(fell - began),
        recovers:
            "by itself, or, where Fast DDS does not find the robot again, when the node is started again"
                .into(),
        way: Some(if is_found {
            "by itself"
        } else {
            "the node was started again"
        }),
        log,
    }
}

/// Robot, node and a trainer whose bundles come by topic.
fn learning_robot() -> Stand {
    let mut parameters = without_stages();
    parameters.push("robot:=swing_arm".into());
    // Bundles come faster than a policy fades in.
    parameters.push("fade_in:=0.0".into());
    let mut stand = beside_robot(TestEnv::alone(), parameters);
    let trainer = start_trainer(&stand, &["--seed", "5"], "first");
    stand.others.push(trainer);
    stand
}

fn start_trainer(stand: &Stand, words: &[&str], folder: &str) -> crate::Process {
    let folder = stand.env.path(folder).display().to_string();
    let mut arguments = vec![
        "train",
        "--topic",
        "--quiet",
        "--nice",
        "19",
        "--publish-every",
        "40",
    ];
    arguments.extend(["--steps", "1000000"]);
    arguments.extend(words);
    if !words.contains(&"--resume") {
        arguments.extend(["--out", &folder]);
    }
    for set in [
        "run.random_steps=200",
        "run.checkpoint_every=100",
        "learner.batch_size=16",
        "evaluation.every=1000000",
        "evaluation.episodes=1",
    ] {
        if !words.contains(&"--resume") {
            arguments.extend(["--set", set]);
        }
    }
    stand.env.start("mfpo_train", &arguments)
}

/// Waits until the policy that acts stays the same.
fn last_policy(stand: &Stand) -> Value {
    let mut last = stand.waits_until_active();
    until("the last bundle has arrived", || {
        stand.peer.next("policy/status", 4);
        let before = std::mem::replace(&mut last, stand.waits_until_active());
        (before["version"] == last["version"]).then_some(())
    });
    last
}

/// The trainer is at work, at the start or as it goes on with its run, and a policy of its own acts.
fn with_trainer(stand: &mut Stand) {
    if stand.others[1].has_ended().is_some() {
        resume(stand);
    }
    stand.peer.status("a learnt policy acts", |s| {
        s["version"].as_u64() >= Some(3) && s["state"] == state::ACTIVE
    });
}

/// The trainer has been killed, and its last policy acts: in this row or in one before.
fn without_trainer(stand: &mut Stand) -> Value {
    if stand.others[1].has_ended().is_none() {
        with_trainer(stand);
        stand.others[1].signal(Signal::SIGKILL);
        stand.others[1].ended();
    }
    let last = last_policy(stand);
    stand.begin();
    last
}

/// The trainer goes on with the run of before.
fn resume(stand: &mut Stand) {
    let folder = stand.env.path("first").display().to_string();
    let trainer = start_trainer(stand, &["--resume", &folder], "first");
    stand.others[1] = trainer;
}

fn trainer_ends(stand: &mut Stand, signal: Signal) -> Outcome {
    with_trainer(stand);
    stand.others[1].signal(signal);
    stand.others[1].ended();
    let last = last_policy(stand);
    stand.peer.next("commands", 50);
    let after = stand.waits_until_active();
    for kept in ["run", "version", "digest", "swaps"] {
        assert_eq!(after[kept], last[kept], "{kept}");
    }
    stand.goes_on(String::new(), "not needed: the last policy goes on")
}

fn trainer_comes_back_anew(stand: &mut Stand) -> Outcome {
    let before = without_trainer(stand);
    let mut trainer = start_trainer(stand, &["--seed", "6"], "second");
    let refused = stand.peer.status("the new run is refused", |s| {
        s["rejections"].as_u64() > before["rejections"].as_u64()
    });
    assert_eq!(refused["run"], before["run"]);
    let log = stand.says(&["bundle refused", "may not take over from run", "accept_runs"]);
    trainer.signal(Signal::SIGKILL);
    trainer.ended();
    stand.goes_on(
        without_names(&log),
        "when the operator adds the run to accept_runs, or the trainer goes on with its own (train --resume)",
    )
}

/// The name of a run holds its time.
fn without_names(log: &str) -> String {
    let quoted = log.split('\'').enumerate();
    let shown: Vec<&str> = quoted
        .map(|(i, part)| if i % 2 == 1 { "..." } else { part })
        .collect();
    let shown = shown.join("'");
    match (shown.find('['), shown.find(']')) {
        (Some(from), Some(to)) if from < to => format!("{}[...{}", &shown[..from], &shown[to..]),
        _ => shown,
    }
}

fn trainer_resumes(stand: &mut Stand) -> Outcome {
    let before = without_trainer(stand);
    let began = now();
    resume(stand);
    let newer = stand.peer.status("a newer version of the run acts", |s| {
        s["run"] == before["run"] && s["version"].as_u64() > before["version"].as_u64()
    });
    let log = stand.says(&["swapped to policy version"]);
    let took = milliseconds(arrived(&newer) - began);
    stand.goes_on(
        without_names(&log),
        &format!("by itself: the run goes on, and its next version above the newest acts ({took})"),
    )
}
