//! A transition becomes a gradient: environment, replay buffer, learner.

use std::collections::BTreeMap;

use candle_core::Device;
use mfpo_policy::parameters::Parameters;
use mfpo_sim::{EnvOptions, registry};
use mfpo_tests::alone;
use mfpo_train::config::TrainConfig;
use mfpo_train::learner::{MfpoLearner, RandomDraws, Trace};
use mfpo_train::replay_buffer::{Batch, ReplayBuffer, Transition};

const TASK: &str = "swing_arm";

/// A learner, and a mini-batch that random actions in MuJoCo have filled.
fn learner_and_batch() -> (MfpoLearner, Batch) {
    let mut config = TrainConfig::load(TASK, None, &[]).expect("the built-in configuration");
    let mut env = registry::make(TASK, &EnvOptions::train()).expect("the task");
    let sizes = (env.spec().observation_size, env.spec().action_size);
    config.set_sizes(sizes.0, sizes.1).expect("sizes");
    let mut replay = ReplayBuffer::new(sizes.0, sizes.1, 1_000, 1);
    let mut observation = env.reset(3).expect("a first observation");
    for k in 0..300_u64 {
        let action = vec![(k as f32 * 0.37).sin(); sizes.1];
        let step = env.step(&action).expect("a step");
        replay.insert(Transition {
            observation: &observation,
            action: &action,
            reward: step.reward,
            terminated: step.terminated,
            next_observation: &step.observation,
        });
        observation = if step.terminated || step.truncated {
            env.reset(k).expect("a first observation")
        } else {
            step.observation
        };
    }
    let mut batch = Batch::default();
    replay.sample_into(config.learner.batch_size, &mut batch);
    let learner = MfpoLearner::new(config.learner, 11, &Device::Cpu).expect("a learner");
    (learner, batch)
}

/// Copies of every parameter of every network, by network and name.
fn parameters(learner: &MfpoLearner) -> BTreeMap<String, Vec<f32>> {
    let [critic_1, critic_2] = learner.critic_parameters();
    let [target_1, target_2] = learner.target_parameters();
    let networks: [(&str, &Parameters); 6] = [
        ("actor", learner.actor_parameters()),
        ("divergence", learner.divergence_parameters()),
        ("critic_1", critic_1),
        ("critic_2", critic_2),
        ("target_1", target_1),
        ("target_2", target_2),
    ];
    let mut all = BTreeMap::new();
    for (network, parameters) in networks {
        for (name, tensor) in parameters.iter() {
            let values = tensor.flatten_all().and_then(|t| t.to_vec1()).expect("numbers");
            all.insert(format!("{network}/{name}"), values);
        }
    }
    all
}

#[test]
fn a_transition_becomes_a_gradient_of_every_parameter_of_every_network() {
    let _turn = alone();
    let (mut learner, batch) = learner_and_batch();
    let before = parameters(&learner);
    let mut trace = Trace::on();
    let info = learner
        .update_with(&batch, &mut RandomDraws::new(5), &mut trace)
        .expect("an update");
    let after = parameters(&learner);

    // The trace names the divergence network as the reference does, and the temperature has one more gradient.
    let mut trained: Vec<String> = before
        .keys()
        .filter(|name| !name.starts_with("target"))
        .map(|name| name.replace("divergence/", "logp_mvel/"))
        .collect();
    trained.push("temp/log_temp".to_owned());
    let gradients: BTreeMap<&str, &Vec<f32>> = trace
        .values()
        .filter_map(|(name, values)| Some((name.strip_prefix("grad/")?, values)))
        .collect();
    trained.sort();
    assert_eq!(gradients.keys().copied().collect::<Vec<_>>(), trained);
    for (name, gradient) in &gradients {
        assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
        assert!(gradient.iter().any(|g| *g != 0.0), "{name} gets no gradient");
    }
    for (name, old) in &before {
        let changed = old.iter().zip(&after[name]).filter(|(a, b)| a != b).count();
        assert!(changed > 0, "no element of {name} has changed");
    }
    assert!(info.temperature_loss != 0.0 && info.temperature_loss.is_finite());
    assert_ne!(learner.temperature(), learner.config().initial_temperature);
}

#[test]
fn another_transition_gives_another_gradient() {
    let _turn = alone();
    let gradient = |change: fn(&mut Batch)| {
        let (mut learner, mut batch) = learner_and_batch();
        change(&mut batch);
        let mut trace = Trace::on();
        learner
            .update_with(&batch, &mut RandomDraws::new(5), &mut trace)
            .expect("an update");
        let critic = trace.values().find(|(name, _)| name.starts_with("grad/critic"));
        critic.expect("a critic's gradient").1.clone()
    };
    let as_it_is = gradient(|_| {});
    assert_eq!(
        as_it_is,
        gradient(|_| {}),
        "the same transitions give the same gradient"
    );
    assert_ne!(
        as_it_is,
        gradient(|batch| batch.rewards.iter_mut().for_each(|r| *r += 1.0))
    );
    assert_ne!(as_it_is, gradient(|batch| batch.masks.fill(0.0)));
    assert_ne!(
        as_it_is,
        gradient(|batch| batch.actions.iter_mut().for_each(|a| *a = -*a))
    );
}
