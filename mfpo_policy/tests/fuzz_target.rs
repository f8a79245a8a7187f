//! The fuzz target (`fuzz/`) compiled with the workspace, over its corpus and what its own mutator makes of that: it is no
//! member and wants a nightly compiler, so that nothing else would notice when it no longer fits.

extern crate self as libfuzzer_sys;

// Before the macros, so that it takes them by the path that it names.
#[path = "../../fuzz/fuzz_targets/bundle_open.rs"]
#[allow(unused_attributes, reason = "`no_main` belongs to a program")]
mod bundle_open;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// libfuzzer-sys' macro of this name, without libFuzzer.
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:block) => {
        pub fn run($bytes: &[u8]) $body
    };
}
pub(crate) use fuzz_target;

/// libfuzzer-sys' macro of this name, without libFuzzer.
macro_rules! fuzz_mutator {
    (|$data:ident: &mut [u8], $size:ident: usize, $max_size:ident: usize, $seed:ident: u32| $body:block) => {
        pub fn mutate($data: &mut [u8], $size: usize, $max_size: usize, $seed: u32) -> usize $body
    };
}
pub(crate) use fuzz_mutator;

/// How often the target's own mutator left a change to libFuzzer's.
static LEFT: AtomicU32 = AtomicU32::new(0);

/// libFuzzer's own mutator, here a bit that is changed.
fn fuzzer_mutate(data: &mut [u8], size: usize, _most: usize) -> usize {
    let count = LEFT.fetch_add(1, Ordering::Relaxed) as usize;
    if let Some(byte) = data[..size].get_mut(count * 31 % size.max(1)) {
        *byte ^= 1 << (count % 8);
    }
    size
}

/// Changes of each file of the corpus.
const CHANGES: u32 = 200;
/// `-max_len` of fuzz/README.md.
const MOST: usize = 65_536;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_fuzz_target_takes_its_corpus_and_what_its_mutator_makes_of_it() {
    let folder = std::fs::read_dir(fuzz().join("corpus/bundle_open")).expect("the corpus");
    let (mut files, mut changes) = (0, 0);
    for file in folder.flatten() {
        let bytes = std::fs::read(file.path()).expect("a file of the corpus");
        bundle_open::run(&bytes);
        files += 1;
        for seed in 0..CHANGES {
            let mut data = bytes.clone();
            data.resize(MOST.max(bytes.len()), 0);
            let size = bundle_open::mutate(&mut data, bytes.len(), MOST, seed);
            assert!(size <= MOST, "{:?}, seed {seed}: {size} bytes", file.file_name());
            bundle_open::run(&data[..size]);
            changes += 1;
        }
    }
    let left = LEFT.load(Ordering::Relaxed);
    println!("{files} files of the corpus, {changes} changes, {left} of them as libFuzzer's own");
    assert!(files > 0, "the corpus is empty");
    // A quarter is left to libFuzzer, and what would be too long.
    assert!(left < changes / 2, "the target's own mutator made few of them");
}

/// Names and versions under `[section]`: of `name = "version"` and of `name = { version = "version", ... }`.
fn versions(manifest: &str, section: &str) -> BTreeMap<String, String> {
    let lines = manifest
        .lines()
        .skip_while(|line| *line != format!("[{section}]"));
    let lines = lines.skip(1).take_while(|line| !line.starts_with('['));
    let version = |line: &str| {
        let (name, value) = line.split_once(" = ")?;
        let value = value.split_once("version = ").map_or(value, |(_, rest)| rest);
        let version = value.strip_prefix('"')?.split('"').next()?;
        Some((name.to_owned(), version.to_owned()))
    };
    lines.filter_map(version).collect()
}

#[test]
fn the_fuzz_target_is_built_from_the_versions_of_the_workspace() {
    let (own, all) = (
        text(&fuzz().join("Cargo.toml")),
        text(&fuzz().join("../Cargo.toml")),
    );
    let pinned = versions(&all, "workspace.dependencies");
    let taken = versions(&own, "dependencies");
    let shared: Vec<_> = taken
        .iter()
        .filter(|(name, _)| pinned.contains_key(*name))
        .collect();
    for (name, version) in &shared {
        assert_eq!(
            pinned.get(*name),
            Some(*version),
            "fuzz/Cargo.toml has another {name}"
        );
    }
    assert!(shared.len() >= 4, "only {shared:?} are compared");
}

#[test]
fn the_fuzz_target_names_every_crate_that_it_uses() {
    let own = text(&fuzz().join("Cargo.toml"));
    let sources = [
        fuzz().join("fuzz_targets/bundle_open.rs"),
        fuzz().join("../mfpo_policy/tests/bundles/exercise.rs"),
        fuzz().join("../mfpo_policy/tests/bundles/mutations.rs"),
    ];
    for source in sources {
        for used in text(&source).lines().filter_map(|line| line.strip_prefix("use ")) {
            let name = used.split([':', ';']).next().unwrap_or(used);
            if ["std", "crate", "super"].contains(&name) {
                continue;
            }
            let named = [name.to_owned(), name.replace('_', "-")].map(|name| format!("\n{name} = "));
            assert!(
                named.iter().any(|line| own.contains(line)),
                "{} uses {name}, which fuzz/Cargo.toml does not name",
                source.display()
            );
        }
    }
}
