//! How the process ends: with a robot that has got its last command, or without its control thread, where that does not end. What
//! is said of it is what is known: a thread that has sent its last command has stopped the robot, whatever holds it up then.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::pulse::{Pulse, Standstill};
use crate::recording::{Note, Recording};
use crate::time::MonoTime;

/// How often it is looked whether a thread has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Where the process ends without its control thread, a recorder whose disk hangs is not waited for any longer.
const LONGEST_RECORDING: Duration = Duration::from_secs(1);

/// What is recorded, and by which thread.
pub type Recorded = Option<(Recording, JoinHandle<()>)>;

/// Ends the recording, and says why.
pub fn end_recording(recorder: Recorded, why: &str) {
    let Some((recording, writer)) = recorder else {
        return;
    };
    recording.note(Note::End(why.to_owned()));
    if writer.join().is_err() {
        tracing::warn!("the recorder panicked; its last recording may be unfinished");
    }
}

/// Waits for the control thread to end; `None` where nothing has been heard of it for longer than `longest`, ns.
pub fn wait_for(control: JoinHandle<()>, pulse: &Pulse, longest: u64) -> Option<thread::Result<()>> {
    let mut standstill = Standstill::default();
    while !control.is_finished() {
        if standstill.look(pulse, longest, MonoTime::now()).is_some() {
            return None;
        }
        thread::sleep(LOOK);
    }
    Some(control.join())
}

/// Ends the process without its control thread, which nothing brings to an end.
pub fn give_up(recorder: Recorded, pulse: &Pulse) -> ! {
    let why = abandoned(pulse.has_finished());
    // Told first: a recorder whose disk hangs may not end either.
    tracing::error!("{why}");
    if let Some((recording, writer)) = recorder {
        recording.note(Note::End(why.to_owned()));
        let began = Instant::now();
        while !writer.is_finished() && began.elapsed() < LONGEST_RECORDING {
            thread::sleep(LOOK);
        }
    }
    // SAFETY: `_exit` takes a number and does not return. What `exit` would run needs what that thread may hold.
    unsafe { libc::_exit(1) }
}

/// What is said of a control thread that does not end, where it `has_finished` or not.
fn abandoned(has_finished: bool) -> &'static str {
    if has_finished {
        "the robot was stopped, but the control thread does not end: the middleware does not let go of it; the process ends all \
         the same"
    } else {
        "the control thread stands still and does not end: the robot was not stopped, its own command timeout has to act"
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_control_thread_that_does_not_end_is_given_up_with_what_it_has_done() {
        for (finishes, words) in [
            (false, "the robot was not stopped"),
            (true, "the robot was stopped"),
        ] {
            let pulse = Arc::new(Pulse::default());
            let (end, held) = channel::<()>();
            let seen = Arc::clone(&pulse);
            let control = thread::spawn(move || {
                seen.beat(MonoTime::now());
                if finishes {
                    seen.finish(MonoTime::now());
                }
                // As one that is stuck in the middleware: until the test has seen enough.
                let _ = held.recv();
            });
            assert!(wait_for(control, &pulse, 50 * MS).is_none(), "{words}");
            let told = abandoned(pulse.has_finished());
            assert!(told.contains(words), "{told}");
            drop(end);
        }
    }

    #[test]
    fn a_control_thread_that_ends_is_waited_for() {
        let pulse = Arc::new(Pulse::default());
        let seen = Arc::clone(&pulse);
        let control = thread::spawn(move || {
            for _ in 0..20 {
                seen.beat(MonoTime::now());
                thread::sleep(Duration::from_millis(5));
            }
            seen.finish(MonoTime::now());
        });
        let ended = wait_for(control, &pulse, 10_000 * MS);
        assert!(ended.is_some_and(|ended| ended.is_ok()) && pulse.has_finished());
    }
}
