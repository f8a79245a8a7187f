//! What was sent to one joint and what all joints did, tick by tick; as large from the start as it will ever be.

use std::f64::consts::PI;

use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::RobotSpec;

/// One row a tick: what was sent, how far each joint has moved, how fast it moves.
#[derive(Debug, Clone)]
pub struct Trace {
    joints: usize,
    numbers: Vec<f64>,
    rows: usize,
    /// The first row in which the joint was told to move, where it was.
    begin: Option<usize>,
}

impl Trace {
    /// Numbers of a row.
    pub const fn width(joints: usize) -> usize {
        1 + 2 * joints
    }

    /// Room for so many rows.
    pub fn new(rows: usize, joints: usize) -> Self {
        Self {
            joints,
            // Written once here, so that no tick is the first to touch a page of it.
            numbers: vec![f64::MIN_POSITIVE; rows * Self::width(joints)],
            rows: 0,
            begin: None,
        }
    }

    /// Writes a row; one for which there is no room is left out.
    pub fn push(&mut self, sent: f64, moved: &[f64], velocities: &[f64]) {
        let width = Self::width(self.joints);
        let Some(row) = self.numbers.chunks_exact_mut(width).nth(self.rows) else {
            return;
        };
        let values = std::iter::once(sent).chain(moved.iter().copied());
        let values = values.chain(velocities.iter().copied());
        row.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
        self.rows += 1;
    }

    /// The joint begins to move.
    pub fn begin(&mut self) {
        self.begin.get_or_insert(self.rows);
    }

    /// The first row in which the joint was told to move, where it was.
    pub fn moves_from(&self) -> Option<usize> {
        self.begin
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What was sent, row by row.
    pub fn sent(&self) -> impl Iterator<Item = f64> {
        self.column(0)
    }

    /// How far a joint has moved since the first row, row by row.
    pub fn moved(&self, joint: usize) -> impl Iterator<Item = f64> {
        self.column(1 + joint)
    }

    /// How fast a joint moves, row by row.
    pub fn velocities(&self, joint: usize) -> impl Iterator<Item = f64> {
        self.column(1 + self.joints + joint)
    }

    fn column(&self, index: usize) -> impl Iterator<Item = f64> {
        let rows = self
            .numbers
            .chunks_exact(Self::width(self.joints))
            .take(self.rows);
        rows.filter_map(move |row| row.get(index).copied())
    }
}

/// How far each joint has moved since a start; the short way round where it is continuous.
#[derive(Debug)]
pub struct Displacement {
    continuous: Vec<bool>,
    last: Vec<f64>,
    moved: Vec<f64>,
    has_started: bool,
}

impl Displacement {
    /// Of the joints of a robot.
    pub fn new(spec: &RobotSpec) -> Self {
        let joints = spec.joints.iter();
        Self {
            continuous: joints
                .map(|joint| joint.position_min.is_none() && joint.position_max.is_none())
                .collect(),
            last: vec![0.0; spec.joints.len()],
            moved: vec![0.0; spec.joints.len()],
            has_started: false,
        }
    }

    /// The next update is where each joint starts.
    pub fn start(&mut self) {
        self.has_started = false;
        self.moved.fill(0.0);
    }

    /// Takes the newest positions.
    pub fn update(&mut self, state: &RobotState) {
        let joints = self.last.iter_mut().zip(&mut self.moved).zip(&self.continuous);
        for (((last, moved), is_continuous), position) in joints.zip(state.positions.iter()) {
            if !self.has_started {
                *moved = 0.0;
            } else if *is_continuous {
                *moved += (position - *last + PI).rem_euclid(2.0 * PI) - PI;
            } else {
                *moved += position - *last;
            }
            *last = *position;
        }
        self.has_started = true;
    }

    /// How far each joint has moved.
    pub fn moved(&self) -> &[f64] {
        &self.moved
    }

    /// The largest way that any joint has moved.
    pub fn furthest(&self) -> f64 {
        self.moved
            .iter()
            .fold(0.0, |furthest, moved| furthest.max(moved.abs()))
    }
}
