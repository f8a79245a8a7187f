//! The environments that a run learns in, each in the middle of an episode.
//!
//! An episode follows from its seed and its actions, so that these are all that has to be kept of a simulator: taking up a
//! state plays the episode again, and compares where it leads.

use anyhow::ensure;
use mfpo_sim::{EnvSpec, SimError, Step, VectorEnv};

use crate::state::State;

/// Environments, and how far each is.
pub struct Episodes {
    envs: VectorEnv,
    episodes: Vec<Episode>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Episode {
    seed: u64,
    /// All actions so far, one after the other.
    actions: Vec<f32>,
    observation: Vec<f32>,
    total_reward: f64,
}

/// An episode that is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finished {
    /// Sum of its rewards.
    pub total_reward: f64,
    /// Its steps.
    pub length: u64,
}

impl Episodes {
    /// None has started.
    pub fn new(envs: VectorEnv) -> Self {
        let episodes = vec![Episode::default(); envs.len()];
        Self { envs, episodes }
    }

    /// What the environments have in common.
    pub fn spec(&self) -> &EnvSpec {
        self.envs.spec()
    }

    /// How many environments there are.
    pub fn len(&self) -> usize {
        self.episodes.len()
    }

    /// Never: there is at least one.
    pub fn is_empty(&self) -> bool {
        self.episodes.is_empty()
    }

    /// Starts the episode of `seed` in environment `index`.
    ///
    /// # Errors
    /// When the physics does not start.
    pub fn start(&mut self, index: usize, seed: u64) -> Result<(), SimError> {
        let observation = self.envs.reset(index, seed)?;
        let actions = std::mem::take(&mut self.episodes[index].actions);
        self.episodes[index] = Episode {
            seed,
            observation,
            actions: cleared(actions),
            total_reward: 0.0,
        };
        Ok(())
    }

    /// What the policy sees in environment `index`.
    pub fn observation(&self, index: usize) -> &[f32] {
        &self.episodes[index].observation
    }

    /// Applies one action in each environment. The observations stay those before the step until [`Episodes::advance`].
    ///
    /// # Errors
    /// When an environment refuses its action.
    pub fn step(&mut self, actions: &[Vec<f32>]) -> Result<Vec<Step>, SimError> {
        self.envs.step(actions)
    }

    /// Environment `index` has made the step `next` with `action`. Tells the episode if it is over; the next is then to be
    /// started.
    pub fn advance(&mut self, index: usize, action: &[f32], next: Step) -> Option<Finished> {
        let size = self.envs.spec().action_size.max(1);
        let episode = &mut self.episodes[index];
        episode.actions.extend_from_slice(action);
        episode.observation = next.observation;
        episode.total_reward += next.reward;
        (next.terminated || next.truncated).then(|| Finished {
            total_reward: episode.total_reward,
            length: (episode.actions.len() / size) as u64,
        })
    }

    /// Seeds, actions and where they led.
    pub fn state(&self) -> State<'_> {
        let mut state = State::default();
        for (i, episode) in self.episodes.iter().enumerate() {
            let mut part = State::default();
            part.put("seed", vec![episode.seed]);
            part.put("actions", &episode.actions[..]);
            part.put("observation", &episode.observation[..]);
            part.put("total_reward", vec![episode.total_reward]);
            state.nest(&i.to_string(), part);
        }
        state.put("environments", vec![self.episodes.len() as u64]);
        state
    }

    /// Takes up an [`Episodes::state`].
    ///
    /// # Errors
    /// When the state is of another number of environments, or the simulator leads elsewhere with the same actions.
    pub fn restore(&mut self, mut state: State<'_>) -> anyhow::Result<()> {
        let [saved] = state.take_u64("environments")?;
        ensure!(
            saved == self.len() as u64,
            "the checkpoint is of run.environments = {saved}; this run has {}",
            self.len()
        );
        for index in 0..self.len() {
            let mut part = state.take_part(&index.to_string());
            let [seed] = part.take_u64("seed")?;
            self.start(index, seed)?;
            let actions = part.take_f32("actions")?;
            for action in actions.chunks(self.spec().action_size.max(1)) {
                let next = self.envs.step_one(index, action)?;
                self.advance(index, action, next);
            }
            let observation = part.take_f32("observation")?;
            let episode = &mut self.episodes[index];
            ensure!(
                bits(&observation).eq(bits(&episode.observation)),
                "the simulator does not lead where it led when the checkpoint was written (the observation is {:?}, it was \
                 {observation:?}): the MuJoCo library, the task's model or its options are others; start the run again",
                episode.observation
            );
            episode.total_reward = part.take_f64_of("total_reward", 1)?[0];
        }
        Ok(())
    }
}

fn cleared(mut actions: Vec<f32>) -> Vec<f32> {
    actions.clear();
    actions
}

fn bits(values: &[f32]) -> impl Iterator<Item = u32> {
    values.iter().map(|v| v.to_bits())
}
