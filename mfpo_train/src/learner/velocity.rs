//! The marginal velocity of the optimal (Boltzmann) policy at `x_t`, by self-normalised importance sampling from two
//! proposals, weighted by their effective sample sizes.
//!
//! Policy samples `a_k ~ pi(.|s)`: `log w = Q/alpha - |x_t - (1-t) a|^2 / (2 t^2) - log p`.
//! Gaussian samples `b = (x_t - t eps) / (1 - t)`, `eps` truncated so that b lies in `[-1, 1]`: `log w = Q/alpha`.
//! Each gives `v = sum_k w_k (x_t - a_k) / t` and `ESS = 1 / sum w^2`; `lam = ESS1 / (ESS1 + ESS2 + 1e-10)`.

use mfpo_policy::gradient::Team;

/// The samples of one proposal with their values, for all rows.
#[derive(Debug, Clone, Copy)]
pub struct ProposalSet<'a> {
    /// `[B, K, A]`.
    pub actions: &'a [f32],
    /// `Q(s, a)`, `[B, K]`.
    pub values: &'a [f32],
}

/// Where the velocity is wanted.
#[derive(Debug, Clone, Copy)]
pub struct VelocityProblem<'a> {
    /// Points on the flow, `[B, A]`.
    pub x_t: &'a [f32],
    /// Times, `[B]`.
    pub t: &'a [f32],
    /// Temperature.
    pub alpha: f32,
    /// Policy samples.
    pub policy: ProposalSet<'a>,
    /// Their log-probabilities, `[B, K1]`.
    pub log_probs: &'a [f32],
    /// Gaussian samples.
    pub clean: ProposalSet<'a>,
}

/// The velocity and everything on the way to it.
#[derive(Debug, Clone, Default)]
pub struct VelocityEstimate {
    /// `[B, A]`.
    pub velocity: Vec<f32>,
    /// From the policy samples, `[B, A]`.
    pub velocity_policy: Vec<f32>,
    /// From the Gaussian samples, `[B, A]`.
    pub velocity_clean: Vec<f32>,
    /// `log w` of the policy samples, `[B, K1]`.
    pub log_weight_policy: Vec<f32>,
    /// Normalised weights of the policy samples, `[B, K1]`.
    pub weight_policy: Vec<f32>,
    /// Normalised weights of the Gaussian samples, `[B, K2]`.
    pub weight_clean: Vec<f32>,
    /// `[B]`, 1 to K1.
    pub ess_policy: Vec<f32>,
    /// `[B]`, 1 to K2.
    pub ess_clean: Vec<f32>,
    /// `lam`, `[B]`.
    pub policy_share: Vec<f32>,
}

/// Both estimates and their combination.
pub fn estimate_velocity(problem: &VelocityProblem<'_>) -> VelocityEstimate {
    let rows = problem.t.len();
    let mut estimate = VelocityEstimate::default();
    for row in 0..rows {
        let log_weights = added(&mut estimate.log_weight_policy, policy_log_weights(problem, row));
        let policy = added(&mut estimate.weight_policy, log_weights.iter().copied());
        let values = of_row(problem.clean.values, rows, row).iter();
        let clean = added(&mut estimate.weight_clean, values.map(|q| q / problem.alpha));
        let (ess_policy, ess_clean) = (normalise(policy), normalise(clean));
        let still = || std::iter::repeat_n(0.0, problem.x_t.len() / rows);
        let v1 = added(&mut estimate.velocity_policy, still());
        let v2 = added(&mut estimate.velocity_clean, still());
        add_weighted_velocity(problem, (problem.policy.actions, policy), row, v1);
        add_weighted_velocity(problem, (problem.clean.actions, clean), row, v2);
        let share = ess_policy / (ess_policy + ess_clean + 1e-10);
        let both = v1.iter().zip(v2.iter());
        estimate
            .velocity
            .extend(both.map(|(a, b)| share * a + (1.0 - share) * b));
        estimate.ess_policy.push(ess_policy);
        estimate.ess_clean.push(ess_clean);
        estimate.policy_share.push(share);
    }
    estimate
}

/// Puts `values` behind those that are there, and gives them.
fn added(to: &mut Vec<f32>, values: impl Iterator<Item = f32>) -> &mut [f32] {
    let start = to.len();
    to.extend(values);
    &mut to[start..]
}

/// Rows that one job of a team takes.
const JOB_ROWS: usize = 32;

/// [`estimate_velocity`] on the threads of `team`.
pub(super) fn estimate_in_team(problem: &VelocityProblem<'_>, team: &Team) -> VelocityEstimate {
    let rows = problem.t.len();
    let starts: Vec<usize> = (0..rows).step_by(JOB_ROWS).collect();
    let mut parts = vec![VelocityEstimate::default(); starts.len()];
    team.each(starts.into_iter().zip(&mut parts).collect(), |(start, part)| {
        *part = estimate_velocity(&problem.rows(start, JOB_ROWS.min(rows - start)));
    });
    let mut all = VelocityEstimate::default();
    parts.into_iter().for_each(|part| all.append(part));
    all
}

impl<'a> VelocityProblem<'a> {
    /// `count` rows from `start` on.
    fn rows(&self, start: usize, count: usize) -> Self {
        let rows = self.t.len();
        let of = |values: &'a [f32]| {
            let width = values.len() / rows;
            &values[start * width..(start + count) * width]
        };
        let set = |proposals: ProposalSet<'a>| ProposalSet {
            actions: of(proposals.actions),
            values: of(proposals.values),
        };
        Self {
            x_t: of(self.x_t),
            t: of(self.t),
            alpha: self.alpha,
            policy: set(self.policy),
            log_probs: of(self.log_probs),
            clean: set(self.clean),
        }
    }
}

impl VelocityEstimate {
    /// Adds the rows of another estimate behind these.
    fn append(&mut self, other: Self) {
        let pairs = [
            (&mut self.velocity, other.velocity),
            (&mut self.velocity_policy, other.velocity_policy),
            (&mut self.velocity_clean, other.velocity_clean),
            (&mut self.log_weight_policy, other.log_weight_policy),
            (&mut self.weight_policy, other.weight_policy),
            (&mut self.weight_clean, other.weight_clean),
            (&mut self.ess_policy, other.ess_policy),
            (&mut self.ess_clean, other.ess_clean),
            (&mut self.policy_share, other.policy_share),
        ];
        pairs.into_iter().for_each(|(to, from)| to.extend(from));
    }
}

fn of_row(values: &[f32], rows: usize, row: usize) -> &[f32] {
    let width = values.len() / rows;
    &values[row * width..(row + 1) * width]
}

fn policy_log_weights(problem: &VelocityProblem<'_>, row: usize) -> impl Iterator<Item = f32> {
    let rows = problem.t.len();
    let (t, x) = (problem.t[row], of_row(problem.x_t, rows, row));
    let actions = of_row(problem.policy.actions, rows, row).chunks_exact(x.len());
    let values = of_row(problem.policy.values, rows, row);
    let log_probs = of_row(problem.log_probs, rows, row);
    actions
        .zip(values.iter().zip(log_probs))
        .map(move |(action, (q, log_prob))| {
            let square: f32 = x
                .iter()
                .zip(action)
                .map(|(x, a)| (x - (1.0 - t) * a).powi(2))
                .sum();
            q / problem.alpha - square / (2.0 * t * t) - log_prob
        })
}

/// Log-weights become weights by their softmax; gives the effective sample size.
fn normalise(weights: &mut [f32]) -> f32 {
    let highest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    weights.iter_mut().for_each(|w| *w = (*w - highest).exp());
    let total: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= total);
    let squares: f32 = weights.iter().map(|w| *w * *w).sum();
    1.0 / squares
}

/// Adds `sum_k w_k (x_t - a_k) / t` to `velocity`, `[A]`.
fn add_weighted_velocity(
    problem: &VelocityProblem<'_>,
    (actions, weights): (&[f32], &[f32]),
    row: usize,
    velocity: &mut [f32],
) {
    let rows = problem.t.len();
    let (t, x) = (problem.t[row], of_row(problem.x_t, rows, row));
    for (action, w) in of_row(actions, rows, row).chunks_exact(x.len()).zip(weights) {
        for ((v, x), a) in velocity.iter_mut().zip(x).zip(action) {
            *v += w * (x - a) / t;
        }
    }
}
