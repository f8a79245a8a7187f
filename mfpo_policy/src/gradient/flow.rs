//! The gradient of a mean flow network's loss, and its derivatives along directions.

use super::embedder::{EmbedderMemory, EmbedderSegment, EmbedderWeights};
use super::trunk::{TrunkMemory, TrunkSegment, TrunkWeights};
use super::{NamedGradients, SEGMENT, Team};
use crate::mean_flow::MeanFlow;
use crate::parameters::NetworkError;

/// Where a network is evaluated.
#[derive(Debug, Clone, Copy)]
pub struct FlowRows<'a> {
    /// `[R, S]`.
    pub observations: &'a [f32],
    /// `[R, A]`.
    pub x: &'a [f32],
    /// `[R]`.
    pub t: &'a [f32],
    /// `t - r`, `[R]`.
    pub h: &'a [f32],
}

impl FlowRows<'_> {
    fn check(&self, (s, a): (usize, usize)) -> Result<usize, NetworkError> {
        let rows = self.t.len();
        let parts = [
            ("observations", self.observations.len(), rows * s),
            ("points", self.x.len(), rows * a),
            ("intervals", self.h.len(), rows),
        ];
        match parts
            .into_iter()
            .find(|(_, got, expected)| got != expected || *got == 0)
        {
            None => Ok(rows),
            Some((name, got, expected)) => Err(NetworkError::Shape {
                name: name.into(),
                expected: vec![expected],
                got: vec![got],
            }),
        }
    }
}

/// A mean flow network's weights, packed in both directions.
#[derive(Debug, Clone, Default)]
pub struct FlowWeights {
    trunk: TrunkWeights,
    time: EmbedderWeights,
    interval: EmbedderWeights,
    sizes: (usize, usize),
}

#[derive(Debug, Clone, Default)]
struct Memory {
    trunk: TrunkMemory,
    time: EmbedderMemory,
    interval: EmbedderMemory,
    /// Of the loss with respect to the condition, `[R, E]`.
    condition: Vec<f32>,
}

/// One segment's share of everything.
struct Segment<'a> {
    first: usize,
    trunk: TrunkSegment<'a>,
    time: EmbedderSegment<'a>,
    interval: EmbedderSegment<'a>,
    condition: &'a mut [f32],
}

impl FlowWeights {
    /// Packs `network`. Derivatives are along x, and along t and h where `time_moves`; only then gradients go back.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn new(network: &MeanFlow, time_moves: bool) -> Result<Self, NetworkError> {
        let mut packed = Self::default();
        packed.pack(network, time_moves)?;
        Ok(packed)
    }

    /// [`FlowWeights::new`] in the memory that is there.
    ///
    /// # Errors
    /// As [`FlowWeights::new`].
    pub fn pack(&mut self, network: &MeanFlow, time_moves: bool) -> Result<(), NetworkError> {
        let (s, a) = (network.observation_size(), network.action_size());
        let condition = (a + s, network.condition.size());
        let moving = [(0, a), condition];
        let moving = if time_moves { &moving[..] } else { &moving[..1] };
        let head = format!("MLP_0/Dense_{}", network.trunk.mlp.layers.len());
        let wanted = time_moves.then_some(condition);
        self.trunk.pack(&network.trunk, &head, wanted, moving)?;
        let (time, interval) = (&network.condition.time, &network.condition.interval);
        self.time.pack(time, "TimestepEmbedder_0", time_moves)?;
        self.interval.pack(interval, "TimestepEmbedder_1", time_moves)?;
        self.sizes = (s, a);
        Ok(())
    }

    fn shape(&self, memory: &mut Memory, rows: usize) {
        self.trunk.shape(&mut memory.trunk, rows);
        self.time.shape(&mut memory.time, rows);
        self.interval.shape(&mut memory.interval, rows);
        memory.condition.resize(rows * self.time.width(), 0.0);
    }

    /// Fills in the input `[x, s, E_t(t) + E_h(h)]`; with `tangent` (`[R, E]`) also the condition's derivative along (1, 1).
    fn enter(&self, rows: FlowRows<'_>, at: &mut Segment<'_>, mut tangent: Option<&mut [f32]>) {
        let ((s, a), e) = (self.sizes, self.time.width());
        let count = at.condition.len() / e;
        let range = at.first..at.first + count;
        let mut condition = vec![0.0; count * e];
        let (t, h) = (&rows.t[range.clone()], &rows.h[range.clone()]);
        self.time
            .add(t, &mut at.time, &mut condition, tangent.as_deref_mut());
        self.interval.add(h, &mut at.interval, &mut condition, tangent);
        let x = rows.x[range.start * a..range.end * a].chunks_exact(a);
        let observations = rows.observations[range.start * s..range.end * s].chunks_exact(s);
        let inputs = at.trunk.inputs[0].chunks_exact_mut(a + s + e);
        for (((input, x), observation), c) in inputs.zip(x).zip(observations).zip(condition.chunks_exact(e)) {
            input[..a].copy_from_slice(x);
            input[a..a + s].copy_from_slice(observation);
            input[a + s..].copy_from_slice(c);
        }
    }

    fn leave(&self, rows: FlowRows<'_>, at: &mut Segment<'_>) {
        let wanted = self.trunk.backward(&mut at.trunk);
        at.condition.copy_from_slice(&wanted);
        let range = at.first..at.first + at.condition.len() / self.time.width();
        self.time
            .backward(&rows.t[range.clone()], at.condition, &mut at.time);
        self.interval
            .backward(&rows.h[range], at.condition, &mut at.interval);
    }
}

impl Memory {
    fn segments(&mut self) -> Vec<Segment<'_>> {
        let size = SEGMENT * (self.condition.len() / self.trunk.rows);
        let parts = self.trunk.segments().into_iter();
        parts
            .zip(self.time.segments())
            .zip(self.interval.segments())
            .zip(self.condition.chunks_mut(size))
            .map(|((((first, trunk), time), interval), condition)| Segment {
                first,
                trunk,
                time,
                interval,
                condition,
            })
            .collect()
    }
}

/// What a backward pass of the MeanFlow loss gives, with the memory that it took.
#[derive(Debug, Clone, Default)]
pub struct FlowGradient {
    /// `mean (target - f)^2`.
    pub loss: f64,
    /// `df/dt` along `(direction, 1, 1)`, `[R, O]`.
    pub derivative: Vec<f32>,
    /// `base - h df/dt`, `[R, O]`; carries no gradient.
    pub target: Vec<f32>,
    /// Of the loss, by parameter.
    pub gradients: NamedGradients,
    memory: Memory,
}

impl FlowGradient {
    /// With weights that are packed with `time_moves`: loss and gradients of `mean (base - h df/dt - f)^2`, the derivative along `direction` (`[R, A]`) in x and 1 in t
    /// and h; `base` is `[R, O]`.
    ///
    /// # Errors
    /// When a tensor cannot be read or the sizes do not fit.
    pub fn of(
        weights: &FlowWeights,
        rows: FlowRows<'_>,
        (direction, base): (&[f32], &[f32]),
        team: &Team,
    ) -> Result<Self, NetworkError> {
        let mut pass = Self::default();
        pass.renew(weights, rows, (direction, base), team)?;
        Ok(pass)
    }

    /// [`FlowGradient::of`] in the memory that is there, whatever network it was of.
    ///
    /// # Errors
    /// As [`FlowGradient::of`].
    pub fn renew(
        &mut self,
        weights: &FlowWeights,
        rows: FlowRows<'_>,
        (direction, base): (&[f32], &[f32]),
        team: &Team,
    ) -> Result<(), NetworkError> {
        let count = rows.check(weights.sizes)?;
        let (a, e, o) = (weights.sizes.1, weights.time.width(), weights.trunk.output_size());
        if direction.len() != count * a || base.len() != count * o {
            return Err(NetworkError::Shape {
                name: "direction and target of the flow".into(),
                expected: vec![count * a, count * o],
                got: vec![direction.len(), base.len()],
            });
        }
        weights.shape(&mut self.memory, count);
        let mut losses = vec![0.0f64; count.div_ceil(SEGMENT)];
        self.derivative.resize(count * o, 0.0);
        self.target.resize(count * o, 0.0);
        let jobs: Vec<_> = self
            .memory
            .segments()
            .into_iter()
            .zip(self.derivative.chunks_mut(SEGMENT * o))
            .zip(self.target.chunks_mut(SEGMENT * o))
            .zip(&mut losses)
            .collect();
        team.each(jobs, |(((mut at, derivative), target), loss)| {
            let count = derivative.len() / o;
            let mut condition = vec![0.0; count * e];
            weights.enter(rows, &mut at, Some(&mut condition));
            let direction = direction[at.first * a..][..count * a].chunks_exact(a);
            let mut tangents = Vec::with_capacity(count * (a + e));
            for (dx, dc) in direction.zip(condition.chunks_exact(e)) {
                tangents.extend_from_slice(dx);
                tangents.extend_from_slice(dc);
            }
            derivative.copy_from_slice(&weights.trunk.dual(&mut at.trunk, &tangents));
            let (h, base) = (&rows.h[at.first..], &base[at.first * o..]);
            for i in 0..count * o {
                target[i] = base[i] - derivative[i] * h[i / o];
                let error = at.trunk.output[i] - target[i];
                *loss += f64::from(error * error);
                at.trunk.gradient[i] = 2.0 * error / (rows.t.len() * o) as f32;
            }
            weights.leave(rows, &mut at);
        });
        self.collect(weights, team);
        self.loss = losses.iter().sum::<f64>() / (count * o) as f64;
        Ok(())
    }

    /// Gradients of all parameters, once every segment has gone back.
    fn collect(&mut self, weights: &FlowWeights, team: &Team) {
        let (memory, trunk) = (&self.memory, weights.trunk.parameters());
        let count = trunk + 2 * EmbedderWeights::PARAMETERS;
        self.gradients.resize_with(count, Default::default);
        let (of_trunk, rest) = self.gradients.split_at_mut(trunk);
        let (of_time, of_interval) = rest.split_at_mut(EmbedderWeights::PARAMETERS);
        let condition = &memory.condition;
        weights.trunk.gradients(&memory.trunk, of_trunk, team);
        weights.time.gradients(&memory.time, condition, of_time, team);
        weights
            .interval
            .gradients(&memory.interval, condition, of_interval, team);
    }

    /// `f(s, x, t, h)`, `[R, O]`.
    pub fn prediction(&self) -> &[f32] {
        &self.memory.trunk.output
    }
}

/// A network's value and its derivatives along directions in x, with the memory that they took.
#[derive(Debug, Clone, Default)]
pub struct FlowTangents {
    /// `J_x f direction`, `[N, R, O]`.
    pub tangents: Vec<f32>,
    memory: Memory,
}

impl FlowTangents {
    /// With weights that are packed without `time_moves`, along `directions` `[N, R, A]`, at most [`crate::kernel::MOST_TANGENTS`] of them.
    ///
    /// # Errors
    /// When a tensor cannot be read or the sizes do not fit.
    pub fn of(
        weights: &FlowWeights,
        rows: FlowRows<'_>,
        directions: &[f32],
        team: &Team,
    ) -> Result<Self, NetworkError> {
        let mut pass = Self::default();
        pass.renew(weights, rows, directions, team)?;
        Ok(pass)
    }

    /// [`FlowTangents::of`] in the memory that is there.
    ///
    /// # Errors
    /// As [`FlowTangents::of`].
    pub fn renew(
        &mut self,
        weights: &FlowWeights,
        rows: FlowRows<'_>,
        directions: &[f32],
        team: &Team,
    ) -> Result<(), NetworkError> {
        let count = rows.check(weights.sizes)?;
        let (a, o) = (weights.sizes.1, weights.trunk.output_size());
        let n = directions.len() / (count * a);
        if directions.len() != n * count * a || n > crate::kernel::MOST_TANGENTS {
            return Err(NetworkError::Shape {
                name: "directions".into(),
                expected: vec![crate::kernel::MOST_TANGENTS.min(n), count, a],
                got: vec![directions.len()],
            });
        }
        weights.shape(&mut self.memory, count);
        let mut parts = vec![Vec::new(); count.div_ceil(SEGMENT)];
        let jobs: Vec<_> = self.memory.segments().into_iter().zip(&mut parts).collect();
        team.each(jobs, |(mut at, part)| {
            let rows_here = at.trunk.output.len() / o;
            weights.enter(rows, &mut at, None);
            let tangents: Vec<f32> = (0..n)
                .flat_map(|d| &directions[(d * count + at.first) * a..][..rows_here * a])
                .copied()
                .collect();
            *part = weights.trunk.dual(&mut at.trunk, &tangents);
        });
        self.tangents.resize(n * count * o, 0.0);
        for (i, part) in parts.iter().enumerate() {
            let size = part.len() / n.max(1);
            for (d, from) in part.chunks_exact(size.max(1)).enumerate() {
                self.tangents[d * count * o + i * SEGMENT * o..][..size].copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// `f(s, x, t, h)`, `[R, O]`.
    pub fn value(&self) -> &[f32] {
        &self.memory.trunk.output
    }
}
