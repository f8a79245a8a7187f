//! The simulated robot, without ROS: commands in, states out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mfpo_sim::env::evaluation_seed;
use mfpo_sim::robot::{EpisodeResult, JointStates, Robot, RobotLink, RobotOptions};
use mfpo_sim::{Env, EnvOptions, Mode, Randomization, registry};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TORQUE_MAX: f64 = 0.25;

/// A link that plays back commands at given physics steps and keeps all that the robot publishes.
#[derive(Default)]
struct Tape {
    /// `(physics step, command)`, in order.
    commands: Vec<(u64, Vec<f64>)>,
    step: u64,
    states: Vec<JointStates>,
    episodes: Vec<EpisodeResult>,
    goals: Vec<(u64, String, [f64; 3])>,
}

impl Tape {
    fn new(commands: Vec<(u64, Vec<f64>)>) -> Self {
        Self {
            commands,
            ..Self::default()
        }
    }

    /// Runs `robot` for `steps` physics steps, as fast as it goes.
    fn play(&mut self, robot: &mut Robot, steps: u64) {
        for _ in 0..steps {
            robot.advance(self).unwrap();
            self.step += 1;
        }
    }
}

impl RobotLink for Tape {
    fn receive(&mut self) -> Option<Vec<f64>> {
        let due = self.commands.first().is_some_and(|(step, _)| *step <= self.step);
        due.then(|| self.commands.remove(0).1)
    }

    fn publish_states(&mut self, states: &JointStates) {
        self.states.push(states.clone());
    }

    fn publish_goal(&mut self, frame: &str, goal: [f64; 3]) {
        self.goals.push((self.step, frame.to_owned(), goal));
    }

    fn publish_episode(&mut self, result: &EpisodeResult) {
        self.episodes.push(result.clone());
    }
}

/// Publishes every physics step and does not wait for commands.
fn robot() -> RobotOptions {
    RobotOptions {
        rate: 1000.0,
        wait_for_command: false,
        ..RobotOptions::default()
    }
}

fn assert_close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "{got}, expected {expected}");
}

#[test]
fn the_last_command_acts_until_the_timeout_and_then_damping_does() {
    let mut robot = Robot::new(robot()).unwrap();
    let mut tape = Tape::new(vec![(10, vec![0.2])]);
    tape.play(&mut robot, 300);
    for (k, states) in tape.states.iter().enumerate() {
        if (10..110).contains(&k) {
            assert_close(states.efforts[0], 0.2);
        } else if k > 0 {
            // The velocity that the damping saw is the one before the step.
            assert_close(states.efforts[0], -0.02 * tape.states[k - 1].velocities[0]);
        }
    }
    tape.play(&mut robot, 2500 - 300);
    assert_eq!(tape.episodes[0].timeouts, 1);
    assert_eq!(tape.episodes[0].commands_received, 1);
}

#[test]
fn a_bad_command_is_refused_and_the_one_before_stays() {
    let bad = [
        vec![f64::NAN],
        vec![f64::INFINITY],
        vec![],
        vec![0.1, 0.1],
        vec![f64::NAN; 3],
    ];
    let mut commands = vec![(0, vec![-0.15])];
    commands.extend(bad.iter().map(|command| (40, command.clone())));
    let mut tape = Tape::new(commands);
    let mut robot = Robot::new(robot()).unwrap();
    tape.play(&mut robot, 2500);
    assert!(tape.states[..100].iter().all(|s| s.efforts[0] == -0.15));
    // Bad commands do not keep the one before alive either.
    assert_ne!(tape.states[101].efforts[0], -0.15);
    assert_eq!(tape.episodes[0].commands_refused, bad.len() as u64);
    assert_eq!(tape.episodes[0].commands_received, 1);
    assert!(tape.states.iter().all(|s| s.positions[0].is_finite()));
}

#[test]
fn a_command_beyond_the_torque_limit_gets_the_limit() {
    let mut tape = Tape::new(vec![(0, vec![100.0])]);
    tape.play(&mut Robot::new(robot()).unwrap(), 50);
    assert_close(tape.states[20].efforts[0], TORQUE_MAX);
}

#[test]
fn states_come_at_the_rate_asked_for() {
    for rate in [1000.0, 300.0, 250.0, 7.0] {
        let mut tape = Tape::default();
        tape.play(&mut Robot::new(RobotOptions { rate, ..robot() }).unwrap(), 1000);
        assert_eq!(tape.states.len() as f64, rate);
    }
}

#[test]
fn the_starts_are_gone_through_again_and_again() {
    let options = RobotOptions {
        starts: 3,
        seed: 5,
        episode_seconds: Some(0.1),
        ..robot()
    };
    let mut tape = Tape::default();
    tape.play(&mut Robot::new(options).unwrap(), 700);
    let seeds: Vec<u64> = tape.episodes.iter().map(|e| e.seed).collect();
    let expected: Vec<u64> = (0..7).map(|k| evaluation_seed(5, k % 3)).collect();
    assert_eq!(seeds, expected);
    let indices: Vec<u64> = tape.episodes.iter().map(|e| e.index).collect();
    assert_eq!(indices, (0..7).collect::<Vec<u64>>());
}

#[test]
fn the_first_episode_waits_for_the_first_command() {
    let options = RobotOptions {
        wait_for_command: true,
        ..robot()
    };
    let mut robot = Robot::new(options).unwrap();
    let mut tape = Tape::new(vec![(4000, vec![0.0])]);
    tape.play(&mut robot, 4000 + 2499);
    assert!(tape.episodes.is_empty());
    assert_eq!(tape.states.len(), 6499, "states are published while it waits");
    tape.play(&mut robot, 1);
    assert_eq!(tape.episodes.len(), 1);
    assert_eq!(tape.episodes[0].index, 0);
}

#[test]
fn robot_and_environment_judge_alike() {
    let options = EnvOptions {
        mode: Mode::Evaluate,
        randomization: Randomization::none(),
        ..EnvOptions::default()
    };
    let mut env = registry::make("swing_arm", &options).unwrap();
    let mut commands = Vec::new();
    let mut expected = Vec::new();
    for index in 0..4 {
        // Even starts are swung up by a controller, odd ones get random actions.
        let (actions, outcome) = record(env.as_mut(), evaluation_seed(9, index), index % 2 == 0);
        let steps = (0u64..).map(|k| index * 2500 + k * 20);
        commands.extend(steps.zip(actions.iter().map(|a| vec![TORQUE_MAX * f64::from(*a)])));
        expected.push(outcome);
    }
    let options = RobotOptions { seed: 9, ..robot() };
    let mut tape = Tape::new(commands);
    tape.play(&mut Robot::new(options).unwrap(), 4 * 2500);
    let got: Vec<(bool, f64)> = tape
        .episodes
        .iter()
        .map(|e| (e.success, e.episode_return))
        .collect();
    assert_eq!(got, expected);
    assert!(expected[0].0 && !expected[1].0);
}

/// The actions of one episode, and its success and return.
fn record(env: &mut dyn Env, seed: u64, solve: bool) -> (Vec<f32>, (bool, f64)) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut observation = env.reset(seed).unwrap();
    let (mut actions, mut episode_return) = (Vec::new(), 0.0);
    loop {
        let action = if solve {
            swing_up(&observation)
        } else {
            rng.random_range(-1.0..=1.0)
        };
        actions.push(action);
        let step = env.step(&[action]).unwrap();
        episode_return += step.reward;
        observation = step.observation;
        if let Some(success) = step.info.success {
            return (actions, (success, episode_return));
        }
    }
}

/// Energy pumping below, a PD law near the top; constants from `models/swing_arm.xml`.
fn swing_up(observation: &[f32]) -> f32 {
    let angle = f64::from(observation[0]).atan2(f64::from(observation[1]));
    let velocity = 10.0 * f64::from(observation[2]);
    let unstable = 0.4905 * (angle + velocity / 7.16);
    if unstable.abs() < 0.9 * TORQUE_MAX && angle.abs() < 0.6 {
        return (-2.2 * unstable / TORQUE_MAX).clamp(-1.0, 1.0) as f32;
    }
    let energy = 0.5 * 0.009_564 * velocity * velocity / 0.4905 + angle.cos() - 1.0;
    (velocity.signum() * (-20.0 * energy).clamp(-1.0, 1.0)) as f32
}

#[test]
fn it_keeps_real_time() {
    let options = RobotOptions {
        episode_seconds: Some(0.5),
        ..robot()
    };
    let mut robot = Robot::new(options).unwrap();
    let mut tape = Tape::default();
    let polls = AtomicU64::new(0);
    // Stopped after 1,600 physics steps, that is 1.6 s.
    let stop = || polls.fetch_add(1, Ordering::Relaxed) >= 1600;
    let began = std::time::Instant::now();
    let summary = robot.run(&mut tape, &stop).unwrap();
    let elapsed = began.elapsed();
    println!("{summary:?} in {elapsed:?}");
    assert_eq!(summary.episodes, 3);
    assert!(
        elapsed >= Duration::from_millis(1580),
        "never faster than the clock: {elapsed:?}"
    );
    assert!(summary.real_time_factor > 0.7, "{summary:?}");
    assert!(
        tape.episodes.iter().all(|e| e.real_time_factor < 1.1),
        "{:?}",
        tape.episodes
    );
}

#[test]
fn options_outside_their_range_are_refused_by_name() {
    let refused = |options: RobotOptions| match Robot::new(options) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    };
    for rate in [0.0, -1.0, f64::NAN, 4000.0] {
        assert!(refused(RobotOptions { rate, ..robot() }).contains("rate"));
    }
    let starts = RobotOptions { starts: 0, ..robot() };
    assert!(refused(starts).contains("starts"));
    let command_timeout = f64::NAN;
    assert!(
        refused(RobotOptions {
            command_timeout,
            ..robot()
        })
        .contains("command-timeout")
    );
    let task = "swingarm".to_owned();
    assert!(refused(RobotOptions { task, ..robot() }).contains("did you mean 'swing_arm'"));
}

#[test]
fn the_goal_is_told_at_each_start_and_each_second() {
    let mut reach_arm = Robot::new(RobotOptions {
        task: "reach_arm".into(),
        rate: 500.0,
        wait_for_command: false,
        ..RobotOptions::default()
    })
    .unwrap();
    let mut tape = Tape::default();
    // An episode has 1500 physics steps of 2 ms.
    tape.play(&mut reach_arm, 1600);
    let steps: Vec<u64> = tape.goals.iter().map(|(step, ..)| *step).collect();
    assert_eq!(steps, [0, 500, 1000, 1500]);
    let (first, last) = (&tape.goals[0], &tape.goals[3]);
    assert_eq!(first.1, "base");
    assert_eq!(first.2, tape.goals[2].2, "one goal an episode");
    assert_ne!(first.2, last.2, "another one in the next");
    let mut arm = Robot::new(robot()).unwrap();
    let mut tape = Tape::default();
    tape.play(&mut arm, 100);
    assert!(tape.goals.is_empty(), "a robot without goals tells none");
}
