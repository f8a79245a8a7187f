//! `swimmer`: bring the nose of a chain of 6 or 15 links to a target in a viscous fluid.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use xmltree::{Element as XmlElement, XMLNode};

use super::mjcf::{Mjcf, element, elements};
use super::rewards::{Margin, Sigmoid, VALUE_AT_MARGIN, tolerance};
use super::{
    Times, after_reset, difference, distance, edited_benchmark, in_frame, only_value, randomize_joints, step,
    uniform,
};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 30.0;
/// Time between two actions, s.
const CONTROL_PERIOD: f64 = 0.03;
/// The bend between two links, summed over all links, degrees.
const BEND: f64 = 360.0;
/// Links of the swimmer that the file's cameras are placed for.
const LINKS_OF_CAMERAS: f64 = 6.0;
/// How often a target is close, and half the sides of the squares where a close and a far one lie, m.
const P_CLOSE: f64 = 0.2;
const CLOSE_TARGET: f64 = 0.3;
const FAR_TARGET: f64 = 2.0;
/// Coordinates of the root in `qpos`.
const ROOT: usize = 3;
/// Readings of the sensors before the links' own, and of each link: a velocity, and a rotation.
const READINGS_BEFORE: usize = 12;
const READINGS_OF_LINK: usize = 6;
/// Those that a motion in the plane has: x, y, and about z.
const IN_PLANE: [usize; 3] = [0, 1, 5];

pub(super) fn swimmer6(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("swimmer-swimmer6", options, 6)
}

pub(super) fn swimmer15(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("swimmer-swimmer15", options, 15)
}

fn make(name: &str, options: &TaskOptions, links: usize) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: Some(CONTROL_PERIOD),
    };
    let file = (name, "swimmer.xml");
    let edit = |mjcf: &mut Mjcf| add_links(mjcf, links);
    edited_benchmark(file, options, times, edit, |physics, substeps| {
        let target = physics.id(Element::Geom, "target")?;
        Ok(Box::new(Swimmer {
            head: physics.id(Element::Body, "head")?,
            nose: physics.id(Element::Geom, "nose")?,
            target,
            target_size: physics.geom_size()[target][0],
            substeps,
        }))
    })
}

/// Puts links behind the head, each with a joint, a motor and the sensors of its motion, so that there are `links` in all.
fn add_links(mjcf: &mut Mjcf, links: usize) -> Result<(), SimError> {
    let (mut actuators, mut sensors) = (XmlElement::new("actuator"), XmlElement::new("sensor"));
    let limit = BEND / links as f64;
    let range = format!("-{limit} {limit}");
    let mut chain = None;
    for link in (0..links - 1).rev() {
        let named = |what: &str| format!("{what}_{link}");
        let mut body = element("body", &[("name", &named("segment")), ("pos", "0 .1 0")]);
        let (joint, site) = (named("joint"), named("site"));
        body.children = [
            element("geom", &[("class", "visual"), ("name", &named("visual"))]),
            element("geom", &[("class", "inertial"), ("name", &named("inertial"))]),
            element("site", &[("name", &site)]),
            element("joint", &[("name", &joint), ("range", &range)]),
        ]
        .into_iter()
        .chain(chain)
        .map(XMLNode::Element)
        .collect();
        chain = Some(body);
        let motor = element("motor", &[("name", &named("motor")), ("joint", &joint)]);
        let velocimeter = element("velocimeter", &[("name", &named("velocimeter")), ("site", &site)]);
        let gyro = element("gyro", &[("name", &named("gyro")), ("site", &site)]);
        // The last link comes first here.
        actuators.children.insert(0, XMLNode::Element(motor));
        sensors.children.insert(0, XMLNode::Element(gyro));
        sensors.children.insert(0, XMLNode::Element(velocimeter));
    }
    let head = mjcf.find("body", "head")?;
    head.children.extend(chain.map(XMLNode::Element));
    // A longer swimmer is seen from further away.
    let scale = links as f64 / LINKS_OF_CAMERAS;
    for part in elements(head).filter(|part| part.attributes.get("mode").is_some_and(|m| m == "trackcom")) {
        if let Some(position) = part.attributes.get_mut("pos") {
            let numbers = position.split_whitespace().map(str::parse::<f64>);
            let numbers: Result<Vec<_>, _> = numbers.map(|n| n.map(|n| (n * scale).to_string())).collect();
            *position = numbers.map_err(|e| SimError::Model(e.to_string()))?.join(" ");
        }
    }
    mjcf.push(actuators);
    mjcf.push(sensors);
    Ok(())
}

struct Swimmer {
    head: usize,
    nose: usize,
    target: usize,
    /// Radius of the target, m.
    target_size: f64,
    substeps: usize,
}

impl Swimmer {
    /// In the plane, in the head's own frame.
    fn nose_to_target(&self, physics: &Physics) -> [f64; 2] {
        let positions = physics.geom_xpos();
        let way = difference(&positions[self.target], &positions[self.nose]);
        let [x, y, _] = in_frame(&way, &physics.xmat()[self.head]);
        [x, y]
    }
}

impl BenchmarkTask for Swimmer {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        randomize_joints(physics, rng);
        let close = rng.random::<f64>() < P_CLOSE;
        let side = if close { CLOSE_TARGET } else { FAR_TARGET };
        for axis in 0..2 {
            physics.set_geom_position(self.target, axis, uniform(rng, -side, side));
        }
        after_reset(physics);
        Ok(())
    }

    fn state_was_set(&mut self, physics: &mut Physics) {
        after_reset(physics);
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        step(physics, action, self.substeps);
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        out.extend_from_slice(&physics.qpos()[ROOT..]);
        out.extend(self.nose_to_target(physics));
        let links = physics.sensordata()[READINGS_BEFORE..].chunks(READINGS_OF_LINK);
        out.extend(links.flat_map(|link| IN_PLANE.map(|reading| link[reading])));
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let margin = Margin {
            width: 5.0 * self.target_size,
            value_at_margin: VALUE_AT_MARGIN,
            sigmoid: Sigmoid::LongTail,
        };
        let far = distance(&self.nose_to_target(physics), &[0.0; 2]);
        tolerance(far, (0.0, self.target_size), margin)
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }

    /// `target`: where it lies, m.
    fn model_values(&self, physics: &Physics) -> Vec<(&'static str, Vec<f64>)> {
        vec![("target", physics.geom_pos()[self.target][..2].to_vec())]
    }

    fn set_model_value(&mut self, physics: &mut Physics, name: &str, values: &[f64]) -> Result<(), SimError> {
        let target: [f64; 2] = only_value("target", name, values)?;
        for (axis, position) in target.into_iter().enumerate() {
            physics.set_geom_position(self.target, axis, position);
        }
        Ok(())
    }
}
