//! Laws of the fast precision at the paper's sizes: its samples, targets and weights are as near to the exact ones as bfloat16
//! lets them be.
//!
//! A bfloat16 keeps 8 bits, so that a product of two rounded factors is off by up to 2^-8 of itself. Three products in a row are
//! computed with them, those of two hidden layers and the head; between them LayerNorm brings everything back to the size of
//! one, which is about the size of a new network's outputs, too. All three errors added up, as if none made up for another:
//! 3/256 of one, as the root of the mean square. Networks of these sizes, simulated with factors of 8 bits, were at less than
//! half of that, with factors of 5 bits beyond it.

use super::*;

/// Root of the mean square of what bfloat16 changes in an output of a network.
const OUTPUT: f64 = 3.0 / 256.0;
/// The largest of thousands of such changes, in units of the root of their mean square.
const LARGEST: f64 = 8.0;
/// As large as the values of a new network's candidates are apart, so that several of them have weight.
const TEMPERATURE: f64 = 20.0;

/// The draws of [`RandomDraws`], but for the truncated noise, which takes the same share of each interval whatever its ends are:
/// rejection would draw other numbers where an end has moved by a bit.
struct SameDraws(RandomDraws);

impl Draws for SameDraws {
    fn next_action_noise(&mut self, out: &mut [f32]) {
        self.0.next_action_noise(out);
    }

    fn candidate_noise(&mut self, out: &mut [f32]) {
        self.0.candidate_noise(out);
    }

    fn actor_noise(&mut self, out: &mut [f32]) {
        self.0.actor_noise(out);
    }

    fn actor_times(&mut self, rows: usize) -> Times {
        self.0.actor_times(rows)
    }

    fn truncated_noise(&mut self, (lower, upper): (&[f32], &[f32]), action_size: usize, out: &mut [f32]) {
        let group = out.len() / (lower.len() / action_size);
        for (i, value) in out.iter_mut().enumerate() {
            let at = i / group * action_size + i % action_size;
            // The golden ratio's multiples lie evenly.
            let share = (i as f64 * 0.618_033_988_749_895).fract() as f32;
            *value = lower[at] + share * (upper[at] - lower[at]);
        }
    }

    fn divergence_noise(&mut self, out: &mut [f32]) {
        self.0.divergence_noise(out);
    }

    fn divergence_times(&mut self, rows: usize) -> Times {
        self.0.divergence_times(rows)
    }

    fn probes(&mut self, out: &mut [f32]) {
        self.0.probes(out);
    }
}

fn config((observation_size, action_size): (usize, usize), precision: Precision) -> LearnerConfig {
    LearnerConfig {
        precision,
        initial_temperature: TEMPERATURE,
        // The critics are as they were when candidates are valued: Adam's first step is nearly the sign of a gradient.
        learning_rate: 1e-12,
        threads: 2,
        ..LearnerConfig::paper(observation_size, action_size)
    }
}

/// What an update records; parameters, mini-batch and draws are always the same.
fn traced(sizes: (usize, usize), precision: Precision) -> Trace {
    let config = config(sizes, precision);
    let size = config.batch_size;
    let numbers = |count: usize, scale: f32| (0..count).map(|i| scale * (i as f32 * 0.37).sin()).collect();
    let batch = Batch {
        size,
        observation_size: sizes.0,
        action_size: sizes.1,
        observations: numbers(size * sizes.0, 1.5),
        actions: numbers(size * sizes.1, 0.9),
        rewards: numbers(size, 2.0),
        masks: vec![1.0; size],
        next_observations: numbers(size * sizes.0, 1.4),
    };
    let mut learner = MfpoLearner::new(config, 3, &Device::Cpu).unwrap();
    let (mut draws, mut trace) = (SameDraws(RandomDraws::new(7)), Trace::on());
    learner.update_with(&batch, &mut draws, &mut trace).unwrap();
    trace
}

/// The distance of two numbers; what is no number is as far as can be.
fn distance((a, b): (&f32, &f32)) -> f64 {
    let distance = f64::from(a - b).abs();
    if distance.is_nan() {
        f64::INFINITY
    } else {
        distance
    }
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt()
}

/// Both updates of one size.
struct Pair {
    sizes: (usize, usize),
    exact: Trace,
    fast: Trace,
}

impl Pair {
    fn of(sizes: (usize, usize)) -> Self {
        Self {
            sizes,
            exact: traced(sizes, Precision::Exact),
            fast: traced(sizes, Precision::Fast),
        }
    }

    fn values(&self, name: &str) -> (&[f32], &[f32]) {
        let (exact, fast) = (self.exact.get(name).unwrap(), self.fast.get(name).unwrap());
        assert_eq!(exact.len(), fast.len(), "{name}");
        (exact, fast)
    }

    /// Prints a measure of `name`, which is above 0 and at most `allowed`.
    fn judge(&self, name: &str, (measure, value): (&str, f64), allowed: f64) {
        let sizes = self.sizes;
        println!("{sizes:?} {name:<16} {measure:<16} {value:.2e} of {allowed:.2e} allowed");
        assert!(
            value > 0.0,
            "{sizes:?} {name}, {measure}: bfloat16 leaves no trace"
        );
        assert!(
            value <= allowed,
            "{sizes:?} {name}, {measure}: {value:.2e}, {allowed:.2e} allowed"
        );
    }

    /// Numbers that change with a network's outputs by `scale` times as much.
    fn near(&self, name: &str, scale: f64) {
        let (exact, fast) = self.values(name);
        let distances: Vec<f64> = exact.iter().zip(fast).map(distance).collect();
        let allowed = OUTPUT * scale;
        self.judge(name, ("mean square", root_mean_square(&distances)), allowed);
        let largest = distances.into_iter().fold(0.0, f64::max);
        self.judge(name, ("largest", largest), LARGEST * allowed);
    }

    /// Numbers of any size, by their own.
    fn near_by_size(&self, name: &str) {
        let (exact, fast) = self.values(name);
        let distances: Vec<f64> = exact.iter().zip(fast).map(distance).collect();
        let size: Vec<f64> = exact.iter().map(|value| f64::from(*value)).collect();
        let share = root_mean_square(&distances) / root_mean_square(&size);
        self.judge(name, ("share of its size", share), OUTPUT);
    }

    /// Weights of `candidates` a row: what share of a row's weight lies elsewhere. Where the logarithms of weights are off by
    /// e, that is e / 2 at most.
    fn share_that_moves(&self, name: &str, candidates: usize, logarithm: f64) {
        let (exact, fast) = self.values(name);
        let rows = exact.chunks_exact(candidates).zip(fast.chunks_exact(candidates));
        let moved = |(exact, fast): (&[f32], &[f32])| 0.5 * exact.iter().zip(fast).map(distance).sum::<f64>();
        let moved: Vec<f64> = rows.map(moved).collect();
        let mean = moved.iter().sum::<f64>() / moved.len() as f64;
        self.judge(name, ("mean share", mean), logarithm / 2.0);
        let largest = moved.into_iter().fold(0.0, f64::max);
        self.judge(name, ("largest share", largest), LARGEST * logarithm / 2.0);
    }
}

#[test]
fn the_fast_precision_samples_and_values_as_the_exact_one_within_what_its_bits_allow() {
    for sizes in [(17, 6), (348, 17)] {
        let pair = Pair::of(sizes);
        let config = config(sizes, Precision::Fast);
        assert_eq!(
            (config.batch_size, config.hidden_sizes.as_slice()),
            (256, [256; 3].as_slice())
        );
        // Actions in [-1, 1] and their log-probabilities in nats: a whole interval of average velocity and divergence.
        for name in ["next_actions", "policy_actions", "next_logps", "policy_logps"] {
            pair.near(name, 1.0);
        }
        for name in ["next_logits_1", "next_logits_2"] {
            pair.near(name, 1.0);
        }
        // A value is the mean of the atoms, which are as likely as each other in a new network: changes of their logits that
        // have nothing to do with each other change it by the atoms' deviation over the root of their number.
        let width = config.value_max - config.value_min;
        let value = width / 12f64.sqrt() / (config.atoms as f64).sqrt();
        for name in ["target_value_1", "target_value_2", "q_policy", "q_clean"] {
            pair.near(name, value);
        }
        // Logarithms of weights: values over the temperature, and log-probabilities.
        let logarithm = OUTPUT * (value / TEMPERATURE + 1.0);
        pair.share_that_moves("weight_policy", config.policy_candidates, logarithm);
        pair.share_that_moves("weight_clean", config.gaussian_candidates, logarithm);
        pair.near_by_size("vel_estimation");
    }
}

/// The distribution that both critics learn: of the one with the smaller mean, whichever that is.
#[test]
fn the_fast_precision_learns_from_targets_of_the_same_mean() {
    for sizes in [(17, 6), (348, 17)] {
        let pair = Pair::of(sizes);
        let support = config(sizes, Precision::Fast).support();
        let mean = |row: &[f32]| -> f64 {
            let atoms = row.iter().enumerate();
            atoms
                .map(|(j, p)| f64::from(*p) * (support.minimum + j as f64 * support.step()))
                .sum()
        };
        let (exact, fast) = pair.values("target_probs");
        let rows = exact
            .chunks_exact(support.atoms)
            .zip(fast.chunks_exact(support.atoms));
        let distances: Vec<f64> = rows.map(|(a, b)| (mean(a) - mean(b)).abs()).collect();
        assert!(distances.iter().all(|distance| distance.is_finite()));
        let largest = distances.into_iter().fold(0.0, f64::max);
        let width = support.maximum - support.minimum;
        pair.judge("target_probs", ("mean, of support", largest / width), 0.005);
    }
}
