//! A soft start: over a time the command goes from where the robot was to what the policy wants,
//! `c = c0 + w (policy - c0)`, `w` rising linearly from one tick's share to 1. It begins anew on activation, after a
//! fallback and on a swap. `c0` is the last safe command, or what the robot does where there is none.

/// How much of the policy is in the command.
#[derive(Debug, Clone)]
pub struct Fade {
    /// Share of the policy that one tick adds; infinite where nothing fades.
    share: f64,
    ticks: f64,
    from: Vec<f64>,
    blended: Vec<f64>,
}

impl Fade {
    /// For commands of `size` components, over `seconds` (0 is at once) at one tick every `period`, s.
    pub fn new(size: usize, seconds: f64, period: f64) -> Self {
        let mut fade = Self {
            share: f64::INFINITY,
            ticks: f64::INFINITY,
            from: vec![0.0; size],
            blended: vec![0.0; size],
        };
        fade.set_duration(seconds, period);
        fade
    }

    /// From the next start on it takes `seconds`; one that is under way goes on at the new pace.
    pub fn set_duration(&mut self, seconds: f64, period: f64) {
        self.share = if seconds > 0.0 {
            period / seconds
        } else {
            f64::INFINITY
        };
    }

    /// Starts anew from a command (`[A]`).
    pub fn start(&mut self, from: impl Iterator<Item = f64>) {
        self.ticks = 0.0;
        for (slot, value) in self.from.iter_mut().zip(from) {
            *slot = value;
        }
    }

    /// What to command where the policy wants `wanted` (`[A]`), and the policy's weight in it.
    pub fn blend<'a>(&'a mut self, wanted: &'a [f64]) -> (&'a [f64], f64) {
        self.ticks += 1.0;
        let weight = self.ticks * self.share;
        if weight >= 1.0 {
            return (wanted, 1.0);
        }
        for ((slot, from), wanted) in self.blended.iter_mut().zip(&self.from).zip(wanted) {
            *slot = from + weight * (wanted - from);
        }
        (&self.blended, weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policys_weight_rises_to_one_over_the_duration() {
        let mut fade = Fade::new(1, 0.1, 0.02);
        fade.start([1.0].into_iter());
        let commands: Vec<(f64, f64)> = (0..6)
            .map(|_| {
                let (command, weight) = fade.blend(&[2.0]);
                (command[0], weight)
            })
            .collect();
        for (k, (command, weight)) in commands.iter().enumerate() {
            let expected = (0.2 * (k + 1) as f64).min(1.0);
            assert!((weight - expected).abs() < 1e-12, "{commands:?}");
            assert!((command - 1.0 - expected).abs() < 1e-12, "{commands:?}");
        }
    }

    #[test]
    fn without_a_duration_the_policys_command_is_untouched() {
        let mut fade = Fade::new(1, 0.0, 0.02);
        fade.start([1.0].into_iter());
        assert_eq!(fade.blend(&[2.0]), (&[2.0][..], 1.0));
    }

    #[test]
    fn a_fade_that_never_started_changes_nothing() {
        let mut fade = Fade::new(1, 1.0, 0.02);
        assert_eq!(fade.blend(&[2.0]), (&[2.0][..], 1.0));
    }
}
