//! The life cycle follows the paths of rcl_lifecycle and no others.

use mfpo_node::lifecycle::{Goal, Lifecycle, Outcome, State, TRANSITIONS};
use proptest::prelude::*;

fn active() -> Lifecycle {
    let mut life = Lifecycle::new();
    for goal in [Goal::Configure, Goal::Activate] {
        life.begin(goal).unwrap();
        life.finish(Outcome::Success).unwrap();
    }
    life
}

#[test]
fn the_way_up_and_down_passes_through_the_transition_states() {
    let mut life = Lifecycle::new();
    for (label, goal, on_the_way, there) in [
        ("configure", Goal::Configure, State::Configuring, State::Inactive),
        ("activate", Goal::Activate, State::Activating, State::Active),
        (
            "deactivate",
            Goal::Deactivate,
            State::Deactivating,
            State::Inactive,
        ),
        ("cleanup", Goal::CleanUp, State::CleaningUp, State::Unconfigured),
        ("shutdown", Goal::ShutDown, State::ShuttingDown, State::Finalized),
    ] {
        let (asked, begun) = life.request(0, label).unwrap();
        assert_eq!((asked, begun.goal, life.state()), (goal, on_the_way, on_the_way));
        assert!(!life.state().is_primary());
        let finished = life.finish(Outcome::Success).unwrap();
        assert_eq!((finished.label, life.state()), ("transition_success", there));
    }
}

#[test]
fn a_transition_that_fails_leads_back_and_one_that_errs_starts_anew() {
    let mut life = Lifecycle::new();
    life.begin(Goal::Configure).unwrap();
    life.finish(Outcome::Success).unwrap();
    life.begin(Goal::Activate).unwrap();
    assert_eq!(life.finish(Outcome::Failure).unwrap().id, 31);
    assert_eq!(life.state(), State::Inactive);
    life.begin(Goal::Activate).unwrap();
    life.finish(Outcome::Error).unwrap();
    assert_eq!(life.state(), State::ErrorProcessing);
    life.finish(Outcome::Success).unwrap();
    assert_eq!(life.state(), State::Unconfigured);
}

#[test]
fn a_label_goes_before_a_number_as_in_rclcpp() {
    // `ros2 service call` leaves the number at 0; and a shutdown has another number in each state.
    let mut life = active();
    let (goal, transition) = life.request(1, "shutdown").unwrap();
    assert_eq!((goal, transition.id), (Goal::ShutDown, 7));
    let mut life = active();
    assert_eq!(life.request(4, "").unwrap().0, Goal::Deactivate);
}

#[test]
fn what_is_not_possible_is_refused_with_what_is() {
    let mut life = active();
    for (id, label) in [
        (1, ""),
        (3, ""),
        (0, "cleanup"),
        (5, ""),
        (0, "nonsense"),
        (40, ""),
    ] {
        let text = life.request(id, label).unwrap_err().to_string();
        assert!(
            text.contains("'active'") && text.contains("[deactivate, shutdown]"),
            "{text}"
        );
        assert_eq!(life.state(), State::Active, "nothing has changed");
    }
    let text = life.request(0, "activate").unwrap_err().to_string();
    assert!(text.contains("'activate'"), "{text}");
}

#[test]
fn operators_cannot_ask_for_the_end_of_a_transition() {
    let mut life = Lifecycle::new();
    life.begin(Goal::Configure).unwrap();
    assert!(life.request(10, "").is_err() && life.request(0, "transition_success").is_err());
    assert_eq!(life.state(), State::Configuring);
}

#[test]
fn nothing_leaves_the_final_state() {
    let mut life = active();
    life.begin(Goal::ShutDown).unwrap();
    life.finish(Outcome::Success).unwrap();
    assert_eq!(life.available().count(), 0);
    assert!(life.finish(Outcome::Success).is_none());
}

proptest! {
    /// Whatever is asked for in whatever order: every move is one of the table's, and `active` is only entered by an
    /// activation that succeeded.
    #[test]
    fn every_walk_stays_on_the_table(walk in proptest::collection::vec((0..70u8, 0..4u8), 0..60)) {
        let mut life = Lifecycle::new();
        for (id, choice) in walk {
            let before = life.state();
            let moved = match choice {
                0 => life.request(id, "").ok().map(|(_, t)| t),
                1 => life.finish(Outcome::Success),
                2 => life.finish(Outcome::Failure),
                _ => life.finish(Outcome::Error),
            };
            match moved {
                None => prop_assert_eq!(life.state(), before),
                Some(transition) => {
                    prop_assert!(TRANSITIONS.contains(&transition));
                    prop_assert_eq!((transition.start, transition.goal), (before, life.state()));
                    if life.state() == State::Active {
                        prop_assert!(matches!(transition.id, 30 | 41));
                    }
                }
            }
        }
    }
}
