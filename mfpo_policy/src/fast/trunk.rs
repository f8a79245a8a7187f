//! Numbers of tensors, and a trunk's packed.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

use super::{Rows, Scratch};
use crate::kernel::{self, Output, PackedLayer, PackedMatrix, Packing, Precision, RowBlock, TrunkView};
use crate::nn::{HiddenLayer, Trunk};
use crate::parameters::NetworkError;

/// Reads a tensor into a dense row-major vector.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f32>, NetworkError> {
    let flat = tensor
        .detach()
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        .flatten_all()?;
    Ok(flat.to_vec1()?)
}

/// What `work` makes of a tensor's numbers, dense and row-major: on the CPU they are read where they lie.
pub(crate) fn read<R>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> R) -> Result<R, NetworkError> {
    {
        let (storage, layout) = tensor.storage_and_layout();
        let range = layout.contiguous_offsets();
        if let (Storage::Cpu(CpuStorage::F32(numbers)), Some((start, end))) = (&*storage, range) {
            return Ok(work(&numbers[start..end]));
        }
    }
    Ok(work(&values(tensor)?))
}

/// A tensor's numbers in place of what is in `vector`.
pub(crate) fn copy_into(vector: &mut Vec<f32>, tensor: &Tensor) -> Result<(), NetworkError> {
    read(tensor, |numbers| {
        vector.clear();
        vector.extend_from_slice(numbers);
    })
}

/// A [`Trunk`] whose first layer is split into the part of x, the part of the observation and a constant.
#[derive(Debug, Clone)]
pub(super) struct PackedTrunk {
    pub(super) observation_kernel: PackedMatrix,
    pub(super) first: PackedLayer,
    pub(super) layers: Vec<PackedLayer>,
    pub(super) head: PackedMatrix,
    pub(super) head_bias: Vec<f32>,
    pub(super) packing: Packing,
}

impl PackedTrunk {
    /// Without weights so far.
    pub(super) fn of(precision: Precision) -> Self {
        Self {
            observation_kernel: PackedMatrix::default(),
            first: PackedLayer::default(),
            layers: Vec::new(),
            head: PackedMatrix::default(),
            head_bias: Vec::new(),
            packing: Packing::of(precision),
        }
    }

    /// Packs `trunk` into the memory that is there; `x_rows` and `observation_rows` are the rows of the first kernel that
    /// belong to each input: (start, count).
    pub(super) fn pack(
        &mut self,
        trunk: &Trunk,
        x_rows: (usize, usize),
        observation_rows: (usize, usize),
    ) -> Result<(), NetworkError> {
        let first_packing = Packing::Singles;
        let [first, layers @ ..] = &trunk.mlp.layers[..] else {
            return Err(NetworkError::Missing {
                name: "MLP_0/Dense_0/kernel".into(),
            });
        };
        let kernel = &first.linear.kernel;
        let observations = kernel.narrow(0, observation_rows.0, observation_rows.1)?;
        pack(&mut self.observation_kernel, &observations, first_packing)?;
        let x = kernel.narrow(0, x_rows.0, x_rows.1)?;
        pack_layer(&mut self.first, (first, &x), first_packing)?;
        self.layers.resize_with(layers.len(), PackedLayer::default);
        for (packed, layer) in self.layers.iter_mut().zip(layers) {
            pack_layer(packed, (layer, &layer.linear.kernel), self.packing)?;
        }
        pack(&mut self.head, &trunk.head.kernel, self.packing)?;
        copy_into(&mut self.head_bias, &trunk.head.bias)
    }

    pub(super) fn x_size(&self) -> usize {
        self.first.kernel.inner()
    }

    pub(super) fn observation_size(&self) -> usize {
        self.observation_kernel.inner()
    }

    pub(super) fn widest(&self) -> usize {
        let widths = self.layers.iter().map(PackedLayer::width);
        widths.fold(self.first.width().max(self.head_bias.len()), usize::max)
    }

    pub(super) fn share(&self, observations: &[f32], out: &mut [f32]) {
        kernel::product(observations, &self.observation_kernel, out);
    }

    pub(super) fn run(&self, rows: Rows<'_>, first_bias: &[f32], scratch: &mut Scratch, output: Output<'_>) {
        let view = TrunkView {
            first: &self.first,
            first_bias,
            layers: &self.layers,
            head: &self.head,
            head_bias: &self.head_bias,
            packing: self.packing,
        };
        let rows = RowBlock {
            x: rows.x,
            share: rows.share,
            group: rows.group,
        };
        kernel::run_trunk(view, rows, &mut scratch.0, output);
    }
}

/// A kernel `[in, out]`, packed.
fn pack(packed: &mut PackedMatrix, kernel: &Tensor, packing: Packing) -> Result<(), NetworkError> {
    let (inner, columns) = kernel.dims2()?;
    read(kernel, |numbers| packing.pack(packed, numbers, (inner, columns)))
}

/// A layer with `kernel` in place of its own.
fn pack_layer(
    packed: &mut PackedLayer,
    (layer, kernel): (&HiddenLayer, &Tensor),
    packing: Packing,
) -> Result<(), NetworkError> {
    pack(&mut packed.kernel, kernel, packing)?;
    copy_into(&mut packed.bias, &layer.linear.bias)?;
    copy_into(&mut packed.scale, &layer.scale)?;
    copy_into(&mut packed.shift, &layer.shift)
}
