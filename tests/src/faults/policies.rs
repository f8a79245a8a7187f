//! Bundles that must not go live, swaps in bad moments, parameters under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mfpo_policy::bundle::sign;
use mfpo_policy::signature::SigningKey;
use mfpo_policy::spec::CommandInterface;
use serde_json::{Value, json};

use super::outcome::{Outcome, milliseconds};
use super::stand::{Stand, TICK, demanding};
use super::{Row, Scene};
use crate::assert_says;
use crate::bundles::{digest_of, forged, sealed, sealed_in, sealed_large};
use crate::peer::{arrived, now, state};

/// Bytes of the bundle that is huge.
const HUGE: usize = 50_000_000;

pub(super) fn scenes() -> Vec<Scene> {
    vec![
        Scene {
            title: "Policies",
            start: || Stand::of(CommandInterface::Effort, &[]),
            rows: unsigned_rows(),
        },
        Scene {
            title: "Policies",
            start: signed_stand,
            rows: vec![
                Row::new("a bundle without a signature, with trusted_keys set", |stand| {
                    let bundle = sealed(&stand.spec, 2);
                    refused(stand, &bundle, &["the bundle is not signed", "trusted_keys"])
                }),
                Row::new("a bundle that somebody else has signed", |stand| {
                    let bundle = sign(&sealed(&stand.spec, 2), &key(2)).expect("a signed bundle");
                    refused(stand, &bundle, &["signed", "trusted_keys"])
                }),
            ],
        },
        Scene {
            title: "Policies",
            start: || Stand::of(CommandInterface::Effort, &[]),
            rows: vec![Row::new("a swap while the states are silent", swap_during_a_fault).quick()],
        },
        Scene {
            title: "Policies",
            // Where that is not permitted it goes on without; the load yields to it anyhow.
            start: || Stand::of(CommandInterface::Effort, &["realtime_priority:=50"]),
            rows: vec![
                Row::new(
                    "200 parameter sets, good and bad ones, while every core is busy with niced work (realtime_priority 50)",
                    parameters_under_load,
                ),
                Row::new("a valid bundle of 50 MB (realtime_priority 50)", huge_and_valid),
            ],
        },
    ]
}

fn unsigned_rows() -> Vec<Row> {
    let corrupt = |stand: &Stand| {
        let mut bundle = next(stand);
        *bundle.last_mut().expect("bytes") ^= 1;
        bundle
    };
    let truncated = |stand: &Stand| {
        let mut bundle = next(stand);
        bundle.truncate(bundle.len() / 2);
        bundle
    };
    let other_robot = |stand: &Stand| {
        let mut spec = stand.spec.clone();
        spec.robot = "three_joints".into();
        sealed(&spec, stand.version + 1)
    };
    let not_finite = |stand: &Stand| {
        forged(&next(stand), |_, tensors| {
            let (_, bytes) = tensors.get_mut("actor/MLP_0/Dense_1/bias").expect("a bias");
            bytes[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
        })
    };
    let lying = |stand: &Stand| forged(&next(stand), |manifest, _| manifest.probes[1].action[0] += 0.1);
    vec![
        bad("a corrupt bundle (one bit)", corrupt, &["digest is", "promises"]).quick(),
        bad(
            "a truncated bundle",
            truncated,
            &["not a complete safetensors file"],
        ),
        bad(
            "a bundle for another robot",
            other_robot,
            &["is for robot 'three_joints'"],
        ),
        Row::new("an older bundle", older),
        bad(
            "a bundle of another training run",
            |stand| sealed_in("run-b", &stand.spec, stand.version + 1),
            &["may not take over", "accept_runs"],
        ),
        bad(
            "a bundle with a NaN weight",
            not_finite,
            &["NaN", "must be finite"],
        ),
        bad(
            "a bundle whose golden probe does not hold",
            lying,
            &["golden probe 1"],
        ),
        Row::new("a huge bundle (50 MB behind a good one)", huge),
    ]
}

/// The good bundle that would be next.
fn next(stand: &Stand) -> Vec<u8> {
    sealed(&stand.spec, stand.version + 1)
}

fn bad(fault: &'static str, bundle: fn(&Stand) -> Vec<u8>, words: &'static [&'static str]) -> Row {
    Row::new(fault, move |stand| {
        let bundle = bundle(stand);
        refused_before_the_next(stand, &bundle, words)
    })
}

/// A bundle is refused, and the next good one is not.
fn refused_before_the_next(stand: &mut Stand, bundle: &[u8], words: &[&str]) -> Outcome {
    let outcome = refused(stand, bundle, words);
    let seconds = stand.next_good_bundle();
    Outcome {
        recovers: format!(
            "not needed; the next good bundle acts ({} after it was sent)",
            milliseconds(seconds)
        ),
        ..outcome
    }
}

/// Its log tells versions: they are the same, whatever became of the rows before.
fn older(stand: &mut Stand) -> Outcome {
    while stand.version < 4 {
        stand.next_good_bundle();
    }
    stand.begin();
    let bundle = sealed(&stand.spec, stand.version - 1);
    refused_before_the_next(stand, &bundle, &["is not newer"])
}

/// On its way it takes every core for a moment, and a node without real-time priority waits for one.
fn huge(stand: &mut Stand) -> Outcome {
    let mut bundle = next(stand);
    bundle.resize(HUGE, 0);
    let (reaction, log) = refusal(stand, &bundle, &["not a complete safetensors file"]);
    stand.view().policy_but_for(3);
    Outcome {
        sees: "the policy's commands; up to three ticks may be left out where the node has no real-time priority".into(),
        reaction: Some(reaction),
        recovers: "not needed".into(),
        way: None,
        log,
    }
}

/// It is received, checked and taken beside a control thread that goes before all of that.
fn huge_and_valid(stand: &mut Stand) -> Outcome {
    stand.version += 1;
    let bundle = sealed_large(&stand.spec, stand.version, HUGE);
    let digest = digest_of(&bundle);
    let file = stand.env.file("huge.safetensors", &bundle);
    // A program of its own sends it, as that of the robot would leave out states meanwhile.
    let mut trainer = stand.env.peer("trainer");
    // To seal it took every core for seconds.
    stand.begin();
    let offered = trainer.offer_to("/policy/bundle", &file);
    let status = stand
        .peer
        .status("the huge bundle acts", |s| s["digest"] == *digest);
    stand.peer.next("commands", 50);
    let log = stand.says(&["swapped to policy version"]);
    Outcome {
        reaction: Some(arrived(&status) - offered),
        ..stand.goes_on(log, "not needed")
    }
}

/// A bundle is refused, and the policy that acts goes on without a gap.
fn refused(stand: &mut Stand, bundle: &[u8], words: &[&str]) -> Outcome {
    let (reaction, log) = refusal(stand, bundle, words);
    let outcome = stand.goes_on(log, "not needed");
    Outcome {
        reaction: Some(reaction),
        ..outcome
    }
}

/// A bundle is refused, and the policy that acts is untouched: how long the refusal took, and what the log says.
fn refusal(stand: &mut Stand, bundle: &[u8], words: &[&str]) -> (f64, String) {
    let before = stand.waits_until_active();
    let file = stand.env.file("bad.safetensors", bundle);
    // A program of its own sends it: a huge one would hold up the robot's states in the program of the robot.
    let mut trainer = stand.env.peer("trainer");
    let offered = trainer.offer_to("/policy/bundle", &file);
    let after = stand.peer.status("one more bundle is refused", |s| {
        s["rejections"].as_u64() == before["rejections"].as_u64().map(|n| n + 1)
    });
    assert_says(after["last_rejection"].as_str().unwrap_or_default(), words);
    for kept in ["run", "version", "digest", "previous_digest", "swaps"] {
        assert_eq!(after[kept], before[kept], "{kept}");
    }
    let log = stand.says(&[&["bundle refused, the running policy is untouched"], words].concat());
    std::thread::sleep(Duration::from_millis(200));
    (arrived(&after) - offered, log)
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn signed_stand() -> Stand {
    let spec = demanding(CommandInterface::Effort);
    let bundle = sign(&sealed(&spec, 1), &key(1)).expect("a signed bundle");
    let trusted = format!("trusted_keys:=['{}']", key(1).public());
    Stand::with(spec, &bundle, &[&trusted])
}

/// The fallback commands when the new policy comes, and goes on; the new one acts once the states are good.
fn swap_during_a_fault(stand: &mut Stand) -> Outcome {
    let began = stand.report_instead(&Value::Null, 0);
    let version = stand.version + 1;
    let words = ["swapped to policy version"];
    let mut swapped = 0.0;
    stand.fell(began);
    let seconds = stand.next_good_bundle();
    let outcome = stand.falls_back(began, &words, |stand| {
        let status = stand.peer.newest("policy/status").unwrap_or_default();
        assert_eq!(
            (&status["version"], &status["state"]),
            (&json!(version), &json!(state::FALLBACK))
        );
        swapped = now();
        stand.good_states()
    });
    let acted = stand.view().records.into_iter();
    let by_the_policy: Vec<Value> = acted
        .filter(|r| r["fallback"] == false && arrived(r) > swapped)
        .collect();
    assert!(
        by_the_policy.iter().all(|r| r["version"] == version),
        "the old policy acted after the swap"
    );
    Outcome {
        recovers: format!(
            "the swap is done ({}) and moves nothing; with the first good state the new policy fades in",
            milliseconds(seconds)
        ),
        ..outcome
    }
}

/// Threads of nice 19 that do nothing but use the cores until they are dropped.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on_every_core() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let burn = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                // SAFETY: setpriority takes numbers; on Linux, with who = 0, it concerns the calling thread only.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
                while !stop.load(Ordering::Relaxed) {
                    std::hint::black_box((0..1_000_u32).sum::<u32>());
                }
            })
        };
        Self {
            threads: (0..cores).map(burn).collect(),
            stop,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn parameters_under_load(stand: &mut Stand) -> Outcome {
    let load = Load::on_every_core();
    let before = stand.waits_until_active();
    let mut slowest: f64 = 0.0;
    for turn in 0..100_u32 {
        let double = |value: f64| json!({"type": 3, "double_value": value});
        let good = 0.2 + 0.001 * f64::from(turn % 2);
        for (value, is_good) in [(good, true), (-1.0, false)] {
            let asked = now();
            let (done, reason) = stand.peer.set_parameter("stale_timeout", double(value));
            slowest = slowest.max(now() - asked);
            assert_eq!(done, is_good, "{value}: {reason}");
        }
    }
    drop(load);
    let log = stand.says(&["parameter stale_timeout is now"]);
    let outcome = stand.goes_on(log, "not needed");
    let after = stand.peer.next("policy/status", 2).pop().unwrap_or_default();
    assert_eq!(
        after["missed_ticks"], before["missed_ticks"],
        "a tick was more than {TICK} s late"
    );
    Outcome {
        reaction: Some(slowest),
        recovers: "not needed; no tick is missed, every bad set is refused with the reason".into(),
        ..outcome
    }
}
