//! The operator moves the joints, and nothing is commanded.

use super::*;

/// An operator who moves first b, then a, by these ways as the states tell them: `[a, b]` each.
fn by_hand(moves: [[f64; 2]; 2]) -> Vec<Outcome> {
    let spec = robot(CommandInterface::Position);
    let (mut control, mut states) = loop_of(&spec, settings());
    let mut probe = Probe::new(&spec, Mode::ByHand, &[], probing()).unwrap();
    let mut positions = [0.1, 0.2];
    let (mut asked, mut since) = (None, 0);
    for k in 0..2000 {
        let ms = 20.0 * f64::from(k);
        // A second after being asked, the operator takes another one to move the joint.
        let turn = probe.joint().map_or(0, |joint| usize::from(joint == 0));
        if asked != Some(turn) {
            (asked, since) = (Some(turn), k);
        }
        if (50..100).contains(&(k - since)) {
            (0..2).for_each(|i| positions[i] += moves[turn][i] / 50.0);
        }
        take(send(&mut states, at(ms), &["a", "b"], &positions, &[0.0, 0.0]));
        if k == 0 {
            control.begin_probe(Mode::ByHand, &states, at(ms)).unwrap();
        }
        match control.probe(&mut probe, &states, at(ms)) {
            Probing::Look => {}
            Probing::End(None) => return judge(&probe),
            other => panic!("{other:?}"),
        }
    }
    panic!("it does not end")
}

#[test]
fn by_hand_a_right_robot_gives_no_finding_however_exact_the_hand_is() {
    for outcome in by_hand([[0.0, 0.45], [0.2, -0.01]]) {
        assert_eq!(outcome.finding, None, "{outcome:?}");
    }
}

#[test]
fn by_hand_the_same_faults_are_found_and_nothing_is_commanded() {
    let degrees = 180.0 / PI;
    let findings = |moves| {
        let told = by_hand(moves).into_iter().map(|outcome| {
            let finding = outcome.finding.map(|finding| finding.to_string());
            (outcome.joint, finding.unwrap_or_default())
        });
        told.collect::<Vec<(String, String)>>()
    };
    let swapped = findings([[0.3, 0.0], [0.0, 0.3]]);
    assert!(
        swapped[0].0 == "b" && swapped[0].1.contains("'a' moved in its place"),
        "{swapped:?}"
    );
    assert!(
        swapped[1].0 == "a" && swapped[1].1.contains("'b' moved in its place"),
        "{swapped:?}"
    );
    let others = findings([[0.0, 0.25 * degrees], [-0.3, 0.0]]);
    assert!(others[0].1.contains("its state is in degrees"), "{others:?}");
    assert!(others[1].1.contains("its sign is flipped"), "{others:?}");
    let dead = findings([[0.0, 0.0], [0.3, 0.0]]);
    assert!(
        dead[0].1.contains("no joint moved") && dead[1].1.is_empty(),
        "{dead:?}"
    );
    assert!(
        dead[0].1.contains("nobody moved it in time") && dead[0].1.contains("or it is dead"),
        "nobody knows whether the operator has tried: {dead:?}"
    );
}
