//! How the policy takes over little by little, as its records tell: its weight in the command rises by the same share at each
//! tick, from one share to 1.

use serde_json::Value;

use crate::peer::arrived;

/// Weights that differ by no more than this are the same.
const SAME: f64 = 1e-9;

/// The numbers of ticks and the policy's weight in their commands, from the fallback's last tick, or the one before the first
/// of all, to the first whose command is the policy's alone.
#[derive(Debug)]
pub struct Fade(Vec<(f64, f64)>);

impl Fade {
    /// The one that ended first after a moment; `None` where none has yet. Where the fallback has no record, the policy's first is
    /// among these.
    pub fn ended_after(after: f64, records: &[Value]) -> Option<Self> {
        let mut records: Vec<&Value> = records.iter().collect();
        records.sort_by_key(|r| r["sequence"].as_u64());
        let is_alone = |r: &&Value| r["fallback"] == false && r["blend"].as_f64() >= Some(1.0);
        let end = records.iter().position(|r| arrived(r) >= after && is_alone(r))?;
        records.truncate(end + 1);
        let last_fallback = records.iter().rposition(|r| r["fallback"] == true);
        let tick = |r: &&Value| (number(&r["sequence"]), number(&r["blend"]));
        let mut weights: Vec<(f64, f64)> = records.iter().map(tick).collect();
        match last_fallback {
            Some(at) => drop(weights.drain(..at)),
            None => weights.insert(0, (weights[0].0 - 1.0, 0.0)),
        }
        Some(Self(weights))
    }

    /// Does the weight rise by `share` from tick to tick? A record that has not come hides a rise, a tick that was left out
    /// delays one.
    ///
    /// # Panics
    /// Where it does not.
    pub fn check(&self, share: f64) {
        for pair in self.0.windows(2) {
            let (ticks, rise) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
            // The last rise is what is left.
            let least = if pair[1].1 < 1.0 { share } else { 0.0 };
            let expected = least - SAME..=ticks * share + SAME;
            assert!(
                expected.contains(&rise),
                "the policy does not fade in: its weight rises by {rise} in {ticks} ticks, expected {expected:?}: {self:?}"
            );
        }
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::peer::ARRIVED;

    const SHARE: f64 = 0.25;

    /// Records from tick 7 on, each of which arrives a second after the one before: the fallback's where there is no weight.
    fn records(weights: &[Option<f64>]) -> Vec<Value> {
        let record = |(i, weight): (usize, &Option<f64>)| {
            let (fallback, blend) = (weight.is_none(), weight.unwrap_or(0.0));
            json!({"sequence": 7 + i, "fallback": fallback, "blend": blend, ARRIVED: i})
        };
        weights.iter().enumerate().map(record).collect()
    }

    fn fades_in(records: &[Value]) -> bool {
        let fade = Fade::ended_after(0.5, records).expect("a fade that has ended");
        std::panic::catch_unwind(|| fade.check(SHARE)).is_ok()
    }

    #[test]
    fn the_weight_has_to_rise_share_by_share_from_the_last_fallback_on() {
        let rising = [0.25, 0.5, 0.75, 1.0].map(Some);
        assert!(fades_in(&records(&rising)), "on activation");
        let after_a_fallback = [[None, None].as_slice(), &rising, &[Some(1.0)]].concat();
        assert!(fades_in(&records(&after_a_fallback)));
        let before_the_fault = [[Some(1.0), None].as_slice(), &rising].concat();
        assert!(fades_in(&records(&before_the_fault)));
        let relapse = [[None, Some(0.25), Some(0.5), None].as_slice(), &rising].concat();
        assert!(fades_in(&records(&relapse)));

        let at_once = [None, Some(1.0)];
        assert!(!fades_in(&records(&at_once)), "the policy is there at once");
        let stands = [None, Some(0.25), Some(0.25), Some(0.5), Some(0.75), Some(1.0)];
        assert!(!fades_in(&records(&stands)), "the weight stands still");
        let jumps = [None, Some(0.25), Some(1.0)];
        assert!(!fades_in(&records(&jumps)), "the weight jumps");
        let goes_on = [None, Some(0.5), Some(0.75), Some(1.0)];
        assert!(!fades_in(&records(&goes_on)), "it does not begin anew");
    }

    #[test]
    fn a_record_that_has_not_come_or_a_tick_that_was_left_out_is_no_jump() {
        let mut lost = records(&[None, Some(0.25), Some(0.5), Some(0.75), Some(1.0)]);
        lost.remove(2);
        assert!(fades_in(&lost));
        let mut left_out = records(&[None, Some(0.25), Some(0.5), Some(0.75), Some(1.0)]);
        for late in &mut left_out[3..] {
            late["sequence"] = json!(late["sequence"].as_u64().unwrap_or_default() + 2);
        }
        assert!(fades_in(&left_out));
    }

    #[test]
    fn a_fade_that_goes_on_is_none_yet() {
        let under_way = records(&[Some(1.0), None, Some(0.25), Some(0.5)]);
        assert!(Fade::ended_after(0.5, &under_way).is_none());
        assert!(Fade::ended_after(0.5, &[]).is_none());
    }
}
