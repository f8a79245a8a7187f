//! `manipulator-bring_ball`: carry a ball to a target with a planar arm and its hand.

use std::f64::consts::{PI, TAU};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::mjcf::Mjcf;
use super::rewards::{Margin, tolerance};
use super::{
    Times, after_reset, distance, draw_without_contact, edited_benchmark, only_value, step, uniform,
};
use crate::physics::{Element, JointIndex, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 10.0;
/// Time between two actions, s.
const CONTROL_PERIOD: f64 = 0.01;
/// Distance from which the ball is at its target, m.
const CLOSE: f64 = 0.01;
/// How often the ball starts in the hand, and at the target.
const P_IN_HAND: f64 = 0.1;
const P_IN_TARGET: f64 = 0.1;
/// Where a target lies, m: to the side, and up.
const TARGET_X: (f64, f64) = (-0.4, 0.4);
const TARGET_Z: (f64, f64) = (0.1, 0.4);
/// Where else the ball starts, m, and how fast to the side, m/s.
const BALL_X: (f64, f64) = (-0.5, 0.5);
const BALL_Z: (f64, f64) = (0.0, 0.7);
const BALL_SPEED: (f64, f64) = (-5.0, 5.0);
/// What the file has for the suite's other tasks.
const OTHER_PROPS: [&str; 4] = ["peg", "target_peg", "cup", "slot"];
/// What is observed, in this order.
const ARM: [&str; 8] = [
    "arm_root",
    "arm_shoulder",
    "arm_elbow",
    "arm_wrist",
    "finger",
    "fingertip",
    "thumb",
    "thumbtip",
];
const TOUCH: [&str; 5] = [
    "palm_touch",
    "finger_touch",
    "thumb_touch",
    "fingertip_touch",
    "thumbtip_touch",
];
const BALL: [&str; 3] = ["ball_x", "ball_z", "ball_y"];
/// Where the finger and the thumb stand in the arm.
const FINGER: usize = 4;
const THUMB: usize = 6;
/// Entries of a rotation matrix, row-major: the x and z components of the frame's own x axis.
const XX: usize = 0;
const ZX: usize = 6;

pub(super) fn bring_ball(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: Some(CONTROL_PERIOD),
    };
    let file = ("manipulator-bring_ball", "manipulator.xml");
    let edit = |mjcf: &mut Mjcf| OTHER_PROPS.iter().try_for_each(|prop| mjcf.remove("body", prop));
    edited_benchmark(file, options, times, edit, |physics, substeps| {
        let joints = |names: &[&str]| -> Result<Vec<JointIndex>, SimError> {
            names.iter().map(|name| physics.joint(name)).collect()
        };
        let limits = |name: &&str| -> Result<(f64, f64), SimError> {
            let joint = physics.joints()[physics.id(Element::Joint, name)?];
            Ok(joint.range.unwrap_or((-PI, PI)))
        };
        let touch: Result<Vec<usize>, SimError> = TOUCH.iter().map(|name| physics.sensor(name)).collect();
        let limits: Result<Vec<(f64, f64)>, SimError> = ARM.iter().map(limits).collect();
        Ok(Box::new(BringBall {
            arm: joints(&ARM)?.into_iter().zip(limits?).collect(),
            ball_joints: joints(&BALL)?,
            touch: touch?,
            hand: physics.id(Element::Body, "hand")?,
            ball: physics.id(Element::Body, "ball")?,
            target: physics.id(Element::Body, "target_ball")?,
            grasp: physics.id(Element::Site, "grasp")?,
            sites: [
                physics.id(Element::Site, "ball")?,
                physics.id(Element::Site, "target_ball")?,
            ],
            substeps,
        }))
    })
}

/// A pose in the plane: x, z and the rotation about y.
type Pose = [f64; 3];

struct BringBall {
    /// Joints, each with where it starts, rad.
    arm: Vec<(JointIndex, (f64, f64))>,
    ball_joints: Vec<JointIndex>,
    touch: Vec<usize>,
    hand: usize,
    ball: usize,
    target: usize,
    grasp: usize,
    /// Of the ball, and of the target.
    sites: [usize; 2],
    substeps: usize,
}

impl BringBall {
    /// One start, which may touch something.
    fn draw(&self, physics: &mut Physics, rng: &mut ChaCha8Rng) {
        for (joint, (low, high)) in &self.arm {
            physics.qpos_mut()[joint.position()] = uniform(rng, *low, *high);
        }
        // The hand is as far open on both sides.
        let thumb = physics.position(self.arm[THUMB].0);
        physics.qpos_mut()[self.arm[FINGER].0.position()] = thumb;
        let (x, z) = (
            uniform(rng, TARGET_X.0, TARGET_X.1),
            uniform(rng, TARGET_Z.0, TARGET_Z.1),
        );
        let target = [x, z, uniform(rng, -PI, PI)];
        let half = 0.5 * target[2];
        self.place_target(physics, [x, z, half.cos(), half.sin()]);
        let ball = self.draw_ball(physics, rng, target);
        for (joint, position) in self.ball_joints.iter().zip(ball) {
            physics.qpos_mut()[joint.position()] = position;
        }
    }

    fn draw_ball(&self, physics: &mut Physics, rng: &mut ChaCha8Rng, target: Pose) -> Pose {
        let kind = rng.random::<f64>();
        if kind < P_IN_HAND {
            after_reset(physics);
            let ([x, _, z], frame) = (physics.site_xpos()[self.grasp], physics.site_xmat()[self.grasp]);
            [x, z, PI - frame[ZX].atan2(frame[XX])]
        } else if kind < P_IN_HAND + P_IN_TARGET {
            target
        } else {
            let (x, z) = (uniform(rng, BALL_X.0, BALL_X.1), uniform(rng, BALL_Z.0, BALL_Z.1));
            let angle = uniform(rng, 0.0, TAU);
            physics.qvel_mut()[self.ball_joints[0].velocity()] = uniform(rng, BALL_SPEED.0, BALL_SPEED.1);
            [x, z, angle]
        }
    }

    /// x and z, and the quaternion's w and y.
    fn place_target(&self, physics: &mut Physics, [x, z, qw, qy]: [f64; 4]) {
        physics.set_body_position(self.target, 0, x);
        physics.set_body_position(self.target, 2, z);
        physics.set_body_rotation(self.target, 0, qw);
        physics.set_body_rotation(self.target, 2, qy);
    }
}

impl BenchmarkTask for BringBall {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        draw_without_contact(physics, |physics| self.draw(physics, rng))?;
        after_reset(physics);
        Ok(())
    }

    fn state_was_set(&mut self, physics: &mut Physics) {
        after_reset(physics);
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        step(physics, action, self.substeps);
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        let pose = |body: usize| {
            let ([x, _, z], [qw, _, qy, _]) = (physics.xpos()[body], physics.xquat()[body]);
            [x, z, qw, qy]
        };
        let angles = self.arm.iter().map(|(joint, _)| physics.position(*joint));
        out.extend(angles.flat_map(|angle| [angle.sin(), angle.cos()]));
        out.extend(self.arm.iter().map(|(joint, _)| physics.velocity(*joint)));
        out.extend(
            self.touch
                .iter()
                .map(|touch| physics.sensordata()[*touch].ln_1p()),
        );
        out.extend(pose(self.hand));
        out.extend(pose(self.ball));
        out.extend(self.ball_joints.iter().map(|joint| physics.velocity(*joint)));
        out.extend(pose(self.target));
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let [ball, target] = self.sites.map(|site| physics.site_xpos()[site]);
        tolerance(
            distance(&ball, &target),
            (0.0, CLOSE),
            Margin::gaussian(2.0 * CLOSE),
        )
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }

    /// `target`: where it lies, m (x, z), and its rotation (a quaternion's w and y).
    fn model_values(&self, physics: &Physics) -> Vec<(&'static str, Vec<f64>)> {
        let ([x, _, z], [qw, _, qy, _]) = (physics.body_pos()[self.target], physics.body_quat()[self.target]);
        vec![("target", vec![x, z, qw, qy])]
    }

    fn set_model_value(&mut self, physics: &mut Physics, name: &str, values: &[f64]) -> Result<(), SimError> {
        self.place_target(physics, only_value("target", name, values)?);
        Ok(())
    }
}
