//! The guard of a bundle that a running training makes (`run.guard`): of what the training met last, nothing trips it.
//!
//! The signals of the policy that is sealed are computed for the last 2,000 transitions of the replay buffer. A window is
//! as many ticks in a row of one episode as an alarm takes; its mildest tick decides whether there is one. The threshold
//! of each signal is the mildest tick of the worst window: `max over windows of the min within`, and for the value the
//! reverse. There is no margin above that: the data give no scale for one. Of n windows that are alike, one more is beyond
//! all of them with a probability of `1 / (n + 1)`, signal by signal; fewer than 100 make no guard.
//!
//! Everything comes from the replay buffer, which checkpoints hold, and from a generator of the bundle's version: a run that
//! goes on makes the same guard again, and nothing that is learnt depends on it.

use std::collections::VecDeque;

use mfpo_policy::guard::{GuardManifest, Signal};
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::sampler::ActionSampler;

use super::{CANDIDATES, EVERY_SIGNAL, IN_A_ROW, measured, rounded};
use crate::replay_buffer::{ReplayBuffer, Transition};

/// Transitions that it is calibrated on.
const TRANSITIONS: usize = 2_000;
/// Fewer windows say too little of what is usual.
const FEWEST_WINDOWS: usize = 100;

/// The guard of version `version` of a policy, from what `replay` holds of `environments` environments that stepped in turn;
/// `None` where that is too little.
///
/// # Errors
/// When the policy gives no action, or a signal is not finite.
pub(crate) fn calibrated(
    sampler: &mut ActionSampler,
    replay: &ReplayBuffer,
    environments: usize,
    version: u64,
) -> anyhow::Result<Option<GuardManifest>> {
    let wanted = GuardManifest {
        // One step does not differ from one step.
        disagreement_max: EVERY_SIGNAL.disagreement_max.filter(|_| sampler.steps() > 1),
        ..EVERY_SIGNAL
    };
    let mut noise = NormalNoise::new(version);
    let mut draws = vec![0.0; CANDIDATES * sampler.action_size()];
    let mut windows = Windows::default();
    let mut before: Vec<Option<Transition<'_>>> = vec![None; environments.max(1)];
    for (index, met) in replay.latest(TRANSITIONS).enumerate() {
        let environment = index % before.len();
        let goes_on = before[environment].is_some_and(|before| is_followed_by(&before, &met));
        before[environment] = Some(met);
        noise.begin(index as u64);
        noise.fill(&mut draws);
        let signals = measured(sampler, met.observation, &draws, &wanted)?;
        let severities = Signal::ALL.map(|signal| signals.get(signal).map(|value| signal.severity(value)));
        windows.add(environment, goes_on, severities);
    }
    Ok(windows.guard())
}

/// Do two transitions of one environment follow each other within an episode? A new one begins elsewhere.
fn is_followed_by(first: &Transition<'_>, second: &Transition<'_>) -> bool {
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    !first.terminated && bits(first.next_observation) == bits(second.observation)
}

/// How severe each signal of a tick is; `None` where it is not asked for.
type Severities = [Option<f64>; Signal::ALL.len()];

/// Windows of ticks in a row, and the mildest tick of the worst of them, signal by signal.
#[derive(Debug, Default)]
struct Windows {
    /// The newest ticks of each environment's episode, at most as many as a window has.
    newest: Vec<VecDeque<Severities>>,
    count: usize,
    worst: Severities,
}

impl Windows {
    /// Adds a tick of an environment, which goes on with the episode of the tick before or begins one.
    fn add(&mut self, environment: usize, goes_on: bool, severities: Severities) {
        if self.newest.len() <= environment {
            self.newest.resize_with(environment + 1, VecDeque::new);
        }
        let window = &mut self.newest[environment];
        if !goes_on {
            window.clear();
        }
        window.push_back(severities);
        let length = IN_A_ROW as usize;
        if window.len() > length {
            window.pop_front();
        }
        if window.len() < length {
            return;
        }
        self.count += 1;
        for (index, worst) in self.worst.iter_mut().enumerate() {
            let mildest = window
                .iter()
                .filter_map(|tick| tick[index])
                .min_by(f64::total_cmp);
            *worst = (*worst).into_iter().chain(mildest).max_by(f64::total_cmp);
        }
    }

    /// The guard that none of them trips, where they are enough.
    fn guard(&self) -> Option<GuardManifest> {
        if self.count < FEWEST_WINDOWS {
            return None;
        }
        let none = GuardManifest::without_limits(CANDIDATES, IN_A_ROW);
        let worst = Signal::ALL.into_iter().zip(self.worst);
        let guard = worst.fold(none, |guard, (signal, worst)| match worst {
            Some(severity) => guard.with_limit(signal, signal.severity(severity)),
            None => guard,
        });
        Some(rounded(&guard))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use mfpo_policy::critic::{Critic, ValueSupport};
    use mfpo_policy::guard::{InARow, Signals};
    use mfpo_policy::mean_flow::MeanFlow;
    use mfpo_policy::sampler::PolicyNetworks;

    use super::*;

    fn of(severity: f64) -> Severities {
        [Some(severity), None, Some(-severity)]
    }

    #[test]
    fn the_threshold_is_the_mildest_tick_of_the_worst_window_within_an_episode() {
        let mut windows = Windows::default();
        (0..150).for_each(|tick| windows.add(0, tick > 0, of(0.1)));
        // Two ticks that are worse, and three: the mildest of the three counts.
        for severity in [0.9, 0.9, 0.1, 0.5, 0.4, 0.6, 0.1] {
            windows.add(0, true, of(severity));
        }
        let guard = windows.guard().unwrap();
        assert_eq!(
            guard,
            GuardManifest {
                disagreement_max: Some(0.4),
                spread_max: None,
                // The severity of the values is -0.1 in the worst windows, in which none is 0.9 or 0.5.
                value_min: Some(0.1),
                candidates: 8,
                in_a_row: 3,
            }
        );
    }

    #[test]
    fn a_window_spans_neither_the_end_of_an_episode_nor_two_environments() {
        let mut windows = Windows::default();
        for tick in 0..150 {
            windows.add(0, tick > 0, of(0.1));
            windows.add(1, tick > 0, of(0.2));
        }
        // Two at an end, one at the next beginning; and three, one after the other, of which one is of the other environment.
        windows.add(0, true, of(0.9));
        windows.add(0, true, of(0.9));
        windows.add(0, false, of(0.9));
        windows.add(0, true, of(0.1));
        windows.add(1, true, of(0.9));
        windows.add(0, true, of(0.9));
        windows.add(1, true, of(0.9));
        assert_eq!(windows.guard().unwrap().disagreement_max, Some(0.2));
        windows.add(1, true, of(0.8));
        assert_eq!(windows.guard().unwrap().disagreement_max, Some(0.8));
    }

    #[test]
    fn too_few_windows_make_no_guard() {
        let mut windows = Windows::default();
        (0..101).for_each(|tick| windows.add(0, tick > 0, of(0.1)));
        assert_eq!(windows.guard(), None, "99 windows");
        windows.add(0, true, of(0.1));
        assert!(windows.guard().is_some());
    }

    const SIZES: (usize, usize) = (3, 2);

    fn sampler(steps: usize) -> ActionSampler {
        let (observation, action) = SIZES;
        let actor = MeanFlow::initialize(1, (observation, action, action), &[16, 16], &Device::Cpu).unwrap();
        let support = ValueSupport {
            minimum: -10.0,
            maximum: 10.0,
            atoms: 21,
        };
        let critics = [2, 3].map(|seed| {
            let sizes = (observation, action, support.atoms);
            let parameters = Critic::initialize(seed, sizes, &[16], &Device::Cpu).unwrap();
            Critic::load(&parameters, support).unwrap()
        });
        let networks = PolicyNetworks {
            actor: MeanFlow::load(&actor, action).unwrap(),
            critics: Some(critics),
            clipped_double_q: true,
            steps,
            normalizer: None,
        };
        ActionSampler::new(&networks, &Device::Cpu).unwrap()
    }

    /// What an environment shows in tick `tick` of its episode `episode`.
    fn seen(environment: usize, episode: usize, tick: usize) -> [f32; SIZES.0] {
        let phase = (environment * 100 + episode * 10) as f32 + tick as f32 * 0.3;
        [phase.sin(), phase.cos(), environment as f32]
    }

    /// Two environments whose episodes end after 7 and after 11 ticks, by turns without a future and by truncation.
    fn met(ticks: usize) -> ReplayBuffer {
        let mut replay = ReplayBuffer::new(SIZES.0, SIZES.1, 500, 1);
        for tick in 0..ticks {
            for (environment, length) in [7, 11].into_iter().enumerate() {
                let (episode, tick) = (tick / length, tick % length);
                replay.insert(Transition {
                    observation: &seen(environment, episode, tick),
                    action: &[0.0; SIZES.1],
                    reward: 0.0,
                    terminated: tick + 1 == length && episode % 2 == 0,
                    next_observation: &seen(environment, episode, tick + 1),
                });
            }
        }
        replay
    }

    /// Does a guard trip in what was met, counted as a node counts?
    fn trips(guard: &GuardManifest, sampler: &mut ActionSampler, ticks: usize) -> bool {
        let replay = met(ticks);
        let mut in_a_row = [InARow::new(); 2];
        let mut noise = NormalNoise::new(7);
        let first = ticks - replay.len() / 2;
        let mut is_tripped = false;
        for (index, transition) in replay.latest(TRANSITIONS).enumerate() {
            let (environment, tick) = (index % 2, first + index / 2);
            if tick % [7, 11][environment] == 0 {
                in_a_row[environment] = InARow::new();
            }
            let mut draws = [0.0; CANDIDATES * SIZES.1];
            noise.begin(index as u64);
            noise.fill(&mut draws);
            let signals: Signals = measured(sampler, transition.observation, &draws, &EVERY_SIGNAL).unwrap();
            is_tripped |= in_a_row[environment].count(guard, &signals).is_some();
        }
        is_tripped
    }

    #[test]
    fn what_was_met_does_not_trip_the_guard_and_any_stricter_one_trips() {
        // Before the buffer is full, and after it has forgotten the beginning.
        for ticks in [120, 900] {
            let mut sampler = sampler(2);
            let guard = calibrated(&mut sampler, &met(ticks), 2, 7).unwrap().unwrap();
            assert!(!trips(&guard, &mut sampler, ticks), "{guard:?}");
            for signal in Signal::ALL {
                let severity = signal.severity(guard.limit(signal).unwrap());
                let stricter = guard.with_limit(signal, signal.severity(severity - 2e-4));
                assert!(trips(&stricter, &mut sampler, ticks), "{signal:?} of {guard:?}");
            }
            let again = calibrated(&mut sampler, &met(ticks), 2, 7).unwrap();
            assert_eq!(again, Some(guard), "the same each time");
        }
    }

    #[test]
    fn a_policy_of_one_step_has_no_threshold_of_one_step_against_all() {
        let guard = calibrated(&mut sampler(1), &met(200), 2, 7).unwrap().unwrap();
        let stated = Signal::ALL.map(|signal| guard.limit(signal).is_some());
        assert_eq!(stated, [false, true, true]);
        assert_eq!(calibrated(&mut sampler(1), &met(20), 2, 7).unwrap(), None);
    }
}
