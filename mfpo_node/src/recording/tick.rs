//! One tick as a recording keeps it: the message of `tick.msg`, in CDR as ROS 2 writes it. What is written here and read
//! there has the same bits.

use byteorder::LittleEndian;
use mfpo_policy::sampler::Depth;
use serde::{Deserialize, Serialize};

use crate::control_loop::Reason;

/// Definition of the message, in the words that every reader of ROS 2 recordings knows.
pub const DEFINITION: &str = include_str!("tick.msg");
/// Name of the message; it is in no package, and travels with each recording.
pub const NAME: &str = "mfpo_node/msg/Tick";
/// What CDR begins with: plain, little-endian, no options.
const ENCAPSULATION: [u8; 4] = [0, 1, 0, 0];
/// The highest number of a reason for which the fallback takes over from a policy.
pub const LAST_REASON: u8 = 7;
/// The fallback's reason on the way to a stop.
pub const STOPPING: u8 = u8::MAX;
/// The same while `~/probe` moves a joint.
pub const PROBING: u8 = 254;

/// A time of `builtin_interfaces`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// s.
    pub sec: i32,
    /// ns.
    pub nanosec: u32,
}

impl Stamp {
    /// Of nanoseconds since the clock's origin.
    pub fn of(nanoseconds: i64) -> Self {
        Self {
            sec: i32::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or(i32::MAX),
            nanosec: nanoseconds.rem_euclid(1_000_000_000) as u32,
        }
    }

    /// Nanoseconds since the clock's origin.
    pub fn nanoseconds(self) -> i64 {
        i64::from(self.sec) * 1_000_000_000 + i64::from(self.nanosec)
    }
}

/// The fields of `tick.msg`, which explains them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "tick.msg explains each")]
pub struct TickMessage {
    pub stamp: Stamp,
    pub sequence: u64,
    pub state_stamp: Stamp,
    pub state_age: f64,
    pub run: String,
    pub version: u64,
    pub digest: String,
    pub previous_digest: String,
    pub policy_weight: f64,
    pub observation: Vec<f32>,
    pub draw: u64,
    pub steps: u32,
    pub candidates: u32,
    pub in_stages: bool,
    pub previous_steps: u32,
    pub previous_candidates: u32,
    pub previous_in_stages: bool,
    pub action: Vec<f32>,
    pub command_raw: Vec<f64>,
    pub command: Vec<f64>,
    pub rules: Vec<u8>,
    pub blend: f64,
    pub fallback: u8,
    pub compute_time: f64,
    pub latency: f64,
    pub missed: u32,
}

/// A message that is not one of these.
#[derive(Debug, thiserror::Error)]
#[error(
    "a message of {got} bytes is no {NAME}: {reason}; expected one that this version of mfpo_node recorded"
)]
pub struct NotATick {
    got: usize,
    reason: String,
}

impl TickMessage {
    /// In CDR.
    ///
    /// # Errors
    /// Never for what a tick holds.
    pub fn encode(&self) -> Result<Vec<u8>, cdr_encoding::Error> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&ENCAPSULATION);
        cdr_encoding::to_writer::<_, LittleEndian, _>(&mut bytes, self)?;
        Ok(bytes)
    }

    /// Back from CDR.
    ///
    /// # Errors
    /// When it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotATick> {
        let not = |reason: String| NotATick {
            got: bytes.len(),
            reason,
        };
        let (head, body) = bytes
            .split_at_checked(ENCAPSULATION.len())
            .ok_or_else(|| not("it has no encapsulation header".into()))?;
        if head.get(..2) != ENCAPSULATION.get(..2) {
            return Err(not(format!(
                "it begins with {head:?}, not with little-endian CDR"
            )));
        }
        let (tick, read) =
            cdr_encoding::from_bytes::<Self, LittleEndian>(body).map_err(|error| not(error.to_string()))?;
        // rmw may pad to a multiple of four.
        if body.len() - read >= 4 {
            return Err(not(format!("{} bytes are left over", body.len() - read)));
        }
        Ok(tick)
    }

    /// How far the policy was sampled, where it was asked.
    pub fn depth(&self) -> Option<Depth> {
        depth(self.steps, self.candidates, self.in_stages)
    }

    /// How far the one that it is taking over from was.
    pub fn previous_depth(&self) -> Option<Depth> {
        depth(
            self.previous_steps,
            self.previous_candidates,
            self.previous_in_stages,
        )
    }
}

fn depth(steps: u32, candidates: u32, in_stages: bool) -> Option<Depth> {
    (steps > 0).then_some(Depth {
        steps: steps as usize,
        candidates: candidates as usize,
        in_stages,
    })
}

/// The number of a reason in the field `fallback`.
pub fn fallback_code(reason: Option<&Reason>) -> u8 {
    reason.map_or(0, |reason| reason.kind().saturating_add(1))
}

/// Why the fallback commands, in words.
pub fn fallback_name(code: u8) -> &'static str {
    match code {
        0 => "the policy commands",
        1 => "the joint states are not fit to act on, or simulated time does not pass",
        2 => "the policy gave no action",
        3 => "somebody has stopped the robot",
        4 => "the heartbeat is missing",
        5 => "it is too early to act again",
        6 => "the policy does not know what it sees",
        7 => "nobody has given the goal that the policy needs, or not for goal_timeout",
        PROBING => "~/probe moves a joint",
        STOPPING => "the node is bringing the robot to a stop",
        _ => "the fallback commands",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfpo_policy::guard::Signal;

    use crate::goal::NoGoal;
    use crate::safety::{NotEnabled, Unknown, Verdict};

    fn tick() -> TickMessage {
        TickMessage {
            stamp: Stamp::of(1_763_904_000_123_456_789),
            sequence: u64::MAX,
            state_stamp: Stamp::of(-1),
            state_age: 1e-300,
            run: "run-a".into(),
            version: 3,
            digest: "ab".repeat(32),
            policy_weight: 1.0,
            observation: vec![f32::MIN_POSITIVE / 2.0, -0.0, f32::NAN],
            draw: 1 << 40,
            steps: 2,
            candidates: 8,
            in_stages: true,
            action: vec![0.1, -1.0],
            command_raw: vec![0.1 + 0.2],
            command: vec![f64::INFINITY],
            rules: vec![0, 5, 1],
            fallback: 3,
            missed: 7,
            ..Default::default()
        }
    }

    #[test]
    fn a_tick_survives_the_round_trip_bit_for_bit() {
        let tick = tick();
        let bytes = tick.encode().unwrap();
        let back = TickMessage::decode(&bytes).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back.observation), bits(&tick.observation));
        assert_eq!(back.encode().unwrap(), bytes);
        assert_eq!((back.stamp, back.state_stamp.nanoseconds()), (tick.stamp, -1));
        let depth = back.depth().unwrap();
        assert_eq!((depth.steps, depth.candidates, depth.in_stages), (2, 8, true));
    }

    #[test]
    fn what_is_cut_short_or_something_else_is_refused() {
        let bytes = tick().encode().unwrap();
        for length in 0..bytes.len() {
            assert!(TickMessage::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        let longer = [&bytes[..], &[0; 9]].concat();
        let error = TickMessage::decode(&longer).unwrap_err().to_string();
        assert!(error.contains("left over"), "{error}");
        let mut other = bytes.clone();
        other[1] = 0;
        assert!(
            TickMessage::decode(&other)
                .unwrap_err()
                .to_string()
                .contains("CDR")
        );
    }

    #[test]
    fn the_definition_numbers_every_reason_as_it_is_recorded() {
        let unknown = Unknown {
            signal: Signal::Spread,
            got: 1.0,
            limit: 0.5,
        };
        let (good, needed) = (0, None);
        for (name, reason) in [
            ("STATES", Reason::States(Verdict::Missing { joint: 0 })),
            ("STOPPED", Reason::Stopped),
            ("NOT_ENABLED", Reason::NotEnabled(NotEnabled::Never)),
            ("RECOVERING", Reason::Recovering { good, needed }),
            ("GUARD", Reason::Guard(unknown)),
            ("NO_GOAL", Reason::NoGoal(NoGoal::Never)),
        ] {
            let code = fallback_code(Some(&reason));
            let line = format!("uint8 {name}={code}");
            assert!(DEFINITION.lines().any(|defined| defined == line), "{line}");
            assert!((1..=LAST_REASON).contains(&code), "{line}");
        }
        let names: Vec<_> = (1..=LAST_REASON).map(fallback_name).collect();
        assert!(!names.contains(&fallback_name(LAST_REASON + 1)), "{names:?}");
    }

    #[test]
    fn the_definition_names_every_field_in_order() {
        let json = serde_json::to_value(tick().depth().map(|_| TickMessage::default())).unwrap();
        let fields = DEFINITION
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.contains('='));
        let named: Vec<&str> = fields.filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(named.len(), json.as_object().unwrap().len());
        // serde writes a structure's fields in their order.
        let text = serde_json::to_string(&TickMessage::default()).unwrap();
        let places: Vec<_> = named
            .iter()
            .map(|name| {
                text.find(&format!("\"{name}\":"))
                    .unwrap_or_else(|| panic!("no field {name}"))
            })
            .collect();
        assert!(places.is_sorted(), "{named:?}");
    }
}
