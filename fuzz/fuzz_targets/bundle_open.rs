//! Opens whatever comes as a bundle and does with it what a node does: see `mfpo_policy/tests/bundles`, whose changes that
//! know the format take turns with libFuzzer's own. `mfpo_policy/tests/fuzz_target.rs` compiles this file and runs it briefly.

#![no_main]

#[path = "../../mfpo_policy/tests/bundles/exercise.rs"]
mod exercise;
#[path = "../../mfpo_policy/tests/bundles/mutations.rs"]
mod mutations;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// libFuzzer watches memory and time itself.
struct Nobody;

impl exercise::Onlooker for Nobody {
    fn look<T>(&mut self, _: exercise::Step, _: usize, run: impl FnOnce() -> T) -> T {
        run()
    }
}

fuzz_target!(|bytes: &[u8]| {
    exercise::exercise(bytes, &mut Nobody);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed.is_multiple_of(4) {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(seed));
    match mutations::mutated(&data[..size], &mut rng) {
        Some(changed) if changed.len() <= max_size => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});
