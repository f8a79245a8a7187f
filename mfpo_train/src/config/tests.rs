use super::*;

fn load(overrides: &[&str]) -> Result<TrainConfig, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    TrainConfig::load("swing_arm", None, &overrides)
}

fn refusal(overrides: &[&str]) -> String {
    load(overrides).unwrap_err().to_string()
}

#[test]
fn every_built_in_configuration_loads() {
    for (name, _) in BUILT_IN {
        TrainConfig::load(name, Some(name), &[]).unwrap();
    }
}

#[test]
fn an_override_changes_one_key() {
    let changed = load(&[
        "learner.discount=0.5",
        "learner.temperature=0.2",
        "learner.hidden_sizes=[8, 9]",
        "run.steps = 12",
    ])
    .unwrap();
    assert_eq!((changed.learner.discount, changed.run.steps), (0.5, 12));
    assert_eq!(changed.learner.hidden_sizes, [8, 9]);
    let mut expected = load(&[]).unwrap();
    expected.learner.discount = 0.5;
    expected.learner.initial_temperature = 0.2;
    expected.learner.hidden_sizes = vec![8, 9];
    expected.run.steps = 12;
    assert_eq!(changed, expected);
}

#[test]
fn a_whole_number_may_be_written_with_an_exponent() {
    assert_eq!(load(&["run.steps=1e4"]).unwrap().run.steps, 10_000);
    assert_eq!(load(&["run.steps=2.5e3"]).unwrap().run.steps, 2_500);
    assert!(refusal(&["run.steps=1.5"]).contains("steps"));
    let small = load(&["learner.learning_rate=1e-4"]).unwrap();
    assert_eq!(small.learner.learning_rate, 1e-4);
}

#[test]
fn a_file_that_is_not_there_is_told_with_what_is_near() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("walker.toml"), "").unwrap();
    std::fs::write(at("walker.txt"), "").unwrap();
    let refused = |path: &std::path::Path| {
        let refused = TrainConfig::load("swing_arm", path.to_str(), &[]);
        refused.unwrap_err().to_string()
    };
    let walker = at("walker.toml").display().to_string();
    for typo in ["walkr.toml", "walker"] {
        let text = refused(&at(typo));
        assert!(text.contains(&format!("did you mean '{walker}'?")), "{text}");
    }
    let text = refused(&at("swing_arn.toml"));
    assert!(text.contains("did you mean 'swing_arm'?"), "{text}");
    std::fs::create_dir(at("run")).unwrap();
    std::fs::write(at("run/config.toml"), "").unwrap();
    let text = refused(&at("run"));
    assert!(text.contains("run/config.toml'?"), "{text}");
}

#[test]
fn an_unknown_key_names_the_closest() {
    let text = refusal(&["learner.discout=0.5"]);
    assert!(
        text.contains("'learner.discout'") && text.contains("did you mean 'learner.discount'?"),
        "{text}"
    );
    let text = refusal(&["sac.discout=0.5"]);
    assert!(text.contains("did you mean 'sac.discount'?"), "{text}");
    let text = refusal(&["run.algorithm=ppo"]);
    assert!(
        text.contains("`ppo`") && text.contains("`mfpo` or `sac`"),
        "{text}"
    );
    let text = refusal(&["evaluation.episode=0.5"]);
    assert!(text.contains("did you mean 'evaluation.episodes'?"), "{text}");
    let text = refusal(&["environment.delay=0.5"]);
    assert!(
        text.contains("'environment.delay'") && text.contains("action_delay_max"),
        "{text}"
    );
}

#[test]
fn an_unknown_section_names_the_closest() {
    let text = refusal(&["lerner.discount=0.5"]);
    assert!(text.contains("did you mean 'learner'?"), "{text}");
}

#[test]
fn a_value_of_the_wrong_type_names_its_key() {
    let text = refusal(&["learner.discount=fast"]);
    assert!(
        text.contains("discount") && text.contains("expected f64"),
        "{text}"
    );
    assert!(refusal(&["learner.batch_size=-1"]).contains("batch_size"));
    let text = refusal(&["run.device=gpu"]);
    assert!(text.contains("expected cpu, cuda or cuda:N, got 'gpu'"), "{text}");
}

#[test]
fn an_override_without_section_or_value_is_refused() {
    for text in ["discount=1", "learner.discount", ""] {
        assert!(refusal(&[text]).contains("section.key=value"));
    }
}

#[test]
fn numbers_that_cannot_work_are_refused() {
    assert!(refusal(&["run.steps=0"]).starts_with("run.steps is 0; expected"));
    for candidates in ["0", "65", "9223372036854775807"] {
        let text = refusal(&[&format!("evaluation.candidates={candidates}")]);
        let words = format!("evaluation.candidates is {candidates}; expected a whole number from 1 to 64");
        assert!(text.starts_with(&words), "{text}");
    }
    assert_eq!(
        load(&["evaluation.candidates=64"]).unwrap().evaluation.candidates,
        64
    );
    let text = refusal(&["environment.mass=-1.0"]);
    assert!(text.contains("[environment]") && text.contains("mass"), "{text}");
}

#[test]
fn sizes_come_from_the_task() {
    let mut config = load(&[]).unwrap();
    config.set_sizes(4, 1).unwrap();
    assert_eq!(
        (config.learner.observation_size, config.learner.action_size),
        (4, 1)
    );
    let text = config.set_sizes(5, 1).unwrap_err().to_string();
    assert!(
        text.starts_with("learner.observation_size is 4; expected 5"),
        "{text}"
    );
}

#[test]
fn a_file_lies_over_the_built_in_and_the_resolved_text_loads_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, "[learner]\ndiscount = 0.25\n").unwrap();
    let source = path.to_str().unwrap();
    let mut config = TrainConfig::load("swing_arm", Some(source), &[]).unwrap();
    assert_eq!(config.learner.discount, 0.25);
    assert_eq!(config.run, load(&[]).unwrap().run);

    config.set_sizes(4, 1).unwrap();
    std::fs::write(&path, config.to_toml().unwrap()).unwrap();
    assert_eq!(TrainConfig::load("swing_arm", Some(source), &[]).unwrap(), config);
}

#[test]
fn the_delay_of_a_stored_configuration_is_the_tasks_own_unless_it_was_asked_for() {
    let own = load(&[]).unwrap();
    assert_eq!(own.environment, Randomization::default());
    let before = own.to_toml().unwrap().replace(
        "[environment]",
        "[environment]\naction_delay_min = 0.0\naction_delay_max = 0.008",
    );
    assert_eq!(TrainConfig::parse(&before, &[]).unwrap(), own);

    let asked = load(&["environment.action_delay_max=0.008"]).unwrap();
    assert_eq!(asked.environment.action_delay_max, Some(0.008));
    assert_eq!(TrainConfig::parse(&asked.to_toml().unwrap(), &[]).unwrap(), asked);
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_named() {
    let text = TrainConfig::load("swing_arm", Some("nowhere.toml"), &[])
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("'nowhere.toml'") && text.contains("swing_arm, reach_arm, HalfCheetah-v5, paper"),
        "{text}"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.toml");
    std::fs::write(&path, "[learner\n").unwrap();
    let text = TrainConfig::load("swing_arm", path.to_str(), &[])
        .unwrap_err()
        .to_string();
    assert!(text.contains("broken.toml is not valid TOML"), "{text}");
}

#[test]
fn the_environment_of_a_run_is_changed_key_by_key() {
    let own = load(&["environment.mass=0.1"]).unwrap().environment;
    let changed = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|text| (*text).to_owned()).collect();
        environment(&own, &sets)
    };
    assert_eq!(changed(&[]).unwrap(), own);
    let delayed = changed(&["environment.action_delay_max=0.02"]).unwrap();
    assert_eq!((delayed.action_delay_max, delayed.mass), (Some(0.02), 0.1));
    for (set, words) in [
        ("environment.masses=0.2", "did you mean 'environment.mass'?"),
        ("environment.mass=2.0", "mass"),
        (
            "learner.tau=0.2",
            "section [learner] has no part in a measurement; expected [environment]",
        ),
    ] {
        let text = changed(&[set]).unwrap_err().to_string();
        assert!(text.contains(words), "{set}: {text}");
        assert!(!text.contains("[sac]") && !text.contains("evaluation"), "{text}");
    }
}
