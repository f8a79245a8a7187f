//! `cargo xtask bench NAME`: set-up, build, one benchmark; with `--json` its last line is checked to be an object.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo::{self, Metadata};
use crate::peers;
use crate::setup;
use crate::workspace::Workspace;

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
    /// Build with CUDA; `-- --device cuda` then measures on the GPU.
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
    if args.peers {
        bench.arg("--peers").arg(peers::install(workspace, &args.name)?);
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
    use super::{check_json, find};

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

    #[test]
    fn last_line_must_be_one_json_object() {
        assert!(check_json(r#"{"p50_ms": 1.5, "results": []}"#).is_ok());
        for bad in ["", "done", "[1]", "{\"a\": 1", "{} trailing"] {
            assert!(check_json(bad).is_err(), "{bad}");
        }
    }
}
