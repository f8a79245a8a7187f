//! What several seeds say together: the interquartile mean with a bootstrap interval (Agarwal et al. 2021, arXiv 2108.13264).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Samples of the bootstrap.
const RESAMPLES: usize = 10_000;
/// Share of the resampled means inside the interval.
const CONFIDENCE: f64 = 0.95;

/// An estimate and the interval that holds it with 95 % of the resampled means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The interquartile mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The interquartile mean of `values` and its percentile bootstrap interval, the same on every call; `None` without values.
pub fn interquartile_mean(values: &[f64]) -> Option<Estimate> {
    if values.is_empty() {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut drawn = vec![0.0; values.len()];
    let mut means = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for slot in &mut drawn {
            *slot = values[rng.random_range(0..values.len())];
        }
        means.push(middle_mean(&mut drawn));
    }
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((RESAMPLES - 1) as f64 * share).round() as usize];
    Some(Estimate {
        mean: middle_mean(&mut values.to_vec()),
        low: at(0.5 * (1.0 - CONFIDENCE)),
        high: at(0.5 * (1.0 + CONFIDENCE)),
    })
}

/// Mean of the middle half; values at its ends count with the part of them that lies inside.
fn middle_mean(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let (first, last) = (0.25 * values.len() as f64, 0.75 * values.len() as f64);
    let weighted = values.iter().enumerate().map(|(i, value)| {
        let inside = ((i + 1) as f64).min(last) - (i as f64).max(first);
        value * inside.max(0.0)
    });
    weighted.sum::<f64>() / (last - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_half_counts() {
        // Of four values the two in the middle, of five also half of their neighbours.
        assert_eq!(middle_mean(&mut [100.0, 1.0, 2.0, -50.0]), 1.5);
        let mean = middle_mean(&mut [9.0, 0.0, 3.0, 5.0, 1e6]);
        assert!(
            (mean - (0.75 * 3.0 + 5.0 + 0.75 * 9.0) / 2.5).abs() < 1e-12,
            "{mean}"
        );
        assert_eq!(middle_mean(&mut [7.0]), 7.0);
    }

    #[test]
    fn the_interval_holds_the_mean_and_narrows_with_more_seeds() {
        let values = |n: usize| (0..n).map(|i| (i * 37 % 11) as f64).collect::<Vec<_>>();
        let few = interquartile_mean(&values(11)).unwrap();
        let many = interquartile_mean(&values(110)).unwrap();
        assert_eq!((few.mean, many.mean), (5.0, 5.0));
        for estimate in [few, many] {
            assert!(estimate.low <= estimate.mean && estimate.mean <= estimate.high);
        }
        assert!(
            many.high - many.low < 0.5 * (few.high - few.low),
            "{few:?} {many:?}"
        );
        assert_eq!(interquartile_mean(&[]), None);
    }
}
