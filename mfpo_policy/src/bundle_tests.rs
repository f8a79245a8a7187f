//! Laws of the bundle: what was sealed opens; whatever was changed is refused with the reason.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::contents::RawTensor;
use crate::critic::ValueSupport;
use crate::guard::Signal;
use crate::subject::TaskSpec;
use crate::testing::one_joint_robot;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

fn sealed(version: u64) -> Vec<u8> {
    sealed_for(&Subject::Robot(one_joint_robot()), version)
}

/// A task of the same sizes as the robot.
fn task() -> TaskSpec {
    TaskSpec {
        name: "Pendulum-v5".into(),
        options: BTreeMap::from([
            ("reset_noise_scale".into(), 0.1.into()),
            ("frame_skip".into(), 3.into()),
        ]),
        observation_size: 4,
        action_size: 1,
        control_period_ns: 40_000_000,
    }
}

fn sealed_for(subject: &Subject, version: u64) -> Vec<u8> {
    let actor = MeanFlow::initialize(1, (4, 1, 1), &[32, 32], &Device::Cpu).unwrap();
    let critics = [2, 3].map(|seed| Critic::initialize(seed, (4, 1, 21), &[32], &Device::Cpu).unwrap());
    let support = ValueSupport {
        minimum: -10.0,
        maximum: 0.0,
        atoms: 21,
    };
    seal(&SealRequest {
        subject,
        run: "run-a",
        version,
        sampling_steps: 2,
        actor: &actor,
        critics: Some((
            [&critics[0], &critics[1]],
            CriticManifest {
                support,
                clipped_double_q: true,
            },
        )),
        normalizer: None,
        probe_observations: vec![],
    })
    .unwrap()
}

/// Rewrites a bundle after `change` and, when `resign`, with the digest of the changed content.
fn changed(
    resign: bool,
    change: impl FnOnce(&mut Manifest, &mut BTreeMap<String, RawTensor<'_>>),
) -> Vec<u8> {
    let bytes = sealed(1);
    let mut contents = Contents::read(&bytes).unwrap();
    change(&mut contents.manifest, &mut contents.tensors);
    if resign {
        contents.manifest.digest = contents.digest();
    }
    contents.write().unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    open(bytes).unwrap_err().to_string()
}

#[test]
fn what_was_sealed_opens_and_reproduces_its_probes() {
    let bundle = open(&sealed(7)).unwrap();
    assert_eq!(
        (bundle.manifest().version, bundle.manifest().run.as_str()),
        (7, "run-a")
    );
    let mut sampler = bundle.sampler(&Device::Cpu).unwrap();
    assert_eq!(bundle.manifest().probes.len(), 3);
    bundle.check_probes(&mut sampler).unwrap();
}

/// The manifest's text in a file.
fn json(bytes: &[u8]) -> String {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    header.metadata().as_ref().unwrap()[METADATA_KEY].clone()
}

/// The file with another text of the manifest.
fn reworded(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = json(bytes);
    assert!(text.contains(from), "{text}");
    let tensors = Contents::read(bytes).unwrap().tensors;
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), &tensor.bytes);
        (name, view.unwrap())
    });
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), text.replacen(from, to, 1))]);
    safetensors::serialize(views, Some(metadata)).unwrap()
}

#[test]
fn a_bundle_for_a_task_opens_with_the_task_and_its_options() {
    let bytes = sealed_for(&Subject::Task(task()), 3);
    let bundle = open(&bytes).unwrap();
    assert_eq!(bundle.manifest().subject, Subject::Task(task()));
    assert_eq!(bundle.manifest().subject.robot(), None);
    bundle
        .check_probes(&mut bundle.sampler(&Device::Cpu).unwrap())
        .unwrap();
    assert!(!json(&bytes).contains("robot") && !json(&bytes).contains("spec_hash"));
}

#[test]
fn the_text_of_a_robots_manifest_is_what_it_always_was() {
    let bytes = sealed(7);
    let text = json(&bytes);
    let start = format!(
        r#"{{"format":"mfpo-policy-bundle/1","run":"run-a","version":7,"created_unix_s":{},"robot":{},"spec_hash":"{}","sampling_steps":2,"#,
        open(&bytes).unwrap().manifest().created_unix_s,
        serde_json::to_string(&one_joint_robot()).unwrap(),
        one_joint_robot().hash(),
    );
    assert!(text.starts_with(&start), "{text}");
    assert!(!text.contains("\"task\""), "{text}");
}

#[test]
fn bundles_that_are_in_use_still_open() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch/policies");
    let mut opened = 0;
    for file in std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
    {
        let bundle = open(&std::fs::read(&file).unwrap()).unwrap();
        assert!(bundle.manifest().subject.robot().is_some(), "{}", file.display());
        opened += 1;
    }
    assert!(opened > 0);
}

#[test]
fn a_manifest_names_a_robot_or_a_task_and_not_both() {
    let robot = sealed(1);
    let task = serde_json::to_string(&task()).unwrap();
    let both = reworded(
        &robot,
        "\"sampling_steps\"",
        &format!("\"task\":{task},\"sampling_steps\""),
    );
    let text = refusal(&both);
    assert!(
        text.contains("robot is given, spec_hash given, task given; expected a robot"),
        "{text}"
    );
    let hash = format!(",\"spec_hash\":\"{}\"", one_joint_robot().hash());
    let text = refusal(&reworded(&robot, &hash, ""));
    assert!(text.contains("spec_hash missing"), "{text}");
    let other = format!(",\"spec_hash\":\"{}\"", "00".repeat(32));
    let text = refusal(&reworded(&robot, &hash, &other));
    assert!(
        text.contains("the spec hash is 0000") && text.contains(&one_joint_robot().hash()),
        "{text}"
    );
}

#[test]
fn a_task_of_other_sizes_or_without_a_period_is_refused() {
    let with = |change: fn(&mut TaskSpec)| {
        changed(true, |m, _| {
            let mut task = task();
            change(&mut task);
            m.subject = Subject::Task(task);
        })
    };
    let text = refusal(&with(|task| task.observation_size = 5));
    assert!(text.contains("observation size is 4; expected 5"), "{text}");
    let text = refusal(&with(|task| task.action_size = 2));
    assert!(text.contains("expected"), "{text}");
    let text = refusal(&with(|task| task.control_period_ns = 0));
    assert!(text.contains("control_period_ns of 'Pendulum-v5' is 0"), "{text}");
    let text = refusal(&with(|task| task.name.clear()));
    assert!(text.contains("task name is empty"), "{text}");
}

#[test]
fn every_truncation_is_refused() {
    let bytes = sealed(1);
    for length in (0..bytes.len()).step_by(97) {
        assert!(open(&bytes[..length]).is_err(), "{length} bytes were accepted");
    }
}

#[test]
fn a_changed_weight_is_refused_by_digest() {
    let bytes = changed(false, |_, t| {
        t.get_mut("actor/MLP_0/Dense_0/bias").unwrap().bytes.to_mut()[1] ^= 1
    });
    assert!(refusal(&bytes).contains("digest is"));
}

#[test]
fn a_changed_manifest_is_refused_by_digest() {
    assert!(refusal(&changed(false, |m, _| m.version = 99)).contains("digest is"));
}

#[test]
fn nan_weights_are_refused_by_name() {
    let nan = f32::NAN.to_le_bytes();
    let bytes = changed(true, |_, t| {
        let kernel = t.get_mut("actor/MLP_0/Dense_1/kernel").unwrap();
        kernel.bytes.to_mut()[40..44].copy_from_slice(&nan);
    });
    let message = refusal(&bytes);
    assert!(
        message.contains("weight 10 of 'actor/MLP_0/Dense_1/kernel' is NaN"),
        "{message}"
    );
}

#[test]
fn other_sizes_are_refused_with_expected_and_got() {
    let message = refusal(&changed(true, |m, _| m.hidden_sizes = vec![64, 64]));
    assert!(
        message.contains("expected [64, 64]") && message.contains("[32, 32]"),
        "{message}"
    );
    let message = refusal(&changed(true, |m, _| m.sampling_steps = 0));
    assert!(message.contains("sampling steps is 0"), "{message}");
    let message = refusal(&changed(true, |m, _| {
        let mut robot = one_joint_robot();
        robot.observation.terms.pop();
        m.subject = Subject::Robot(robot);
    }));
    assert!(message.contains("observation size is 4; expected 3"), "{message}");
    let message = refusal(&changed(true, |_, t| drop(t.remove("actor/MLP_0/Dense_1/bias"))));
    assert!(message.contains("'MLP_0/Dense_1/bias' is missing"), "{message}");
    // One more input than the embedder's frequencies have cosines and sines.
    let message = refusal(&changed(true, |_, t| {
        let kernel = t
            .get_mut("actor/TimestepEmbedder_0/MLP_0/Dense_0/kernel")
            .unwrap();
        let row = kernel.bytes[..4 * kernel.shape[1]].to_vec();
        kernel.shape[0] += 1;
        kernel.bytes.to_mut().extend(row);
    }));
    assert!(
        message.contains("TimestepEmbedder_0/MLP_0/Dense_0/kernel") && message.contains("[129, 64]"),
        "{message}"
    );
    let message = refusal(&changed(true, |_, t| {
        let copy = t["actor/MLP_0/Dense_1/bias"].clone();
        t.insert("actor/extra".into(), copy);
    }));
    assert!(message.contains("actor/extra"), "{message}");
}

#[test]
fn another_format_is_named() {
    let message = refusal(&changed(true, |m, _| m.format = "mfpo-policy-bundle/9".into()));
    assert!(
        message.contains("'mfpo-policy-bundle/9'") && message.contains(FORMAT),
        "{message}"
    );
}

#[test]
fn a_wrong_probe_is_found() {
    let bytes = changed(true, |m, _| m.probes[1].action[0] += 0.01);
    let bundle = open(&bytes).unwrap();
    let mut sampler = bundle.sampler(&Device::Cpu).unwrap();
    let message = bundle.check_probes(&mut sampler).unwrap_err().to_string();
    assert!(message.contains("golden probe 1"), "{message}");
}

/// What a bundle's own sampler says to its probes.
fn probed(bytes: &[u8]) -> Result<(), String> {
    let bundle = open(bytes).unwrap();
    let mut sampler = bundle.sampler(&Device::Cpu).unwrap();
    bundle.check_probes(&mut sampler).map_err(|e| e.to_string())
}

#[test]
fn critics_that_value_a_probe_otherwise_are_found() {
    let noted = open(&sealed(1)).unwrap().manifest().probes[1].values.unwrap();
    assert!(noted.iter().all(|value| (-10.0..=0.0).contains(value)));
    // A thousandth of half the support, 0.005, is allowed.
    for (difference, is_right) in [(0.004, true), (0.006, false)] {
        let bytes = changed(true, |manifest, _| {
            if let Some(values) = &mut manifest.probes[1].values {
                values[1] += difference;
            }
        });
        let told = probed(&bytes);
        assert_eq!(told.is_ok(), is_right, "{told:?}");
        let message = told.err().unwrap_or_default();
        assert!(
            is_right || message.contains("golden probe 1: critic 2 values"),
            "{message}"
        );
    }
    // The actions are as they were.
    let message = probed(&changed(true, |_, tensors| {
        let bias = tensors.get_mut("critic_1/Dense_0/bias").unwrap();
        bias.bytes.to_mut()[..4].copy_from_slice(&9f32.to_le_bytes());
    }));
    let message = message.unwrap_err();
    assert!(message.contains("golden probe 0: critic 1 values"), "{message}");
}

#[test]
fn a_bundle_that_notes_no_values_of_its_probes_is_taken_as_before() {
    let before = changed(true, |manifest, _| {
        manifest.probes.iter_mut().for_each(|probe| probe.values = None);
    });
    assert!(json(&sealed(1)).contains("\"values\"") && !json(&before).contains("\"values\""));
    probed(&before).unwrap();
    let text = refusal(&changed(true, |manifest, tensors| {
        manifest.critics = None;
        tensors.retain(|name, _| name.starts_with("actor/"));
    }));
    assert!(text.contains("what critics say of a probe"), "{text}");
}

#[test]
fn more_than_a_bundle_may_have_is_refused_with_what_is_expected() {
    let message = refusal(&changed(true, |_, tensors| {
        let copy = tensors["actor/MLP_0/Dense_1/bias"].clone();
        tensors.extend((0..600).map(|i| (format!("actor/extra_{i}"), copy.clone())));
    }));
    assert!(
        message.contains("the number of tensors is 6") && message.contains("expected 0 to 512"),
        "{message}"
    );
    let message = refusal(&changed(true, |_, tensors| {
        let copy = tensors["actor/MLP_0/Dense_1/bias"].clone();
        tensors.insert("x".repeat(300), copy);
    }));
    assert!(message.contains("tensor's name is 300"), "{message}");
    let message = refusal(&changed(true, |manifest, _| manifest.run = "x".repeat(5000)));
    assert!(
        message.contains("text or number in the manifest is 5000"),
        "{message}"
    );
    let message = refusal(&changed(true, |manifest, _| {
        manifest.subject = Subject::Task(TaskSpec {
            options: BTreeMap::from([("a".to_owned(), vec![0; 5000].into())]),
            ..task()
        });
    }));
    assert!(message.contains("the task's options are"), "{message}");
    let message = refusal(&changed(true, |manifest, _| {
        manifest.hidden_sizes = vec![1; 5000]
    }));
    assert!(message.contains("a list of at most 512"), "{message}");
}

#[test]
fn what_is_read_of_a_file_lies_where_the_file_does() {
    let bytes = sealed(1);
    let inside = bytes.as_ptr_range();
    for (name, tensor) in Contents::read(&bytes).unwrap().tensors {
        assert!(inside.contains(&tensor.bytes.as_ptr()), "{name}");
    }
}

#[test]
fn a_safetensors_file_of_another_program_is_refused() {
    let data = [0u8; 8];
    let view = TensorView::new(Dtype::F32, vec![2], &data).unwrap();
    let bytes = safetensors::serialize([("a", view)], None).unwrap();
    let message = refusal(&bytes);
    assert!(
        message.contains("no readable manifest") && message.contains("expected a policy bundle"),
        "{message}"
    );
    for (key, words) in [
        (
            CHECKPOINT_KEY,
            ["it is the checkpoint of a run", "best.safetensors"],
        ),
        (
            SAC_POLICY_KEY,
            ["it is the policy of a SAC run", "--algorithm mfpo"],
        ),
    ] {
        let metadata = [(key.to_owned(), "{}".to_owned())];
        let view = TensorView::new(Dtype::F32, vec![2], &data).unwrap();
        let bytes = safetensors::serialize([("a", view)], Some(metadata.into())).unwrap();
        let message = refusal(&bytes);
        assert!(words.iter().all(|part| message.contains(part)), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn no_single_damaged_byte_is_accepted(position in 0usize..20_000, flip in 1u8..=255) {
        let mut bytes = sealed(1);
        let position = position % bytes.len();
        bytes[position] ^= flip;
        // Blanks in the header and the case of an exponent carry no meaning; nothing else may pass.
        if let Ok(bundle) = open(&bytes) {
            prop_assert_eq!(bundle.manifest().digest.clone(), open(&sealed(1)).unwrap().manifest.digest);
        }
    }
}

#[test]
fn the_same_noise_gives_the_same_action_and_a_value_in_the_support() {
    let bundle = open(&sealed(1)).unwrap();
    let mut sampler = bundle.sampler(&Device::Cpu).unwrap();
    let (mut first, mut second) = ([0.0], [0.0]);
    let mut noise = vec![0.0; 10];
    NormalNoise::new(5).fill(&mut noise);
    let observation = [0.1, 0.9, -0.3, 0.2];
    let value = sampler.sample_into(&observation, &noise, 10, &mut first).unwrap();
    assert!(value.is_some_and(|v| (-10.0..=0.0).contains(&v)));
    sampler
        .sample_into(&observation, &noise, 10, &mut second)
        .unwrap();
    assert_eq!(first, second);
}

#[test]
fn wrong_lengths_are_refused_with_expected_and_got() {
    let mut sampler = open(&sealed(1)).unwrap().sampler(&Device::Cpu).unwrap();
    let message = sampler
        .sample_into(&[0.0; 3], &[0.0], 1, &mut [0.0])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("the observation holds 3") && message.contains("expected 4"),
        "{message}"
    );
    assert!(
        sampler
            .sample_into(&[0.0; 4], &[0.0; 200], 200, &mut [0.0])
            .is_err()
    );
    let mut action = [7.0];
    assert!(
        sampler
            .sample_into(&[f32::NAN; 4], &[0.0], 1, &mut action)
            .is_err()
    );
    assert_eq!(action, [7.0]);
}

#[test]
fn a_signed_bundle_names_its_signer_and_keeps_its_digest() {
    let (plain, key) = (sealed(1), SigningKey::from_seed(&[1; 32]));
    let signed = sign(&plain, &key).unwrap();
    let (before, after) = (open(&plain).unwrap(), open(&signed).unwrap());
    assert_eq!((before.signer(), after.signer()), (None, Some(key.public())));
    assert_eq!(before.digest(), after.digest());
    // Signing again replaces the signature.
    let other = SigningKey::from_seed(&[2; 32]);
    let again = sign(&signed, &other).unwrap();
    assert_eq!(open(&again).unwrap().signer(), Some(other.public()));
}

const GUARD: GuardManifest = GuardManifest {
    disagreement_max: Some(0.5),
    spread_max: Some(0.25),
    value_min: Some(-7.5),
    candidates: 8,
    in_a_row: 3,
};

#[test]
fn a_guard_is_carried_under_another_digest_without_the_signature_of_before() {
    let (plain, key) = (sealed(1), SigningKey::from_seed(&[1; 32]));
    let guarded = with_guard(&sign(&plain, &key).unwrap(), GUARD).unwrap();
    let (before, after) = (open(&plain).unwrap(), open(&guarded).unwrap());
    assert_eq!(
        (before.manifest().guard, after.manifest().guard),
        (None, Some(GUARD))
    );
    assert_ne!(before.digest(), after.digest());
    assert_eq!(before.weights_digest().unwrap(), after.weights_digest().unwrap());
    assert_eq!(after.signer(), None);
    assert_eq!(
        open(&sign(&guarded, &key).unwrap()).unwrap().signer(),
        Some(key.public())
    );
    assert!(
        !json(&plain).contains("guard"),
        "a bundle without one says nothing of it"
    );
}

#[test]
fn a_guard_that_no_sampler_can_be_held_to_is_refused() {
    for wrong in [
        GuardManifest {
            spread_max: Some(0.0),
            ..GUARD
        },
        GuardManifest {
            candidates: 1,
            ..GUARD
        },
        GuardManifest {
            candidates: ActionSampler::MOST_CANDIDATES + 1,
            ..GUARD
        },
        GuardManifest { in_a_row: 0, ..GUARD },
    ] {
        let text = with_guard(&sealed(1), wrong).unwrap_err().to_string();
        assert!(text.contains("the guard is"), "{text}");
    }
    let text = refusal(&changed(true, |manifest, tensors| {
        (manifest.critics, manifest.guard) = (None, Some(GUARD));
        tensors.retain(|name, _| name.starts_with("actor/"));
    }));
    assert!(text.contains("without critics"), "{text}");
    let text = refusal(&changed(true, |manifest, _| {
        (manifest.sampling_steps, manifest.guard) = (1, Some(GUARD));
    }));
    assert!(text.contains("2 steps or more"), "{text}");
}

#[test]
fn a_guard_of_the_spread_alone_is_written_as_it_always_was() {
    let guard = GuardManifest::without_limits(8, 3).with_limit(Signal::Spread, 0.25);
    let guarded = with_guard(&sealed(1), guard).unwrap();
    let text = json(&guarded);
    let as_before = r#","guard":{"spread_max":0.25,"candidates":8,"in_a_row":3},"#;
    assert!(text.contains(as_before), "{text}");
    assert_eq!(open(&guarded).unwrap().manifest().guard, Some(guard));
}

#[test]
fn a_signature_of_another_bundle_is_refused() {
    let key = SigningKey::from_seed(&[1; 32]);
    let signed = sign(&sealed(1), &key).unwrap();
    let mut contents = Contents::read(&signed).unwrap();
    contents.manifest.version = 2;
    contents.manifest.digest = contents.digest();
    let text = refusal(&contents.write().unwrap());
    assert!(text.contains("the signature does not fit the bundle"), "{text}");
    assert!(sign(b"nonsense", &key).is_err());
}

#[test]
fn the_weights_in_memory_have_the_digest_of_the_bundles_tensors() {
    let bytes = sealed(1);
    let bundle = open(&bytes).unwrap();
    let sampler = bundle.sampler(&Device::Cpu).unwrap();
    let mut hash = Sha256::new();
    for (name, tensor) in Contents::read(&bytes).unwrap().tensors {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(&name);
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        tensor
            .shape
            .iter()
            .for_each(|d| hash.update((*d as u64).to_le_bytes()));
        hash.update(&tensor.bytes);
    }
    let expected = hex::encode(hash.finalize());
    assert_eq!(sampler.weights_digest().unwrap(), expected);
    assert_eq!(bundle.weights_digest().unwrap(), expected);
    // The manifest is no part of it, the weights are all of it.
    let other = changed(true, |m, _| m.version = 9);
    assert_eq!(open(&other).unwrap().weights_digest().unwrap(), expected);
    for name in bundle.parameters().iter().map(|(name, _)| name) {
        let other = changed(true, |_, t| t.get_mut(name).unwrap().bytes.to_mut()[0] ^= 1);
        let other = open(&other).unwrap();
        let digest = other.sampler(&Device::Cpu).unwrap().weights_digest().unwrap();
        assert_ne!(digest, expected, "{name}");
    }
}
