//! The random numbers of an update.

use mfpo_policy::gradient::Team;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};

use crate::state::Generator;

/// Times of a batch: `0 < r <= t < 1`, each `[B]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Times {
    /// Upper end of the interval.
    pub t: Vec<f32>,
    /// Lower end of the interval.
    pub r: Vec<f32>,
}

impl Times {
    /// `h = t - r`, `[B]`.
    pub fn intervals(&self) -> Vec<f32> {
        self.t.iter().zip(&self.r).map(|(t, r)| t - r).collect()
    }
}

/// Where the random numbers of an update come from, in the order in which the update asks.
pub trait Draws: Send {
    /// Noise of the next actions, `[B, A]`.
    fn next_action_noise(&mut self, out: &mut [f32]);
    /// Noise of the K1 policy samples, `[B, K1, A]`.
    fn candidate_noise(&mut self, out: &mut [f32]);
    /// Noise of the actor's `x_t`, `[B, A]`.
    fn actor_noise(&mut self, out: &mut [f32]);
    /// The actor's times.
    fn actor_times(&mut self, rows: usize) -> Times;
    /// `out[b, k, i]` from `N(0, 1)` truncated to `[lower[b, i], upper[b, i]]`, `[B, K2, A]` from bounds `[B, A]`.
    fn truncated_noise(&mut self, bounds: (&[f32], &[f32]), action_size: usize, out: &mut [f32]);
    /// Noise of the divergence network's `x_t`, `[B, A]`.
    fn divergence_noise(&mut self, out: &mut [f32]);
    /// The divergence network's times.
    fn divergence_times(&mut self, rows: usize) -> Times;
    /// Gaussian probes, `[B, N, A]`.
    fn probes(&mut self, out: &mut [f32]);
}

/// Draws from a seeded generator, as the algorithm says.
#[derive(Debug, Clone)]
pub struct RandomDraws {
    rng: ChaCha8Rng,
    team: Team,
    grid: Option<Grid>,
}

/// The sampler's own times, for a share of the rows.
#[derive(Debug, Clone, Copy)]
struct Grid {
    share: f64,
    steps: usize,
}

/// Stands for the sampler's `t = 1`, where no Gaussian sample exists (`b = (x_t - t eps) / (1 - t)`).
const LAST_TIME: f32 = 1.0 - 1.0 / 1024.0;

/// Numbers that one job of a team draws, from a stream of its own.
const JOB: usize = 2048;

impl RandomDraws {
    /// Share of the rows that train on the instantaneous velocity, `r = t`.
    const INSTANTANEOUS: f64 = 0.75;
    /// Mean of the logit of a time; its deviation is 1.
    const LOGIT_MEAN: f32 = -0.4;

    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            team: Team::default(),
            grid: None,
        }
    }

    /// The same, with the sampler's times `t = i / steps`, `h = 1 / steps` in the last `share` of the rows.
    pub fn with_grid(self, share: f64, steps: usize) -> Self {
        let grid = (share > 0.0).then_some(Grid { share, steps });
        Self { grid, ..self }
    }

    /// The same sequence, drawn by the threads of `team`.
    pub fn with_team(self, team: Team) -> Self {
        Self { team, ..self }
    }

    /// Where the sequence is.
    pub(super) fn position(&self) -> Vec<u64> {
        self.rng.position()
    }

    /// Goes on from a [`RandomDraws::position`].
    pub(super) fn move_to(&mut self, position: [u64; 7]) {
        self.rng = ChaCha8Rng::at(position);
    }

    fn normal(&mut self, out: &mut [f32]) {
        self.in_jobs(out, JOB, |rng, _, out| {
            for value in out {
                *value = StandardNormal.sample(rng);
            }
        });
    }

    /// Calls `draw(generator, first index, numbers)` for every `size` numbers; which stream a number comes from does not
    /// depend on the threads.
    fn in_jobs(
        &mut self,
        out: &mut [f32],
        size: usize,
        draw: impl Fn(&mut ChaCha8Rng, usize, &mut [f32]) + Sync + Send,
    ) {
        let streams = ChaCha8Rng::seed_from_u64(self.rng.next_u64());
        let jobs = out.chunks_mut(size.max(1)).enumerate().collect();
        self.team.each(jobs, |(i, out)| {
            let mut rng = streams.clone();
            rng.set_stream(i as u64);
            draw(&mut rng, i * size, out);
        });
    }

    /// Two logit-normal draws a row, the larger is t, the smaller r; the first 75 % of the rows get `r = t`.
    fn times(&mut self, rows: usize) -> Times {
        let instantaneous = (Self::INSTANTANEOUS * rows as f64) as usize;
        let mut times = Times::default();
        for row in 0..rows {
            let (a, b) = (self.logit_normal(), self.logit_normal());
            let t = a.max(b);
            times.t.push(t);
            times.r.push(if row < instantaneous { t } else { a.min(b) });
        }
        if let Some(Grid { share, steps }) = self.grid {
            let first = rows - (share * rows as f64).round() as usize;
            for row in first..rows {
                let step = self.rng.random_range(1..=steps);
                let t = (step as f32 / steps as f32).min(LAST_TIME);
                (times.t[row], times.r[row]) = (t, t - 1.0 / steps as f32);
            }
        }
        times
    }

    fn logit_normal(&mut self) -> f32 {
        let normal: f32 = StandardNormal.sample(&mut self.rng);
        1.0 / (1.0 + (-(normal + Self::LOGIT_MEAN)).exp())
    }
}

impl Draws for RandomDraws {
    fn next_action_noise(&mut self, out: &mut [f32]) {
        self.normal(out);
    }

    fn candidate_noise(&mut self, out: &mut [f32]) {
        self.normal(out);
    }

    fn actor_noise(&mut self, out: &mut [f32]) {
        self.normal(out);
    }

    fn actor_times(&mut self, rows: usize) -> Times {
        self.times(rows)
    }

    fn truncated_noise(&mut self, (lower, upper): (&[f32], &[f32]), action_size: usize, out: &mut [f32]) {
        let rows = lower.len() / action_size;
        let group = out.len() / rows;
        self.in_jobs(out, (JOB / group).max(1) * group, |rng, first, out| {
            for (b, row) in out.chunks_exact_mut(group).enumerate() {
                let at = (first / group + b) * action_size;
                let bounds = || lower[at..].iter().zip(&upper[at..]);
                for noise in row.chunks_exact_mut(action_size) {
                    for (value, (lower, upper)) in noise.iter_mut().zip(bounds()) {
                        *value = truncated_normal(rng, *lower, *upper);
                    }
                }
            }
        });
    }

    fn divergence_noise(&mut self, out: &mut [f32]) {
        self.normal(out);
    }

    fn divergence_times(&mut self, rows: usize) -> Times {
        self.times(rows)
    }

    fn probes(&mut self, out: &mut [f32]) {
        self.normal(out);
    }
}

/// A draw from `N(0, 1)` given that it lies in `[lower, upper]`, exact, by rejection (Robert 1995): from the normal where
/// the interval holds much of its mass, from an exponential in a wide tail, from the uniform in a narrow interval.
pub fn truncated_normal(rng: &mut ChaCha8Rng, lower: f32, upper: f32) -> f32 {
    if lower >= upper {
        return lower;
    }
    if upper < 0.0 {
        return -truncated_normal(rng, -upper, -lower);
    }
    let draw = if lower <= 0.0 && upper - lower > 2.5 {
        normal_rejection(rng, lower, upper)
    } else if lower > 0.0 && (upper - lower) * lower > 2.0 {
        tail_rejection(rng, lower, upper)
    } else {
        uniform_rejection(rng, lower, upper)
    };
    draw.clamp(lower, upper)
}

/// Accepts with the mass of the interval, which is above one in two hundred where this is called: `[-2.5, 0]` is the
/// worst for intervals around 0, and it holds 0.49; longer ones hold more.
fn normal_rejection(rng: &mut ChaCha8Rng, lower: f32, upper: f32) -> f32 {
    loop {
        let x: f32 = StandardNormal.sample(rng);
        if (lower..=upper).contains(&x) {
            return x;
        }
    }
}

/// Is `u` at most `e^-y`, for `y >= 0`? `(1 - y/4)^4 <= e^-y <= 1 / (1 + y/4)^4` leave the exponential to few.
fn is_below_exp(u: f32, y: f32) -> bool {
    let fourth = |x: f32| (x * x) * (x * x);
    let quarter = 0.25 * y;
    if quarter < 1.0 && u <= fourth(1.0 - quarter) {
        return true;
    }
    u * fourth(1.0 + quarter) <= 1.0 && u <= (-y).exp()
}

fn tail_rejection(rng: &mut ChaCha8Rng, lower: f32, upper: f32) -> f32 {
    loop {
        let step: f32 = Distribution::<f32>::sample(&Exp1, rng) / lower;
        let accept: f32 = rng.random();
        if lower + step <= upper && is_below_exp(accept, 0.5 * step * step) {
            return lower + step;
        }
    }
}

fn uniform_rejection(rng: &mut ChaCha8Rng, lower: f32, upper: f32) -> f32 {
    let nearest = lower.max(0.0);
    loop {
        let x = lower + (upper - lower) * rng.random::<f32>();
        let accept: f32 = rng.random();
        if is_below_exp(accept, 0.5 * (x - nearest) * (x + nearest)) {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Density of the truncated normal integrated numerically: mean and variance.
    fn moments(lower: f64, upper: f64) -> (f64, f64) {
        let n = 20_000;
        let (mut z, mut m, mut s) = (0.0, 0.0, 0.0);
        for i in 0..n {
            let x = lower + (upper - lower) * (i as f64 + 0.5) / n as f64;
            let nearest = if lower > 0.0 {
                lower
            } else if upper < 0.0 {
                upper
            } else {
                0.0
            };
            let p = (0.5 * (nearest * nearest - x * x)).exp();
            z += p;
            m += p * x;
            s += p * x * x;
        }
        (m / z, s / z - (m / z) * (m / z))
    }

    #[test]
    fn truncated_normal_has_the_moments_of_its_density() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let intervals = [
            (-0.5, 0.3),
            (-30.0, 40.0),
            (-2.4, 0.2),
            (0.0, 9.0),
            (3.0, 3.2),
            (2.0, 30.0),
            (-9.0, -4.0),
            (5.0, 6.0),
            (-3.0, -0.1),
        ];
        for (lower, upper) in intervals {
            let n = 40_000;
            let draws: Vec<f64> = (0..n)
                .map(|_| f64::from(truncated_normal(&mut rng, lower, upper)))
                .collect();
            assert!(
                draws
                    .iter()
                    .all(|x| (f64::from(lower)..=f64::from(upper)).contains(x))
            );
            let mean = draws.iter().sum::<f64>() / n as f64;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            let (want, want_variance) = moments(f64::from(lower), f64::from(upper));
            let error = 5.0 * (want_variance / n as f64).sqrt();
            assert!(
                (mean - want).abs() < error,
                "[{lower}, {upper}]: mean {mean}, want {want}"
            );
            assert!(
                (variance / want_variance - 1.0).abs() < 0.05,
                "[{lower}, {upper}]: variance {variance}, want {want_variance}"
            );
        }
    }

    #[test]
    fn the_bounds_beside_the_exponential_decide_as_it_does() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..200_000 {
            let (u, y): (f32, f32) = (rng.random(), 12.0 * rng.random::<f32>().powi(2));
            let exact = f64::from(u).ln() + f64::from(y);
            // Within the rounding of either bound both answers are right.
            assert!(
                is_below_exp(u, y) == (exact <= 0.0) || exact.abs() < 1e-5,
                "u {u}, y {y}"
            );
        }
        assert!(is_below_exp(0.0, 200.0) && !is_below_exp(0.5, f32::INFINITY));
    }

    #[test]
    fn a_share_of_the_rows_has_the_times_of_the_sampler() {
        let times = RandomDraws::new(1).with_grid(0.25, 2).actor_times(400);
        let plain = RandomDraws::new(1).actor_times(400);
        assert_eq!(
            (&times.t[..300], &times.r[..300]),
            (&plain.t[..300], &plain.r[..300])
        );
        let mut counts = [0; 2];
        for (t, r) in times.t[300..].iter().zip(&times.r[300..]) {
            assert!((t - r - 0.5).abs() < 1e-6, "h = {}", t - r);
            counts[usize::from(*t == LAST_TIME)] += 1;
            assert!(*t == LAST_TIME || *t == 0.5);
        }
        // 50 expected each, standard deviation 5.
        assert!(counts.iter().all(|n| (25..=75).contains(n)), "{counts:?}");
    }

    #[test]
    fn three_quarters_of_the_rows_are_instantaneous() {
        let times = RandomDraws::new(1).actor_times(256);
        assert!(
            times
                .t
                .iter()
                .zip(&times.r)
                .all(|(t, r)| 0.0 < *r && r <= t && *t < 1.0)
        );
        assert_eq!(times.t.iter().zip(&times.r).filter(|(t, r)| t == r).count(), 192);
    }
}
