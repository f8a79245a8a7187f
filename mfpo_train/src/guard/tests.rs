use super::curve::{alarm, alarms};
use super::*;

fn episode(values: &[f64], onset: usize) -> Episode {
    let signals = |value: &f64| Signals {
        disagreement: Some(*value),
        spread: Some(0.0),
        value: Some(*value),
    };
    Episode {
        signals: values.iter().map(signals).collect(),
        onset,
        total: 0.0,
    }
}

fn above(disagreement: f64) -> GuardManifest {
    GuardManifest::without_limits(CANDIDATES, IN_A_ROW).with_limit(Signal::Disagreement, disagreement)
}

#[test]
fn an_alarm_needs_ticks_in_a_row_and_counts_from_the_onset() {
    let episode = episode(&[9.0, 9.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0, 9.0, 9.0], 3);
    assert_eq!(alarm(&episode, &above(1.0), 0), Some(2));
    assert_eq!(alarm(&episode, &above(1.0), episode.onset), Some(9));
    assert_eq!(
        alarm(&episode, &above(9.0), 0),
        None,
        "at the threshold is not beyond it"
    );
    assert_eq!(alarms(&episode, &above(1.0)), 2);
}

#[test]
fn a_signal_that_tells_faults_from_nothing_detects_all_of_them_without_a_false_alarm() {
    let nominal: Vec<_> = (0..20)
        .map(|k| episode(&[0.1 * f64::from(k % 3); 50], 0))
        .collect();
    let mut loud = vec![0.1; 10];
    loud.extend([5.0; 40]);
    let faults = vec![
        (Fault::Noisy, vec![episode(&loud, 10); 1]),
        (Fault::Frozen, vec![episode(&[0.1; 50], 10)]),
    ];
    let curve = Curve::of(&[Signal::Disagreement], &nominal, &faults, 0.02);
    // In 20 s none vouches for 540 an hour, one for 850.
    let best = curve.at(600.0).expect("a threshold without false alarms");
    assert_eq!(best.rate, 0.0);
    assert_eq!(best.faults[0], (1.0, Some(0.06)), "three ticks of 20 ms");
    let threshold = best.guard.disagreement_max.unwrap();
    assert!((0.2..5.0).contains(&threshold), "{threshold}");
    assert_eq!(best.faults[1], (0.0, None));
    assert_eq!(best.detected(), 0.5);
    let blind = Curve::of(&[Signal::Spread], &nominal, &faults, 0.02);
    assert_eq!(blind.at(600.0).map(|point| point.detected()), Some(0.0));
    assert!(curve.at(500.0).is_none(), "20 s cannot tell");
    assert_eq!(curve.measured_at(0.0).map(|point| point.detected()), Some(0.5));
}

#[test]
fn signals_that_are_calibrated_together_share_the_false_alarms_and_add_their_detections() {
    // A value that is low is a fault, too; what tells each of the two faults says nothing of the other.
    let nominal: Vec<_> = (0..20)
        .map(|k| {
            let mut ticks = vec![0.1 * f64::from(k % 3); 50];
            // One burst of either kind in one episode each.
            match k {
                7 => ticks[20..23].fill(1.0),
                8 => ticks[20..23].fill(-1.0),
                _ => {}
            }
            episode(&ticks, 0)
        })
        .collect();
    let fault = |level: f64| {
        let mut ticks = vec![0.1; 10];
        ticks.extend([level; 40]);
        vec![episode(&ticks, 10)]
    };
    let faults = vec![(Fault::Noisy, fault(5.0)), (Fault::Frozen, fault(-5.0))];
    let curve = |signals: &[Signal]| Curve::of(signals, &nominal, &faults, 0.02);
    let both = [Signal::Disagreement, Signal::Value];
    for alone in both {
        let point = curve(&[alone]);
        let point = point.measured_at(0.0).unwrap();
        assert_eq!(point.detected(), 0.5, "{alone:?}");
    }
    let together = curve(&both);
    let best = together.measured_at(0.0).unwrap();
    assert_eq!((best.rate, best.detected()), (0.0, 1.0));
    assert!(best.guard.disagreement_max >= Some(1.0) && best.guard.value_min <= Some(-1.0));
    assert_eq!(best.guard.spread_max, None);
    // Thresholds below the bursts: the alarms of both are counted, 2 in 20 s.
    let strict = GuardManifest::without_limits(CANDIDATES, IN_A_ROW)
        .with_limit(Signal::Disagreement, 0.5)
        .with_limit(Signal::Value, -0.5);
    assert_eq!(nominal.iter().map(|e| alarms(e, &strict)).sum::<u64>(), 2);
}

#[test]
fn thresholds_are_rounded_to_where_they_allow_more_and_leave_some_room() {
    let exact = GuardManifest {
        disagreement_max: Some(0.123_41),
        spread_max: Some(0.0),
        value_min: Some(-7.654_32),
        candidates: 8,
        in_a_row: 3,
    };
    let expected = GuardManifest {
        disagreement_max: Some(0.1235),
        spread_max: Some(0.0001),
        value_min: Some(-7.6544),
        ..exact
    };
    assert_eq!(rounded(&exact), expected);
    let positive = GuardManifest::without_limits(8, 3).with_limit(Signal::Value, 12.345_67);
    assert_eq!(rounded(&positive).value_min, Some(12.3456));
    let large = GuardManifest::without_limits(8, 3).with_limit(Signal::Value, 1e30);
    assert_eq!(rounded(&large), large);
}

#[test]
fn each_fault_changes_what_it_says_and_nothing_else() {
    let seen = [1.0, 2.0, 3.0];
    let distorted = |fault: Fault| {
        let mut observation = seen;
        fault.distort(&mut observation, &[7.0; 3], 2, &mut NormalNoise::new(1));
        observation
    };
    assert_eq!(distorted(Fault::None), seen);
    assert_eq!(distorted(Fault::Weak), seen);
    assert_eq!(distorted(Fault::Flipped), [1.0, 2.0, -3.0]);
    assert_eq!(distorted(Fault::Frozen), [1.0, 2.0, 7.0]);
    assert_eq!(distorted(Fault::Swapped), [3.0, 2.0, 1.0]);
    assert!((distorted(Fault::Degrees)[2] - 171.887).abs() < 1e-3);
    assert!(
        distorted(Fault::Noisy)
            .iter()
            .zip(seen)
            .all(|(got, seen)| *got != seen)
    );
}
