//! Where the programs of this workspace are, and that they are not older than their sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const BUILD: &str = "cargo build --workspace --release --features mfpo_sim/ros";

/// Set to run whatever program is there, however old.
const ANY_AGE: &str = "MFPO_TESTS_ANY_AGE";

/// The repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The program `name` of the same build as this test.
///
/// # Panics
/// When it is missing, or older than one of its sources; the line to type is then told.
pub fn program(name: &str) -> PathBuf {
    // target/release/deps/system-0123456789abcdef
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.ancestors().nth(2).expect("the target folder");
    let program = folder.join(name);
    let built = modified(&program).unwrap_or_else(|| panic!("{} is missing; run {BUILD}", program.display()));
    let newer = sources(&folder.join(format!("{name}.d")))
        .into_iter()
        .find(|source| modified(source).is_some_and(|changed| changed > built));
    if let Some(source) = newer.filter(|_| std::env::var_os(ANY_AGE).is_none()) {
        panic!(
            "{} is older than {}; run {BUILD} (or set {ANY_AGE}=1)",
            program.display(),
            source.display()
        );
    }
    program
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

/// The sources that cargo noted beside a program: one line, `program: source source ...`.
fn sources(noted: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(noted).unwrap_or_default();
    let paths = text.split_once(": ").map_or("", |(_, paths)| paths);
    // A blank inside a path is written as `\ `.
    let paths = paths.trim().replace("\\ ", "\0");
    paths
        .split_whitespace()
        .map(|path| PathBuf::from(path.replace('\0', " ")))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
