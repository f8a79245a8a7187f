//! No bytes make whoever opens a bundle panic, hang, or allocate far more than the file holds. The same as the fuzz target
//! (`fuzz/`) without end, here for a fixed number of changes that know the format.

mod allocation;
mod bombs;
mod exercise;
mod mutations;
mod seeds;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfpo_policy::bundle::{self, Manifest};
use mfpo_policy::guard::{GuardManifest, Signal};
use mfpo_policy::spec::RobotSpec;
use mfpo_policy::subject::Subject;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use allocation::{MeasuringAllocator, peak_of};
use bombs::bombs;
use exercise::{Came, exercise};
use mutations::mutated;
use seeds::seeds;

#[global_allocator]
static ALLOCATOR: MeasuringAllocator = MeasuringAllocator;

/// Changed bundles that are tried.
const CASES: u64 = 20_000;
/// None of these few kilobytes may take longer, on a machine that does other things too.
const LONGEST: Duration = Duration::from_secs(10);

/// The most that may be allocated at the same time for a file: 16 times its size for copies, packed and padded weights and the
/// memory they are computed with, 64 times its header, of which every two characters may become a value of JSON, and 32 MiB
/// for 64 candidates and a thousand steps.
fn most_allocated(bytes: &[u8]) -> usize {
    let header = bytes
        .first_chunk()
        .map_or(0, |length| u64::from_le_bytes(*length).min(1 << 20));
    16 * bytes.len() + 64 * header as usize + (32 << 20)
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/bundle_open")
}

/// Tries a file; what must never happen is an error that says where the bytes are kept that made it happen.
fn try_out(bytes: &[u8], what: &str) -> Result<Came, String> {
    let began = Instant::now();
    let (outcome, peak) = peak_of(|| catch_unwind(AssertUnwindSafe(|| exercise(bytes))));
    let (took, most) = (began.elapsed(), most_allocated(bytes));
    let complaint = match outcome {
        Err(_) => "it panicked".to_owned(),
        Ok(_) if took > LONGEST => format!("it took {took:?}"),
        Ok(_) if peak > most => format!("{peak} bytes were allocated for {} ({most} at most)", bytes.len()),
        Ok(came) => return Ok(came),
    };
    let path = std::env::temp_dir().join("mfpo_bundle_that_failed.safetensors");
    let kept = std::fs::write(&path, bytes).map_or_else(|e| e.to_string(), |()| path.display().to_string());
    Err(format!("{what}: {complaint} (kept as {kept})"))
}

/// What a valid bundle says of itself, without what differs from time to time and from computer to computer.
fn manifest(bytes: &[u8]) -> Manifest {
    let mut manifest = bundle::open(bytes).expect("a valid bundle").manifest().clone();
    (manifest.created_unix_s, manifest.digest) = (0, String::new());
    for probe in &mut manifest.probes {
        (probe.noise, probe.action) = (Vec::new(), Vec::new());
        probe.values = probe.values.map(|_| [0.0; 2]);
    }
    manifest
}

/// Each parser of the manifest is reached by changes only where a seed holds what it parses.
fn check_that_seeds_hold_everything(manifests: &[Manifest]) {
    let has = |what: &str, law: &dyn Fn(&Manifest) -> bool| {
        assert!(manifests.iter().any(law), "no seed has {what}");
    };
    let robot = |manifest: &Manifest, law: &dyn Fn(&RobotSpec) -> bool| match &manifest.subject {
        Subject::Robot(robot) => law(robot),
        Subject::Task(_) => false,
    };
    has("a guard of one signal", &|m| {
        m.guard.is_some_and(|guard| guard.disagreement_max.is_none())
    });
    has("a guard of every signal", &|m| {
        let limits = |guard: GuardManifest| Signal::ALL.map(|signal| guard.limit(signal));
        m.guard
            .is_some_and(|guard| limits(guard).iter().all(Option::is_some))
    });
    has("a normaliser", &|m| m.normalizer.is_some());
    has("what critics say of a golden probe", &|m| {
        m.probes.iter().any(|probe| probe.values.is_some())
    });
    has("a goal", &|m| {
        robot(m, &|r| r.goal.is_some() && r.observes_goal())
    });
    has("a limit of acceleration", &|m| {
        robot(m, &|r| r.joints.iter().any(|j| j.acceleration_max.is_some()))
    });
}

/// One test, because the allocator measures all threads together.
#[test]
fn no_bytes_make_a_bundle_panic_hang_or_take_more_memory_than_its_size_allows() {
    let seeds = seeds();
    for (name, bytes) in &seeds {
        assert_eq!(try_out(bytes, name), Ok(Came::Acts), "{name}");
    }
    let manifests: Vec<Manifest> = seeds.iter().map(|(_, bytes)| manifest(bytes)).collect();
    check_that_seeds_hold_everything(&manifests);
    let tried = bombs().into_iter().map(|(name, expected, bytes)| {
        try_out(&bytes, name).and_then(|came| match came == expected {
            true => Ok(()),
            false => Err(format!("{name}: expected {expected:?}, got {came:?}")),
        })
    });
    let complaints: Vec<String> = tried.filter_map(Result::err).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut outcomes = BTreeMap::new();
    for case in 0..CASES {
        let Some((name, seed)) = seeds.choose(&mut rng) else {
            continue;
        };
        let changed = mutated(seed, &mut rng).expect("a seed is a bundle");
        let came = try_out(&changed, &format!("case {case} from seed '{name}'")).unwrap();
        *outcomes.entry(came).or_insert(0) += 1;
    }
    println!("{outcomes:?}");
    for came in [Came::Refused, Came::Opened, Came::Acts] {
        let count = outcomes.get(&came).copied().unwrap_or(0);
        assert!(
            count >= CASES / 500,
            "only {count} of {CASES} changed bundles ended as {came:?}: {outcomes:?}"
        );
    }
    let mut found = 0;
    for file in std::fs::read_dir(corpus())
        .expect("the fuzz target's corpus")
        .flatten()
    {
        let bytes = std::fs::read(file.path()).expect("a file of the corpus");
        let name = file.file_name().to_string_lossy().into_owned();
        let came = try_out(&bytes, &name);
        assert_eq!(came, Ok(Came::Acts), "{name} is a valid bundle");
        found += 1;
    }
    assert!(found >= seeds.len(), "{found} files in the corpus");
    for ((name, _), expected) in seeds.iter().zip(&manifests) {
        let file = corpus().join(format!("{name}.safetensors"));
        let kept = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(
            &manifest(&kept),
            expected,
            "{name} of the corpus is an older one; cargo run --release -p mfpo_policy --example fuzz_corpus writes it anew"
        );
    }
}
