//! `gelu(layer_norm(z + bias))` as one candle operation, with reverse and forward mode.
//!
//! On CPU it is one pass of [`crate::kernel`]; on other devices it is composed of candle's own operations, which also
//! serve as the reference in the tests. (candle's `LayerNorm` and `softmax_last_dim` have no backward pass.)

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use crate::kernel::{self, LAYER_NORM_EPSILON, NormGradients, NormParameters};

const GELU_K: f64 = 0.797_884_560_802_865_4; // sqrt(2 / pi)
const GELU_C: f64 = 0.044715;

/// `gelu(layer_norm(z + bias) * scale + shift)`, z `[R, H]`, the others `[H]`; differentiable in all four.
///
/// # Errors
/// When shapes do not fit.
pub fn bias_norm_gelu(z: &Tensor, bias: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    if z.device().is_cpu() {
        let packed = Tensor::stack(&[bias, scale, shift], 0)?;
        return z.contiguous()?.apply_op2(&packed, BiasNormGelu);
    }
    composed(z, bias, scale, shift)
}

/// [`bias_norm_gelu`] and its forward-mode derivative along `dz` (`[R, H]`); carries no gradient.
///
/// # Errors
/// When shapes do not fit.
pub fn bias_norm_gelu_dual(
    z: &Tensor,
    dz: &Tensor,
    (bias, scale, shift): (&Tensor, &Tensor, &Tensor),
) -> Result<(Tensor, Tensor)> {
    if z.device().is_cpu() {
        let packed = Tensor::stack(&[bias, scale, shift], 0)?;
        let both = z
            .contiguous()?
            .apply_op3_no_bwd(&dz.contiguous()?, &packed, &BiasNormGeluDual)?;
        return Ok((both.get(0)?, both.get(1)?));
    }
    composed_dual(z, dz, (bias, scale, shift))
}

/// The tanh form of GELU, composed of candle operations.
///
/// # Errors
/// When candle refuses an operation.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.gelu()
}

/// The derivative of the tanh form of GELU.
///
/// # Errors
/// When candle refuses an operation.
pub fn gelu_slope(x: &Tensor) -> Result<Tensor> {
    let square = x.sqr()?;
    let inner = ((x * (GELU_C * &square)?)? + x)?;
    let tanh = (inner * GELU_K)?.tanh()?;
    let slope = ((3.0 * GELU_C * GELU_K * square)? + GELU_K)?;
    let left = ((&tanh + 1.0)? * 0.5)?;
    let right = ((1.0 - tanh.sqr()?)? * (x * slope)?)?;
    left + (right * 0.5)?
}

/// [`bias_norm_gelu`], composed of candle's own operations on every device.
///
/// # Errors
/// When shapes do not fit.
pub fn composed(z: &Tensor, bias: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let (normal, _) = normalize(&z.broadcast_add(bias)?)?;
    gelu(&normal.broadcast_mul(scale)?.broadcast_add(shift)?)
}

/// [`bias_norm_gelu_dual`], composed of candle's own operations on every device.
///
/// # Errors
/// When shapes do not fit.
pub fn composed_dual(
    z: &Tensor,
    dz: &Tensor,
    (bias, scale, shift): (&Tensor, &Tensor, &Tensor),
) -> Result<(Tensor, Tensor)> {
    let (normal, rstd) = normalize(&z.broadcast_add(bias)?)?;
    let share = (&normal * dz)?.mean_keepdim(1)?;
    let centred = dz.broadcast_sub(&dz.mean_keepdim(1)?)?;
    let dnormal = (centred - normal.broadcast_mul(&share)?)?.broadcast_mul(&rstd)?;
    let n = normal.broadcast_mul(scale)?.broadcast_add(shift)?;
    let tangent = (gelu_slope(&n)? * dnormal.broadcast_mul(scale)?)?;
    Ok((gelu(&n)?, tangent))
}

/// `(x - E[x]) / sqrt(E[x^2] - E[x]^2 + eps)` over the last axis, and the reciprocal root `[R, 1]`.
fn normalize(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let mean = x.mean_keepdim(1)?;
    let variance = (x.sqr()?.mean_keepdim(1)? - mean.sqr()?)?.relu()?;
    let rstd = (variance + f64::from(LAYER_NORM_EPSILON))?.sqrt()?.recip()?;
    Ok((x.broadcast_sub(&mean)?.broadcast_mul(&rstd)?, rstd))
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout, name: &str) -> Result<&'a [f32]> {
    let values: &[f32] = storage.as_slice()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("{name} needs contiguous inputs"),
    }
}

fn unpack<'a>(packed: &'a [f32], width: usize) -> Result<NormParameters<'a>> {
    if packed.len() != 3 * width {
        bail!(
            "bias, scale and shift hold {} numbers; expected 3 x {width}",
            packed.len()
        );
    }
    let (bias, rest) = packed.split_at(width);
    let (scale, shift) = rest.split_at(width);
    Ok(NormParameters { bias, scale, shift })
}

struct BiasNormGelu;

impl CustomOp2 for BiasNormGelu {
    fn name(&self) -> &'static str {
        "bias-norm-gelu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut out = slice(s1, l1, self.name())?.to_vec();
        let parameters = unpack(slice(s2, l2, self.name())?, last(l1)?)?;
        kernel::bias_norm_gelu(&mut out, parameters);
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        z: &Tensor,
        packed: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rows, width) = z.dims2()?;
        // One flat result [R H + 3 H]: the gradient of z, then those of bias, scale and shift.
        let flat = z
            .contiguous()?
            .apply_op3_no_bwd(&grad.contiguous()?, packed, &BiasNormGeluBackward)?;
        let dz = flat.narrow(0, 0, rows * width)?.reshape((rows, width))?;
        let dpacked = flat.narrow(0, rows * width, 3 * width)?.reshape((3, width))?;
        Ok((Some(dz), Some(dpacked)))
    }
}

struct BiasNormGeluBackward;

impl CustomOp3 for BiasNormGeluBackward {
    fn name(&self) -> &'static str {
        "bias-norm-gelu-backward"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (z, grad) = (slice(s1, l1, self.name())?, slice(s2, l2, self.name())?);
        let width = last(l1)?;
        let parameters = unpack(slice(s3, l3, self.name())?, width)?;
        let mut out = Vec::with_capacity(z.len() + 3 * width);
        out.extend_from_slice(grad);
        out.resize(z.len() + 3 * width, 0.0f32);
        let (dz, rest) = out.split_at_mut(z.len());
        let (bias, rest) = rest.split_at_mut(width);
        let (scale, shift) = rest.split_at_mut(width);
        let mut gradients = NormGradients { bias, scale, shift };
        kernel::bias_norm_gelu_backward(z, dz, parameters, &mut gradients);
        let length = out.len();
        Ok((CpuStorage::F32(out), Shape::from(length)))
    }
}

struct BiasNormGeluDual;

impl CustomOp3 for BiasNormGeluDual {
    fn name(&self) -> &'static str {
        "bias-norm-gelu-dual"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (z, dz) = (slice(s1, l1, self.name())?, slice(s2, l2, self.name())?);
        let width = last(l1)?;
        let parameters = unpack(slice(s3, l3, self.name())?, width)?;
        let mut out = Vec::with_capacity(2 * z.len());
        out.extend_from_slice(z);
        out.extend_from_slice(dz);
        let (value, tangent) = out.split_at_mut(z.len());
        kernel::bias_norm_gelu_dual(value, tangent, parameters);
        Ok((CpuStorage::F32(out), Shape::from((2, z.len() / width, width))))
    }
}

fn last(layout: &Layout) -> Result<usize> {
    match layout.dims().last() {
        Some(width) if *width > 0 => Ok(*width),
        _ => bail!("a row must have at least one column"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::NormalNoise;
    use candle_core::{Device, Var};

    /// Normal numbers, the same in every run.
    fn normal(seed: u64, mean: f32, shape: &[usize]) -> Tensor {
        let mut values = vec![0.0; shape.iter().product()];
        NormalNoise::new(seed).fill(&mut values);
        values.iter_mut().for_each(|v| *v += mean);
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn inputs(seed: u64, rows: usize, width: usize) -> Vec<Var> {
        let make = |part: u64, shape: &[usize], mean: f32| {
            Var::from_tensor(&normal(10 * seed + part, mean, shape)).unwrap()
        };
        vec![
            make(0, &[rows, width], 0.2),
            make(1, &[width], 0.0),
            make(2, &[width], 1.0),
            make(3, &[width], 0.0),
        ]
    }

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        (a - b)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar()
            .unwrap()
    }

    #[test]
    fn fused_and_composed_agree_in_value_and_in_every_gradient() {
        let v = inputs(1, 7, 48);
        let weights = normal(2, 0.0, &[7, 48]);
        let fused = bias_norm_gelu(&v[0], &v[1], &v[2], &v[3]).unwrap();
        let plain = composed(&v[0], &v[1], &v[2], &v[3]).unwrap();
        assert!(worst(&fused, &plain) < 2e-6);
        let fused = (fused * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        let plain = (plain * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        for var in &v {
            let (f, p) = (fused.get(var).unwrap(), plain.get(var).unwrap());
            assert!(worst(f, p) < 2e-5, "{:?}: {}", var.dims(), worst(f, p));
            assert!(f.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 1e-3);
        }
    }

    #[test]
    fn forward_mode_agrees_with_composed_and_with_differences() {
        let v = inputs(3, 5, 33);
        let dz = normal(4, 0.0, &[5, 33]);
        let norm = (v[1].as_tensor(), v[2].as_tensor(), v[3].as_tensor());
        let (value, tangent) = bias_norm_gelu_dual(&v[0], &dz, norm).unwrap();
        let (plain, plain_tangent) = composed_dual(&v[0], &dz, norm).unwrap();
        assert!(worst(&value, &plain) < 2e-6);
        assert!(worst(&tangent, &plain_tangent) < 5e-6);
        let step = 1e-2;
        let ahead = composed(
            &(v[0].as_tensor() + (&dz * step).unwrap()).unwrap(),
            norm.0,
            norm.1,
            norm.2,
        )
        .unwrap();
        let behind = composed(
            &(v[0].as_tensor() - (&dz * step).unwrap()).unwrap(),
            norm.0,
            norm.1,
            norm.2,
        )
        .unwrap();
        let difference = ((ahead - behind).unwrap() / (2.0 * step)).unwrap();
        assert!(worst(&tangent, &difference) < 2e-3);
    }
}
