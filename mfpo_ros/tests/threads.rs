//! What a panic of a thread does to its process: in a process of its own, because it asks that to end.

use mfpo_ros::{shutdown, thread};

/// What cannot be dropped while its thread panics: that would abort the process.
struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        assert!(!std::thread::panicking(), "a second panic");
    }
}

#[test]
fn a_panic_asks_the_process_to_end_and_the_first_one_is_the_reason() {
    let well = thread::spawn("well", || 7).expect("a thread");
    assert_eq!(well.join().ok(), Some(7));
    assert_eq!((shutdown::requested(), shutdown::failure()), (false, None));

    let answer = 41;
    let badly = thread::spawn("badly", move || assert_eq!(answer, 42)).expect("a thread");
    assert!(badly.join().is_err(), "whoever joins it knows, too");
    assert!(shutdown::requested());
    let why = shutdown::failure().expect("a reason");
    assert!(
        why.starts_with("thread 'badly' panicked: ") && why.contains("42"),
        "{why}"
    );

    let holder = thread::spawn_with("holder", Held, move |_| assert_eq!(answer, 0)).expect("a thread");
    assert!(holder.join().is_err(), "and the process goes on");

    let later = thread::spawn("later", move || assert_eq!(answer, 43)).expect("a thread");
    assert!(later.join().is_err());
    assert_eq!(shutdown::failure(), Some(why));
}
