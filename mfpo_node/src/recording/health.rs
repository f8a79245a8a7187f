//! How the recorder gets on, for whoever looks at `/diagnostics`. The control thread has no part in it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::time::MonoTime;

/// Ticks that were left out are worth a warning for this long, ns.
const LATELY: u64 = 10_000_000_000;

/// What the recorder has done, and what keeps it from doing more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Ticks that were written.
    pub written: u64,
    /// Ticks that were left out because the recorder fell behind.
    pub dropped: u64,
    /// When the last of them were noticed.
    pub dropped_at: Option<MonoTime>,
    /// Ticks that are kept in memory for the case that something goes wrong, or until the disk takes them.
    pub kept: u64,
    /// The file that is being written.
    pub file: Option<PathBuf>,
    /// Its size, bytes.
    pub file_bytes: u64,
    /// Times that the disk refused something.
    pub failures: u64,
    /// Why nothing is written at present.
    pub failure: Option<String>,
}

impl Health {
    /// Has the recorder left out ticks a moment ago?
    pub fn has_dropped_lately(&self, now: MonoTime) -> bool {
        self.dropped_at.is_some_and(|at| now.since(at) < LATELY)
    }
}

/// The same between the recorder and who asks.
#[derive(Debug, Clone, Default)]
pub struct SharedHealth(Arc<Mutex<Health>>);

impl SharedHealth {
    /// As it was when the recorder looked last.
    pub fn get(&self) -> Health {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The recorder has looked.
    pub fn set(&self, health: Health) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }
}
