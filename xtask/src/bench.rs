//! `cargo xtask bench NAME`: set-up, build, one benchmark; with `--json` its last line is checked to be an object.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo::{self, Metadata};
use crate::peers;
use crate::setup;
use crate::workspace::Workspace;

/// Benchmarks that have their measure in the same run, and what it is: no program of others is installed for them.
const OWN_MEASURES: [(&str, &str); 1] = [(
    "train",
    "its training steps are compared with updates alone, which take turns with them in the same run",
)];

/// Which benchmark, and how.
#[derive(clap::Args)]
pub struct Args {
    /// Name of the benchmark; an unknown one lists them all.
    name: String,
    /// End with one line that holds one JSON object.
    #[arg(long)]
    json: bool,
    /// Run its peers beside it, installed where they are missing (benches/peers), and print the ratio
    #[arg(long)]
    peers: bool,
    /// Build with CUDA; `-- --device cuda` then measures on the GPU, and of the peers that of `update` (2 GB of wheels)
    #[arg(long)]
    cuda: bool,
    /// More options for the benchmark itself, after `--`.
    #[arg(last = true, value_name = "OPTIONS")]
    rest: Vec<String>,
}

/// Runs the benchmark.
pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let benches = Metadata::read(workspace)?.benches();
    find(&benches, &args.name)?;
    // Before the set-up and the build, which take their time.
    let folder = workspace.root().join("benches/peers");
    let peers = args.peers && has_peers(&folder, &args.name)?;
    let environment = setup::run(workspace)?;
    let cuda = cargo::cuda(&environment, args.cuda)?;
    // Benchmarks over DDS start the programs of the other packages.
    let mut build = cargo::command(workspace, &environment);
    build
        .arg("build")
        .args(cargo::WHOLE)
        .args(cuda)
        .args(["--bins", "--exclude", "xtask"]);
    cargo::run(build)?;
    // The whole workspace with the features of every other command: for one package alone cargo would unify features
    // differently and compile candle and r2r once more.
    let mut bench = cargo::command(workspace, &environment);
    bench.args([
        "bench",
        "--locked",
        "--profile",
        "release",
        "--workspace",
        "--features",
        cargo::FEATURES,
    ]);
    bench.args(cuda).args(["--bench", &args.name, "--"]);
    bench.args(args.json.then_some("--json"));
    if peers {
        let list = peers::list(&folder, &args.name, args.cuda);
        bench.arg("--peers").arg(peers::install(workspace, &list)?);
    }
    bench.args(&args.rest);
    if args.json {
        run_json(bench)?
    } else {
        cargo::run(bench)?
    }
    Ok(ExitCode::SUCCESS)
}

/// The package of the benchmark `name`.
fn find<'a>(benches: &'a [(String, String)], name: &str) -> Result<&'a str> {
    if let Some((_, package)) = benches.iter().find(|(bench, _)| bench == name) {
        return Ok(package);
    }
    let names: Vec<_> = benches.iter().map(|(bench, _)| bench.as_str()).collect();
    let closest = names
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    match closest {
        Some(closest) => bail!(
            "no benchmark '{name}'; did you mean '{closest}'? There are: {}",
            names.join(", ")
        ),
        None => bail!("no benchmark '{name}': the workspace holds none"),
    }
}

/// Whether `folder` has peers for the benchmark `name`. One that brings its own measure runs without, and it is told which.
fn has_peers(folder: &Path, name: &str) -> Result<bool> {
    if folder.join(format!("{name}.txt")).is_file() {
        return Ok(true);
    }
    if let Some((_, measure)) = OWN_MEASURES.iter().find(|(own, _)| *own == name) {
        eprintln!("bench {name} has no peers to install: {measure}");
        return Ok(false);
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let lists = entries.flatten().filter_map(|entry| {
        let file = entry.file_name();
        let name = file.to_str()?.strip_suffix(".txt")?;
        (!name.ends_with(peers::ON_GPU)).then(|| name.to_owned())
    });
    let mut having: Vec<_> = lists.collect();
    having.sort();
    bail!(
        "bench {name} has no peers; leave --peers out. There are some for: {}",
        having.join(", ")
    )
}

fn run_json(mut bench: Command) -> Result<()> {
    let line = cargo::line(&bench);
    eprintln!("$ {line}");
    let mut child = bench
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    let stdout = child.stdout.take().context("the benchmark has no output")?;
    let mut last = String::new();
    for text in BufReader::new(stdout).lines() {
        last = text?;
        writeln!(std::io::stdout(), "{last}")?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("failed ({status}): {line}");
    }
    check_json(&last)
}

fn check_json(last: &str) -> Result<()> {
    match serde_json::from_str(last) {
        Ok(Value::Object(_)) => Ok(()),
        _ => bail!("the benchmark's last line: expected one JSON object, got: {last}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{OWN_MEASURES, check_json, find, has_peers};

    #[test]
    fn unknown_benchmark_names_the_closest() {
        let benches = [("inference", "a"), ("tick", "b"), ("update", "c")]
            .map(|(name, package)| (name.into(), package.into()));
        assert_eq!(find(&benches, "tick").expect("there"), "b");
        let error = find(&benches, "tik").expect_err("not there").to_string();
        assert!(
            error.contains("did you mean 'tick'") && error.contains("inference, tick, update"),
            "{error}"
        );
        assert!(find(&[], "tick").is_err());
    }

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// The sources of a benchmark, with the rows that those over ROS 2 share.
    fn sources(name: &str) -> String {
        let mut files = vec![repository().join("tests/src/rig/table.rs")];
        for package in ["mfpo_policy", "mfpo_train", "sim", "tests"] {
            let benches = repository().join(package).join("benches");
            files.extend([
                benches.join(format!("{name}.rs")),
                benches.join(name).join("main.rs"),
            ]);
        }
        let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        texts.collect()
    }

    #[test]
    fn the_keys_that_the_documents_promise_are_those_that_benchmarks_write() {
        let document = fs::read_to_string(repository().join("docs/benchmarks.md")).expect("the document");
        let mut listed = Vec::new();
        for row in document.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (name, keys) = row.split_once("` | ").expect("a name and keys");
            let source = sources(name);
            for key in keys.split('`').skip(1).step_by(2) {
                assert!(source.contains(&format!("\"{key}\"")), "{name} writes no {key}");
            }
            listed.push(name);
        }
        listed.sort_unstable();
        let all = [
            "allocations",
            "inference",
            "large_bundle",
            "scale",
            "sim",
            "soak",
            "swap",
            "tick",
            "train",
            "update",
        ];
        assert_eq!(listed, all, "benchmarks with --json");
    }

    #[test]
    fn peers_are_asked_for_where_there_are_some_and_the_measure_of_others_is_told() {
        let folder = repository().join("benches/peers");
        for name in ["inference", "sim", "update"] {
            assert!(has_peers(&folder, name).expect("peers"), "{name}");
        }
        for (name, measure) in OWN_MEASURES {
            assert!(!has_peers(&folder, name).expect(measure), "{name}");
        }
        let error = has_peers(&folder, "tick").expect_err("none").to_string();
        assert!(
            error.contains("bench tick has no peers") && error.ends_with("inference, sim, update"),
            "{error}"
        );
    }

    #[test]
    fn last_line_must_be_one_json_object() {
        assert!(check_json(r#"{"p50_ms": 1.5, "results": []}"#).is_ok());
        for bad in ["", "done", "[1]", "{\"a\": 1", "{} trailing"] {
            assert!(check_json(bad).is_err(), "{bad}");
        }
    }
}
