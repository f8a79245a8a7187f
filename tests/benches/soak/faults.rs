//! The faults of a soak, one after the other.

use std::future::Future;
use std::pin::Pin;

use anyhow::ensure;
use futures::FutureExt as _;
use mfpo_node::time::MonoTime;
use mfpo_ros::r2r::rcl_interfaces::msg::{Parameter, ParameterValue};
use mfpo_ros::r2r::rcl_interfaces::srv::SetParameters;
use mfpo_ros::r2r::{self, Client, QosProfile};
use mfpo_tests::rig::{Receiver, Robot, Says};

use super::{NAMESPACE, RUN};

const MILLISECOND: u64 = 1_000_000;
/// After a fault of the states has ended, until the policy must act again, ns.
const RECOVERY: u64 = 100 * MILLISECOND;
/// The type of a parameter that is a number.
const DOUBLE: u8 = 3;

/// What can go wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The robot says this for so long, ns.
    States(Says, u64),
    /// A bundle whose last byte is another one.
    CorruptBundle,
    /// A bundle that is not newer.
    OlderBundle,
    /// `stale_timeout` is set to this, s.
    Parameter(f64),
}

/// Shorter and longer than `stale_timeout`, which is 0.1 s.
const ALL: [Fault; 9] = [
    Fault::States(Says::NotANumber, 30 * MILLISECOND),
    Fault::Parameter(0.1),
    Fault::States(Says::Nothing, 20 * MILLISECOND),
    Fault::CorruptBundle,
    Fault::States(Says::Nothing, 300 * MILLISECOND),
    Fault::Parameter(-1.0),
    Fault::States(Says::Twice, 200 * MILLISECOND),
    Fault::OlderBundle,
    Fault::States(Says::NotANumber, 250 * MILLISECOND),
];
/// A silence up to this is none that the policy must stop for, ns.
const HARMLESS: u64 = 50 * MILLISECOND;

type Answer = Pin<Box<dyn Future<Output = r2r::Result<SetParameters::Response>> + Send>>;

/// Injects one after the other.
pub struct Faults {
    parameters: Client<SetParameters::Service>,
    answers: Vec<(Answer, bool)>,
    counts: [u64; ALL.len()],
    /// Until when the robot says what it must not, ns, and until when the policy may be silent.
    bad_until: Option<MonoTime>,
    may_miss_until: Option<MonoTime>,
}

impl Faults {
    /// Nothing is wrong yet.
    pub fn new(node: &mut r2r::Node) -> anyhow::Result<Self> {
        let service = format!("{NAMESPACE}/control/set_parameters");
        Ok(Self {
            parameters: node.create_client(&service, QosProfile::services_default())?,
            answers: Vec::new(),
            counts: [0; ALL.len()],
            bad_until: None,
            may_miss_until: None,
        })
    }

    /// The next one; `sent` are the newest bundle and the one before.
    pub fn begin(
        &mut self,
        now: MonoTime,
        sent: &[Vec<u8>; 2],
        (receiver, robot): (&Receiver, &Robot),
    ) -> anyhow::Result<()> {
        let which = (self.count() % ALL.len() as u64) as usize;
        self.counts[which] += 1;
        match ALL[which] {
            Fault::States(what, time) => {
                robot.says(what);
                self.bad_until = Some(now.plus(time));
                if time > HARMLESS {
                    self.may_miss_until = Some(now.plus(time + RECOVERY));
                }
            }
            Fault::CorruptBundle => {
                let mut bundle = sent[0].clone();
                if let Some(last) = bundle.last_mut() {
                    *last ^= 1;
                }
                receiver.offer(RUN, 0, bundle)?;
            }
            Fault::OlderBundle => receiver.offer(RUN, 0, sent[1].clone())?,
            Fault::Parameter(value) => self.set(value)?,
        }
        Ok(())
    }

    /// Ends what is over, and looks at answers that have come.
    pub fn go_on(&mut self, now: MonoTime, robot: &Robot) -> anyhow::Result<()> {
        if self.bad_until.is_some_and(|until| now >= until) {
            self.bad_until = None;
            robot.says(Says::States);
        }
        for (mut answer, expected) in std::mem::take(&mut self.answers) {
            let Some(told) = (&mut answer).now_or_never() else {
                self.answers.push((answer, expected));
                continue;
            };
            let is_set = told?.results.first().is_some_and(|result| result.successful);
            ensure!(
                is_set == expected,
                "a set of stale_timeout: successful is {is_set}; expected {expected}"
            );
        }
        Ok(())
    }

    fn set(&mut self, value: f64) -> anyhow::Result<()> {
        let request = SetParameters::Request {
            parameters: vec![Parameter {
                name: "stale_timeout".into(),
                value: ParameterValue {
                    type_: DOUBLE,
                    double_value: value,
                    ..ParameterValue::default()
                },
            }],
        };
        let answer = self.parameters.request(&request)?;
        self.answers.push((Box::pin(answer), value > 0.0));
        Ok(())
    }

    /// May ticks be missed now, because the robot's states are bad?
    pub fn may_miss(&self, now: MonoTime) -> bool {
        self.may_miss_until.is_some_and(|until| now < until)
    }

    /// Faults so far.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Bundles that had to be refused.
    pub fn bad_bundles(&self) -> u64 {
        let is_bundle = |fault: &Fault| matches!(fault, Fault::CorruptBundle | Fault::OlderBundle);
        let counted = ALL.iter().zip(&self.counts);
        counted
            .filter(|(fault, _)| is_bundle(fault))
            .map(|(_, n)| n)
            .sum()
    }

    /// How many of which, in words.
    pub fn counts(&self) -> String {
        let named = ALL.iter().zip(&self.counts).map(|(fault, n)| match fault {
            Fault::States(what, time) => format!("{n} x {what:?} for {} ms", time / MILLISECOND),
            Fault::CorruptBundle => format!("{n} x a corrupt bundle"),
            Fault::OlderBundle => format!("{n} x an older bundle"),
            Fault::Parameter(value) => format!("{n} x stale_timeout := {value}"),
        });
        format!(
            "{} faults: {}",
            self.count(),
            named.collect::<Vec<_>>().join(", ")
        )
    }
}
