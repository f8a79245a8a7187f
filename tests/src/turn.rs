//! Which tests of one program may run at the same time: those that measure time run alone.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// The right to the machine until it is dropped.
#[derive(Debug)]
pub enum Turn {
    /// Nobody else runs.
    Alone(#[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
    /// Others of this kind may run.
    BesideOthers(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
}

/// Waits until no other test runs, and keeps others waiting.
pub fn alone() -> Turn {
    // A test that panicked has left nothing behind that could be wrong.
    Turn::Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner))
}

/// Waits until no test runs that must be alone.
pub fn beside_others() -> Turn {
    Turn::BesideOthers(MACHINE.read().unwrap_or_else(PoisonError::into_inner))
}
