//! What the replay buffer takes of the memory. The only test of its program, so that nothing else is measured with it.

use std::fs;

use mfpo_train::replay_buffer::{ReplayBuffer, Transition};

// As in the trainer's program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TRANSITIONS: usize = 1_000_000;
/// HalfCheetah's.
const SIZES: (usize, usize) = (17, 6);

/// Resident memory of this program.
fn resident_bytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    1024.0 * kilobytes
}

#[test]
fn a_million_transitions_take_less_than_fifteen_percent_more_than_their_numbers() {
    let (s, a) = SIZES;
    let (observation, action) = (vec![0.25; s], vec![-0.5; a]);
    let before = resident_bytes();
    let mut buffer = ReplayBuffer::new(s, a, TRANSITIONS, 0);
    for index in 0..TRANSITIONS {
        buffer.insert(Transition {
            observation: &observation,
            action: &action,
            reward: index as f64,
            terminated: false,
            next_observation: &observation,
        });
    }
    let taken = resident_bytes() - before;
    assert_eq!(buffer.len(), TRANSITIONS);
    // Observation, action, reward, mask, next observation.
    let numbers = TRANSITIONS * (s + a + 1 + 1 + s) * size_of::<f32>();
    let ratio = taken / numbers as f64;
    println!("{:.1} MB resident, {ratio:.3} of the numbers", taken / 1e6);
    // Less would mean that it was not measured.
    assert!((0.9..1.15).contains(&ratio), "{ratio:.3} of the numbers");
}
