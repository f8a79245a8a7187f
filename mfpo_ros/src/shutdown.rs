//! One flag that SIGINT and SIGTERM raise, for loops to look at. Nothing else happens in the signal handler, so
//! that a node can still publish its last safe command. A part that cannot go on raises it, too, and says why.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static FAILURE: OnceLock<String> = OnceLock::new();

extern "C" fn raise_flag(_: nix::libc::c_int) {
    REQUESTED.store(true, Ordering::SeqCst);
}

/// Raises the flag on SIGINT and SIGTERM from now on, instead of ending the process at once.
///
/// # Errors
/// What `sigaction` reports.
pub fn install() -> Result<(), Errno> {
    let action = SigAction::new(
        SigHandler::Handler(raise_flag),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action)? };
    }
    Ok(())
}

/// Has the process been asked to end?
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Asks the process to end, as a signal would: for a part that cannot go on.
pub fn request() {
    REQUESTED.store(true, Ordering::SeqCst);
}

/// [`request`], because something has gone wrong; the first to say so is the reason.
pub fn fail(why: String) {
    // A later one may well come of the first.
    let _ = FAILURE.set(why);
    request();
}

/// Why the process has to end, where something has gone wrong.
pub fn failure() -> Option<&'static str> {
    FAILURE.get().map(String::as_str)
}
