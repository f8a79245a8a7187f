use super::*;

fn episode(values: &[f64], onset: usize) -> Episode {
    Episode {
        signals: values.iter().map(|v| [*v, 0.0, -v]).collect(),
        onset,
        total: 0.0,
    }
}

#[test]
fn an_alarm_needs_ticks_in_a_row_and_counts_from_the_onset() {
    let episode = episode(&[9.0, 9.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0, 9.0, 9.0], 3);
    assert_eq!(alarm(&episode, 0, 1.0, 0), Some(2));
    assert_eq!(alarm(&episode, 0, 1.0, episode.onset), Some(9));
    assert_eq!(
        alarm(&episode, 0, 9.0, 0),
        None,
        "at the threshold is not beyond it"
    );
    assert_eq!(alarms(&episode, 0, 1.0), 2);
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
    let signal = Signal::of(0, &nominal, &faults, 0.02);
    // In 20 s none vouches for 540 an hour, one for 850.
    let best = signal.at(600.0).expect("a threshold without false alarms");
    assert_eq!(best.rate, 0.0);
    assert_eq!(best.faults[0], (1.0, Some(0.06)), "three ticks of 20 ms");
    assert!((0.2..5.0).contains(&best.threshold), "{}", best.threshold);
    assert_eq!(best.faults[1], (0.0, None));
    assert_eq!(best.detected(), 0.5);
    let blind = Signal::of(1, &nominal, &faults, 0.02);
    assert_eq!(blind.at(600.0).map(Point::detected), Some(0.0));
    assert!(signal.at(500.0).is_none(), "20 s cannot tell");
    assert_eq!(signal.measured_at(0.0).map(Point::detected), Some(0.5));
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
