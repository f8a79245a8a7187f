//! Standard normal noise for the sampler, the same sequence for the same seed on every machine.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// A seeded source of standard normal numbers; filling a slice allocates nothing.
#[derive(Debug, Clone)]
pub struct NormalNoise {
    rng: ChaCha8Rng,
}

impl NormalNoise {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Goes on with `generator`.
    pub fn from_generator(generator: ChaCha8Rng) -> Self {
        Self { rng: generator }
    }

    /// Where the numbers come from, to put the sequence down and take it up again.
    pub fn generator(&self) -> &ChaCha8Rng {
        &self.rng
    }

    /// Overwrites `out` with independent numbers from `N(0, 1)`.
    pub fn fill(&mut self, out: &mut [f32]) {
        for value in out {
            *value = StandardNormal.sample(&mut self.rng);
        }
    }
}
