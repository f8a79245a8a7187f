//! The suite's `tolerance`: 1 inside bounds, falling off outside them.

/// How a reward falls off outside the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sigmoid {
    /// `exp(-(x s)^2 / 2)`.
    Gaussian,
    /// `1 - x s`, not below 0.
    Linear,
    /// `1 / ((x s)^2 + 1)`.
    LongTail,
    /// `1 - (x s)^2`, not below 0.
    Quadratic,
}

/// The suite's value at the margin where a task names none.
pub(super) const VALUE_AT_MARGIN: f64 = 0.1;

/// Shape of the fall-off: the distance at which it reaches `value_at_margin`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Margin {
    pub(super) width: f64,
    pub(super) value_at_margin: f64,
    pub(super) sigmoid: Sigmoid,
}

impl Margin {
    /// Gaussian, to 0.1 at `width`; with width 0 everything outside the bounds is 0.
    pub(super) fn gaussian(width: f64) -> Self {
        Self {
            width,
            value_at_margin: VALUE_AT_MARGIN,
            sigmoid: Sigmoid::Gaussian,
        }
    }
}

/// 1 for `x` within `[low, high]`, else less, by `margin`.
pub(super) fn tolerance(x: f64, (low, high): (f64, f64), margin: Margin) -> f64 {
    if low <= x && x <= high {
        return 1.0;
    }
    if margin.width == 0.0 {
        return 0.0;
    }
    let distance = if x < low { low - x } else { x - high } / margin.width;
    let scaled = |scale: f64| distance * scale;
    match margin.sigmoid {
        Sigmoid::Gaussian => {
            let x = scaled((-2.0 * margin.value_at_margin.ln()).sqrt());
            (-0.5 * x * x).exp()
        }
        Sigmoid::Linear => (1.0 - scaled(1.0 - margin.value_at_margin)).max(0.0),
        Sigmoid::LongTail => {
            let x = scaled((1.0 / margin.value_at_margin - 1.0).sqrt());
            1.0 / (x * x + 1.0)
        }
        Sigmoid::Quadratic => {
            let x = scaled((1.0 - margin.value_at_margin).sqrt());
            (1.0 - x * x).max(0.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // From dm_control.utils.rewards.tolerance of version 1.0.50.
    #[test]
    fn tolerance_gives_the_suites_numbers() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
        close(tolerance(0.5, (0.0, 1.0), Margin::gaussian(0.0)), 1.0);
        close(tolerance(1.5, (0.0, 1.0), Margin::gaussian(0.0)), 0.0);
        close(tolerance(2.0, (0.0, 1.0), Margin::gaussian(1.0)), 0.1);
        close(
            tolerance(-0.5, (0.0, 1.0), Margin::gaussian(1.0)),
            0.1f64.powf(0.25),
        );
        let linear = Margin {
            width: 2.0,
            value_at_margin: 0.5,
            sigmoid: Sigmoid::Linear,
        };
        close(tolerance(0.0, (1.0, f64::INFINITY), linear), 0.75);
        close(tolerance(-4.0, (1.0, f64::INFINITY), linear), 0.0);
        let long_tail = Margin {
            width: 2.0,
            value_at_margin: 0.5,
            sigmoid: Sigmoid::LongTail,
        };
        close(tolerance(5.0, (0.0, 1.0), long_tail), 0.2);
        let quadratic = Margin {
            width: 1.0,
            value_at_margin: 0.0,
            sigmoid: Sigmoid::Quadratic,
        };
        close(tolerance(0.5, (0.0, 0.0), quadratic), 0.75);
        close(tolerance(-3.0, (0.0, 0.0), quadratic), 0.0);
    }
}
