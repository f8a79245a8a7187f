//! How a trained weight becomes the live policy: [`topic`] keeps the newest bundle that was offered, [`folder`] finds those in
//! a folder, [`validate`]
//! is the only way from a bundle to a [`Policy`], and [`slot`] is what the control loop acts with.

pub mod folder;
pub mod slot;
pub mod topic;
pub mod validate;

pub use slot::Slot;
pub use topic::Offers;
pub use validate::{Expected, Policy, PolicyIdentity, Refused};
