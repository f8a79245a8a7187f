//! What few-step sampling saves: one MFPO update and one action at T = 2, 16 and 20 sampling steps (HalfCheetah's sizes, the
//! paper's settings else), and SAC's beside them. The cases take turns, so that all see the same machine.

use std::time::Instant;

use candle_core::Device;
use mfpo_train::algorithm::Algorithm;
use mfpo_train::learner::{LearnerConfig, MfpoLearner};
use mfpo_train::replay_buffer::Batch;
use mfpo_train::sac::{SacConfig, SacLearner};
use rand::{RngExt, SeedableRng};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: (usize, usize) = (17, 6);
const STEPS: [usize; 3] = [2, 16, 20];
/// Updates of each case, after one that is not timed.
const UPDATES: usize = 12;
/// Actions between two updates; an action is timed as the mean of as many.
const ACTIONS: usize = 200;

fn main() -> anyhow::Result<()> {
    // SAFETY: the first statement of `main`; no other thread exists that could read the environment.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    let (observation_size, action_size) = SIZES;
    let mut cases: Vec<(String, Box<dyn Algorithm>)> = Vec::new();
    for sampling_steps in STEPS {
        let config = LearnerConfig {
            sampling_steps,
            ..LearnerConfig::paper(observation_size, action_size)
        };
        let learner = MfpoLearner::new(config, 0, &Device::Cpu)?;
        cases.push((format!("MFPO, T = {sampling_steps}"), Box::new(learner)));
    }
    let config = SacConfig {
        observation_size,
        action_size,
        ..SacConfig::default()
    };
    cases.push((
        "SAC".to_owned(),
        Box::new(SacLearner::new(config, 0, &Device::Cpu)?),
    ));

    let batch = random_batch(256);
    let mut times = vec![(Vec::new(), Vec::new()); cases.len()];
    for round in 0..=UPDATES {
        for ((_, learner), (updates, actions)) in cases.iter_mut().zip(&mut times) {
            let start = Instant::now();
            learner.update(&batch)?;
            let update = start.elapsed().as_secs_f64() * 1e3;
            learner.sample_action(&batch.observations[..observation_size])?;
            let start = Instant::now();
            for row in batch.observations.chunks_exact(observation_size).take(ACTIONS) {
                learner.sample_action(row)?;
            }
            let action = start.elapsed().as_secs_f64() * 1e6 / ACTIONS as f64;
            if round > 0 {
                updates.push(update);
                actions.push(action);
            }
        }
    }
    println!("all cores, p50 of {UPDATES}; HalfCheetah's sizes");
    println!("{:<14} {:>11} {:>11}", "", "update, ms", "action, us");
    for ((name, _), (updates, actions)) in cases.iter().zip(&mut times) {
        println!("{name:<14} {:>11.1} {:>11.1}", median(updates), median(actions));
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn random_batch(size: usize) -> Batch {
    let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(1);
    let mut numbers = |count: usize| {
        (0..count)
            .map(|_| rng.random_range(-1.0..1.0))
            .collect::<Vec<f32>>()
    };
    Batch {
        size,
        observation_size: SIZES.0,
        action_size: SIZES.1,
        observations: numbers(size * SIZES.0),
        actions: numbers(size * SIZES.1),
        rewards: numbers(size),
        masks: vec![1.0; size],
        next_observations: numbers(size * SIZES.0),
    }
}
