//! Policies to compare with: one that knows the physics, and those that are linear in the observation.

/// Observation (sin, cos, velocity / 10, previous action) to action.
pub trait Policy {
    fn action(&self, observation: &[f32]) -> f32;
}

/// Pumps energy until the arm can reach the top, then holds it there with a PD law.
pub struct EnergyController;

/// Torque of gravity on the level arm, N m.
const GRAVITY_TORQUE: f64 = 0.4905;
/// Inertia about the shoulder, kg m^2.
const INERTIA: f64 = 0.009_564;
/// Torque limit, N m.
const TORQUE_MAX: f64 = 0.25;
/// Energy to pump to, in units of the gravity torque; a little more than the top has at rest, to get there sooner.
const ENERGY_AT_TOP: f64 = 0.1;

impl Policy for EnergyController {
    fn action(&self, observation: &[f32]) -> f32 {
        let angle = f64::from(observation[0]).atan2(f64::from(observation[1]));
        let velocity = 10.0 * f64::from(observation[2]);
        let frequency = (GRAVITY_TORQUE / INERTIA).sqrt();
        // On the unstable direction of the inverted pendulum, the torque limit can catch up to this distance.
        let unstable = GRAVITY_TORQUE * (angle + velocity / frequency);
        let torque = if unstable.abs() < 0.9 * TORQUE_MAX && angle.abs() < 0.6 {
            -2.2 * GRAVITY_TORQUE * (angle + velocity / frequency)
        } else {
            let energy = 0.5 * INERTIA * velocity * velocity + GRAVITY_TORQUE * (angle.cos() - 1.0);
            let direction = if velocity < 0.0 { -1.0 } else { 1.0 };
            direction * (20.0 * (ENERGY_AT_TOP - energy / GRAVITY_TORQUE)).clamp(-1.0, 1.0) * TORQUE_MAX
        };
        (torque / TORQUE_MAX).clamp(-1.0, 1.0) as f32
    }
}

/// `clip(weights . (observation, 1), -1, 1)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linear {
    pub weights: [f32; 5],
}

impl Linear {
    pub fn constant(action: f32) -> Self {
        Self {
            weights: [0.0, 0.0, 0.0, 0.0, action],
        }
    }
}

impl Policy for Linear {
    fn action(&self, observation: &[f32]) -> f32 {
        let [weights @ .., bias] = &self.weights;
        let sum: f32 = weights.iter().zip(observation).map(|(w, o)| w * o).sum();
        (sum + bias).clamp(-1.0, 1.0)
    }
}
