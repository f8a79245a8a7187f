//! How one policy takes over from another, stage by stage.

mod probation;

use mfpo_node::control_loop::{Before, ControlLoop, Decision, Reason, Settings, Tick, Tuning, mix};
use mfpo_node::joint_states::JointStates;
use mfpo_node::weights::{Policy, Stage, StageSettings, Turn};
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::spec::{CommandInterface, RobotSpec};

use super::support::{
    STALE_AFTER, allocations, at, bundle_with_critics, expected, policy, robot, send, settings,
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
    assert_eq!(rig.control.stage(), Some(Stage::Probation));
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
