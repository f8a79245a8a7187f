//! A thread of a program that is held up while the others go on, as one that is stuck in the middleware or in a driver. The
//! means is a debugger's: `ptrace` stops one thread alone, where signals stop a whole program.

use std::ffi::c_void;
use std::fs;
use std::io;
use std::marker::PhantomData;

use nix::errno::Errno;
use nix::libc::{self, c_uint};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::{Process, until};

/// A thread that is held until this is dropped. Only the thread that has made it may let go of it.
pub struct Held {
    thread: Pid,
    _here: PhantomData<*const ()>,
}

impl Held {
    /// Holds the thread of that name where it waits: in the midst of its work it may have locked what the others need.
    ///
    /// # Panics
    /// When there is none, or the kernel does not let this program be a debugger.
    pub fn thread(process: &Process, name: &str) -> Self {
        let id = until(&format!("thread '{name}' runs"), || process.thread(name, "Pid"));
        let thread = Pid::from_raw(id.parse().expect("a thread's number"));
        until(&format!("thread '{name}' waits"), || {
            let held = Self::at_once(thread);
            held.waits(process.id()).then_some(held)
        })
    }

    fn at_once(thread: Pid) -> Self {
        request(libc::PTRACE_SEIZE, thread).unwrap_or_else(|error| panic!("thread {thread}: {error}"));
        let held = Self {
            thread,
            _here: PhantomData,
        };
        request(libc::PTRACE_INTERRUPT, thread).unwrap_or_else(|error| panic!("thread {thread}: {error}"));
        until("the thread is held", || {
            held.news().ok().filter(|news| *news != WaitStatus::StillAlive)
        });
        held
    }

    /// Has it ended, with its program? Nobody sees the program's end before somebody has seen this.
    pub fn has_ended(&self) -> bool {
        matches!(
            self.news(),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD)
        )
    }

    fn news(&self) -> nix::Result<WaitStatus> {
        waitpid(self.thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))
    }

    /// Is it in a system call of its own?
    fn waits(&self, process: u32) -> bool {
        let call = fs::read_to_string(format!("/proc/{process}/task/{}/syscall", self.thread));
        call.is_ok_and(|call| call.starts_with(|first: char| first.is_ascii_digit()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended with its program.
        let _ = request(libc::PTRACE_DETACH, self.thread);
    }
}

fn request(what: c_uint, thread: Pid) -> io::Result<()> {
    let nothing = std::ptr::null_mut::<c_void>();
    // SAFETY: none of these requests reads or writes memory of ours.
    let result = unsafe { libc::ptrace(what, thread.as_raw(), nothing, nothing) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
