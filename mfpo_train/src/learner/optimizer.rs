//! Adam (Kingma and Ba 2015) without weight decay: `m <- b1 m + (1-b1) g`, `v <- b2 v + (1-b2) g^2`,
//! `p <- p - lr (m / (1-b1^n)) / (sqrt(v / (1-b2^n)) + eps)`; in place with [`Engine::Packed`].

use std::cell::Cell;

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor, Var, bail};
use mfpo_policy::gradient::Team;
use mfpo_policy::kernel::{self, AdamStep};

use super::Engine;
use crate::state::{State, StateError, flat};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Moments of one parameter tensor.
#[derive(Debug)]
enum Moments {
    Memory([Vec<f32>; 2]),
    Tensors([Tensor; 2]),
}

impl Moments {
    fn zeros(var: &Var, engine: Engine) -> Result<Self> {
        let zeros = || vec![0.0; var.elem_count()];
        Ok(match engine {
            Engine::Packed => Self::Memory([zeros(), zeros()]),
            Engine::Candle => Self::Tensors([var.zeros_like()?, var.zeros_like()?]),
        })
    }
}

/// Adam over a list of variables.
#[derive(Debug)]
pub struct Adam {
    vars: Vec<Var>,
    moments: Vec<Moments>,
    learning_rate: f64,
    steps: i32,
    engine: Engine,
}

impl Adam {
    /// Zero moments for `vars`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(vars: Vec<Var>, learning_rate: f64) -> Result<Self> {
        let packed = vars.iter().all(|var| var.device().is_cpu());
        let engine = if packed { Engine::Packed } else { Engine::Candle };
        Self::with_engine(vars, learning_rate, engine)
    }

    /// [`Adam::new`], computed as `engine` says.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn with_engine(vars: Vec<Var>, learning_rate: f64, engine: Engine) -> Result<Self> {
        let moments = vars.iter().map(|var| Moments::zeros(var, engine));
        Ok(Self {
            moments: moments.collect::<Result<_>>()?,
            vars,
            learning_rate,
            steps: 0,
            engine,
        })
    }

    /// The first moments, in the order of the variables.
    ///
    /// # Errors
    /// When they cannot be read from the device.
    pub fn first_moments(&self) -> Result<Vec<Vec<f32>>> {
        let first = |moments: &Moments| match moments {
            Moments::Memory([first, _]) => Ok(first.clone()),
            Moments::Tensors([first, _]) => first.flatten_all()?.to_vec1(),
        };
        self.moments.iter().map(first).collect()
    }

    /// Moments and number of steps; `names` are those of the variables.
    ///
    /// # Errors
    /// When the moments cannot be read from their device.
    pub fn state(&self, names: &[String]) -> Result<State<'_>> {
        let mut state = State::default();
        for (name, moments) in names.iter().zip(&self.moments) {
            let (first, second) = (format!("first_moment/{name}"), format!("second_moment/{name}"));
            match moments {
                Moments::Memory([m, v]) => {
                    state.put(&first, &m[..]);
                    state.put(&second, &v[..]);
                }
                Moments::Tensors([m, v]) => {
                    state.put(&first, flat(m)?);
                    state.put(&second, flat(v)?);
                }
            }
        }
        state.put("steps", vec![self.steps as u64]);
        Ok(state)
    }

    /// Takes up a [`Adam::state`].
    ///
    /// # Errors
    /// When a moment is missing or has another length.
    pub fn restore(&mut self, names: &[String], mut state: State<'_>) -> std::result::Result<(), StateError> {
        for ((name, moments), var) in names.iter().zip(&mut self.moments).zip(&self.vars) {
            let mut take = |which: &str| state.take_f32_of(&format!("{which}/{name}"), var.elem_count());
            let (first, second) = (take("first_moment")?, take("second_moment")?);
            *moments = match moments {
                Moments::Memory(_) => Moments::Memory([first, second]),
                Moments::Tensors(_) => Moments::Tensors([
                    Tensor::from_vec(first, var.shape(), var.device())?,
                    Tensor::from_vec(second, var.shape(), var.device())?,
                ]),
            };
        }
        let [steps] = state.take_u64("steps")?;
        self.steps = steps as i32;
        Ok(())
    }

    /// One step with one gradient for each variable, in the same order.
    ///
    /// # Errors
    /// When the number of gradients or a shape differs.
    pub fn step(&mut self, gradients: &[Tensor]) -> Result<()> {
        if self.engine == Engine::Packed {
            let flat = gradients.iter().map(|g| g.flatten_all()?.to_vec1());
            let flat = flat.collect::<Result<Vec<Vec<f32>>>>()?;
            let flat: Vec<&[f32]> = flat.iter().map(Vec::as_slice).collect();
            return self.step_on_cpu(&flat, &Team::default());
        }
        self.count(gradients.len())?;
        let (rate, correction) = (self.learning_rate, corrections(self.steps));
        for ((var, moments), gradient) in self.vars.iter().zip(&mut self.moments).zip(gradients) {
            if let Moments::Tensors(moments) = moments {
                step_composed(var, moments, gradient, rate, correction)?;
            }
        }
        Ok(())
    }

    /// [`Adam::step`] with gradients in memory, on the threads of `team`.
    ///
    /// # Errors
    /// When the number of gradients or a length differs.
    pub fn step_on_cpu(&mut self, gradients: &[&[f32]], team: &Team) -> Result<()> {
        self.count(gradients.len())?;
        let correction = corrections(self.steps);
        let step = AdamStep {
            rate: self.learning_rate as f32,
            first: [BETA_1 as f32, (1.0 - BETA_1) as f32, correction.0 as f32],
            second: [BETA_2 as f32, (1.0 - BETA_2) as f32, correction.1 as f32],
            epsilon: EPSILON as f32,
        };
        let vars = self.vars.iter().zip(&mut self.moments).zip(gradients);
        let mut results: Vec<Result<()>> = gradients.iter().map(|_| Ok(())).collect();
        let jobs = vars.zip(&mut results).collect();
        team.each(jobs, |(((var, moments), gradient), result)| {
            *result = match moments {
                Moments::Memory(moments) => step_in_place(var, moments, gradient, step),
                Moments::Tensors(_) => Err(candle_core::Error::Msg("the moments are tensors".into())),
            };
        });
        results.into_iter().collect()
    }

    fn count(&mut self, gradients: usize) -> Result<()> {
        if gradients != self.vars.len() {
            bail!("{gradients} gradients for {} variables", self.vars.len());
        }
        self.steps += 1;
        Ok(())
    }
}

fn step_in_place(var: &Var, moments: &mut [Vec<f32>; 2], gradient: &[f32], step: AdamStep) -> Result<()> {
    if var.elem_count() != gradient.len() {
        bail!(
            "a gradient of {} numbers for {} parameters",
            gradient.len(),
            var.elem_count()
        );
    }
    let [first, second] = moments;
    let op = AdamOp(Cell::new(Some((first, second, gradient, step))));
    var.as_tensor().inplace_op1(&op)
}

fn step_composed(
    var: &Var,
    [first, second]: &mut [Tensor; 2],
    g: &Tensor,
    rate: f64,
    (c1, c2): (f64, f64),
) -> Result<()> {
    *first = ((&*first * BETA_1)? + (g * (1.0 - BETA_1))?)?;
    *second = ((&*second * BETA_2)? + (g.sqr()? * (1.0 - BETA_2))?)?;
    let root = ((&*second / c2)?.sqrt()? + EPSILON)?;
    var.set(&(var.as_tensor() - ((&*first / c1)? * rate)?.div(&root)?)?)
}

/// `target <- tau new + (1 - tau) target`.
///
/// # Errors
/// When the shapes differ.
pub(crate) fn move_towards(target: &Tensor, new: &Tensor, tau: f64, engine: Engine) -> Result<()> {
    if engine == Engine::Packed {
        return target.inplace_op2(&new.detach(), &AverageOp((1.0 - tau) as f32, tau as f32));
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

/// First and second moments, gradient, numbers.
type AdamInputs<'a> = (&'a mut Vec<f32>, &'a mut Vec<f32>, &'a [f32], AdamStep);

/// Adam's step on the parameters' own storage; the rest comes along, taken once.
struct AdamOp<'a>(Cell<Option<AdamInputs<'a>>>);

impl InplaceOp1 for AdamOp<'_> {
    fn name(&self) -> &'static str {
        "adam-step"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((first, second, gradient, step)) = self.0.take() else {
            bail!("a step was used twice");
        };
        kernel::adam_step(dense_mut(storage, layout)?, [first, second], gradient, step);
        Ok(())
    }
}

/// `x <- keep x + add y`.
struct AverageOp(f32, f32);

impl InplaceOp2 for AverageOp {
    fn name(&self) -> &'static str {
        "exponential-average"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        kernel::average(dense_mut(s1, l1)?, dense(s2, l2)?, (self.0, self.1));
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
    /// Moments and number of steps.
    pub(crate) fn state(&self) -> State<'static> {
        let mut state = State::default();
        state.put("moments", vec![self.first, self.second]);
        state.put("steps", vec![self.steps as u64]);
        state
    }

    /// The optimiser of a [`ScalarAdam::state`].
    pub(crate) fn restored(mut state: State<'_>) -> std::result::Result<Self, StateError> {
        let moments = state.take_f32_of("moments", 2)?;
        let [steps] = state.take_u64("steps")?;
        Ok(Self {
            first: moments[0],
            second: moments[1],
            steps: steps as i32,
        })
    }

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
