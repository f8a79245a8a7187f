//! Laws of the bundle: what was sealed opens; whatever was changed is refused with the reason.

use super::*;
use crate::critic::ValueSupport;
use crate::testing::one_joint_robot;
use proptest::prelude::*;

fn sealed(version: u64) -> Vec<u8> {
    let robot = one_joint_robot();
    let actor = MeanFlow::initialize(1, (4, 1, 1), &[32, 32], &Device::Cpu).unwrap();
    let critics = [2, 3].map(|seed| Critic::initialize(seed, (4, 1, 21), &[32], &Device::Cpu).unwrap());
    let support = ValueSupport {
        minimum: -10.0,
        maximum: 0.0,
        atoms: 21,
    };
    seal(&SealRequest {
        robot: &robot,
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
fn changed(resign: bool, change: impl FnOnce(&mut Manifest, &mut BTreeMap<String, RawTensor>)) -> Vec<u8> {
    let bytes = sealed(1);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = read(&file).unwrap();
    let mut manifest = open(&bytes).unwrap().manifest;
    change(&mut manifest, &mut tensors);
    if resign {
        manifest.digest = digest(&manifest, &tensors);
    }
    write(&manifest, &tensors).unwrap()
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
        t.get_mut("actor/MLP_0/Dense_0/bias").unwrap().bytes[1] ^= 1
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
        t.get_mut("actor/MLP_0/Dense_1/kernel").unwrap().bytes[40..44].copy_from_slice(&nan);
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
        m.robot.observation.terms.pop();
        m.spec_hash = m.robot.hash();
    }));
    assert!(message.contains("observation size is 4; expected 3"), "{message}");
    let message = refusal(&changed(true, |_, t| drop(t.remove("actor/MLP_0/Dense_1/bias"))));
    assert!(message.contains("'MLP_0/Dense_1/bias' is missing"), "{message}");
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

#[test]
fn a_safetensors_file_of_another_program_is_refused() {
    let data = [0u8; 8];
    let view = TensorView::new(Dtype::F32, vec![2], &data).unwrap();
    let bytes = safetensors::serialize([("a", view)], None).unwrap();
    assert!(refusal(&bytes).contains("no readable manifest"));
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
