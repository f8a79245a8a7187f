//! This file and its folder are the only ones that name `mujoco-rs`: a model with its state, in the words that tasks
//! need.

#[cfg(feature = "renderer")]
mod renderer;
mod warnings;

use std::path::Path;

use mujoco_rs::logging::set_log_handler;
use mujoco_rs::prelude::{MjData, MjModel, MjtDisableBit, MjtIntegrator, MjtJoint, MjtObjBase};

use crate::SimError;

#[cfg(feature = "renderer")]
pub use renderer::Renderer;

/// Version of the MuJoCo that this program is linked with, as `3.17.0`.
pub fn mujoco_version() -> &'static str {
    mujoco_rs::mujoco_version()
}

/// Where a joint with one degree of freedom lies in the state.
#[derive(Debug, Clone, Copy)]
pub struct JointIndex {
    position: usize,
    velocity: usize,
}

impl JointIndex {
    /// The joint's coordinate in `qpos`.
    pub fn position(self) -> usize {
        self.position
    }

    /// The joint's coordinate in `qvel`.
    pub fn velocity(self) -> usize {
        self.velocity
    }
}

/// Where an actuator lies in the control vector.
#[derive(Debug, Clone, Copy)]
pub struct ActuatorIndex(usize);

/// What [`Physics::id`] looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// A rigid body.
    Body,
    /// A joint.
    Joint,
    /// A geom.
    Geom,
    /// A site.
    Site,
    /// An actuator.
    Actuator,
    /// A sensor.
    Sensor,
    /// A tendon.
    Tendon,
}

/// How a joint moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JointKind {
    /// About an axis.
    Hinge,
    /// Along an axis.
    Slide,
    /// About a point.
    Ball,
    /// In all ways.
    Free,
}

/// One joint of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joint {
    /// How it moves.
    pub kind: JointKind,
    /// Its first coordinate in `qpos`.
    pub position: usize,
    /// Lowest and highest position, where it is limited.
    pub range: Option<(f64, f64)>,
}

/// Arrays of the state, under MuJoCo's own names.
macro_rules! arrays {
    ($($(#[$meta:meta])* $name:ident: $ty:ty),* $(,)?) => {
        impl Physics {
            $($(#[$meta])* pub fn $name(&self) -> $ty { self.data.$name() })*
        }
    };
}

arrays! {
    /// Positions, `[nq]`.
    qpos: &[f64],
    /// Velocities, `[nv]`.
    qvel: &[f64],
    /// Accelerations, `[nv]`.
    qacc: &[f64],
    /// Where the constraint solver starts, `[nv]`; part of the integration state.
    qacc_warmstart: &[f64],
    /// Actuator activations, `[na]`.
    act: &[f64],
    /// Commands, `[nu]`.
    ctrl: &[f64],
    /// Positions of the bodies' frames in the world, m.
    xpos: &[[f64; 3]],
    /// Rotations of the bodies' frames, row-major.
    xmat: &[[f64; 9]],
    /// The same as quaternions, w first.
    xquat: &[[f64; 4]],
    /// Points that the joints turn about, in the world, m.
    xanchor: &[[f64; 3]],
    /// Centres of mass of the bodies in the world, m.
    xipos: &[[f64; 3]],
    /// Positions of the geoms in the world, m.
    geom_xpos: &[[f64; 3]],
    /// Rotations of the geoms, row-major.
    geom_xmat: &[[f64; 9]],
    /// Positions of the sites in the world, m.
    site_xpos: &[[f64; 3]],
    /// Rotations of the sites, row-major.
    site_xmat: &[[f64; 9]],
    /// Centres of mass of the subtrees, m.
    subtree_com: &[[f64; 3]],
    /// Velocities of the subtrees' centres of mass, m/s.
    subtree_linvel: &[[f64; 3]],
    /// Inertia and mass of the bodies about the centre of mass.
    cinert: &[[f64; 10]],
    /// Velocities of the bodies about the centre of mass (rotation, translation).
    cvel: &[[f64; 6]],
    /// Forces from outside on the bodies (rotation, translation); up to date after [`Physics::rne_post_constraint`].
    cfrc_ext: &[[f64; 6]],
    /// Actuators' efforts in joint space, `[nv]`.
    qfrc_actuator: &[f64],
    /// Efforts of the constraints, `[nv]`.
    qfrc_constraint: &[f64],
    /// Sensors' readings.
    sensordata: &[f64],
}

/// The same, to be written.
macro_rules! writable_arrays {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {
        impl Physics {
            $($(#[$meta])* pub fn $name(&mut self) -> &mut [f64] { self.data.$name() })*
        }
    };
}

writable_arrays! {
    /// Positions, to be written.
    qpos_mut,
    /// Velocities, to be written.
    qvel_mut,
    /// The solver's start, to be written.
    qacc_warmstart_mut,
    /// Actuator activations, to be written.
    act_mut,
    /// Commands, to be written.
    ctrl_mut,
}

impl Physics {
    /// Ranges of the commands, `[nu]`; an actuator without limits has `(0, 0)`.
    pub fn actuator_ctrlrange(&self) -> &[[f64; 2]] {
        self.data.model().actuator_ctrlrange()
    }

    /// Masses of the bodies, kg.
    pub fn body_mass(&self) -> &[f64] {
        self.data.model().body_mass()
    }

    /// Masses of the bodies with all that hangs on them, kg.
    pub fn body_subtreemass(&self) -> &[f64] {
        self.data.model().body_subtreemass()
    }

    /// Gravity, m/s^2.
    pub fn gravity(&self) -> [f64; 3] {
        self.data.model().opt().gravity
    }

    /// Ranges of the joints.
    pub fn jnt_range(&self) -> &[[f64; 2]] {
        self.data.model().jnt_range()
    }

    /// Sizes of the geoms, m; what they mean depends on the geom's kind.
    pub fn geom_size(&self) -> &[[f64; 3]] {
        self.data.model().geom_size()
    }

    /// Positions of the geoms in their bodies, m.
    pub fn geom_pos(&self) -> &[[f64; 3]] {
        self.data.model().geom_pos()
    }

    /// Sizes of the sites, m.
    pub fn site_size(&self) -> &[[f64; 3]] {
        self.data.model().site_size()
    }

    /// Sets one component of a geom's size in the model, m.
    pub fn set_geom_size(&mut self, geom: usize, component: usize, size: f64) {
        // SAFETY: only a value of an existing array is written; no size, index or address changes.
        let model = unsafe { self.data.model_mut() };
        model.geom_size_mut()[geom][component] = size;
    }

    /// Sets one component of a geom's position in its body, m.
    pub fn set_geom_position(&mut self, geom: usize, axis: usize, position: f64) {
        // SAFETY: as in `set_geom_size`.
        let model = unsafe { self.data.model_mut() };
        model.geom_pos_mut()[geom][axis] = position;
    }

    /// Positions of the bodies in their parents, m.
    pub fn body_pos(&self) -> &[[f64; 3]] {
        self.data.model().body_pos()
    }

    /// Rotations of the bodies in their parents, quaternions, w first.
    pub fn body_quat(&self) -> &[[f64; 4]] {
        self.data.model().body_quat()
    }

    /// Sets one component of a body's position in its parent, m.
    pub fn set_body_position(&mut self, body: usize, axis: usize, position: f64) {
        // SAFETY: as in `set_geom_size`.
        let model = unsafe { self.data.model_mut() };
        model.body_pos_mut()[body][axis] = position;
    }

    /// Sets one component of a body's rotation in its parent, a quaternion, w first.
    pub fn set_body_rotation(&mut self, body: usize, component: usize, value: f64) {
        // SAFETY: as in `set_geom_size`.
        let model = unsafe { self.data.model_mut() };
        model.body_quat_mut()[body][component] = value;
    }

    /// Positions of the sites in their bodies, m.
    pub fn site_pos(&self) -> &[[f64; 3]] {
        self.data.model().site_pos()
    }

    /// Sets one component of a site's size in the model, m.
    pub fn set_site_size(&mut self, site: usize, component: usize, size: f64) {
        // SAFETY: as in `set_geom_size`.
        let model = unsafe { self.data.model_mut() };
        model.site_size_mut()[site][component] = size;
    }

    /// Sets one component of a site's position in its body, m.
    pub fn set_site_position(&mut self, site: usize, axis: usize, position: f64) {
        // SAFETY: as in `set_geom_size`.
        let model = unsafe { self.data.model_mut() };
        model.site_pos_mut()[site][axis] = position;
    }

    /// Sets the damping of a joint, N m s (N s/m), as if the model file said so.
    pub fn set_damping(&mut self, joint: JointIndex, damping: f64) {
        self.nominal.damping[joint.velocity] = damping;
        // SAFETY: as in `set_geom_size`.
        let model = unsafe { self.data.model_mut() };
        model.dof_damping_mut()[joint.velocity] = damping;
    }

    /// The positions of the model file, `[nq]`.
    pub fn qpos0(&self) -> &[f64] {
        self.data.model().qpos0()
    }

    /// Contacts found in the last step.
    pub fn ncon(&self) -> usize {
        self.data.contact().len()
    }

    /// Sets the simulated time, s.
    pub fn set_time(&mut self, time: f64) {
        self.data.set_time(time);
    }

    /// `mj_step`, `count` times, without a look at the result.
    pub fn advance(&mut self, count: usize) {
        for _ in 0..count {
            self.data.step();
        }
    }

    /// `mj_step1`: everything that does not depend on the commands.
    pub fn step1(&mut self) {
        self.data.step1();
    }

    /// `mj_step2`: the rest of a step.
    pub fn step2(&mut self) {
        self.data.step2();
    }

    /// Whether the model is integrated by Runge-Kutta's method of the fourth order.
    pub fn is_runge_kutta(&self) -> bool {
        self.data.model().opt().integrator == MjtIntegrator::mjINT_RK4 as i32
    }

    /// [`Physics::forward`] with the actuators switched off.
    pub fn forward_without_actuation(&mut self) {
        let flags = self.data.model().opt().disableflags;
        self.data.model_opt_mut().disableflags = flags | MjtDisableBit::mjDSBL_ACTUATION as i32;
        self.data.forward();
        self.data.model_opt_mut().disableflags = flags;
    }

    /// Where the first reading of a named sensor lies in [`Physics::sensordata`].
    ///
    /// # Errors
    /// [`SimError::MissingElement`].
    pub fn sensor(&self, name: &str) -> Result<usize, SimError> {
        let id = self.id(Element::Sensor, name)?;
        Ok(self.data.model().sensor_adr()[id] as usize)
    }

    /// All joints, in the order of the model.
    pub fn joints(&self) -> Vec<Joint> {
        let model = self.data.model();
        let joint = |id: usize| Joint {
            kind: match model.jnt_type()[id] {
                MjtJoint::mjJNT_HINGE => JointKind::Hinge,
                MjtJoint::mjJNT_SLIDE => JointKind::Slide,
                MjtJoint::mjJNT_BALL => JointKind::Ball,
                MjtJoint::mjJNT_FREE => JointKind::Free,
            },
            position: model.jnt_qposadr()[id] as usize,
            range: model.jnt_limited()[id].then(|| model.jnt_range()[id].into()),
        };
        (0..model.jnt_type().len()).map(joint).collect()
    }

    /// `mj_rnePostConstraint`: accelerations of and forces between bodies.
    pub fn rne_post_constraint(&mut self) {
        self.data.rne_post_constraint();
    }

    /// Refuses a state that is no longer finite.
    ///
    /// # Errors
    /// [`SimError::Unstable`].
    pub fn check(&self) -> Result<(), SimError> {
        let state = self.qpos().iter().chain(self.qvel());
        if state.copied().all(f64::is_finite) {
            Ok(())
        } else {
            Err(SimError::Unstable { time: self.time() })
        }
    }
}

/// The parameters of the model as it was loaded, which scales refer to.
struct Nominal {
    mass: Vec<f64>,
    inertia: Vec<[f64; 3]>,
    damping: Vec<f64>,
}

/// MuJoCo's own messages go where ours go, not into a file MUJOCO_LOG.TXT in the current folder.
fn log_through_tracing() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: nothing of MuJoCo is used before a model is loaded, every load comes through here first, and `Once` holds
    // other threads back until the handler is in place. It is thread-safe and calls nothing of MuJoCo.
    ONCE.call_once(|| unsafe { set_log_handler(|message| tracing::debug!("MuJoCo: {}", message.subject())) });
}

/// One MuJoCo model with its state. Every instance owns its model, so that its parameters can be changed.
pub struct Physics {
    data: MjData<Box<MjModel>>,
    nominal: Nominal,
    timestep: f64,
}

impl Physics {
    /// Loads a model from the text of its MJCF file.
    ///
    /// # Errors
    /// [`SimError::Model`] with MuJoCo's own message.
    pub fn from_xml(xml: &str) -> Result<Self, SimError> {
        log_through_tracing();
        Self::new(MjModel::from_xml_string(xml).map_err(|e| SimError::Model(e.to_string()))?)
    }

    fn new(model: MjModel) -> Result<Self, SimError> {
        let nominal = Nominal {
            mass: model.body_mass().to_vec(),
            inertia: model.body_inertia().to_vec(),
            damping: model.dof_damping().to_vec(),
        };
        let timestep = model.opt().timestep;
        let data = MjData::try_new(Box::new(model)).map_err(|e| SimError::Model(e.to_string()))?;
        Ok(Self {
            data,
            nominal,
            timestep,
        })
    }

    /// Loads a model from its MJCF file; what it includes is looked for beside it.
    ///
    /// # Errors
    /// [`SimError::Model`] with MuJoCo's own message.
    pub fn from_file(path: &Path) -> Result<Self, SimError> {
        log_through_tracing();
        let refused = |e: &dyn std::fmt::Display| SimError::Model(format!("{}: {e}", path.display()));
        Self::new(MjModel::from_xml(path).map_err(|e| refused(&e))?)
    }

    /// Physics step, s.
    pub fn timestep(&self) -> f64 {
        self.timestep
    }

    /// Simulated time since the last reset, s.
    pub fn time(&self) -> f64 {
        self.data.time()
    }

    /// Finds a joint by name.
    ///
    /// # Errors
    /// [`SimError::MissingElement`].
    pub fn joint(&self, name: &str) -> Result<JointIndex, SimError> {
        let id = self.find(MjtObjBase::mjOBJ_JOINT, "joint", name)?;
        let model = self.data.model();
        Ok(JointIndex {
            position: model.jnt_qposadr()[id] as usize,
            velocity: model.jnt_dofadr()[id] as usize,
        })
    }

    /// Finds an actuator by name.
    ///
    /// # Errors
    /// [`SimError::MissingElement`].
    pub fn actuator(&self, name: &str) -> Result<ActuatorIndex, SimError> {
        self.find(MjtObjBase::mjOBJ_ACTUATOR, "actuator", name)
            .map(ActuatorIndex)
    }

    /// The number of a named element.
    ///
    /// # Errors
    /// [`SimError::MissingElement`].
    pub fn id(&self, element: Element, name: &str) -> Result<usize, SimError> {
        let (class, kind) = match element {
            Element::Body => (MjtObjBase::mjOBJ_BODY, "body"),
            Element::Joint => (MjtObjBase::mjOBJ_JOINT, "joint"),
            Element::Geom => (MjtObjBase::mjOBJ_GEOM, "geom"),
            Element::Site => (MjtObjBase::mjOBJ_SITE, "site"),
            Element::Actuator => (MjtObjBase::mjOBJ_ACTUATOR, "actuator"),
            Element::Sensor => (MjtObjBase::mjOBJ_SENSOR, "sensor"),
            Element::Tendon => (MjtObjBase::mjOBJ_TENDON, "tendon"),
        };
        self.find(class, kind, name)
    }

    fn find(&self, class: MjtObjBase, kind: &'static str, name: &str) -> Result<usize, SimError> {
        let missing = || SimError::MissingElement {
            kind,
            name: name.to_owned(),
        };
        if name.contains('\0') {
            return Err(missing());
        }
        self.data.model().name_to_id(class, name).ok_or_else(missing)
    }

    /// Position of a joint, rad (m).
    pub fn position(&self, joint: JointIndex) -> f64 {
        self.data.qpos()[joint.position]
    }

    /// Velocity of a joint, rad/s (m/s).
    pub fn velocity(&self, joint: JointIndex) -> f64 {
        self.data.qvel()[joint.velocity]
    }

    /// Effort that the actuators put on a joint in the last step, N m (N).
    pub fn effort(&self, joint: JointIndex) -> f64 {
        self.data.qfrc_actuator()[joint.velocity]
    }

    /// Puts a joint at a position with a velocity.
    pub fn place(&mut self, joint: JointIndex, position: f64, velocity: f64) {
        self.data.qpos_mut()[joint.position] = position;
        self.data.qvel_mut()[joint.velocity] = velocity;
    }

    /// Number of position coordinates.
    pub fn position_size(&self) -> usize {
        self.data.qpos().len()
    }

    /// Puts the whole model into a pose, at rest.
    ///
    /// # Errors
    /// [`SimError::Size`] or [`SimError::NotFinite`].
    pub fn pose(&mut self, positions: &[f64]) -> Result<(), SimError> {
        crate::error::check_vector("pose", positions, self.position_size())?;
        self.data.reset();
        self.data.qpos_mut().copy_from_slice(positions);
        self.data.forward();
        Ok(())
    }

    /// Sets the command of an actuator; it acts until the next one.
    pub fn command(&mut self, actuator: ActuatorIndex, command: f64) {
        self.data.ctrl_mut()[actuator.0] = command;
    }

    /// Back to the model's rest pose at time 0.
    pub fn reset(&mut self) {
        self.data.reset();
    }

    /// Brings derived quantities up to date with positions and velocities that were just placed.
    pub fn forward(&mut self) {
        self.data.forward();
    }

    /// Advances by one physics step.
    ///
    /// # Errors
    /// [`SimError::Unstable`] when the state is no longer finite.
    pub fn step(&mut self) -> Result<(), SimError> {
        self.data.step();
        self.check()
    }

    /// Sets masses (with inertias) and joint damping to multiples of what the model file says.
    pub fn scale_parameters(&mut self, mass: f64, damping: f64) {
        // SAFETY: only values of existing arrays are written; no size, index or address changes.
        let model = unsafe { self.data.model_mut() };
        for (value, nominal) in model.body_mass_mut().iter_mut().zip(&self.nominal.mass) {
            *value = mass * nominal;
        }
        for (value, nominal) in model.body_inertia_mut().iter_mut().zip(&self.nominal.inertia) {
            *value = nominal.map(|component| mass * component);
        }
        for (value, nominal) in model.dof_damping_mut().iter_mut().zip(&self.nominal.damping) {
            *value = damping * nominal;
        }
        self.data.set_const();
    }
}
