//! How a trained weight becomes the live policy: [`topic`] keeps the newest bundle that was offered, [`parts`] puts together
//! those that come in parts, [`folder`] finds those in a folder, [`mod@file`] reads one, [`runs`] knows who publishes,
//! [`validate`] is the only way from a bundle to a [`Policy`] ([`refused`]: why it may not), [`slot`] is what the control loop acts with, and [`stages`] is
//! how one policy takes over from another.

pub mod file;
pub mod folder;
pub mod parts;
pub mod refused;
pub mod runs;
pub mod slot;
pub mod stages;
pub mod topic;
pub mod validate;

pub use refused::Refused;
pub use slot::Slot;
pub use stages::{Compared, Stage, StageSettings, Turn, Why};
pub use topic::{Offer, Offers};
pub use validate::{Expected, Policy, PolicyIdentity};
