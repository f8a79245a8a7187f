//! How a trained weight becomes the live policy: [`topic`] keeps the newest bundle that was offered, [`folder`] finds those in
//! a folder, [`validate`]
//! is the only way from a bundle to a [`Policy`], [`slot`] is what the control loop acts with, and [`stages`] is how one
//! policy takes over from another.

pub mod folder;
pub mod slot;
pub mod stages;
pub mod topic;
pub mod validate;

pub use slot::Slot;
pub use stages::{Compared, Stage, StageSettings, Turn, Why};
pub use topic::Offers;
pub use validate::{Expected, Policy, PolicyIdentity, Refused};
