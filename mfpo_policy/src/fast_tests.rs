//! Laws of the packed networks: they equal candle's whatever the number of rows; the fast precision stays near.

use candle_core::{Device, Tensor};

use super::*;
use crate::noise::NormalNoise;
use crate::sampler;

const SIZES: (usize, usize) = (5, 3);

fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; n];
    NormalNoise::new(seed).fill(&mut values);
    values
}

/// Every observation `group` times, as rows of a tensor.
fn repeated(observations: &[f32], group: usize) -> Tensor {
    let rows: Vec<f32> = observations
        .chunks_exact(SIZES.0)
        .flat_map(|row| row.repeat(group))
        .collect();
    Tensor::from_vec(
        rows,
        (observations.len() / SIZES.0 * group, SIZES.0),
        &Device::Cpu,
    )
    .unwrap()
}

fn worst(ours: &[f32], tensor: &Tensor) -> f32 {
    let theirs: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(ours.len(), theirs.len());
    ours.iter()
        .zip(theirs)
        // What is no number is as far as can be: `f32::max` would pass over it.
        .map(|(a, b)| {
            Some((a - b).abs())
                .filter(|d| !d.is_nan())
                .unwrap_or(f32::INFINITY)
        })
        .fold(0.0, f32::max)
}

#[test]
fn packed_samplers_equal_candle_whatever_the_number_of_rows() {
    let (s, a) = SIZES;
    let flow = |seed, outputs| {
        let p = MeanFlow::initialize(seed, (s, a, outputs), &[40, 72], &Device::Cpu).unwrap();
        MeanFlow::load(&p, a).unwrap()
    };
    let (actor, divergence) = (flow(1, a), flow(2, 1));
    // More rows than a chunk, groups that do not divide it, a single row, and fewer rows than the packing limit.
    for (groups, group, steps) in [(37, 48, 2), (300, 1, 3), (1, 1, 1), (2, 7, 2), (1, 300, 2)] {
        let (observations, noise) = (normal(groups * s, 3), normal(groups * group * a, 4));
        let mut fast = FastSampler::new(&actor, Some(&divergence), steps).unwrap();
        let (mut x, mut log_probs) = (noise.clone(), vec![0.0; groups * group]);
        fast.sample(&observations, group, &mut x, Some(&mut log_probs));
        let noise = Tensor::from_vec(noise, (groups * group, a), &Device::Cpu).unwrap();
        let rows = repeated(&observations, group);
        let (actions, expected) =
            sampler::sample_with_log_prob((&actor, &divergence), &rows, &noise, steps).unwrap();
        assert!(
            worst(&x, &actions) < 1e-5,
            "{groups}x{group}: {}",
            worst(&x, &actions)
        );
        assert!(
            worst(&log_probs, &expected) < 1e-5,
            "{groups}x{group}: {}",
            worst(&log_probs, &expected)
        );
    }
}

#[test]
fn packed_critics_equal_candle_whatever_the_number_of_rows() {
    let (s, a) = SIZES;
    let support = ValueSupport {
        minimum: -100.0,
        maximum: 20.0,
        atoms: 51,
    };
    let p = Critic::initialize(7, (s, a, support.atoms), &[24, 40, 16], &Device::Cpu).unwrap();
    let critic = Critic::load(&p, support).unwrap();
    let packed = |precision| FastCritic::new(&critic, s, precision).unwrap();
    let both = [Precision::Exact, Precision::Split].map(packed);
    for ((groups, group), fast) in [(37, 48), (1, 1), (300, 1), (1, 10)]
        .into_iter()
        .flat_map(|shape| both.iter().map(move |fast| (shape, fast)))
    {
        let (observations, actions) = (normal(groups * s, 8), normal(groups * group * a, 9));
        let mut share = vec![0.0; groups * fast.share_width()];
        fast.share(&observations, &mut share);
        let mut out = vec![0.0; groups * group];
        fast.value(
            Rows {
                x: &actions,
                share: &share,
                group,
            },
            &mut Scratch::default(),
            &mut out,
        );
        let actions = Tensor::from_vec(actions, (groups * group, a), &Device::Cpu).unwrap();
        let expected = critic.value(&repeated(&observations, group), &actions).unwrap();
        assert!(
            worst(&out, &expected) < 1e-4,
            "{groups}x{group}: {}",
            worst(&out, &expected)
        );
    }
}

#[test]
fn the_fast_precision_stays_near_the_exact_one() {
    let (s, a) = SIZES;
    let support = ValueSupport {
        minimum: -100.0,
        maximum: 20.0,
        atoms: 51,
    };
    let p = Critic::initialize(7, (s, a, support.atoms), &[24, 41, 16], &Device::Cpu).unwrap();
    let critic = Critic::load(&p, support).unwrap();
    let (groups, group) = (37, 8);
    let (observations, actions) = (normal(groups * s, 8), normal(groups * group * a, 9));
    let values = |precision| {
        let fast = FastCritic::new(&critic, s, precision).unwrap();
        let inputs = (&observations[..], &actions[..]);
        fast.evaluate_in_team(&Team::default(), inputs, group, Wanted::Values)
    };
    let (exact, fast) = (values(Precision::Exact), values(Precision::Fast));
    let differences = exact.iter().zip(&fast).map(|(a, b)| (a - b).abs());
    let (spread, worst) = (
        exact.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v))
            - exact.iter().fold(f32::INFINITY, |m, v| m.min(*v)),
        differences.fold(0.0, f32::max),
    );
    assert!(worst > 0.0, "bfloat16 leaves a trace");
    assert!(worst < 0.05 * spread, "{worst} of {spread}");
}

#[test]
fn networks_packed_over_others_are_as_fresh_ones() {
    let (s, a) = SIZES;
    let flow = |seed, outputs| {
        let p = MeanFlow::initialize(seed, (s, a, outputs), &[40, 23], &Device::Cpu).unwrap();
        MeanFlow::load(&p, a).unwrap()
    };
    let critic = |seed, minimum| {
        let support = ValueSupport {
            minimum,
            maximum: 20.0,
            atoms: 51,
        };
        let p = Critic::initialize(seed, (s, a, support.atoms), &[24, 41, 16], &Device::Cpu).unwrap();
        Critic::load(&p, support).unwrap()
    };
    let (groups, group) = (50, 8);
    let (observations, noise) = (normal(groups * s, 8), normal(groups * group * a, 9));
    let alone = Team::default();
    for precision in [Precision::Exact, Precision::Split, Precision::Fast] {
        let sampled = |sampler: &FastSampler| {
            let (mut x, mut log_probs) = (noise.clone(), vec![0.0; groups * group]);
            sampler.sample_in_team(&alone, &observations, group, &mut x, Some(&mut log_probs));
            (x, log_probs)
        };
        let fresh =
            |seed| FastSampler::in_team(&alone, &flow(seed, a), &flow(seed + 1, 1), 2, precision).unwrap();
        let mut sampler = fresh(1);
        let before = sampled(&sampler);
        sampler.repack_in_team(&alone, &flow(3, a), &flow(4, 1)).unwrap();
        assert_ne!(sampled(&sampler), before);
        assert_eq!(sampled(&sampler), sampled(&fresh(3)));

        let valued = |critic: &FastCritic| {
            critic.evaluate_in_team(&alone, (&observations, &noise), group, Wanted::Values)
        };
        let mut packed = FastCritic::new(&critic(5, -100.0), s, precision).unwrap();
        packed.repack(&critic(6, -50.0)).unwrap();
        let fresh = FastCritic::new(&critic(6, -50.0), s, precision).unwrap();
        assert_eq!(valued(&packed), valued(&fresh));
    }
}

#[test]
fn a_number_that_changes_in_the_packed_memory_changes_the_digest_of_the_weights() {
    let sizes = (SIZES.0, SIZES.1, SIZES.1);
    let actor = MeanFlow::initialize(1, sizes, &[40, 24], &Device::Cpu).unwrap();
    let actor = MeanFlow::load(&actor, SIZES.1).unwrap();
    let source = StepSource::of(&actor).unwrap();
    let digest = |sampler: &FastSampler| {
        let mut weights = Weights::default();
        sampler.actor_weights(&source, &mut weights)?;
        weights.digest()
    };
    let whole = FastSampler::new(&actor, None, 2).unwrap();
    let expected = digest(&whole).unwrap();
    assert_eq!(digest(&whole.clone()).unwrap(), expected);
    type Damage = fn(&mut FastMeanFlow) -> &mut f32;
    let damages: [Damage; 6] = [
        |n| &mut n.trunk.first.kernel.packed_mut()[7],
        |n| &mut n.trunk.observation_kernel.packed_mut()[33],
        |n| &mut n.trunk.layers[0].kernel.packed_mut()[5],
        |n| &mut n.trunk.layers[0].shift[3],
        |n| &mut n.trunk.head.packed_mut()[1],
        |n| &mut n.trunk.head_bias[2],
    ];
    for damage in damages {
        let mut damaged = whole.clone();
        let weight = damage(&mut damaged.networks.actor);
        *weight = f32::from_bits(weight.to_bits() ^ 1);
        assert_ne!(digest(&damaged).unwrap(), expected);
    }
    let mut damaged = whole.clone();
    damaged.networks.actor.step_bias[1][0] += 1.0;
    let error = digest(&damaged).unwrap_err().to_string();
    assert!(
        error.contains("bias at each step") && error.contains("damaged"),
        "{error}"
    );
}
