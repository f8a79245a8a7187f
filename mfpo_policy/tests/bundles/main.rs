//! No bytes make whoever opens a bundle panic, hang, or allocate more than `bundle::most_for_opening` says, and a sampler of it
//! more than `bundle::most_for_sampler`; `-- --nocapture` tells how near to each they came. The same as the fuzz target
//! (`fuzz/`) without end, here for a fixed number of changes that know the format.

mod allocation;
mod bombs;
mod exercise;
mod mutations;
mod seeds;

use std::collections::BTreeMap;
use std::fmt;
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
use safetensors::tensor::SafeTensors;

use allocation::{MeasuringAllocator, peak_of};
use bombs::bombs;
use exercise::{Came, Onlooker, Step, exercise};
use mutations::mutated;
use seeds::seeds;

#[global_allocator]
static ALLOCATOR: MeasuringAllocator = MeasuringAllocator;

/// Changed bundles that are tried.
const CASES: u64 = 20_000;
/// None of these few kilobytes may take longer, on a machine that does other things too.
const LONGEST: Duration = Duration::from_secs(10);

/// What a step allocated at most, and how much it may.
#[derive(Debug, Clone, Copy)]
struct Allocated {
    step: Step,
    /// Size of the file, bytes.
    size: usize,
    peak: usize,
    most: usize,
}

impl fmt::Display for Allocated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            step,
            size,
            peak,
            most,
        } = self;
        write!(
            f,
            "{step:?} allocated {peak} bytes for a file of {size} ({most} allowed)"
        )
    }
}

/// Measures each step.
#[derive(Debug, Default)]
struct Meter {
    all: Vec<Allocated>,
}

impl Onlooker for Meter {
    fn look<T>(&mut self, step: Step, size: usize, run: impl FnOnce() -> T) -> T {
        let (result, peak) = peak_of(run);
        let most = match step {
            Step::Opening => bundle::most_for_opening(size),
            Step::Acting => bundle::most_for_sampler(size),
        };
        self.all.push(Allocated {
            step,
            size,
            peak,
            most,
        });
        result
    }
}

/// What the step allocated that came nearest to what it may, and for which file.
type Nearest = BTreeMap<Step, (Allocated, String)>;

fn note(nearest: &mut Nearest, name: &str, all: &[Allocated]) {
    let share = |allocated: &Allocated| allocated.peak as f64 / allocated.most as f64;
    for allocated in all {
        let before = nearest
            .get(&allocated.step)
            .map_or(0.0, |(before, _)| share(before));
        if share(allocated) > before {
            nearest.insert(allocated.step, (*allocated, name.to_owned()));
        }
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/bundle_open")
}

/// Tries a file; what must never happen is an error that says where the bytes are kept that made it happen.
fn try_out(bytes: &[u8], what: &str, nearest: &mut Nearest) -> Result<Came, String> {
    let (began, mut meter) = (Instant::now(), Meter::default());
    let outcome = catch_unwind(AssertUnwindSafe(|| exercise(bytes, &mut meter)));
    let took = began.elapsed();
    note(nearest, what, &meter.all);
    let complaint = match (&outcome, meter.all.iter().find(|step| step.peak > step.most)) {
        (Err(_), _) => "it panicked".to_owned(),
        (Ok(_), _) if took > LONGEST => format!("it took {took:?}"),
        (Ok(_), Some(step)) => step.to_string(),
        // What is taken is what every reader of such files takes.
        (Ok(came), None) if *came > Came::Refused && SafeTensors::deserialize(bytes).is_err() => {
            "it was opened, but the safetensors crate refuses it".to_owned()
        }
        (Ok(came), None) => return Ok(*came),
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
    let (seeds, mut nearest) = (seeds(), Nearest::new());
    // What is made once for the whole process belongs to no file.
    if let Some((_, bytes)) = seeds.first() {
        exercise(bytes, &mut Meter::default());
    }
    for (name, bytes) in &seeds {
        assert_eq!(try_out(bytes, name, &mut nearest), Ok(Came::Acts), "{name}");
    }
    let manifests: Vec<Manifest> = seeds.iter().map(|(_, bytes)| manifest(bytes)).collect();
    check_that_seeds_hold_everything(&manifests);
    let tried = bombs().into_iter().map(|(name, expected, bytes)| {
        try_out(&bytes, name, &mut nearest).and_then(|came| match came == expected {
            true => Ok(()),
            false => Err(format!("{name}: expected {expected:?}, got {came:?}")),
        })
    });
    let complaints: Vec<String> = tried.filter_map(Result::err).collect();
    for (allocated, name) in nearest.values() {
        println!("nearest of all but changed bundles: {allocated}, {name}");
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut outcomes = BTreeMap::new();
    for case in 0..CASES {
        let Some((name, seed)) = seeds.choose(&mut rng) else {
            continue;
        };
        let changed = mutated(seed, &mut rng).expect("a seed is a bundle");
        let came = try_out(&changed, &format!("case {case} from seed '{name}'"), &mut nearest).unwrap();
        *outcomes.entry(came).or_insert(0) += 1;
    }
    println!("{outcomes:?}");
    for (allocated, name) in nearest.values() {
        println!("nearest of all: {allocated}, {name}");
    }
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
        let came = try_out(&bytes, &name, &mut nearest);
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
