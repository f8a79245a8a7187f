//! How a trained weight becomes the live policy: [`topic`] keeps the newest bundle that was offered, [`parts`] puts together
//! those that come in parts, [`folder`] finds those in a folder, [`file`] reads one, [`runs`] knows who publishes,
//! [`validate`] is the only way from a bundle to a [`Policy`], and [`slot`] is what the control loop acts with.

pub mod file;
pub mod folder;
pub mod parts;
pub mod runs;
pub mod slot;
pub mod topic;
pub mod validate;

pub use slot::Slot;
pub use topic::{Offer, Offers};
pub use validate::{Expected, Policy, PolicyIdentity, Refused};
