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

    /// Starts the `index`th of the seed's independent sequences (ChaCha's stream of that number), so that it can be drawn
    /// again without the ones before it. A new source is at the start of sequence 0.
    pub fn begin(&mut self, index: u64) {
        self.rng.set_stream(index);
        self.rng.set_word_pos(0);
    }

    /// Overwrites `out` with independent numbers from `N(0, 1)`.
    pub fn fill(&mut self, out: &mut [f32]) {
        for value in out {
            *value = StandardNormal.sample(&mut self.rng);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_can_be_drawn_again_without_those_before_it() {
        let drawn = |noise: &mut NormalNoise, index| {
            let mut values = [0.0; 7];
            noise.begin(index);
            noise.fill(&mut values);
            values
        };
        let mut noise = NormalNoise::new(3);
        let sequences: Vec<_> = (0..5).map(|index| drawn(&mut noise, index)).collect();
        assert_eq!(drawn(&mut NormalNoise::new(3), 4), sequences[4]);
        let mut first = [0.0; 7];
        NormalNoise::new(3).fill(&mut first);
        assert_eq!(first, sequences[0]);
        for (i, one) in sequences.iter().enumerate() {
            assert!(sequences[..i].iter().all(|other| other != one));
        }
    }
}
