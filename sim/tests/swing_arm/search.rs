//! The best linear policy that a search finds: cross-entropy method with restarts. A candidate is judged on a few of
//! the starts first and on all of them when it is promising, by successes, then by return.

use mfpo_sim::Mode;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::controllers::Linear;
use crate::{environment, judge};

const RESTARTS: u64 = 4;
const GENERATIONS: usize = 12;
const POPULATION: usize = 60;
const ELITES: usize = 10;
/// Starts of the first look.
const FIRST_LOOK: u64 = 5;
/// Candidates of a generation that are judged on every start.
const SECOND_LOOKS: usize = 4;

/// The outcome of the search.
pub struct Found {
    pub policy: Linear,
    pub success: f64,
    pub mean_return: f64,
    pub candidates: usize,
}

/// Searches on `starts` evaluation starts; the restarts run on two threads.
pub fn best_linear(seed: u64, starts: u64) -> Found {
    let restart = |k: u64| move || one_search(ChaCha8Rng::seed_from_u64(seed ^ (k + 1)), starts);
    let results: Vec<(Linear, (f64, f64))> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..RESTARTS).map(|k| scope.spawn(restart(k))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let best = results
        .into_iter()
        .max_by(|a, b| score(a.1).total_cmp(&score(b.1)));
    let (policy, (success, mean_return)) = best.unwrap();
    Found {
        policy,
        success,
        mean_return,
        candidates: RESTARTS as usize * GENERATIONS * POPULATION,
    }
}

fn one_search(mut rng: ChaCha8Rng, starts: u64) -> (Linear, (f64, f64)) {
    let mut env = environment(Mode::Evaluate, (0.0, 0.008));
    let (mut mean, mut deviation) = ([0.0f32; 5], [3.0f32; 5]);
    let mut best = (Linear::default(), (0.0, 0.0));
    for generation in 0..GENERATIONS {
        let mut scored: Vec<(f64, Linear)> = (0..POPULATION)
            .map(|_| {
                // The first generation is random search over several scales.
                let scale = if generation == 0 {
                    10f32.powf(rng.random_range(-1.0..=0.7))
                } else {
                    1.0
                };
                let weights = std::array::from_fn(|i| {
                    let noise: f32 = StandardNormal.sample(&mut rng);
                    mean[i] + scale * deviation[i] * noise
                });
                let policy = Linear { weights };
                (score(judge(env.as_mut(), &policy, FIRST_LOOK)), policy)
            })
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, policy) in &scored[..SECOND_LOOKS] {
            let judgement = judge(env.as_mut(), policy, starts);
            if score(judgement) > score(best.1) {
                best = (*policy, judgement);
            }
        }
        let elites = || scored[..ELITES].iter().map(|(_, policy)| policy.weights);
        for i in 0..5 {
            mean[i] = elites().map(|w| w[i]).sum::<f32>() / ELITES as f32;
            let variance = elites().map(|w| (w[i] - mean[i]).powi(2)).sum::<f32>() / ELITES as f32;
            deviation[i] = variance.sqrt() + 0.05;
        }
    }
    best
}

/// Success counts most; return tells candidates without success apart.
fn score((success, mean_return): (f64, f64)) -> f64 {
    success + 0.002 * mean_return
}
