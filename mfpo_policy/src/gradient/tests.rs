//! The tape-free gradients equal candle's, for any number of rows, and do not depend on the threads.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};

use super::*;
use crate::critic::{Critic, ValueSupport, log_softmax, softmax};
use crate::mean_flow::{FlowPoint, MeanFlow};
use crate::noise::NormalNoise;
use crate::parameters::Parameters;

/// Observation and action; hidden widths that no vector divides.
const SIZES: (usize, usize) = (5, 3);
const HIDDEN: [usize; 3] = [40, 23, 36];
/// Two whole segments and a part of one.
const ROWS: usize = 2 * SEGMENT + 11;

fn normal(seed: u64, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    NormalNoise::new(seed).fill(&mut values);
    values
}

fn uniform(seed: u64, count: usize) -> Vec<f32> {
    normal(seed, count).iter().map(|v| 0.5 + 0.4 * v.tanh()).collect()
}

/// Variables that candle differentiates by, moved away from their initial zeros and ones.
fn variables(initial: Parameters) -> (BTreeMap<String, Var>, Parameters) {
    let moved = initial.iter().enumerate().map(|(i, (name, tensor))| {
        let noise = normal(50 + i as u64, tensor.elem_count());
        let noise = (Tensor::from_vec(noise, tensor.shape(), &Device::Cpu).unwrap() * 0.1).unwrap();
        (
            name.clone(),
            Var::from_tensor(&(tensor + noise).unwrap()).unwrap(),
        )
    });
    let vars: BTreeMap<String, Var> = moved.collect();
    let tensors = vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone()));
    let parameters = Parameters::new(tensors.collect());
    (vars, parameters)
}

fn matrix(values: &[f32], rows: usize) -> Tensor {
    Tensor::from_slice(values, (rows, values.len() / rows), &Device::Cpu).unwrap()
}

/// Every gradient equals candle's to a millionth of the largest.
fn assert_equal(ours: &NamedGradients, loss: &Tensor, vars: &BTreeMap<String, Var>) {
    let store = loss.backward().unwrap();
    assert_eq!(ours.len(), vars.len());
    for (name, gradient) in ours {
        let theirs: Vec<f32> = store
            .get(&vars[name])
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        let largest = theirs.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        assert!(largest > 0.0 && gradient.len() == theirs.len(), "{name}");
        for (a, b) in gradient.iter().zip(&theirs) {
            assert!(
                (a - b).abs() < 2e-5 * largest + 1e-7,
                "{name}: {a}, candle {b}, largest {largest}"
            );
        }
    }
}

fn close(ours: &[f32], theirs: &Tensor) {
    let theirs: Vec<f32> = theirs.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(1.0f32, |a, b| a.max(b.abs()));
    for (a, b) in ours.iter().zip(&theirs) {
        assert!((a - b).abs() < 1e-5 * largest, "{a}, candle {b}");
    }
}

#[test]
fn the_critics_gradient_is_candles() {
    let support = ValueSupport {
        minimum: -7.0,
        maximum: 9.0,
        atoms: 21,
    };
    let initial = Critic::initialize(1, (SIZES.0, SIZES.1, support.atoms), &HIDDEN, &Device::Cpu).unwrap();
    let (vars, parameters) = variables(initial);
    let critic = Critic::load(&parameters, support).unwrap();
    let (observations, actions) = (normal(2, ROWS * SIZES.0), normal(3, ROWS * SIZES.1));
    let target = softmax(&matrix(&normal(4, ROWS * support.atoms), ROWS)).unwrap();
    let flat: Vec<f32> = target.flatten_all().unwrap().to_vec1().unwrap();
    let rows = observations
        .chunks_exact(SIZES.0)
        .zip(actions.chunks_exact(SIZES.1));
    let inputs: Vec<f32> = rows.flat_map(|(s, a)| s.iter().chain(a)).copied().collect();
    let logits = critic
        .logits(&matrix(&observations, ROWS), &matrix(&actions, ROWS))
        .unwrap();
    let loss = (&target * log_softmax(&logits).unwrap()).unwrap().sum(1).unwrap();
    let loss = loss.mean_all().unwrap().neg().unwrap();
    let pass = CriticGradient::of(&critic, &inputs, &flat, &Team::default()).unwrap();
    assert!((pass.loss - f64::from(loss.to_scalar::<f32>().unwrap())).abs() < 1e-5);
    close(pass.logits(), &logits);
    close(&pass.values, &critic.expected_value(&logits).unwrap());
    assert_equal(&pass.gradients, &loss, &vars);
    let together = CriticGradient::of(&critic, &inputs, &flat, &Team::new(3).unwrap()).unwrap();
    assert_eq!(together.gradients, pass.gradients);
}

#[test]
fn the_flows_gradient_and_derivative_are_candles() {
    let initial = MeanFlow::initialize(5, (SIZES.0, SIZES.1, SIZES.1), &HIDDEN, &Device::Cpu).unwrap();
    let (vars, parameters) = variables(initial);
    let network = MeanFlow::load(&parameters, SIZES.1).unwrap();
    let (observations, x) = (normal(6, ROWS * SIZES.0), normal(7, ROWS * SIZES.1));
    let (t, h) = (uniform(8, ROWS), uniform(9, ROWS));
    let (direction, base) = (normal(10, ROWS * SIZES.1), normal(11, ROWS * SIZES.1));
    let tensors = [&observations, &x, &t, &h].map(|values| matrix(values, ROWS));
    let at = FlowPoint {
        observation: &tensors[0],
        x: &tensors[1],
        t: &tensors[2],
        h: &tensors[3],
    };
    let one = tensors[2].ones_like().unwrap();
    let (_, derivative) = network.jvp(at, (&matrix(&direction, ROWS), &one, &one)).unwrap();
    let target = (matrix(&base, ROWS) - derivative.broadcast_mul(&tensors[3]).unwrap())
        .unwrap()
        .detach();
    let prediction = network.forward(at).unwrap();
    let loss = (&target - &prediction)
        .unwrap()
        .sqr()
        .unwrap()
        .mean_all()
        .unwrap();

    let rows = FlowRows {
        observations: &observations,
        x: &x,
        t: &t,
        h: &h,
    };
    let weights = FlowWeights::new(&network, true).unwrap();
    let pass = FlowGradient::of(&weights, rows, (&direction, &base), &Team::default()).unwrap();
    assert!((pass.loss - f64::from(loss.to_scalar::<f32>().unwrap())).abs() < 1e-4 * pass.loss);
    close(&pass.derivative, &derivative);
    close(&pass.target, &target);
    close(pass.prediction(), &prediction);
    assert_equal(&pass.gradients, &loss, &vars);
    let together = FlowGradient::of(&weights, rows, (&direction, &base), &Team::new(3).unwrap()).unwrap();
    assert_eq!(together.gradients, pass.gradients);

    // Along two directions in x at once.
    let second = normal(12, ROWS * SIZES.1);
    let still = FlowWeights::new(&network, false).unwrap();
    let both: Vec<f32> = direction.iter().chain(&second).copied().collect();
    let tangents = FlowTangents::of(&still, rows, &both, &Team::default()).unwrap();
    let zero = tensors[2].zeros_like().unwrap();
    for (d, direction) in [direction, second].iter().enumerate() {
        let (_, theirs) = network.jvp(at, (&matrix(direction, ROWS), &zero, &zero)).unwrap();
        close(
            &tangents.tangents[d * ROWS * SIZES.1..][..ROWS * SIZES.1],
            &theirs,
        );
    }
    close(tangents.value(), &prediction);
}

/// What shows wherever it is read.
fn nothing(count: usize) -> Vec<f32> {
    vec![f32::NAN; count]
}

#[test]
fn a_critics_pass_in_the_memory_of_another_is_as_a_fresh_one() {
    let critic = |seed, hidden: &[usize], atoms| {
        let support = ValueSupport {
            minimum: -7.0,
            maximum: 9.0,
            atoms,
        };
        let sizes = (SIZES.0, SIZES.1, atoms);
        let parameters = Critic::initialize(seed, sizes, hidden, &Device::Cpu).unwrap();
        Critic::load(&parameters, support).unwrap()
    };
    let (inputs, target) = (normal(3, ROWS * (SIZES.0 + SIZES.1)), uniform(4, ROWS * 21));
    let now = critic(1, &HIDDEN, 21);
    let team = Team::new(2).unwrap();
    let fresh = CriticGradient::of(&now, &inputs, &target, &team).unwrap();
    // Fewer rows and more, other layers, other atoms.
    for (rows, hidden, atoms) in [
        (ROWS, &HIDDEN[..], 21),
        (7, &[23][..], 5),
        (300, &[64, 40, 40, 40][..], 33),
    ] {
        let before = critic(2, hidden, atoms);
        let (inputs_before, target_before) = (nothing(rows * (SIZES.0 + SIZES.1)), nothing(rows * atoms));
        let mut pass = CriticGradient::of(&before, &inputs_before, &target_before, &team).unwrap();
        assert!(pass.loss.is_nan());
        for _ in 0..2 {
            pass.renew(&now, &inputs, &target, &team).unwrap();
            assert_eq!(pass.loss, fresh.loss);
            assert_eq!(pass.logits(), fresh.logits());
            assert_eq!(pass.values, fresh.values);
            assert_eq!(pass.gradients, fresh.gradients);
        }
    }
}

#[test]
fn a_flows_pass_in_the_memory_of_another_is_as_a_fresh_one() {
    let flow = |seed, hidden: &[usize], outputs| {
        let sizes = (SIZES.0, SIZES.1, outputs);
        let parameters = MeanFlow::initialize(seed, sizes, hidden, &Device::Cpu).unwrap();
        MeanFlow::load(&parameters, SIZES.1).unwrap()
    };
    let (observations, x) = (normal(6, ROWS * SIZES.0), normal(7, ROWS * SIZES.1));
    let (t, h) = (uniform(8, ROWS), uniform(9, ROWS));
    let (direction, base) = (normal(10, ROWS * SIZES.1), normal(11, ROWS * SIZES.1));
    let rows = FlowRows {
        observations: &observations,
        x: &x,
        t: &t,
        h: &h,
    };
    let now = flow(1, &HIDDEN, SIZES.1);
    let team = Team::new(2).unwrap();
    let (moving, still) = (
        FlowWeights::new(&now, true).unwrap(),
        FlowWeights::new(&now, false).unwrap(),
    );
    let fresh = FlowGradient::of(&moving, rows, (&direction, &base), &team).unwrap();
    let fresh_tangents = FlowTangents::of(&still, rows, &direction, &team).unwrap();
    for (count, hidden, outputs) in [
        (ROWS, &HIDDEN[..], SIZES.1),
        (7, &[23][..], 1),
        (300, &[64, 40, 40, 40][..], 1),
    ] {
        let before = flow(2, hidden, outputs);
        let mut weights = [
            FlowWeights::new(&before, true).unwrap(),
            FlowWeights::new(&before, false).unwrap(),
        ];
        let (o, a) = (nothing(count * SIZES.0), nothing(count * SIZES.1));
        let (times, base_before) = (uniform(12, count), nothing(count * outputs));
        let rows_before = FlowRows {
            observations: &o,
            x: &a,
            t: &times,
            h: &times,
        };
        let mut pass = FlowGradient::of(&weights[0], rows_before, (&a, &base_before), &team).unwrap();
        let mut tangents = FlowTangents::of(&weights[1], rows_before, &a, &team).unwrap();
        assert!(pass.loss.is_nan() && tangents.value()[0].is_nan());
        weights[0].pack(&now, true).unwrap();
        weights[1].pack(&now, false).unwrap();
        for _ in 0..2 {
            pass.renew(&weights[0], rows, (&direction, &base), &team).unwrap();
            assert_eq!(pass.loss, fresh.loss);
            assert_eq!(pass.prediction(), fresh.prediction());
            assert_eq!(
                (&pass.derivative, &pass.target),
                (&fresh.derivative, &fresh.target)
            );
            assert_eq!(pass.gradients, fresh.gradients);
            tangents.renew(&weights[1], rows, &direction, &team).unwrap();
            assert_eq!(tangents.value(), fresh_tangents.value());
            assert_eq!(tangents.tangents, fresh_tangents.tangents);
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let initial = MeanFlow::initialize(5, (SIZES.0, SIZES.1, 1), &HIDDEN, &Device::Cpu).unwrap();
    let weights = FlowWeights::new(&MeanFlow::load(&initial, SIZES.1).unwrap(), true).unwrap();
    let rows = FlowRows {
        observations: &[0.0; 9],
        x: &[0.0; 6],
        t: &[0.5; 2],
        h: &[0.1; 2],
    };
    let error = FlowGradient::of(&weights, rows, (&[0.0; 6], &[0.0; 2]), &Team::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("observations has shape [9]; expected [10]"),
        "{error}"
    );
}
