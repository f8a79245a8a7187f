//! How one policy takes over from another, stage by stage.

use mfpo_node::control_loop::{Before, ControlLoop, Decision, Reason, Settings, Tick, Tuning, mix};
use mfpo_node::joint_states::JointStates;
use mfpo_node::safety::Rule;
use mfpo_node::weights::{Policy, Stage, StageSettings, Turn, Why};
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::spec::{CommandInterface, RobotSpec};

use super::support::{
    STALE_AFTER, allocations, at, bundle_of_one_action, bundle_with_critics, expected, policy, robot, send,
    settings,
};

/// At 50 Hz: 5 ticks in the shadow, 4 in the blend, 20 on probation.
pub const STAGES: StageSettings = StageSettings {
    shadow: 0.1,
    blend: 0.08,
    probation: 0.4,
    interventions_rise: 0.25,
    latency_factor: 3.0,
};

/// A robot in a loop with stages, one tick after the other.
struct Rig {
    spec: RobotSpec,
    control: ControlLoop,
    states: JointStates,
    ticks: u32,
    /// Of joint `a`, rad.
    position: f64,
}

/// What one tick sent.
struct Sent {
    action: Vec<f32>,
    observation: Vec<f32>,
    draw: u64,
    before: Option<Before>,
    turn: Option<Turn>,
    given_up: Option<u64>,
}

impl Rig {
    /// With version 1 of random weights.
    fn new(stages: StageSettings) -> Self {
        let spec = robot(CommandInterface::Effort);
        let first = policy(&spec, 1);
        Self::with(spec, first, stages)
    }

    fn with(spec: RobotSpec, first: Box<Policy>, stages: StageSettings) -> Self {
        let settings = Settings { stages, ..settings() };
        Self {
            control: ControlLoop::new(&spec, first, settings).unwrap(),
            states: JointStates::new(&spec, STALE_AFTER),
            spec,
            ticks: 0,
            position: 0.1,
        }
    }

    /// Version 2 is being blended in, without a shadow before.
    fn blending() -> Self {
        let mut rig = Self::new(StageSettings {
            shadow: 0.0,
            ..STAGES
        });
        for _ in 0..20 {
            rig.tick();
        }
        assert_eq!(rig.begin(2), Some(Stage::Blend));
        rig
    }

    /// A tick that took so many milliseconds.
    fn tick_of(&mut self, took: f64) -> Sent {
        let ms = 20.0 * f64::from(self.ticks);
        self.ticks += 1;
        send(
            &mut self.states,
            at(ms),
            &["a", "b"],
            &[self.position, 0.1],
            &[0.2, 0.0],
        )
        .unwrap();
        let decision = self.control.step(&self.states, at(ms));
        let Decision::Command(tick) = &decision else {
            panic!("{decision:?}")
        };
        let asked = tick.asked.expect("the policy acts");
        let mut sent = Sent {
            action: tick.action.to_vec(),
            observation: asked.observation.to_vec(),
            draw: asked.draw,
            before: asked.before,
            turn: None,
            given_up: None,
        };
        if let Some(progress) = self.control.after(took * 1e-3) {
            sent.turn = Some(progress.turn);
            sent.given_up = progress.given_up.map(|policy| policy.version);
        }
        sent
    }

    fn tick(&mut self) -> Sent {
        self.tick_of(0.05)
    }

    /// Ticks until something turns; how many, and what.
    fn until_a_turn(&mut self) -> (u32, Turn) {
        for count in 1..=1000 {
            if let Some(turn) = self.tick().turn {
                return (count, turn);
            }
        }
        panic!("nothing turns")
    }

    /// Other stages from now on.
    fn stages(&mut self, stages: StageSettings) {
        let settings = Settings { stages, ..settings() };
        let mut tuning = Tuning::new(&self.spec, settings).unwrap();
        self.control.tune(&mut tuning);
    }

    /// So many candidates a tick, in these stages.
    fn choose_among(&mut self, candidates: usize) {
        let settings = Settings {
            candidates,
            stages: STAGES,
            ..settings()
        };
        let mut tuning = Tuning::new(&self.spec, settings).unwrap();
        self.control.tune(&mut tuning);
    }

    /// A tick at this velocity of joint `a` in which the policy gives no action; why.
    fn fails(&mut self, velocity: f64) -> String {
        let now = at(20.0 * f64::from(self.ticks));
        self.ticks += 1;
        send(&mut self.states, now, &["a", "b"], &[0.1, 0.1], &[velocity, 0.0]).unwrap();
        match self.control.step(&self.states, now) {
            Decision::Command(Tick {
                fallback: Some(Reason::Policy(error)),
                ..
            }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn acting(&self) -> u64 {
        self.control.slot().current().identity().version
    }

    fn begin(&mut self, version: u64) -> Option<Stage> {
        let policy = policy(&self.spec, version);
        self.control.begin_swap(policy).stage
    }
}

/// What a policy answers to the same observation and noise.
fn answer(policy: &mut Policy, sent: &Sent) -> Vec<f32> {
    let mut action = vec![0.0; sent.action.len()];
    let mut normals = vec![0.0; sent.action.len()];
    let mut noise = NormalNoise::new(settings().seed);
    noise.begin(sent.draw);
    noise.fill(&mut normals);
    policy
        .act(&sent.observation, &normals, policy.full_depth(1), &mut action)
        .unwrap();
    action
}

#[test]
fn a_policy_is_compared_then_blended_then_watched_then_committed() {
    let mut rig = Rig::new(STAGES);
    for _ in 0..20 {
        assert!(rig.tick().turn.is_none());
    }
    assert_eq!(rig.begin(2), Some(Stage::Shadow));
    assert_eq!(rig.acting(), 1);
    let (ticks, turn) = rig.until_a_turn();
    let Turn::GoLive(compared) = turn else {
        panic!("{turn:?}")
    };
    assert_eq!((ticks, compared.ticks, rig.acting()), (5, 5, 2));
    assert!(compared.rms > 0.0 && compared.largest >= compared.rms && compared.latency > 0.0);
    assert_eq!(rig.control.stage(), Some(Stage::Blend));
    assert_eq!(rig.until_a_turn(), (4, Turn::Blended));
    assert_eq!(rig.control.stage(), Some(Stage::Probation));
    assert_eq!(rig.until_a_turn(), (20, Turn::Commit));
    assert_eq!((rig.control.stage(), rig.acting()), (None, 2));
    assert_eq!(rig.control.slot().previous().unwrap().identity().version, 1);
}

#[test]
fn the_policy_in_the_shadow_moves_nothing() {
    let (mut alone, mut shadowed) = (Rig::new(STAGES), Rig::new(STAGES));
    for _ in 0..20 {
        assert_eq!(alone.tick().action, shadowed.tick().action);
    }
    assert_eq!(shadowed.begin(2), Some(Stage::Shadow));
    for _ in 0..5 {
        assert_eq!(alone.tick().action, shadowed.tick().action);
    }
    assert_ne!(alone.tick().action, shadowed.tick().action, "the blend has begun");
}

#[test]
fn a_policy_that_leaves_the_shadow_ends_its_swap_and_can_be_installed_at_once() {
    let mut rig = Rig::new(STAGES);
    for _ in 0..20 {
        rig.tick();
    }
    assert_eq!(rig.begin(2), Some(Stage::Shadow));
    rig.tick();
    let shadow = rig.control.take_shadow().expect("version 2");
    assert_eq!((shadow.identity().version, rig.control.stage()), (2, None));
    assert!(rig.control.swap(shadow).is_none());
    let sent = rig.tick();
    assert_eq!((rig.acting(), sent.turn, sent.before), (2, None, None));
    assert!(rig.control.take_shadow().is_none());
    assert_eq!(
        rig.begin(3),
        Some(Stage::Shadow),
        "the next one goes through every stage"
    );
    assert_eq!(rig.until_a_turn().0, 5);
}

#[test]
fn a_blend_that_is_cut_short_leaves_the_newer_policy_alone_on_probation() {
    let mut rig = Rig::blending();
    assert!(rig.tick().before.is_some());
    rig.control.cut_blend();
    assert_eq!(rig.control.stage(), Some(Stage::Probation));
    assert!(rig.tick().before.is_none());
    rig.control.cut_blend();
    assert_eq!(
        rig.control.stage(),
        Some(Stage::Probation),
        "nothing is left to cut"
    );
}

#[test]
fn in_the_blend_the_weight_rises_evenly_between_the_two_answers() {
    let mut rig = Rig::blending();
    let (mut old, mut new) = (policy(&rig.spec, 1), policy(&rig.spec, 2));
    for k in 1..=4 {
        let sent = rig.tick();
        let before = sent.before.expect("both act");
        assert!((before.weight - 0.2 * f64::from(k)).abs() < 1e-12, "{before:?}");
        let mut expected = answer(&mut new, &sent);
        mix(&mut expected, &answer(&mut old, &sent), before.weight);
        assert_eq!(sent.action, expected, "weight {}", before.weight);
    }
    let sent = rig.tick();
    assert_eq!(
        (sent.before, sent.action.clone()),
        (None, answer(&mut new, &sent))
    );
}

#[test]
fn without_stages_a_policy_acts_alone_from_the_next_tick_on() {
    let mut rig = Rig::new(StageSettings::NONE);
    for _ in 0..20 {
        rig.tick();
    }
    assert_eq!(rig.begin(2), None);
    let sent = rig.tick();
    assert_eq!((sent.before, sent.turn, rig.acting()), (None, None, 2));
}

/// A policy whose every action is `sign`, whatever it sees.
fn always(spec: &RobotSpec, version: u64, sign: f32) -> Box<Policy> {
    let bundle = bundle_of_one_action(spec, version, sign);
    Box::new(expected().validate(&bundle).unwrap())
}

/// A robot whose joint `a` is at the end of its range, where an effort of 1 would push it further out, under a policy
/// of one action that has acted for so many ticks; the next is on probation at once.
fn at_the_end_of_its_range(sign: f32, ticks: u32) -> Rig {
    let spec = robot(CommandInterface::Effort);
    let stages = StageSettings {
        shadow: 0.0,
        blend: 0.0,
        ..STAGES
    };
    let mut rig = Rig::with(spec.clone(), always(&spec, 1, sign), stages);
    rig.position = 1.01;
    for _ in 0..ticks {
        rig.tick();
    }
    rig
}

#[test]
fn a_policy_that_trips_limits_more_often_is_returned_from_and_not_kept() {
    let mut rig = at_the_end_of_its_range(-1.0, 20);
    let pushing = always(&rig.spec, 2, 1.0);
    let begun = rig.control.begin_swap(pushing);
    assert_eq!(begun.stage, Some(Stage::Probation));
    let mut ticks = 0;
    let sent = loop {
        ticks += 1;
        let sent = rig.tick();
        if sent.turn.is_some() {
            break sent;
        }
    };
    let Some(Turn::Return(Why::Interventions {
        rule,
        joint,
        got,
        before,
    })) = sent.turn
    else {
        panic!("{:?}", sent.turn)
    };
    // A quarter of 20 ticks may trip: the sixth is too many.
    assert_eq!(
        (ticks, rule, joint, got, before),
        (6, Rule::Position, 1, 1.0, 0.0)
    );
    assert_eq!((sent.given_up, rig.acting()), (Some(2), 1));
    assert!(rig.control.slot().previous().is_none(), "nobody rolls back to it");
    assert_eq!(rig.control.stage(), None);
    assert_eq!(rig.tick().action, [-1.0, -1.0]);
}

#[test]
fn a_policy_that_trips_no_more_than_the_one_before_is_committed() {
    let mut rig = at_the_end_of_its_range(1.0, 20);
    let pushing = always(&rig.spec, 2, 1.0);
    let _ = rig.control.begin_swap(pushing);
    assert_eq!(rig.until_a_turn(), (20, Turn::Commit));
}

#[test]
fn a_policy_whose_ticks_take_longer_is_returned_from() {
    let mut rig = Rig::new(StageSettings {
        shadow: 0.0,
        blend: 0.0,
        ..STAGES
    });
    for _ in 0..20 {
        rig.tick_of(1.0);
    }
    assert_eq!(rig.begin(2), Some(Stage::Probation));
    // A fifth of the 20 ticks may be slow.
    for _ in 0..4 {
        assert!(rig.tick_of(5.0).turn.is_none());
    }
    assert!(rig.tick_of(2.9).turn.is_none(), "not three times as long");
    let turn = rig.tick_of(5.0).turn;
    assert!(
        matches!(turn, Some(Turn::Return(Why::Latency { got, before }))
            if (got - 4.65e-3).abs() < 1e-6 && (before - 1e-3).abs() < 1e-9),
        "{turn:?}"
    );
    assert_eq!(rig.acting(), 1);
}

/// A robot whose version 2 is on probation after a version 1 that has acted for so many ticks, fewer than make a habit.
fn after_few(ticks: u32) -> Rig {
    let mut rig = Rig::new(StageSettings {
        shadow: 0.0,
        blend: 0.0,
        ..STAGES
    });
    (0..ticks).for_each(|_| drop(rig.tick()));
    assert_eq!(rig.begin(2), Some(Stage::Probation), "after {ticks} ticks");
    rig
}

#[test]
fn a_policy_is_on_probation_after_one_that_has_hardly_acted_and_is_what_the_next_is_compared_with() {
    for ticks in [0, 1, 9] {
        let mut rig = after_few(ticks);
        assert_eq!(rig.until_a_turn(), (20, Turn::Commit), "after {ticks} ticks");
        assert_eq!(rig.begin(3), Some(Stage::Probation));
        let turn = (0..5).find_map(|_| rig.tick_of(5.0).turn);
        assert!(
            matches!(turn, Some(Turn::Return(Why::Latency { .. }))),
            "{turn:?}"
        );
    }
}

#[test]
fn a_policy_that_gives_no_action_is_returned_from_after_one_that_has_hardly_acted_too() {
    for ticks in [1, 9] {
        let mut rig = after_few(ticks);
        rig.fails(1e308);
        let progress = rig.control.after(5e-5).expect("a return");
        assert_eq!(progress.turn, Turn::Return(Why::NoAction));
        assert_eq!((rig.acting(), rig.control.stage()), (1, None), "after {ticks}");
    }
}

#[test]
fn nothing_is_compared_with_habits_that_nobody_knows() {
    let mut rig = after_few(9);
    let turn = (0..20).find_map(|_| rig.tick_of(5.0).turn);
    assert_eq!(turn, Some(Turn::Commit), "a hundred times as slow");
    let mut rig = at_the_end_of_its_range(-1.0, 9);
    let pushing = always(&rig.spec, 2, 1.0);
    assert_eq!(rig.control.begin_swap(pushing).stage, Some(Stage::Probation));
    assert_eq!(rig.until_a_turn(), (20, Turn::Commit), "each trips a limit");
}

#[test]
fn a_newer_policy_takes_the_place_of_the_one_in_the_shadow() {
    let mut rig = Rig::new(STAGES);
    for _ in 0..20 {
        rig.tick();
    }
    rig.begin(2);
    rig.tick();
    let begun = rig.control.begin_swap(policy(&rig.spec, 3));
    assert_eq!(begun.superseded.map(|policy| policy.version), Some(2));
    assert_eq!(begun.freed.iter().flatten().count(), 1);
    let (ticks, turn) = rig.until_a_turn();
    assert!(matches!(turn, Turn::GoLive(_)), "{turn:?}");
    assert_eq!((ticks, rig.acting()), (5, 3));
}

/// A robot whose version 2 is on probation after version 1.
fn on_probation(shadow: f64) -> Rig {
    let mut rig = Rig::new(StageSettings {
        shadow: 0.0,
        blend: 0.0,
        ..STAGES
    });
    for _ in 0..20 {
        rig.tick();
    }
    assert_eq!(rig.begin(2), Some(Stage::Probation));
    rig.tick();
    rig.stages(StageSettings {
        shadow,
        blend: 0.0,
        ..STAGES
    });
    rig
}

fn before(rig: &Rig) -> Option<u64> {
    let previous = rig.control.slot().previous();
    previous.map(|policy| policy.identity().version)
}

#[test]
fn a_policy_that_comes_while_another_is_on_trial_takes_over_from_the_proven_one_which_is_kept() {
    for shadow in [0.0, 0.1] {
        let mut rig = on_probation(shadow);
        let begun = rig.control.begin_swap(policy(&rig.spec, 3));
        let cut_short = begun.cut_short.expect("version 2 had not proven itself");
        assert_eq!((cut_short.given_up.version, cut_short.proven.version), (2, 1));
        assert_eq!(begun.freed.iter().flatten().count(), 1);
        if shadow > 0.0 {
            assert_eq!((begun.stage, rig.acting()), (Some(Stage::Shadow), 1));
            assert!(matches!(rig.until_a_turn(), (5, Turn::GoLive(_))));
        }
        assert_eq!(rig.control.stage(), Some(Stage::Probation));
        assert_eq!((rig.acting(), before(&rig)), (3, Some(1)));
        assert!(rig.control.roll_back());
        assert_eq!(rig.acting(), 1, "the proven one, not version 2");
    }
}

#[test]
fn a_return_to_a_policy_that_lacks_what_the_settings_need_by_now_ends_in_the_fallback_with_the_reason() {
    let mut rig = Rig::new(StageSettings {
        shadow: 0.0,
        blend: 0.0,
        ..STAGES
    });
    for _ in 0..20 {
        rig.tick();
    }
    let with_critics = |rig: &Rig, version| {
        let bundle = bundle_with_critics(&rig.spec, "run", version);
        Box::new(expected().validate(&bundle).unwrap())
    };
    let next = with_critics(&rig, 2);
    assert_eq!(rig.control.begin_swap(next).stage, Some(Stage::Probation));
    rig.choose_among(4);
    rig.fails(1e308);
    let progress = rig.control.after(5e-5).expect("a return");
    assert_eq!((progress.turn, rig.acting()), (Turn::Return(Why::NoAction), 1));
    let why = rig.fails(0.2);
    assert!(
        why.contains("4 candidates") && why.contains("no critics"),
        "{why}"
    );
    assert!(rig.control.after(5e-5).is_none());
    // Another one is neither compared nor blended with it.
    let next = with_critics(&rig, 3);
    assert_eq!(rig.control.begin_swap(next).stage, Some(Stage::Probation));
    assert!(rig.tick().before.is_none());
    assert_eq!(rig.acting(), 3);
}

#[test]
fn without_stages_too_the_proven_policy_is_kept_and_the_one_on_trial_is_not() {
    let mut rig = on_probation(0.0);
    let freed = rig.control.swap(policy(&rig.spec, 3)).expect("version 2");
    assert_eq!(freed.identity().version, 2);
    assert_eq!((rig.acting(), before(&rig)), (3, Some(1)));
    let freed = rig.control.swap(policy(&rig.spec, 4)).expect("version 1");
    assert_eq!(freed.identity().version, 1, "version 3 is on no trial");
    assert_eq!((rig.acting(), before(&rig)), (4, Some(3)));
}

#[test]
fn a_policy_in_the_shadow_can_be_given_up_and_one_that_acts_rolled_back() {
    let mut rig = Rig::new(STAGES);
    for _ in 0..20 {
        rig.tick();
    }
    rig.begin(2);
    assert_eq!(rig.control.give_up().unwrap().identity().version, 2);
    assert_eq!((rig.acting(), rig.control.stage()), (1, None));
    rig.begin(3);
    rig.until_a_turn();
    rig.tick();
    assert!(rig.control.roll_back());
    let sent = rig.tick();
    assert_eq!((rig.acting(), rig.control.stage(), sent.before), (1, None, None));
}

#[test]
fn no_stage_allocates_or_frees() {
    let mut rig = Rig::new(STAGES);
    for _ in 0..20 {
        rig.tick();
    }
    rig.begin(2);
    let mut kept = Vec::with_capacity(64);
    for k in 0..40 {
        let ms = 20.0 * f64::from(rig.ticks + k);
        send(&mut rig.states, at(ms), &["a", "b"], &[0.1, 0.1], &[0.2, 0.0]).unwrap();
        let Rig { control, states, .. } = &mut rig;
        let count = allocations(|| {
            drop(control.step(states, at(ms)));
            kept.push(control.after(1e-4));
        });
        assert_eq!(count, 0, "tick {k}");
    }
    assert_eq!(kept.iter().flatten().count(), 3, "live, blended, committed");
}

#[test]
fn a_policy_that_gives_no_action_any_more_is_replaced_at_once() {
    let mut rig = Rig::new(STAGES);
    for _ in 0..20 {
        rig.tick();
    }
    let now = at(20.0 * f64::from(rig.ticks));
    // A position that is finite and a velocity whose square is not: the observation is, its network is not.
    send(&mut rig.states, now, &["a", "b"], &[0.1, 0.1], &[1e308, 0.0]).unwrap();
    let decision = rig.control.step(&rig.states, now);
    let Decision::Command(tick) = &decision else {
        panic!("{decision:?}")
    };
    assert!(tick.fallback.is_some(), "{tick:?}");
    assert_eq!(
        rig.begin(2),
        Some(Stage::Probation),
        "neither compared nor blended"
    );
    assert_eq!(rig.acting(), 2);
}

#[test]
fn where_the_policy_gives_no_action_any_more_the_one_in_the_shadow_takes_over_at_once() {
    let mut rig = Rig::new(STAGES);
    for _ in 0..20 {
        rig.tick();
    }
    let with_critics = expected().validate(&bundle_with_critics(&rig.spec, "run", 2));
    let begun = rig.control.begin_swap(Box::new(with_critics.unwrap()));
    assert_eq!(begun.stage, Some(Stage::Shadow));
    assert!(rig.tick().turn.is_none());
    // Only the one in the shadow can choose among four.
    rig.choose_among(4);
    let why = rig.fails(0.2);
    assert!(why.contains("no critics"), "{why}");
    let progress = rig.control.after(5e-5).expect("a turn");
    assert!(matches!(progress.turn, Turn::GoLive(compared) if compared.ticks == 1));
    assert_eq!((rig.acting(), rig.control.stage()), (2, Some(Stage::Probation)));
    assert!(rig.tick().before.is_none(), "it acts, and is not blended");
}
