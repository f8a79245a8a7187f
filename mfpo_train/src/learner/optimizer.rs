//! Adam (Kingma and Ba 2015) without weight decay: `m <- b1 m + (1-b1) g`, `v <- b2 v + (1-b2) g^2`,
//! `p <- p - lr (m / (1-b1^n)) / (sqrt(v / (1-b2^n)) + eps)`; on CPU in place.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, bail};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Moments of one parameter tensor.
#[derive(Debug)]
struct Moments {
    first: Tensor,
    second: Tensor,
}

/// Adam over a list of variables.
#[derive(Debug)]
pub struct Adam {
    vars: Vec<Var>,
    moments: Vec<Moments>,
    learning_rate: f64,
    steps: i32,
}

impl Adam {
    /// Zero moments for `vars`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(vars: Vec<Var>, learning_rate: f64) -> Result<Self> {
        let moments = vars
            .iter()
            .map(|v| {
                Ok(Moments {
                    first: v.zeros_like()?,
                    second: v.zeros_like()?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            vars,
            moments,
            learning_rate,
            steps: 0,
        })
    }

    /// First moments, in the order of the variables.
    pub fn first_moments(&self) -> impl Iterator<Item = &Tensor> {
        self.moments.iter().map(|m| &m.first)
    }

    /// One step with one gradient for each variable, in the same order.
    ///
    /// # Errors
    /// When the number of gradients or a shape differs.
    pub fn step(&mut self, gradients: &[Tensor]) -> Result<()> {
        if gradients.len() != self.vars.len() {
            bail!("{} gradients for {} variables", gradients.len(), self.vars.len());
        }
        self.steps += 1;
        let correction = corrections(self.steps);
        for ((var, moments), gradient) in self.vars.iter().zip(&mut self.moments).zip(gradients) {
            if var.device().is_cpu() {
                step_in_place(
                    var,
                    moments,
                    &gradient.contiguous()?,
                    self.learning_rate,
                    correction,
                )?;
            } else {
                step_composed(var, moments, gradient, self.learning_rate, correction)?;
            }
        }
        Ok(())
    }
}

fn step_in_place(var: &Var, m: &Moments, gradient: &Tensor, rate: f64, correction: (f64, f64)) -> Result<()> {
    m.first
        .inplace_op2(gradient, &Average::new(BETA_1, 1.0 - BETA_1, false))?;
    m.second
        .inplace_op2(gradient, &Average::new(BETA_2, 1.0 - BETA_2, true))?;
    let step = ParameterStep {
        rate: rate as f32,
        correction: (correction.0 as f32, correction.1 as f32),
    };
    var.as_tensor().inplace_op3(&m.first, &m.second, &step)
}

fn step_composed(var: &Var, m: &mut Moments, g: &Tensor, rate: f64, (c1, c2): (f64, f64)) -> Result<()> {
    m.first = ((&m.first * BETA_1)? + (g * (1.0 - BETA_1))?)?;
    m.second = ((&m.second * BETA_2)? + (g.sqr()? * (1.0 - BETA_2))?)?;
    let root = ((&m.second / c2)?.sqrt()? + EPSILON)?;
    var.set(&(var.as_tensor() - ((&m.first / c1)? * rate)?.div(&root)?)?)
}

/// `target <- tau new + (1 - tau) target`, in place on CPU.
///
/// # Errors
/// When the shapes differ.
pub(super) fn move_towards(target: &Tensor, new: &Tensor, tau: f64) -> Result<()> {
    if target.device().is_cpu() {
        return target.inplace_op2(&new.detach(), &Average::new(1.0 - tau, tau, false));
    }
    let moved = ((target * (1.0 - tau))? + (new.detach() * tau)?)?;
    target.slice_set(&moved, 0, 0)
}

/// `1 - b1^n` and `1 - b2^n` in single precision, as the reference computes them: `1 - 0.999` differs from 0.001 by
/// 1.3e-5 of its value there, which every early step feels.
fn corrections(steps: i32) -> (f64, f64) {
    let correction = |beta: f64| f64::from(1.0 - (beta as f32).powf(steps as f32));
    (correction(BETA_1), correction(BETA_2))
}

/// `x <- keep x + add y` or `keep x + add y^2`; `add` is `1 - keep` in double precision, rounded once.
struct Average {
    keep: f32,
    add: f32,
    square: bool,
}

impl Average {
    fn new(keep: f64, add: f64, square: bool) -> Self {
        Self {
            keep: keep as f32,
            add: add as f32,
            square,
        }
    }
}

impl InplaceOp2 for Average {
    fn name(&self) -> &'static str {
        "exponential-average"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let new = dense(s2, l2)?;
        let average = dense_mut(s1, l1)?;
        let (keep, add) = (self.keep, self.add);
        if self.square {
            average
                .iter_mut()
                .zip(new)
                .for_each(|(x, y)| *x = keep * *x + add * y * y);
        } else {
            average
                .iter_mut()
                .zip(new)
                .for_each(|(x, y)| *x = keep * *x + add * y);
        }
        Ok(())
    }
}

struct ParameterStep {
    rate: f32,
    correction: (f32, f32),
}

impl InplaceOp3 for ParameterStep {
    fn name(&self) -> &'static str {
        "adam-step"
    }

    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<()> {
        let (first, second) = (dense(s2, l2)?, dense(s3, l3)?);
        let (c1, c2) = self.correction;
        for ((p, m), v) in dense_mut(s1, l1)?.iter_mut().zip(first).zip(second) {
            *p -= self.rate * (m / c1) / ((v / c2).sqrt() + EPSILON as f32);
        }
        Ok(())
    }
}

fn dense<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values: &[f32] = storage.as_slice()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("in-place steps need contiguous tensors"),
    }
}

fn dense_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let range = layout.contiguous_offsets();
    match (storage, range) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => bail!("in-place steps need contiguous 32-bit floats"),
    }
}

/// Adam for a single number.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScalarAdam {
    first: f32,
    second: f32,
    steps: i32,
}

impl ScalarAdam {
    /// One step.
    pub fn step(&mut self, parameter: &mut f32, gradient: f32, learning_rate: f32) {
        self.steps += 1;
        self.first = BETA_1 as f32 * self.first + (1.0 - BETA_1) as f32 * gradient;
        self.second = BETA_2 as f32 * self.second + (1.0 - BETA_2) as f32 * gradient * gradient;
        let correction = corrections(self.steps);
        let first = self.first / correction.0 as f32;
        let second = self.second / correction.1 as f32;
        *parameter -= learning_rate * first / (second.sqrt() + EPSILON as f32);
    }
}
