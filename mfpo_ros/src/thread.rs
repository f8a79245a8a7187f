//! Threads without which the process is not what it says: the panic of one asks the process to end, as a signal would, so
//! that a robot gets its last safe command, and is the reason that the process then gives ([`crate::shutdown::failure`]).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::{Builder, JoinHandle};

use crate::shutdown;

/// Runs `body` on a thread called `name`, whose panic ends the process in good order.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    let told = name.to_owned();
    Builder::new().name(name.to_owned()).spawn(move || {
        // Nothing of the body is looked at after its panic.
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
            shutdown::fail(format!("thread '{told}' panicked: {}", words(&*panic)));
            resume_unwind(panic)
        })
    })
}

/// [`spawn`] with something that must not be given up while the process still does what is safe, a node as a rule: a panic
/// leaves it as it is, for good. To destroy it needs what the panic may have left locked, and a second panic would end the
/// process at once.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn_with<S: Send + 'static>(
    name: &str,
    mut state: S,
    body: impl FnOnce(&mut S) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    spawn(name, move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&mut state))) {
            std::mem::forget(state);
            resume_unwind(panic);
        }
    })
}

/// What a panic says of itself.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it does not say why")
}
