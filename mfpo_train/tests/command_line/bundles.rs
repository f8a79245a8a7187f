//! Bundles on the command line: refused, guarded, signed, verified.

use super::*;

#[test]
fn a_bad_bundle_is_refused_with_its_name_and_the_reason() {
    let training = Training::new(110);
    assert!(training.spawn().wait_with_output().unwrap().status.success());
    let good = std::fs::read(training.path("last.safetensors")).unwrap();
    let bad = training.path("bad.safetensors");
    let checkpoint = std::fs::read(training.path("checkpoints/last.safetensors")).unwrap();
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 0x40;
    for (bytes, reason) in [
        (&good[..good.len() / 2], "complete"),
        (&changed[..], "digest"),
        (b"hello", "complete safetensors file (5 bytes): it is text"),
        (b"", "(0 bytes): it is empty; expected a policy bundle"),
    ] {
        std::fs::write(&bad, bytes).unwrap();
        for subcommand in ["inspect", "eval"] {
            let words = refusal(&[subcommand, text(&bad)]);
            assert!(
                words.contains("bad.safetensors") && words.contains(reason),
                "{words}"
            );
        }
    }
    std::fs::write(&bad, checkpoint).unwrap();
    let words = refusal(&["inspect", text(&bad)]);
    assert!(
        words.contains("bad.safetensors") && words.contains("it is the checkpoint of a run"),
        "{words}"
    );
    told(&["eval", text(&bad), "--episodes=1"]);
    let run = training.folder.path().join("run");
    let words = refusal(&["inspect", text(&run)]);
    assert!(
        words.contains("is a folder") && words.contains("run/last.safetensors"),
        "{words}"
    );
    assert!(refusal(&["inspect", "/nowhere.safetensors"]).contains("cannot read /nowhere.safetensors"));
    let most = mfpo_policy::bundle::MOST_BYTES as u64;
    std::fs::File::create(&bad).unwrap().set_len(most + 1).unwrap();
    let words = refusal(&["inspect", text(&bad)]);
    assert!(
        words.contains(&format!("bad.safetensors is {} bytes large", most + 1)),
        "{words}"
    );
}

#[test]
fn a_calibrated_guard_is_written_into_a_bundle_which_is_to_be_signed_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch/policies/swing_arm.safetensors");
    let (key, signed, guarded) = (at("key"), at("signed.safetensors"), at("guarded.safetensors"));
    told(&["keygen", text(&key)]);
    told(&[
        "sign",
        text(&policies),
        "--key",
        text(&key),
        "--out",
        text(&signed),
    ]);
    assert!(told(&["inspect", text(&signed)]).contains("guard             none"));
    let few = [
        "guard",
        text(&signed),
        "--episodes",
        "2",
        "--write",
        text(&guarded),
    ];
    let words = refusal(&few);
    assert!(
        words.contains("2 episodes without a fault, 5 s, cannot vouch for 10 false alarms an hour")
            && words.contains("take --episodes 428 "),
        "{words}"
    );
    assert!(!guarded.exists());
    let said = told(&[&few[..], &["--force"]].concat());
    assert!(
        said.contains("5 s without a fault: with 95 % confidence no fewer than 2137")
            && said.contains("at most 1 false alarms an hour: so little data cannot tell"),
        "{said}"
    );
    assert!(
        said.contains("guarded where 8 candidates are spread by more than"),
        "{said}"
    );
    assert!(said.contains("sign it again"), "{said}");
    let seen = told(&["inspect", text(&guarded)]);
    assert!(seen.contains("8 candidates spread by at most"), "{seen}");
    assert!(seen.contains("signed by         nobody"), "{seen}");
    let all = ["--force", "--signals", "value,disagreement,spread"];
    let said = told(&[&few[..], &all].concat());
    for words in [
        "guarded where one step is more than",
        " from all or 8 candidates are spread by more than",
        " or the best of 8 is valued below",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let seen = told(&["inspect", text(&guarded)]);
    assert!(
        seen.contains("one step at most") && seen.contains("the best of 8 valued at"),
        "{seen}"
    );
    // What it is worth, on the episodes that it was made from: none of its thresholds was written with an alarm in them.
    let said = told(&["guard", text(&guarded), "--episodes", "2", "--seed", "0"]);
    let own = "the bundle's own guard - one step is more than";
    let line = said.lines().find(|line| line.starts_with(own)).unwrap_or(&said);
    assert!(
        line.contains(", 3 ticks in a row -: 0 false alarms an hour measured"),
        "{said}"
    );
    assert!(!told(&["guard", text(&signed), "--episodes", "2"]).contains("own guard"));
}

#[test]
fn a_signed_bundle_is_verified_by_its_key_and_by_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["ours", "theirs"] {
        let text_of = told(&["keygen", text(&at(name))]);
        assert!(text_of.contains("keep it secret"), "{text_of}");
    }
    assert!(refusal(&["keygen", text(&at("ours"))]).contains("never overwritten"));
    std::fs::write(at("third.pub"), "somebody's").unwrap();
    assert!(refusal(&["keygen", text(&at("third"))]).contains("third.pub exists already"));
    assert!(!at("third").exists(), "half a pair");
    // A name that is short enough without the ending alone.
    let long = at("k".repeat(253).as_str());
    let words = refusal(&["keygen", text(&long)]);
    assert!(
        words.contains("no key was made: cannot make") && words.contains("File name too long"),
        "{words}"
    );
    assert!(!long.exists(), "half a pair");
    let mode = std::os::unix::fs::PermissionsExt::mode(&at("ours").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch/policies/swing_arm.safetensors");
    let (plain, signed) = (text(&policies), at("signed.safetensors"));
    let (key, ours, theirs) = (at("ours"), at("ours.pub"), at("theirs.pub"));
    assert!(told(&["verify", plain]).contains("signed by nobody"));
    assert!(refusal(&["verify", plain, "--trust", text(&ours)]).contains("the bundle is not signed"));
    told(&["sign", plain, "--key", text(&key), "--out", text(&signed)]);
    let resign = || {
        let output = output(&["sign", plain, "--key", text(&key), "--out", text(&signed)]);
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(resign().is_empty());
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o640);
    std::fs::set_permissions(&key, open).unwrap();
    let said = resign();
    assert!(
        said.contains("others can read") && said.contains("chmod 600"),
        "{said}"
    );
    let public = told(&["verify", text(&signed), "--trust", text(&ours)]);
    assert!(told(&["inspect", text(&signed)]).contains("signed by"));
    let hexadecimal = public.trim_end().rsplit(' ').next().unwrap();
    told(&["verify", text(&signed), "--trust", hexadecimal]);
    let text_of = refusal(&["verify", text(&signed), "--trust", text(&theirs)]);
    assert!(
        text_of.contains(&format!("is signed by {hexadecimal}")),
        "{text_of}"
    );
    assert!(refusal(&["verify", text(&signed), "--trust", "nobody"]).contains("neither a file nor a key"));
    assert!(
        refusal(&["sign", plain, "--key", text(&ours)]).contains("not an Ed25519 private key"),
        "a public key signs nothing"
    );
}

#[test]
fn a_run_that_goes_on_without_its_key_is_told() {
    let mut training = Training::new(110);
    let key = training.folder.path().join("key");
    told(&["keygen", text(&key)]);
    training.args.push(format!("--sign-key={}", key.display()));
    assert!(training.spawn().wait_with_output().unwrap().status.success());
    let run = training.path("");
    let go_on = ["train", "--quiet", "--resume", text(&run)];
    for (more, is_told) in [
        (["--steps=112", "--sign-key", text(&key)], false),
        (["--steps=114", "--min-seconds", "0"], true),
    ] {
        let output = output(&[&go_on[..], &more[..]].concat());
        assert!(output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.contains("give --sign-key again"), is_told, "{text}");
    }
}
