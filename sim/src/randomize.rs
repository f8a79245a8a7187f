//! What differs between episodes, so that a policy also holds on a robot that is not quite its model: the delay
//! between an action and its effect, sensor noise, masses, damping and motor strength.

use std::collections::VecDeque;

use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use crate::SimError;

/// What ROS 2 adds between a joint state and the command's effect, s.
const ROS_DELAY: f64 = 0.008;

/// Ranges that every episode draws from. All but the action delay are off by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Randomization {
    /// Shortest time from an action to its effect, s; the previous command acts meanwhile.
    #[serde(skip_serializing_if = "is_zero")]
    pub action_delay_min: f64,
    /// Longest time from an action to its effect, s; `None` for the task's own: 8 ms on a robot, none in a
    /// benchmark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action_delay_max: Option<f64>,
    /// Standard deviation of the noise on positions, rad.
    pub position_noise: f64,
    /// Standard deviation of the noise on velocities, rad/s.
    pub velocity_noise: f64,
    /// Masses are scaled by `1 +- mass`.
    pub mass: f64,
    /// Joint damping is scaled by `1 +- damping`.
    pub damping: f64,
    /// Commands of effort-controlled joints are scaled by `1 +- effort`.
    pub effort: f64,
}

/// A shortest delay of 0 is not written; see `leave_out_own_delay` in the trainer's config.rs.
fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

impl Default for Randomization {
    /// The task's own delay, nothing else.
    fn default() -> Self {
        Self {
            action_delay_max: None,
            ..Self::none()
        }
    }
}

impl Randomization {
    /// Every episode alike: no delay, no noise, the model as it is written.
    pub fn none() -> Self {
        Self {
            action_delay_min: 0.0,
            action_delay_max: Some(0.0),
            position_noise: 0.0,
            velocity_noise: 0.0,
            mass: 0.0,
            damping: 0.0,
            effort: 0.0,
        }
    }

    /// The task's own delay plus the small differences of a well-identified robot.
    pub fn small() -> Self {
        Self {
            position_noise: 0.002,
            velocity_noise: 0.02,
            mass: 0.03,
            damping: 0.2,
            effort: 0.03,
            ..Self::default()
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`SimError::Option`] naming the first value outside its range.
    pub fn validate(&self) -> Result<(), SimError> {
        let option = |what, expected, got| Err(SimError::Option { what, expected, got });
        let not_negative = [
            ("action_delay_min", self.action_delay_min),
            ("position_noise", self.position_noise),
            ("velocity_noise", self.velocity_noise),
        ];
        for (what, got) in not_negative {
            if !(got.is_finite() && got >= 0.0) {
                return option(what, "a finite number, 0 or more", got);
            }
        }
        let delay = self.longest_delay();
        if !(delay >= self.action_delay_min && delay <= 1.0) {
            return option("action_delay_max", "action_delay_min to 1 s", delay);
        }
        let fractions = [
            ("mass", self.mass),
            ("damping", self.damping),
            ("effort", self.effort),
        ];
        for (what, got) in fractions {
            if !(0.0..1.0).contains(&got) {
                return option(what, "0 or more and below 1", got);
            }
        }
        Ok(())
    }

    /// Draws the values of one episode; `timestep` is the physics step, s.
    pub(crate) fn draw(&self, rng: &mut impl Rng, timestep: f64) -> Draw {
        let steps = |seconds: f64| (seconds / timestep).round() as u32;
        let mut scale = |spread: f64| 1.0 + spread * rng.random_range(-1.0..=1.0);
        let (mass, damping, effort) = (scale(self.mass), scale(self.damping), scale(self.effort));
        Draw {
            delay: rng.random_range(steps(self.action_delay_min)..=steps(self.longest_delay())),
            mass,
            damping,
            effort,
        }
    }

    /// `action_delay_max`, or a robot's own.
    fn longest_delay(&self) -> f64 {
        self.action_delay_max.unwrap_or(ROS_DELAY)
    }

    /// Are all episodes of the same masses and damping?
    pub(crate) fn keeps_parameters(&self) -> bool {
        self.mass == 0.0 && self.damping == 0.0
    }
}

/// What one episode drew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Draw {
    /// Physics steps from an action to its effect.
    pub delay: u32,
    /// Scale of masses and inertias.
    pub mass: f64,
    /// Scale of joint damping.
    pub damping: f64,
    /// Scale of commands of effort-controlled joints.
    pub effort: f64,
}

impl Draw {
    /// The robot as its model file says.
    pub const NOMINAL: Self = Self {
        delay: 0,
        mass: 1.0,
        damping: 1.0,
        effort: 1.0,
    };
}

/// Adds normal noise of the given standard deviation; draws nothing where that is 0.
pub(crate) fn add_noise(values: &mut [f64], deviation: f64, rng: &mut impl Rng) {
    if deviation == 0.0 {
        return;
    }
    for value in values {
        let noise: f64 = StandardNormal.sample(rng);
        *value += deviation * noise;
    }
}

/// Holds every command back for a number of physics steps; the command before it acts meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct DelayLine {
    delay: u64,
    now: u64,
    acting: Vec<f64>,
    waiting: VecDeque<(u64, Vec<f64>)>,
}

impl DelayLine {
    /// A line that delays by `delay` physics steps, with `acting` in effect.
    pub fn new(delay: u32, acting: Vec<f64>) -> Self {
        Self {
            delay: u64::from(delay),
            now: 0,
            acting,
            waiting: VecDeque::new(),
        }
    }

    /// Sends a command: it acts from the physics step `delay` steps after the next one.
    pub fn send(&mut self, command: &[f64]) {
        if self.delay == 0 {
            self.waiting.clear();
            self.acting.copy_from_slice(command);
        } else {
            self.waiting.push_back((self.now + self.delay, command.to_vec()));
        }
    }

    /// The command in effect in the coming physics step; call it once a step.
    pub fn advance(&mut self) -> &[f64] {
        while let Some((_, command)) = self.waiting.pop_front_if(|(due, _)| *due <= self.now) {
            self.acting = command;
        }
        self.now += 1;
        &self.acting
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_delayed_command_acts_exactly_k_steps_later() {
        for delay in [0, 1, 5, 8, 33] {
            let mut line = DelayLine::new(delay, vec![0.25]);
            line.send(&[1.0]);
            let acted: Vec<f64> = (0..40).map(|_| line.advance()[0]).collect();
            let change = acted.iter().position(|c| *c == 1.0);
            assert_eq!(change, Some(delay as usize), "delay {delay}");
            assert!(acted[..delay as usize].iter().all(|c| *c == 0.25));
            assert!(acted[delay as usize..].iter().all(|c| *c == 1.0));
        }
    }

    #[test]
    fn commands_keep_their_order_when_the_delay_is_longer_than_their_period() {
        let mut line = DelayLine::new(3, vec![0.0]);
        let acted: Vec<f64> = (1..=6)
            .map(|k| {
                line.send(&[f64::from(k)]);
                line.advance()[0]
            })
            .collect();
        assert_eq!(acted, [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_both_ends_of_the_delay() {
        let randomization = Randomization::small();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let draws: Vec<Draw> = (0..400).map(|_| randomization.draw(&mut rng, 0.001)).collect();
        assert!(draws.iter().any(|d| d.delay == 0) && draws.iter().any(|d| d.delay == 8));
        for draw in draws {
            assert!(draw.delay <= 8);
            assert!((draw.mass - 1.0).abs() <= randomization.mass);
            assert!((draw.damping - 1.0).abs() <= randomization.damping);
            assert!((draw.effort - 1.0).abs() <= randomization.effort);
        }
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused_by_name() {
        let delay = Randomization {
            action_delay_min: 0.01,
            ..Randomization::default()
        };
        assert!(
            delay
                .validate()
                .unwrap_err()
                .to_string()
                .contains("action_delay_max")
        );
        let mass = Randomization {
            mass: 1.5,
            ..Randomization::default()
        };
        assert!(mass.validate().unwrap_err().to_string().contains("mass"));
        let noise = Randomization {
            velocity_noise: f64::NAN,
            ..Randomization::default()
        };
        assert!(
            noise
                .validate()
                .unwrap_err()
                .to_string()
                .contains("velocity_noise")
        );
    }
}
