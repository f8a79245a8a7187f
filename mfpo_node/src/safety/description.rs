//! Limits of a robot's own description (URDF, topic `robot_description`): they tighten those of the bundle's spec, joint
//! by joint. The strictest wins; nothing is ever loosened.
//!
//! | element | tightens |
//! |---|---|
//! | `limit` `lower`, `upper` | the position, but of a continuous joint |
//! | `safety_controller` `soft_lower_limit`, `soft_upper_limit` | the position, but of a continuous joint |
//! | `limit` `velocity`, `effort` | velocity and effort |
//! | `mimic` | what is left to the joint that leads: its position is `(follower - offset) / multiplier` |
//! | type `fixed` | the velocity, to nothing |
//!
//! An attribute that is not there limits nothing. A limit that leaves a joint no room is a contradiction between the
//! description and the bundle, and is not for this node to settle; that a joint may have no effort contradicts nothing where
//! nobody commands its effort, as of a joint that is only observed.

use std::collections::BTreeMap;

use mfpo_policy::spec::{CommandInterface, JointSpec, RobotSpec};
use roxmltree::{Document, Node};
use thiserror::Error;

/// A text that is no description of a robot.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum BadDescription {
    /// It is no XML.
    #[error("robot_description is no XML: {0}; expected a URDF")]
    Xml(#[from] roxmltree::Error),
    /// It is something else.
    #[error("robot_description is a '{got}'; expected a URDF, whose root is 'robot'")]
    NotARobot {
        /// Its root.
        got: String,
    },
    /// A limit that is no number.
    #[error("robot_description: '{attribute}' of joint '{joint}' is '{got}'; expected a number")]
    NotANumber {
        /// The joint.
        joint: String,
        /// The attribute.
        attribute: &'static str,
        /// Its value.
        got: String,
    },
}

/// A joint that description and bundle together leave no room.
#[derive(Debug, Clone, PartialEq, Error)]
#[error(
    "robot_description leaves joint '{joint}' no room: its {what} is {described}, the bundle's is {bundled}; expected \
     ranges that overlap (correct one of them, or set use_robot_description to false)"
)]
pub struct NoRoom {
    joint: String,
    what: &'static str,
    described: String,
    bundled: String,
}

/// The limits of one joint; infinite where there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
struct JointLimits {
    low: f64,
    high: f64,
    velocity: f64,
    effort: f64,
}

/// What a joint that follows another one does: `multiplier * leader + offset`.
#[derive(Debug, Clone, PartialEq)]
struct Mimic {
    leader: String,
    multiplier: f64,
    offset: f64,
}

/// The limits of a described robot, by joint.
#[derive(Debug, Clone, PartialEq)]
pub struct RobotDescription {
    joints: BTreeMap<String, JointLimits>,
}

impl RobotDescription {
    /// Reads a URDF.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, BadDescription> {
        let document = Document::parse(text)?;
        let root = document.root_element();
        if root.tag_name().name() != "robot" {
            return Err(BadDescription::NotARobot {
                got: root.tag_name().name().to_owned(),
            });
        }
        let mut joints = BTreeMap::new();
        let mut mimics = Vec::new();
        for element in root.children().filter(|child| child.has_tag_name("joint")) {
            let Some(name) = element.attribute("name") else {
                continue;
            };
            joints.insert(name.to_owned(), JointLimits::read(name, element)?);
            if let Some(mimic) = Mimic::read(name, element)? {
                mimics.push((name.to_owned(), mimic));
            }
        }
        for (follower, mimic) in mimics {
            let led = joints.get(&follower).map(|limits| mimic.of_the_leader(limits));
            if let (Some(led), Some(leader)) = (led, joints.get_mut(&mimic.leader)) {
                *leader = leader.and(&led);
            }
        }
        Ok(Self { joints })
    }

    /// A spec with the stricter of its own and the described limits.
    ///
    /// # Errors
    /// The first joint that has no room left.
    pub fn tighten(&self, spec: &RobotSpec) -> Result<RobotSpec, NoRoom> {
        let mut tightened = spec.clone();
        for joint in &mut tightened.joints {
            if let Some(limits) = self.joints.get(&joint.name) {
                let is_commanded = spec.action.joints.iter().any(|action| action.joint == joint.name);
                let needs_effort = is_commanded && spec.action.interface == CommandInterface::Effort;
                limits.tighten(joint, needs_effort)?;
            }
        }
        Ok(tightened)
    }

    /// Number of joints.
    pub fn joints(&self) -> usize {
        self.joints.len()
    }

    /// The joints of a spec that are not described.
    pub fn missing<'a>(&'a self, spec: &'a RobotSpec) -> impl Iterator<Item = &'a str> {
        let names = spec.joints.iter().map(|joint| joint.name.as_str());
        names.filter(|name| !self.joints.contains_key(*name))
    }
}

impl JointLimits {
    const NONE: Self = Self {
        low: f64::NEG_INFINITY,
        high: f64::INFINITY,
        velocity: f64::INFINITY,
        effort: f64::INFINITY,
    };

    fn read(joint: &str, element: Node<'_, '_>) -> Result<Self, BadDescription> {
        let kind = element.attribute("type").unwrap_or_default();
        if kind == "fixed" {
            return Ok(Self {
                velocity: 0.0,
                ..Self::NONE
            });
        }
        let child = |name| element.children().find(|child| child.has_tag_name(name));
        let number = |of, attribute| number(joint, child(of), attribute);
        let mut limits = Self {
            velocity: number("limit", "velocity")?.map_or(f64::INFINITY, f64::abs),
            effort: number("limit", "effort")?.map_or(f64::INFINITY, f64::abs),
            ..Self::NONE
        };
        if kind != "continuous" {
            let hard = (number("limit", "lower")?, number("limit", "upper")?);
            let soft = (
                number("safety_controller", "soft_lower_limit")?,
                number("safety_controller", "soft_upper_limit")?,
            );
            let low = [hard.0, soft.0].into_iter().flatten();
            let high = [hard.1, soft.1].into_iter().flatten();
            limits.low = low.fold(f64::NEG_INFINITY, f64::max);
            limits.high = high.fold(f64::INFINITY, f64::min);
        }
        Ok(limits)
    }

    /// The stricter of both.
    fn and(&self, other: &Self) -> Self {
        Self {
            low: self.low.max(other.low),
            high: self.high.min(other.high),
            velocity: self.velocity.min(other.velocity),
            effort: self.effort.min(other.effort),
        }
    }

    fn tighten(&self, joint: &mut JointSpec, needs_effort: bool) -> Result<(), NoRoom> {
        let bundled = Self {
            low: joint.position_min.unwrap_or(f64::NEG_INFINITY),
            high: joint.position_max.unwrap_or(f64::INFINITY),
            velocity: joint.velocity_max,
            effort: joint.effort_max,
        };
        let strictest = self.and(&bundled);
        let no_room = |what, described, bundled| NoRoom {
            joint: joint.name.clone(),
            what,
            described,
            bundled,
        };
        if strictest.low >= strictest.high {
            let (described, bundled) = (range(self.low, self.high), range(bundled.low, bundled.high));
            return Err(no_room("position", described, bundled));
        }
        if strictest.velocity <= 0.0 {
            let (described, bundled) = (self.velocity.to_string(), bundled.velocity.to_string());
            return Err(no_room("velocity", described, bundled));
        }
        if strictest.effort > 0.0 {
            joint.effort_max = strictest.effort;
        } else if needs_effort {
            let (described, bundled) = (self.effort.to_string(), bundled.effort.to_string());
            return Err(no_room("effort", described, bundled));
        }
        joint.position_min = strictest.low.is_finite().then_some(strictest.low);
        joint.position_max = strictest.high.is_finite().then_some(strictest.high);
        joint.velocity_max = strictest.velocity;
        Ok(())
    }
}

impl Mimic {
    fn read(joint: &str, element: Node<'_, '_>) -> Result<Option<Self>, BadDescription> {
        let mimic = element.children().find(|child| child.has_tag_name("mimic"));
        let Some(leader) = mimic.and_then(|mimic| mimic.attribute("joint")) else {
            return Ok(None);
        };
        Ok(Some(Self {
            leader: leader.to_owned(),
            multiplier: number(joint, mimic, "multiplier")?.unwrap_or(1.0),
            offset: number(joint, mimic, "offset")?.unwrap_or(0.0),
        }))
    }

    /// What the limits of the joint that follows leave to the one that leads.
    fn of_the_leader(&self, follower: &JointLimits) -> JointLimits {
        if self.multiplier == 0.0 {
            return JointLimits::NONE;
        }
        let at = |limit: f64| (limit - self.offset) / self.multiplier;
        let (a, b) = (at(follower.low), at(follower.high));
        JointLimits {
            low: a.min(b),
            high: a.max(b),
            velocity: follower.velocity / self.multiplier.abs(),
            effort: f64::INFINITY,
        }
    }
}

/// An attribute that is a number, where it is there.
fn number(
    joint: &str,
    element: Option<Node<'_, '_>>,
    attribute: &'static str,
) -> Result<Option<f64>, BadDescription> {
    let Some(text) = element.and_then(|element| element.attribute(attribute)) else {
        return Ok(None);
    };
    match text.trim().parse::<f64>() {
        Ok(number) if !number.is_nan() => Ok(Some(number)),
        _ => Err(BadDescription::NotANumber {
            joint: joint.to_owned(),
            attribute,
            got: text.to_owned(),
        }),
    }
}

fn range(low: f64, high: f64) -> String {
    format!("{low} to {high}")
}
