use super::*;
use crate::critic::ValueSupport;
use crate::guard::Signal;
use crate::noise::NormalNoise;

const SIZES: (usize, usize) = (5, 3);
const MOST: usize = 20;

fn drawn(seed: u64, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    NormalNoise::new(seed).fill(&mut values);
    values
}

/// A policy of two steps with random weights and critics.
fn networks() -> PolicyNetworks {
    let (observation, action) = SIZES;
    let actor = MeanFlow::initialize(1, (observation, action, action), &[32, 32], &Device::Cpu).unwrap();
    let support = ValueSupport {
        minimum: -10.0,
        maximum: 10.0,
        atoms: 21,
    };
    let critics = [2, 3].map(|seed| {
        let sizes = (observation, action, support.atoms);
        let parameters = Critic::initialize(seed, sizes, &[32, 32], &Device::Cpu).unwrap();
        Critic::load(&parameters, support).unwrap()
    });
    PolicyNetworks {
        actor: MeanFlow::load(&actor, action).unwrap(),
        critics: Some(critics),
        clipped_double_q: true,
        steps: 2,
        normalizer: None,
    }
}

fn sampler() -> ActionSampler {
    ActionSampler::new(&networks(), &Device::Cpu).unwrap()
}

/// An action, how far the sampler was asked to go for it, and the value.
fn within(sampler: &mut ActionSampler, stages: usize) -> (Vec<f32>, Sampled) {
    let mut action = vec![0.0; SIZES.1];
    let mut left = stages;
    let sampled = sampler
        .sample_within(
            &drawn(5, SIZES.0),
            &drawn(6, MOST * SIZES.1),
            MOST,
            &mut action,
            &mut |_| {
                left = left.saturating_sub(1);
                left > 0
            },
        )
        .unwrap();
    (action, sampled)
}

#[test]
fn the_same_depth_gives_the_same_bits_again() {
    let mut sampler = sampler();
    let noise = drawn(6, MOST * SIZES.1);
    let expected = [(1, 1), (2, 1), (2, 9), (2, 17), (2, 20)];
    for (stages, (steps, candidates)) in (1..).zip(expected) {
        let (action, sampled) = within(&mut sampler, stages);
        let depth = Depth {
            steps,
            candidates,
            in_stages: true,
        };
        assert_eq!(sampled.depth, depth);
        let mut again = vec![0.0; SIZES.1];
        let used = &noise[..candidates * SIZES.1];
        let value = sampler
            .sample_at(&drawn(5, SIZES.0), used, sampled.depth, &mut again)
            .unwrap();
        assert_eq!((action, sampled.value), (again, value), "{stages} stages");
    }
    assert_ne!(within(&mut sampler, 1).0, within(&mut sampler, 2).0);
    assert_ne!(
        within(&mut sampler, 2).0,
        within(&mut sampler, 5).0,
        "the critics choose another"
    );
}

#[test]
fn the_first_answer_is_the_flow_in_one_step() {
    let mut sampler = sampler();
    let actor = MeanFlow::initialize(1, (SIZES.0, SIZES.1, SIZES.1), &[32, 32], &Device::Cpu).unwrap();
    let actor = MeanFlow::load(&actor, SIZES.1).unwrap();
    let (observation, noise) = (drawn(5, SIZES.0), drawn(6, SIZES.1));
    let rows = |values: &[f32]| Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap();
    let expected = sample(&actor, &rows(&observation), &rows(&noise), 1).unwrap();
    let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
    let mut action = vec![0.0; SIZES.1];
    sampler
        .sample_at(&observation, &noise, Depth::FIRST, &mut action)
        .unwrap();
    for (got, expected) in action.iter().zip(&expected) {
        assert!((got - expected).abs() < 1e-5, "{action:?} {expected:?}");
    }
}

#[test]
fn a_depth_that_the_policy_does_not_have_is_refused_by_name() {
    let depth = Depth {
        steps: 3,
        candidates: 1,
        in_stages: false,
    };
    let error = sampler()
        .sample_at(&drawn(5, SIZES.0), &drawn(6, SIZES.1), depth, &mut [0.0; SIZES.1])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "3 steps and 1 candidates were asked for; expected 1 step and 1 candidate, or 2 steps"
    );
}

#[test]
fn the_critics_value_an_action_alone_as_they_do_among_candidates() {
    let mut sampler = sampler();
    let (observation, noise) = (drawn(5, SIZES.0), drawn(6, 4 * SIZES.1));
    let mut action = vec![0.0; SIZES.1];
    let chosen = sampler.sample_into(&observation, &noise, 4, &mut action).unwrap();
    let [first, second] = sampler.values_of(&observation, &action).unwrap().unwrap();
    let smaller = first.min(second);
    assert!(chosen.is_some_and(|value| (value - smaller).abs() < 1e-4));
    assert!(sampler.values_of(&observation[1..], &action).is_err());
    let actor_alone = PolicyNetworks {
        critics: None,
        ..networks()
    };
    let mut sampler = ActionSampler::new(&actor_alone, &Device::Cpu).unwrap();
    assert_eq!(sampler.values_of(&observation, &action).unwrap(), None);
}

/// Every signal of eight candidates.
const GUARD: GuardManifest = GuardManifest {
    disagreement_max: Some(1.0),
    spread_max: Some(1.0),
    value_min: Some(0.0),
    candidates: 8,
    in_a_row: 3,
};

fn all_steps(candidates: usize, in_stages: bool) -> Depth {
    Depth {
        steps: 2,
        candidates,
        in_stages,
    }
}

#[test]
fn the_signals_are_those_of_the_first_candidates_however_they_were_sampled() {
    let mut sampler = sampler();
    let (observation, noise) = (drawn(5, SIZES.0), drawn(6, MOST * SIZES.1));
    // Each candidate alone.
    let (mut actions, mut best) = (Vec::new(), f32::NEG_INFINITY);
    for draw in noise.chunks(SIZES.1).take(8) {
        let mut action = [0.0; SIZES.1];
        sampler.sample_into(&observation, draw, 1, &mut action).unwrap();
        let [first, second] = sampler.values_of(&observation, &action).unwrap().unwrap();
        actions.extend(action);
        best = best.max(first.min(second));
    }
    let mut quick = [0.0; SIZES.1];
    let draw = &noise[..SIZES.1];
    sampler
        .sample_at(&observation, draw, Depth::FIRST, &mut quick)
        .unwrap();
    let expected = Signals {
        disagreement: Some(difference(&actions[..SIZES.1], &quick)),
        spread: Some(spread(&actions, SIZES.1)),
        value: Some(f64::from(best)),
    };
    assert!(
        expected.disagreement > Some(1e-3) && expected.spread > Some(1e-3),
        "{expected:?}"
    );
    for (candidates, in_stages) in [(8, false), (8, true), (MOST, false), (MOST, true)] {
        let (depth, noise) = (all_steps(candidates, in_stages), &noise[..candidates * SIZES.1]);
        let mut action = [0.0; SIZES.1];
        sampler
            .sample_at(&observation, noise, depth, &mut action)
            .unwrap();
        let got = sampler.signals(noise, depth, &GUARD).unwrap().unwrap();
        for signal in Signal::ALL {
            let (got, expected) = (got.get(signal).unwrap(), expected.get(signal).unwrap());
            assert!(
                (got - expected).abs() < 1e-4,
                "{depth:?}, {signal:?}: {got}, not {expected}"
            );
        }
        // Nothing of an action depends on whether they are asked for, nor they on how often.
        assert_eq!(sampler.signals(noise, depth, &GUARD).unwrap(), Some(got));
        let mut again = [0.0; SIZES.1];
        sampler.sample_at(&observation, noise, depth, &mut again).unwrap();
        assert_eq!(action.map(f32::to_bits), again.map(f32::to_bits));
    }
}

#[test]
fn signals_are_given_where_they_are_asked_for_and_enough_was_sampled() {
    let mut sampler = sampler();
    let (observation, noise) = (drawn(5, SIZES.0), drawn(6, 8 * SIZES.1));
    let mut action = [0.0; SIZES.1];
    for signal in Signal::ALL {
        let guard = GuardManifest::without_limits(8, 3).with_limit(signal, 1.0);
        let depth = all_steps(8, false);
        sampler
            .sample_at(&observation, &noise, depth, &mut action)
            .unwrap();
        let signals = sampler.signals(&noise, depth, &guard).unwrap().unwrap();
        let given = Signal::ALL.map(|other| signals.get(other).is_some());
        assert_eq!(given, Signal::ALL.map(|other| other == signal));
    }
    for depth in [all_steps(7, false), all_steps(1, true), Depth::FIRST] {
        let noise = &noise[..depth.candidates * SIZES.1];
        sampler
            .sample_at(&observation, noise, depth, &mut action)
            .unwrap();
        assert_eq!(sampler.signals(noise, depth, &GUARD).unwrap(), None, "{depth:?}");
    }
    let depth = all_steps(8, false);
    sampler
        .sample_at(&observation, &noise, depth, &mut action)
        .unwrap();
    let error = sampler.signals(&[], depth, &GUARD).unwrap_err().to_string();
    assert!(error.contains("the noise holds 0 numbers; expected 3"), "{error}");
}

#[test]
fn a_value_that_is_not_finite_is_an_error_and_chooses_no_action() {
    for (damaged, is_clipped) in [(0, true), (1, true), (0, false), (1, false)] {
        let mut networks = networks();
        networks.clipped_double_q = is_clipped;
        if let Some(critics) = &mut networks.critics {
            let bias = &mut critics[damaged].trunk.head.bias;
            *bias = Tensor::full(f32::NAN, bias.dims().to_vec(), &Device::Cpu).unwrap();
        }
        let mut sampler = ActionSampler::new(&networks, &Device::Cpu).unwrap();
        let (observation, noise) = (drawn(5, SIZES.0), drawn(6, 4 * SIZES.1));
        let mut action = [7.0; SIZES.1];
        let error = sampler
            .sample_into(&observation, &noise, 4, &mut action)
            .unwrap_err();
        assert!(
            matches!(error, SampleError::NotFiniteValue { candidate: 0, .. }),
            "{error}"
        );
        assert_eq!(action, [7.0; SIZES.1]);
        assert!(sampler.values_of(&observation, &action).is_err());
        // One candidate needs no critic.
        sampler
            .sample_into(&observation, &noise[..SIZES.1], 1, &mut action)
            .unwrap();
    }
}
