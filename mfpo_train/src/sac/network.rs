//! SAC's networks: `MLP(x)` with ReLU between Linear layers, `Dense_0`, `Dense_1`, ... and a linear head.
//!
//! The policy maps `s` to `[mean, log deviation]` (`[B, 2 A]`), a critic `[s, a]` to `Q` (`[B, 1]`).

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use mfpo_policy::nn::Linear;
use mfpo_policy::parameters::{NetworkError, Parameters};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::bias_relu::bias_relu;

/// Range of the logarithm of the policy's deviation.
pub(super) const LOG_DEVIATION: (f32, f32) = (-20.0, 2.0);

/// A stack of Linear layers.
#[derive(Debug, Clone)]
pub(super) struct ReluMlp {
    layers: Vec<Linear>,
}

impl ReluMlp {
    /// Kernels from `U(+-sqrt(6 / (in + out)))`, biases 0.
    pub(super) fn initialize(
        seed: u64,
        sizes: &[usize],
        device: &Device,
    ) -> Result<Parameters, NetworkError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut tensors = BTreeMap::new();
        for (i, pair) in sizes.windows(2).enumerate() {
            let bound = (6.0 / (pair[0] + pair[1]) as f32).sqrt();
            let kernel: Vec<f32> = (0..pair[0] * pair[1])
                .map(|_| rng.random_range(-bound..=bound))
                .collect();
            let kernel = Tensor::from_vec(kernel, (pair[0], pair[1]), device)?;
            tensors.insert(format!("Dense_{i}/kernel"), kernel);
            let bias = Tensor::from_vec(vec![0.0f32; pair[1]], pair[1], device)?;
            tensors.insert(format!("Dense_{i}/bias"), bias);
        }
        Ok(Parameters::new(tensors))
    }

    /// Reads as many layers as there are.
    pub(super) fn load(p: &Parameters) -> Result<Self, NetworkError> {
        let mut layers = vec![Linear::load(p, "Dense_0")?];
        while p.contains(&format!("Dense_{}/kernel", layers.len())) {
            layers.push(Linear::load(p, &format!("Dense_{}", layers.len()))?);
        }
        Ok(Self { layers })
    }

    /// x `[B, I]` to `[B, O]`; differentiable in x and in the parameters.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, NetworkError> {
        let mut x = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = if i + 1 < self.layers.len() {
                bias_relu(&x.matmul(&layer.kernel)?, &layer.bias)?
            } else {
                layer.forward(&x)?
            };
        }
        Ok(x)
    }
}

/// Actions `tanh(mean + deviation * noise)` `[B, A]` of observations `[B, S]`, and their log-probabilities `[B]`:
/// `sum log N(u; mean, deviation) - log(1 - tanh(u)^2)`, the last as `2 (log 2 - u - softplus(-2 u))` (appendix C).
pub(super) fn sample(
    policy: &ReluMlp,
    observations: &Tensor,
    noise: &Tensor,
) -> Result<(Tensor, Tensor), NetworkError> {
    let size = noise.dims2()?.1;
    let out = policy.forward(observations)?;
    let mean = out.narrow(1, 0, size)?;
    let log_deviation = out
        .narrow(1, size, size)?
        .clamp(LOG_DEVIATION.0, LOG_DEVIATION.1)?;
    let u = (mean + (log_deviation.exp()? * noise)?)?;
    // softplus(-2 u) = relu(-2 u) + log(1 + exp(-|2 u|)), which neither overflows nor cancels.
    let (above, below) = ((u.relu()? * 2.0)?, (u.neg()?.relu()? * 2.0)?);
    let softplus = (&below + ((&above + &below)?.neg()?.exp()? + 1.0)?.log()?)?;
    let log_slope = ((((&u + softplus)? * -2.0)?) + 2.0 * std::f64::consts::LN_2)?;
    let constant = 0.5 * (2.0 * std::f64::consts::PI).ln();
    let log_normal = (((noise.sqr()? * -0.5)? - log_deviation)? - constant)?;
    Ok((u.tanh()?, (log_normal - log_slope)?.sum(1)?))
}

/// `Q(s, a)`, `[B]`.
pub(super) fn value(
    critic: &ReluMlp,
    observations: &Tensor,
    actions: &Tensor,
) -> Result<Tensor, NetworkError> {
    Ok(critic
        .forward(&Tensor::cat(&[observations, actions], 1)?)?
        .squeeze(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `log |d tanh / du|` and the normal density, by hand in double precision.
    #[test]
    fn log_probability_is_that_of_the_squashed_normal_also_far_out() {
        let device = Device::Cpu;
        for (mean, log_deviation, noise) in [(0.3f32, -0.7f32, 1.1f32), (9.0, 0.5, 2.0), (-12.0, 1.0, -1.0)] {
            let parameters = BTreeMap::from([
                (
                    "Dense_0/kernel".to_owned(),
                    Tensor::zeros((1, 2), candle_core::DType::F32, &device).unwrap(),
                ),
                (
                    "Dense_0/bias".to_owned(),
                    Tensor::new(&[mean, log_deviation], &device).unwrap(),
                ),
            ]);
            let policy = ReluMlp::load(&Parameters::new(parameters)).unwrap();
            let row = |value: f32| Tensor::new(&[[value]], &device).unwrap();
            let (action, log_prob) = sample(&policy, &row(1.0), &row(noise)).unwrap();
            let u = f64::from(mean) + f64::from(log_deviation).exp() * f64::from(noise);
            let log_normal = -0.5 * f64::from(noise).powi(2)
                - f64::from(log_deviation)
                - 0.5 * (2.0 * std::f64::consts::PI).ln();
            // 1 - tanh^2 = 4 / (e^u + e^-u)^2
            let log_slope = 4f64.ln() - 2.0 * (u.abs() + (-2.0 * u.abs()).exp().ln_1p());
            let got = f64::from(log_prob.to_vec1::<f32>().unwrap()[0]);
            let want = log_normal - log_slope;
            assert!((got - want).abs() < 1e-5 * want.abs().max(1.0), "{got} {want}");
            assert!((f64::from(action.to_vec2::<f32>().unwrap()[0][0]) - u.tanh()).abs() < 1e-6);
        }
    }
}
