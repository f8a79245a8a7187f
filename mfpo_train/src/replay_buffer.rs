//! Transitions in, uniform mini-batches out.
//!
//! A ring of `capacity` transitions in flat `f32` arrays, sampled uniformly with replacement. The mask is
//! `1 - terminated`: a truncated episode still bootstraps from its last state. Memory is touched only as it fills.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::learner::LearnerError;
use crate::state::{Generator, State, StateError};

/// One step of an environment.
#[derive(Debug, Clone, Copy)]
pub struct Transition<'a> {
    /// What the policy saw, `[S]`.
    pub observation: &'a [f32],
    /// What it did, `[A]`, in `[-1, 1]`.
    pub action: &'a [f32],
    /// What it got.
    pub reward: f64,
    /// The episode ended in a state without a future. Truncation is not termination.
    pub terminated: bool,
    /// What the policy saw next, `[S]`.
    pub next_observation: &'a [f32],
}

/// A mini-batch, row-major.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Rows, B.
    pub size: usize,
    /// Columns of an observation, S.
    pub observation_size: usize,
    /// Columns of an action, A.
    pub action_size: usize,
    /// `[B, S]`
    pub observations: Vec<f32>,
    /// `[B, A]`
    pub actions: Vec<f32>,
    /// `[B]`
    pub rewards: Vec<f32>,
    /// `[B]`: 0 where the episode terminated, else 1.
    pub masks: Vec<f32>,
    /// `[B, S]`
    pub next_observations: Vec<f32>,
}

/// The last `capacity` transitions.
pub struct ReplayBuffer {
    observation_size: usize,
    action_size: usize,
    capacity: usize,
    /// Transitions held.
    len: usize,
    /// Where the next transition goes.
    next: usize,
    observations: Vec<f32>,
    actions: Vec<f32>,
    rewards: Vec<f32>,
    masks: Vec<f32>,
    next_observations: Vec<f32>,
    rng: ChaCha12Rng,
}

impl ReplayBuffer {
    /// An empty buffer for `capacity` transitions whose draws follow from `seed`.
    pub fn new(observation_size: usize, action_size: usize, capacity: usize, seed: u64) -> Self {
        assert!(capacity > 0, "a replay buffer holds at least one transition");
        Self {
            observation_size,
            action_size,
            capacity,
            len: 0,
            next: 0,
            observations: vec![0.0; capacity * observation_size],
            actions: vec![0.0; capacity * action_size],
            rewards: vec![0.0; capacity],
            masks: vec![0.0; capacity],
            next_observations: vec![0.0; capacity * observation_size],
            rng: ChaCha12Rng::seed_from_u64(seed),
        }
    }

    /// Transitions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True before the first insertion.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a transition; a full buffer forgets its oldest.
    ///
    /// # Panics
    /// If a size differs from the one given to [`ReplayBuffer::new`].
    pub fn insert(&mut self, transition: Transition<'_>) {
        let at = self.next;
        write_row(
            &mut self.observations,
            at,
            transition.observation,
            self.observation_size,
        );
        write_row(&mut self.actions, at, transition.action, self.action_size);
        write_row(
            &mut self.next_observations,
            at,
            transition.next_observation,
            self.observation_size,
        );
        self.rewards[at] = transition.reward as f32;
        self.masks[at] = if transition.terminated { 0.0 } else { 1.0 };
        self.next = (at + 1) % self.capacity;
        self.len = (self.len + 1).min(self.capacity);
    }

    /// The last `count` transitions, or as many as there are, the oldest of them first.
    pub fn latest(&self, count: usize) -> impl Iterator<Item = Transition<'_>> {
        let count = count.min(self.len);
        (0..count).map(move |index| {
            let row = (self.next + self.capacity - count + index) % self.capacity;
            Transition {
                observation: read_row(&self.observations, row, self.observation_size),
                action: read_row(&self.actions, row, self.action_size),
                reward: f64::from(self.rewards[row]),
                terminated: self.masks[row] == 0.0,
                next_observation: read_row(&self.next_observations, row, self.observation_size),
            }
        })
    }

    /// All that it holds, borrowed.
    pub fn state(&self) -> State<'_> {
        let mut state = State::default();
        for (name, column, width) in [
            ("observations", &self.observations, self.observation_size),
            ("actions", &self.actions, self.action_size),
            ("rewards", &self.rewards, 1),
            ("masks", &self.masks, 1),
            (
                "next_observations",
                &self.next_observations,
                self.observation_size,
            ),
        ] {
            state.put(name, &column[..self.len * width]);
        }
        state.put(
            "place",
            vec![self.capacity as u64, self.len as u64, self.next as u64],
        );
        state.put("generator", self.rng.position());
        state
    }

    /// Takes up a [`ReplayBuffer::state`].
    ///
    /// # Errors
    /// When the state is of a buffer of other sizes.
    pub fn restore(&mut self, mut state: State<'_>) -> Result<(), StateError> {
        let [capacity, len, next] = state.take_u64("place")?.map(|n| n as usize);
        if capacity != self.capacity || len > capacity || next >= capacity || (len < capacity && next != len)
        {
            return Err(StateError::Mismatch {
                name: "replay/place".to_owned(),
                expected: format!("a buffer for {} transitions", self.capacity),
                got: format!("one for {capacity}, with {len} and the next at {next}"),
            });
        }
        let (s, a) = (self.observation_size, self.action_size);
        for (name, column, width) in [
            ("observations", &mut self.observations, s),
            ("actions", &mut self.actions, a),
            ("rewards", &mut self.rewards, 1),
            ("masks", &mut self.masks, 1),
            ("next_observations", &mut self.next_observations, s),
        ] {
            column[..len * width].copy_from_slice(&state.take_f32_of(name, len * width)?);
        }
        (self.len, self.next) = (len, next);
        self.rng = ChaCha12Rng::at(state.take_u64("generator")?);
        Ok(())
    }

    /// `size` transitions, uniformly and with replacement, into `batch`, whose memory is reused.
    ///
    /// # Panics
    /// If the buffer is empty.
    pub fn sample_into(&mut self, size: usize, batch: &mut Batch) {
        assert!(self.len > 0, "sampled an empty replay buffer");
        batch.clear(size, self.observation_size, self.action_size);
        for _ in 0..size {
            let row = self.rng.random_range(0..self.len);
            batch
                .observations
                .extend_from_slice(read_row(&self.observations, row, self.observation_size));
            batch
                .actions
                .extend_from_slice(read_row(&self.actions, row, self.action_size));
            batch.rewards.push(self.rewards[row]);
            batch.masks.push(self.masks[row]);
            batch.next_observations.extend_from_slice(read_row(
                &self.next_observations,
                row,
                self.observation_size,
            ));
        }
    }

    /// `size` transitions, uniformly and with replacement.
    pub fn sample(&mut self, size: usize) -> Batch {
        let mut batch = Batch::default();
        self.sample_into(size, &mut batch);
        batch
    }
}

impl Batch {
    /// The batch cut into `count` mini-batches of equal size, for observations and actions of the given sizes.
    ///
    /// # Errors
    /// When a part has another size than the rows say, or the rows cannot be shared out.
    pub fn parts(&self, count: usize, (s, a): (usize, usize)) -> Result<Vec<Batch>, LearnerError> {
        let b = self.size;
        for (what, expected, got) in [
            ("rows", count * (b / count).max(1), b),
            ("observations", b * s, self.observations.len()),
            ("actions", b * a, self.actions.len()),
            ("rewards", b, self.rewards.len()),
            ("masks", b, self.masks.len()),
            ("next_observations", b * s, self.next_observations.len()),
        ] {
            if expected != got {
                return Err(LearnerError::Batch { what, expected, got });
            }
        }
        if count == 1 {
            return Ok(vec![self.clone()]);
        }
        let rows = b / count;
        let cut =
            |column: &[f32], width: usize, i: usize| column[i * rows * width..][..rows * width].to_vec();
        let part = |i| Batch {
            size: rows,
            observation_size: s,
            action_size: a,
            observations: cut(&self.observations, s, i),
            actions: cut(&self.actions, a, i),
            rewards: cut(&self.rewards, 1, i),
            masks: cut(&self.masks, 1, i),
            next_observations: cut(&self.next_observations, s, i),
        };
        Ok((0..count).map(part).collect())
    }

    fn clear(&mut self, size: usize, observation_size: usize, action_size: usize) {
        (self.size, self.observation_size, self.action_size) = (size, observation_size, action_size);
        for column in [
            &mut self.observations,
            &mut self.actions,
            &mut self.rewards,
            &mut self.masks,
            &mut self.next_observations,
        ] {
            column.clear();
        }
    }
}

fn write_row(rows: &mut [f32], at: usize, row: &[f32], width: usize) {
    assert_eq!(
        row.len(),
        width,
        "expected a row of {width} numbers, got {}",
        row.len()
    );
    rows[at * width..(at + 1) * width].copy_from_slice(row);
}

fn read_row(rows: &[f32], at: usize, width: usize) -> &[f32] {
    &rows[at * width..(at + 1) * width]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transition whose every number tells its index.
    fn insert(buffer: &mut ReplayBuffer, index: usize, terminated: bool) {
        let i = index as f32;
        buffer.insert(Transition {
            observation: &[i, -i],
            action: &[i / 100.0],
            reward: f64::from(i) * 10.0,
            terminated,
            next_observation: &[i + 1.0, -i - 1.0],
        });
    }

    #[test]
    fn rows_of_a_batch_belong_together() {
        let mut buffer = ReplayBuffer::new(2, 1, 50, 3);
        (0..30).for_each(|i| insert(&mut buffer, i, false));
        let batch = buffer.sample(64);
        assert_eq!(
            (batch.size, batch.observation_size, batch.action_size),
            (64, 2, 1)
        );
        assert_eq!(
            (batch.observations.len(), batch.next_observations.len()),
            (128, 128)
        );
        for row in 0..64 {
            let i = batch.observations[2 * row];
            assert_eq!(batch.observations[2 * row + 1], -i);
            assert_eq!(batch.actions[row], i / 100.0);
            assert_eq!(batch.rewards[row], i * 10.0);
            assert_eq!(batch.next_observations[2 * row], i + 1.0);
        }
    }

    #[test]
    fn parts_are_the_rows_in_their_order() {
        let mut buffer = ReplayBuffer::new(2, 1, 50, 3);
        (0..30).for_each(|i| insert(&mut buffer, i, false));
        let batch = buffer.sample(12);
        let parts = batch.parts(3, (2, 1)).unwrap();
        assert!(parts.iter().all(|part| part.size == 4));
        let joined =
            |column: fn(&Batch) -> &Vec<f32>| parts.iter().flat_map(column).copied().collect::<Vec<_>>();
        assert_eq!(joined(|b| &b.observations), batch.observations);
        assert_eq!(joined(|b| &b.actions), batch.actions);
        assert_eq!(joined(|b| &b.rewards), batch.rewards);
        assert_eq!(joined(|b| &b.next_observations), batch.next_observations);
        let text = batch.parts(5, (2, 1)).unwrap_err().to_string();
        assert!(
            text.contains("rows of the mini-batch holds 12 numbers; expected 10"),
            "{text}"
        );
        assert!(
            batch
                .parts(1, (3, 1))
                .unwrap_err()
                .to_string()
                .contains("observations")
        );
    }

    #[test]
    fn only_termination_clears_the_mask() {
        let mut buffer = ReplayBuffer::new(2, 1, 10, 0);
        (0..10).for_each(|i| insert(&mut buffer, i, i % 2 == 0));
        let batch = buffer.sample(200);
        for row in 0..200 {
            let even = batch.observations[2 * row] % 2.0 == 0.0;
            assert_eq!(batch.masks[row], if even { 0.0 } else { 1.0 });
        }
    }

    #[test]
    fn a_full_buffer_forgets_the_oldest() {
        let mut buffer = ReplayBuffer::new(2, 1, 5, 1);
        (0..12).for_each(|i| insert(&mut buffer, i, false));
        assert_eq!(buffer.len(), 5);
        let batch = buffer.sample(500);
        let mut seen = [false; 12];
        batch
            .observations
            .iter()
            .step_by(2)
            .for_each(|&i| seen[i as usize] = true);
        assert_eq!(seen, std::array::from_fn(|i| i >= 7));
    }

    #[test]
    fn the_latest_are_in_the_order_in_which_they_came() {
        let mut buffer = ReplayBuffer::new(2, 1, 5, 1);
        let latest = |buffer: &ReplayBuffer, count| {
            let met = buffer.latest(count);
            met.map(|met| {
                (
                    met.observation[0],
                    met.next_observation[1],
                    met.reward,
                    met.terminated,
                )
            })
            .collect::<Vec<_>>()
        };
        assert!(latest(&buffer, 3).is_empty());
        for filled in 1..13 {
            insert(&mut buffer, filled - 1, (filled - 1) % 2 == 0);
            for count in [1, 3, 9] {
                let expected = (filled - filled.min(count).min(5)..filled).map(|i| {
                    let number = i as f32;
                    (number, -number - 1.0, f64::from(number) * 10.0, i % 2 == 0)
                });
                assert_eq!(latest(&buffer, count), expected.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_restored_buffer_goes_on_like_the_one_that_was_saved() {
        for filled in [0, 3, 5, 12] {
            let mut saved = ReplayBuffer::new(2, 1, 5, 1);
            (0..filled).for_each(|i| insert(&mut saved, i, i % 3 == 0));
            if filled > 0 {
                saved.sample(7);
            }
            let mut restored = ReplayBuffer::new(2, 1, 5, 99);
            restored.restore(saved.state()).unwrap();
            for buffer in [&mut saved, &mut restored] {
                (filled..filled + 2).for_each(|i| insert(buffer, i, false));
            }
            assert_eq!(saved.sample(50), restored.sample(50));
        }
        let small = ReplayBuffer::new(2, 1, 4, 1);
        let mut other = ReplayBuffer::new(2, 1, 5, 1);
        let text = other.restore(small.state()).unwrap_err().to_string();
        assert!(text.contains("expected a buffer for 5 transitions"), "{text}");
        let narrow = ReplayBuffer::new(1, 1, 5, 1);
        other.restore(narrow.state()).unwrap();
        let mut narrow = ReplayBuffer::new(1, 1, 5, 1);
        narrow.insert(Transition {
            observation: &[0.0],
            action: &[0.0],
            reward: 0.0,
            terminated: false,
            next_observation: &[0.0],
        });
        let text = other.restore(narrow.state()).unwrap_err().to_string();
        assert!(
            text.contains("'observations' holds 1; expected 2 numbers"),
            "{text}"
        );
    }

    #[test]
    fn draws_are_uniform_over_what_is_held() {
        let mut buffer = ReplayBuffer::new(2, 1, 100, 11);
        (0..10).for_each(|i| insert(&mut buffer, i, false));
        let batch = buffer.sample(20_000);
        let mut counts = [0_i32; 10];
        batch
            .observations
            .iter()
            .step_by(2)
            .for_each(|&i| counts[i as usize] += 1);
        // 2,000 expected, standard deviation 42: five of them on either side.
        assert!(
            counts.iter().all(|count| (count - 2_000).abs() < 210),
            "{counts:?}"
        );
    }

    #[test]
    fn the_seed_fixes_the_draws() {
        let sample = |seed| {
            let mut buffer = ReplayBuffer::new(2, 1, 100, seed);
            (0..60).for_each(|i| insert(&mut buffer, i, false));
            buffer.sample(32)
        };
        assert_eq!(sample(5), sample(5));
        assert_ne!(sample(5), sample(6));
    }

    #[test]
    #[should_panic(expected = "expected a row of 2 numbers, got 3")]
    fn a_wrong_size_is_refused() {
        let mut buffer = ReplayBuffer::new(2, 1, 4, 0);
        buffer.insert(Transition {
            observation: &[0.0, 0.0, 0.0],
            action: &[0.0],
            reward: 0.0,
            terminated: false,
            next_observation: &[0.0, 0.0],
        });
    }
}
