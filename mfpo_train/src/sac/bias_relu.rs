//! `relu(z + bias)` as one candle operation with its backward pass; composed of candle's own on other devices.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// `max(z + bias, 0)`, z `[B, H]`, bias `[H]`; differentiable in both.
pub(super) fn bias_relu(z: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if z.device().is_cpu() {
        return z.contiguous()?.apply_op2(&bias.contiguous()?, BiasRelu);
    }
    z.broadcast_add(bias)?.relu()
}

struct BiasRelu;

impl CustomOp2 for BiasRelu {
    fn name(&self) -> &'static str {
        "bias-relu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (z, bias) = (slice(s1, l1)?, slice(s2, l2)?);
        let mut out = Vec::with_capacity(z.len());
        for row in z.chunks_exact(bias.len()) {
            out.extend(row.iter().zip(bias).map(|(z, b)| (z + b).max(0.0)));
        }
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        _z: &Tensor,
        _bias: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dz = grad.contiguous()?.apply_op2_no_bwd(&result.detach(), &Mask)?;
        // The sum over rows as a matrix product, which is several times as fast as candle's sum.
        let ones = Tensor::ones((1, dz.dims2()?.0), dz.dtype(), dz.device())?;
        let dbias = ones.matmul(&dz)?.squeeze(0)?;
        Ok((Some(dz), Some(dbias)))
    }
}

/// The first where the second is positive, else 0.
struct Mask;

impl CustomOp2 for Mask {
    fn name(&self) -> &'static str {
        "relu-mask"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let pairs = slice(s1, l1)?.iter().zip(slice(s2, l2)?);
        let out = pairs.map(|(g, y)| if *y > 0.0 { *g } else { 0.0 }).collect();
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values: &[f32] = storage.as_slice()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("bias-relu needs contiguous inputs"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn value_and_gradients_are_those_of_the_composed_operation() {
        let device = Device::Cpu;
        let numbers = |count: usize, phase: f32| -> Vec<f32> {
            (0..count).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
        };
        let z = Var::from_vec(numbers(15, 0.0), (5, 3), &device).unwrap();
        let bias = Var::from_vec(numbers(3, 1.0), 3, &device).unwrap();
        let weight = Tensor::from_vec(numbers(15, 2.0), (5, 3), &device).unwrap();
        let ours = bias_relu(&z, &bias).unwrap();
        let composed = z.broadcast_add(&bias).unwrap().relu().unwrap();
        let gradients = |y: &Tensor| {
            let store = (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
            let flat =
                |var: &Var| -> Vec<f32> { store.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap() };
            [flat(&z), flat(&bias)]
        };
        assert_eq!(ours.to_vec2::<f32>().unwrap(), composed.to_vec2::<f32>().unwrap());
        let pairs = gradients(&ours).into_iter().flatten();
        for (got, want) in pairs.zip(gradients(&composed).into_iter().flatten()) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
    }
}
