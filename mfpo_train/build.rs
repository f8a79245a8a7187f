//! Tells the program the git revision that it was built from, for the run folders.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src");
    // Every commit, checkout and rebase writes a line there.
    println!("cargo::rerun-if-changed=../.git/logs/HEAD");
    println!("cargo::rustc-env=MFPO_REVISION={}", revision());
}

/// `unknown` without git or outside a clone.
fn revision() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    match git(&["rev-parse", "HEAD"]) {
        None => "unknown".to_owned(),
        Some(revision) if git(&["status", "--porcelain"]).is_some_and(|text| text.is_empty()) => revision,
        Some(revision) => format!("{revision}, modified"),
    }
}
