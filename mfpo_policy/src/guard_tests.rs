//! Laws of the guard's arithmetic; what a sampler computes of it is in `sampler/tests.rs`.

use super::*;

const GUARD: GuardManifest = GuardManifest {
    disagreement_max: Some(0.3),
    spread_max: Some(0.2),
    value_min: Some(-5.0),
    candidates: 8,
    in_a_row: 3,
};

const KNOWN: Signals = Signals {
    disagreement: Some(0.3),
    spread: Some(0.2),
    value: Some(-5.0),
};

#[test]
fn spread_is_the_deviation_of_the_candidates() {
    assert_eq!(spread(&[1.0, 0.0, -1.0, 0.0], 2), (0.5f64).sqrt());
    assert_eq!(spread(&[0.3, 0.3, 0.3], 1), 0.0);
    assert_eq!(spread(&[1.0, -1.0], 1), 1.0);
}

#[test]
fn difference_is_the_root_mean_square_over_the_components() {
    assert_eq!(difference(&[1.0, 0.5], &[-1.0, 0.5]), (2.0f64).sqrt());
    assert_eq!(difference(&[1.0], &[-1.0]), 2.0);
    assert_eq!(difference(&[0.3, -0.7], &[0.3, -0.7]), 0.0);
}

#[test]
fn each_signal_is_beyond_on_its_own_side_and_not_at_the_threshold() {
    assert!(GUARD.allows(&KNOWN) && GUARD.allows(&Signals::NONE));
    for (signal, got, limit) in [
        (Signal::Disagreement, 0.31, 0.3),
        (Signal::Spread, 0.21, 0.2),
        (Signal::Value, -5.01, -5.0),
        (Signal::Value, f64::NAN, -5.0),
    ] {
        let mut signals = KNOWN;
        match signal {
            Signal::Disagreement => signals.disagreement = Some(got),
            Signal::Spread => signals.spread = Some(got),
            Signal::Value => signals.value = Some(got),
        }
        assert!(!GUARD.allows(&signals), "{signals:?}");
        let unknown = GUARD.beyond(signal, &signals).unwrap();
        assert_eq!((unknown.signal, unknown.limit), (signal, limit));
        assert_eq!(unknown.got.to_bits(), got.to_bits());
        let unasked = GuardManifest::without_limits(8, 3);
        assert!(unasked.allows(&signals), "no threshold, no alarm");
    }
}

#[test]
fn ticks_in_a_row_are_of_one_signal() {
    let wide = Signals {
        spread: Some(0.9),
        ..KNOWN
    };
    let poor = Signals {
        value: Some(-9.0),
        ..KNOWN
    };
    let both = Signals {
        spread: Some(0.9),
        ..poor
    };
    let told = |ticks: &[Signals]| -> Vec<Option<Signal>> {
        let mut in_a_row = InARow::new();
        let told = ticks.iter().map(|signals| in_a_row.count(&GUARD, signals));
        told.map(|unknown| unknown.map(|unknown| unknown.signal))
            .collect()
    };
    let spread = Some(Signal::Spread);
    assert_eq!(
        told(&[wide, wide, KNOWN, wide, wide, wide, wide]),
        [None, None, None, None, None, spread, spread]
    );
    assert_eq!(
        told(&[wide, poor, wide, poor, wide, poor]),
        [None; 6],
        "they take turns"
    );
    let value = Some(Signal::Value);
    assert_eq!(told(&[wide, both, poor, poor]), [None, None, None, value]);
    assert_eq!(
        told(&[both, both, both]),
        [None, None, spread],
        "the first of those that are"
    );
}

#[test]
fn the_form_of_before_is_read_and_written_as_it_was() {
    let text = r#"{"spread_max":0.25,"candidates":8,"in_a_row":3}"#;
    let guard: GuardManifest = serde_json::from_str(text).unwrap();
    let expected = GuardManifest::without_limits(8, 3).with_limit(Signal::Spread, 0.25);
    assert_eq!(guard, expected);
    assert_eq!(serde_json::to_string(&guard).unwrap(), text);
    assert_eq!(
        guard.to_string(),
        "8 candidates spread by at most 0.2500, 3 ticks in a row"
    );
    let all = serde_json::to_string(&GUARD).unwrap();
    assert_eq!(serde_json::from_str::<GuardManifest>(&all).unwrap(), GUARD);
    let other = all.replace("value_min", "value_max");
    let error = serde_json::from_str::<GuardManifest>(&other).unwrap_err();
    assert!(error.to_string().contains("value_max"), "{error}");
}

#[test]
fn what_no_sampler_can_be_held_to_is_refused_by_name() {
    GUARD.check(true, 2).unwrap();
    let one_step = GuardManifest {
        disagreement_max: None,
        ..GUARD
    };
    one_step.check(true, 1).unwrap();
    for (guard, has_critics, steps, words) in [
        (
            GuardManifest::without_limits(8, 3),
            true,
            2,
            "one without a threshold; expected disagreement_max, spread_max or value_min",
        ),
        (
            GUARD.with_limit(Signal::Disagreement, f64::INFINITY),
            true,
            2,
            "disagreement_max inf; expected a finite disagreement_max above 0",
        ),
        (
            GUARD.with_limit(Signal::Spread, 0.0),
            true,
            2,
            "spread_max 0; expected a finite spread_max above 0",
        ),
        (
            GUARD.with_limit(Signal::Value, f64::NAN),
            true,
            2,
            "value_min NaN; expected a finite value_min",
        ),
        (GUARD, false, 2, "without critics"),
        (GUARD, true, 1, "disagreement_max for a policy of 1 step"),
    ] {
        let text = guard.check(has_critics, steps).unwrap_err().to_string();
        assert!(
            text.starts_with("the guard is ") && text.contains(words),
            "{text}"
        );
    }
}
