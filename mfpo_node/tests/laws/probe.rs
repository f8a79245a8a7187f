//! The probe finds what is wrong with a robot, says nothing of a right one, and moves no joint further than it may.

mod by_hand;

use std::f64::consts::PI;

use mfpo_node::control_loop::probing::Probing;
use mfpo_node::control_loop::{ControlLoop, NotReady, Reason, Settings};
use mfpo_node::joint_states::{JointStates, Refusal};
use mfpo_node::probe::judge::{Finding, Outcome, judge};
use mfpo_node::probe::{Mode, Probe, ProbeSettings};
use mfpo_policy::spec::{CommandInterface, RobotSpec};

use super::support::{MS, STALE_AFTER, allocations, at, policy, probing, robot, send, settings};

const PERIOD: f64 = 0.02;
const INTERFACES: [CommandInterface; 3] = [
    CommandInterface::Position,
    CommandInterface::Velocity,
    CommandInterface::Effort,
];

/// What is wrong with a robot.
#[derive(Debug, Clone, Copy, Default)]
struct Fault {
    /// The states of both joints bear each other's name.
    swapped: bool,
    /// Factor of the positions, and of the velocities, in what the states say of joint a.
    positions: Option<f64>,
    velocities: Option<f64>,
    /// Joint a does what it is told times this.
    obeys: Option<f64>,
}

/// A robot of joints a and b, in truth and as its states tell of it.
struct Plant {
    interface: CommandInterface,
    fault: Fault,
    positions: [f64; 2],
    velocities: [f64; 2],
    /// Turns a joint by itself, rad/s^2: a load.
    load: f64,
    tick: u64,
}

impl Plant {
    fn new(interface: CommandInterface, fault: Fault) -> Self {
        Self {
            interface,
            fault,
            positions: [0.0; 2],
            velocities: [0.0; 2],
            load: 0.0,
            tick: 0,
        }
    }

    /// One period under a command (in the order b, a).
    fn obey(&mut self, command: [f64; 2]) {
        let told = [command[1] * self.fault.obeys.unwrap_or(1.0), command[0]];
        for (i, told) in told.into_iter().enumerate() {
            let before = self.positions[i];
            match self.interface {
                // It lags behind, as servos do.
                CommandInterface::Position => self.positions[i] += 0.3 * (told - before),
                CommandInterface::Velocity => self.positions[i] += PERIOD * told,
                CommandInterface::Effort => {
                    let acceleration = 20.0 * told - 0.5 * self.velocities[i] - self.load;
                    self.velocities[i] += PERIOD * acceleration;
                    self.positions[i] += PERIOD * self.velocities[i];
                    continue;
                }
            }
            self.velocities[i] = (self.positions[i] - before) / PERIOD;
        }
    }

    /// What the states say of a and b: with the noise of an encoder.
    fn report(&mut self, states: &mut JointStates, now_ms: f64) {
        self.tick += 1;
        let noise = 5e-5 * (0.7 * self.tick as f64).sin();
        let factor = self.fault.positions.unwrap_or(1.0);
        let positions = [factor * self.positions[0] + noise, self.positions[1] - noise];
        let of_velocity = self.fault.velocities.unwrap_or(factor);
        let velocities = [of_velocity * self.velocities[0], self.velocities[1]];
        let names = if self.fault.swapped {
            ["b", "a"]
        } else {
            ["a", "b"]
        };
        take(send(states, at(now_ms), &names, &positions, &velocities));
    }
}

/// In the wrong unit a joint seems to jump: the first state is refused, the second taken.
fn take(sent: Result<(), Refusal>) {
    assert!(matches!(sent, Ok(()) | Err(Refusal::Jump { .. })), "{sent:?}");
}

/// What a probe of a plant sent, and what it found.
struct Probed {
    outcomes: Vec<Outcome>,
    commands: Vec<[f64; 2]>,
    /// The furthest that each joint has been from where it began, in truth.
    furthest: [f64; 2],
    is_restless: bool,
}

fn loop_of(spec: &RobotSpec, settings: Settings) -> (ControlLoop, JointStates) {
    let control = ControlLoop::new(spec, policy(spec, 1), settings).unwrap();
    (control, JointStates::new(spec, STALE_AFTER))
}

fn run(plant: &mut Plant) -> Probed {
    let spec = robot(plant.interface);
    let (mut control, mut states) = loop_of(&spec, settings());
    let mut probe = Probe::new(&spec, Mode::Move, &[], probing()).unwrap();
    let start = plant.positions;
    let mut probed = Probed {
        outcomes: Vec::new(),
        commands: Vec::new(),
        furthest: [0.0; 2],
        is_restless: false,
    };
    plant.report(&mut states, 0.0);
    control.begin_probe(Mode::Move, &states, at(0.0)).unwrap();
    for k in 0..2000 {
        let ms = 20.0 * f64::from(k + 1);
        plant.report(&mut states, ms);
        match control.probe(&mut probe, &states, at(ms)) {
            Probing::Command { command, .. } => {
                let command = [command.values()[0], command.values()[1]];
                probed.commands.push(command);
                plant.obey(command);
            }
            Probing::Look => panic!("nobody moves it by hand"),
            Probing::End(reason) => {
                assert!(reason.is_none(), "{reason:?}");
                probed.outcomes = judge(&probe);
                probed.is_restless = probe.is_restless();
                return probed;
            }
        }
        for (furthest, (is, was)) in probed.furthest.iter_mut().zip(plant.positions.iter().zip(start)) {
            *furthest = furthest.max((is - was).abs());
        }
    }
    panic!("it does not end")
}

/// What was found at a joint.
fn found(probed: &Probed, joint: &str) -> Option<Finding> {
    let outcome = probed.outcomes.iter().find(|outcome| outcome.joint == joint);
    outcome
        .unwrap_or_else(|| panic!("{joint} in {:?}", probed.outcomes))
        .finding
        .clone()
}

#[test]
fn a_right_robot_gives_no_finding_and_is_back_where_it_was() {
    for interface in INTERFACES {
        let mut plant = Plant::new(interface, Fault::default());
        plant.positions = [0.4, -2.0];
        let probed = run(&mut plant);
        assert!(
            probed.outcomes.iter().all(|o| o.finding.is_none()),
            "{interface:?}: {:?}",
            probed.outcomes
        );
        assert!(
            (plant.positions[0] - 0.4).abs() < 0.02,
            "{interface:?}: {:?}",
            plant.positions
        );
        assert!(
            (plant.positions[1] + 2.0).abs() < 0.02,
            "{interface:?}: {:?}",
            plant.positions
        );
    }
}

#[test]
fn a_load_that_pulls_at_the_joints_is_no_finding() {
    let mut plant = Plant::new(CommandInterface::Effort, Fault::default());
    plant.load = 0.02;
    let probed = run(&mut plant);
    assert!(
        probed.outcomes.iter().all(|o| o.finding.is_none()),
        "{:?}",
        probed.outcomes
    );
}

#[test]
fn swapped_joints_name_each_other() {
    for interface in INTERFACES {
        let fault = Fault {
            swapped: true,
            ..Fault::default()
        };
        let probed = run(&mut Plant::new(interface, fault));
        for (joint, other) in [("a", "b"), ("b", "a")] {
            let Some(Finding::Swapped { with, is_backwards }) = found(&probed, joint) else {
                panic!("{interface:?}: {:?}", probed.outcomes)
            };
            assert_eq!((with.as_str(), is_backwards), (other, false), "{interface:?}");
        }
    }
}

#[test]
fn a_flipped_sign_names_the_joint_and_no_other() {
    for interface in INTERFACES {
        for fault in [
            Fault {
                positions: Some(-1.0),
                ..Fault::default()
            },
            Fault {
                obeys: Some(-1.0),
                ..Fault::default()
            },
        ] {
            let probed = run(&mut Plant::new(interface, fault));
            assert_eq!(
                found(&probed, "a"),
                Some(Finding::Flipped),
                "{interface:?} {fault:?}"
            );
            assert_eq!(found(&probed, "b"), None, "{interface:?}");
        }
    }
}

#[test]
fn a_dead_joint_is_told_from_a_right_one() {
    for interface in INTERFACES {
        let fault = Fault {
            obeys: Some(0.0),
            ..Fault::default()
        };
        let probed = run(&mut Plant::new(interface, fault));
        assert_eq!(found(&probed, "a"), Some(Finding::Dead), "{interface:?}");
        assert_eq!(found(&probed, "b"), None, "{interface:?}");
    }
}

#[test]
fn a_wrong_unit_is_named_with_the_joint() {
    let degrees = 180.0 / PI;
    for interface in [CommandInterface::Position, CommandInterface::Velocity] {
        for (fault, word) in [
            (
                Fault {
                    positions: Some(degrees),
                    ..Fault::default()
                },
                "its state is in degrees",
            ),
            (
                Fault {
                    positions: Some(1000.0),
                    ..Fault::default()
                },
                "its state is in millimetres",
            ),
            (
                Fault {
                    obeys: Some(1.0 / degrees),
                    ..Fault::default()
                },
                "its command is taken as degrees",
            ),
        ] {
            let probed = run(&mut Plant::new(interface, fault));
            let finding = found(&probed, "a")
                .map(|finding| finding.to_string())
                .unwrap_or_default();
            assert!(finding.contains(word), "{interface:?} {fault:?}: {finding}");
            assert_eq!(found(&probed, "b"), None, "{interface:?}");
        }
    }
}

#[test]
fn a_velocity_that_does_not_fit_the_position_is_named() {
    for interface in INTERFACES {
        for (factor, word) in [(180.0 / PI, "in degrees"), (-1.0, "is -")] {
            let fault = Fault {
                velocities: Some(factor),
                ..Fault::default()
            };
            let probed = run(&mut Plant::new(interface, fault));
            let finding = found(&probed, "a")
                .map(|finding| finding.to_string())
                .unwrap_or_default();
            assert!(
                finding.contains("its velocity is") && finding.contains(word),
                "{interface:?}: {finding}"
            );
            assert_eq!(found(&probed, "b"), None, "{interface:?}");
        }
    }
}

#[test]
fn joints_that_go_elsewhere_when_told_to_stay_end_the_probe_and_say_where_to() {
    let swapped = Fault {
        swapped: true,
        ..Fault::default()
    };
    let flipped = Fault {
        obeys: Some(-1.0),
        ..Fault::default()
    };
    for (fault, expected) in [(swapped, "moved in its place"), (flipped, "its sign is flipped")] {
        let mut plant = Plant::new(CommandInterface::Position, fault);
        plant.positions = [0.5, -0.3];
        let probed = run(&mut plant);
        assert!(probed.is_restless);
        let findings: Vec<String> = probed
            .outcomes
            .iter()
            .filter_map(|outcome| Some(outcome.finding.as_ref()?.to_string()))
            .collect();
        assert!(findings[0].contains(expected), "{findings:?}");
        // Nothing was told to move: every command is the first one.
        assert!(
            probed.commands.windows(2).all(|c| c[0] == c[1]),
            "{:?}",
            probed.commands
        );
        assert!(findings[1].contains("not probed"), "{findings:?}");
    }
    // A robot that falls.
    let mut plant = Plant::new(CommandInterface::Effort, Fault::default());
    plant.load = 9.0;
    let probed = run(&mut plant);
    assert!(probed.is_restless && probed.commands.iter().all(|c| *c == [0.0, 0.0]));
    assert!(
        matches!(probed.outcomes[0].finding, Some(Finding::MovedByItself { .. })),
        "{:?}",
        probed.outcomes
    );
}

#[test]
fn one_joint_moves_at_a_time_and_no_further_than_it_may() {
    let faults = [
        Fault::default(),
        Fault {
            positions: Some(-1.0),
            ..Fault::default()
        },
        Fault {
            positions: Some(180.0 / PI),
            ..Fault::default()
        },
        Fault {
            obeys: Some(3.0),
            ..Fault::default()
        },
        Fault {
            swapped: true,
            ..Fault::default()
        },
    ];
    for interface in INTERFACES {
        for fault in faults {
            let probed = run(&mut Plant::new(interface, fault));
            let first = probed.commands[0];
            for command in &probed.commands {
                let moved = command
                    .iter()
                    .zip(first)
                    .filter(|(c, f)| (**c - f).abs() > 1e-12)
                    .count();
                assert!(moved <= 1, "{interface:?} {fault:?}: {command:?}");
                let most = match interface {
                    CommandInterface::Position => 0.05,
                    CommandInterface::Velocity => 0.1,
                    CommandInterface::Effort => 0.1,
                };
                assert!(
                    command
                        .iter()
                        .zip(first)
                        .all(|(c, f)| (c - f).abs() <= most + 1e-9),
                    "{command:?}"
                );
            }
            // Twice the amplitude, and what a tick more does until it is seen.
            assert!(
                probed.furthest.iter().all(|f| *f < 0.13),
                "{interface:?} {fault:?}: {:?}",
                probed.furthest
            );
        }
    }
}

#[test]
fn a_joint_moves_towards_the_side_that_has_room_and_not_at_all_where_there_is_none() {
    let mut plant = Plant::new(CommandInterface::Position, Fault::default());
    plant.positions = [0.98, 0.0];
    let probed = run(&mut plant);
    assert!(probed.commands.iter().all(|command| command[1] <= 0.98 + 1e-3));
    assert_eq!(found(&probed, "a"), None);

    let mut spec = robot(CommandInterface::Position);
    spec.joints[0].position_min = Some(0.96);
    let (mut control, mut states) = loop_of(&spec, settings());
    let mut probe = Probe::new(&spec, Mode::Move, &["a".to_owned()], probing()).unwrap();
    for k in 0..100 {
        let ms = 20.0 * f64::from(k);
        plant.report(&mut states, ms);
        if k == 0 {
            control.begin_probe(Mode::Move, &states, at(ms)).unwrap();
        }
        if let Probing::End(None) = control.probe(&mut probe, &states, at(ms)) {
            assert_eq!(judge(&probe)[0].finding, Some(Finding::NoRoom));
            return;
        }
    }
    panic!("it does not end");
}

/// A probe that has run for half a second.
fn under_way(settings: Settings) -> (ControlLoop, JointStates, Probe, Plant) {
    let spec = robot(CommandInterface::Velocity);
    let (mut control, mut states) = loop_of(&spec, settings);
    let mut probe = Probe::new(&spec, Mode::Move, &[], probing()).unwrap();
    let mut plant = Plant::new(CommandInterface::Velocity, Fault::default());
    control.heard_enable(true, at(0.0));
    plant.report(&mut states, 0.0);
    control.begin_probe(Mode::Move, &states, at(0.0)).unwrap();
    for k in 0..25 {
        let ms = 20.0 * f64::from(k);
        plant.report(&mut states, ms);
        assert!(matches!(
            control.probe(&mut probe, &states, at(ms)),
            Probing::Command { .. }
        ));
    }
    (control, states, probe, plant)
}

#[test]
fn a_stop_a_stale_joint_and_a_lost_heartbeat_end_a_probe_within_a_tick() {
    let (mut control, mut states, mut probe, mut plant) = under_way(settings());
    plant.report(&mut states, 500.0);
    control.halt();
    let end = control.probe(&mut probe, &states, at(500.0));
    assert!(matches!(end, Probing::End(Some(Reason::Stopped))), "{end:?}");
    // What is left is a stop: the velocity ramps to zero.
    let mut there = false;
    for _ in 0..20 {
        let (command, is_there) = control.stop(&states, at(520.0)).unwrap();
        there |= is_there && command.values().iter().all(|v| *v == 0.0);
    }
    assert!(there);
    assert!(
        judge(&probe)
            .iter()
            .any(|o| o.finding == Some(Finding::NotProbed))
    );

    let (mut control, states, mut probe, _) = under_way(settings());
    let end = control.probe(&mut probe, &states, at(480.0 + 51.0));
    assert!(matches!(end, Probing::End(Some(Reason::States(_)))), "{end:?}");

    let with_heartbeat = Settings {
        enable_timeout: 490 * MS,
        ..settings()
    };
    let (mut control, mut states, mut probe, mut plant) = under_way(with_heartbeat);
    plant.report(&mut states, 500.0);
    let end = control.probe(&mut probe, &states, at(500.0));
    assert!(
        matches!(end, Probing::End(Some(Reason::NotEnabled(_)))),
        "{end:?}"
    );
}

#[test]
fn a_probe_begins_only_where_the_robot_may_be_commanded() {
    let spec = robot(CommandInterface::Position);
    let (mut control, mut states) = loop_of(&spec, settings());
    let missing = control.begin_probe(Mode::Move, &states, at(0.0)).unwrap_err();
    assert!(matches!(missing, NotReady::States(_)));
    send(&mut states, at(0.0), &["a", "b"], &[1.2, 0.0], &[0.0, 0.0]).unwrap();
    let outside = control.begin_probe(Mode::Move, &states, at(0.0)).unwrap_err();
    assert!(matches!(outside, NotReady::Outside(_)));
    // Nothing is commanded by hand.
    control.begin_probe(Mode::ByHand, &states, at(0.0)).unwrap();
}

#[test]
fn a_step_of_a_probe_allocates_nothing() {
    for interface in INTERFACES {
        let spec = robot(interface);
        let (mut control, mut states) = loop_of(&spec, settings());
        let mut probe = Probe::new(&spec, Mode::Move, &[], probing()).unwrap();
        send(&mut states, at(0.0), &["a", "b"], &[0.0, 0.0], &[0.0, 0.0]).unwrap();
        control.begin_probe(Mode::Move, &states, at(0.0)).unwrap();
        let count = allocations(|| {
            for _ in 0..2000 {
                drop(control.probe(&mut probe, &states, at(1.0)));
            }
        });
        assert_eq!(count, 0, "{interface:?}");
        assert_eq!(probe.joint(), None, "all of it was walked");
    }
}

#[test]
fn what_cannot_be_probed_is_refused_with_what_can() {
    let spec = robot(CommandInterface::Position);
    let refused = |joints: &[&str], settings: ProbeSettings| {
        let joints: Vec<String> = joints.iter().map(|joint| (*joint).to_owned()).collect();
        Probe::new(&spec, Mode::Move, &joints, settings)
            .unwrap_err()
            .to_string()
    };
    let error = refused(&["aa"], probing());
    assert!(
        error.contains("'aa'") && error.contains("[b, a]") && error.contains("did you mean 'a'"),
        "{error}"
    );
    assert!(refused(&["a", "a"], probing()).contains("twice"));
    let endless = ProbeSettings {
        seconds: 1e5,
        ..probing()
    };
    assert!(refused(&[], endless).contains("lower probe.seconds"));
}
