//! `bench allocations`: what the control thread allocates where a joint state becomes a command. A step of the control
//! loop itself allocates nothing, as the laws of mfpo_node prove; r2r and the middleware around it do, and how much is
//! counted here: the node runs in a copy of this program, whose allocator counts thread by thread.

mod counting;

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use mfpo_tests::rig::{self, Receiver, Robot, bundle, machine, without_stages};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Set for the copy that is the node.
const IS_NODE: &str = "MFPO_BENCH_NODE";
const NAMESPACE: &str = "/bench";
/// What the copy's last line begins with.
const COUNTED: &str = "counted ";

/// Counts what the control thread allocates.
#[derive(Debug, Clone, Parser)]
#[command(name = "allocations", version)]
struct Arguments {
    /// Control rate, Hz.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// How long is counted, s.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if std::env::var_os(IS_NODE).is_some() {
        return rig::ended("allocations", node());
    }
    rig::isolate();
    rig::ended("allocations", run(&Arguments::parse()))
}

/// The node itself, until SIGTERM; then what its threads have allocated.
fn node() -> anyhow::Result<()> {
    ensure!(
        counting::counts_c_libraries(),
        "the allocations of C libraries are not counted here; expected malloc to be this program's"
    );
    mfpo_node::ros::run(mfpo_ros::log::init_with_queue())?;
    let control = counting::of_threads(|name| name == "control_loop");
    let others = counting::of_threads(|name| name != "control_loop");
    println!("{COUNTED}{}", json!({"control": control, "others": others}));
    Ok(())
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    println!("{}", machine());
    println!(
        "12 joints, 128-128 policy, {} Hz, {} s a row; a tick is one joint state taken, one command and one record sent",
        arguments.rate, arguments.seconds
    );
    println!(
        "| trigger | ticks | by r2r, a tick | by the middleware, a tick | bytes a tick | all other threads, a tick |"
    );
    println!("|---|---|---|---|---|---|");
    let folder = tempfile::tempdir()?;
    let mut results = Vec::new();
    for trigger in ["on_state", "fixed_rate"] {
        results.push(measure(arguments, trigger, folder.path())?);
    }
    if arguments.json {
        println!(
            "{}",
            json!({"rate_hz": arguments.rate, "machine": machine(), "results": results})
        );
    }
    Ok(())
}

fn measure(arguments: &Arguments, trigger: &str, folder: &Path) -> anyhow::Result<Value> {
    let policy = folder.join("first.safetensors");
    std::fs::write(&policy, bundle("bench", 1, arguments.rate)?).context("writing the bundle")?;
    let copy = start(trigger, &policy)?;
    let watched = watch(arguments);
    let counted = end_and_read(copy)?;
    let ticks = watched?;
    let of = |thread: &str, index: usize| counted[thread][index].as_f64().unwrap_or(f64::NAN) / ticks as f64;
    let (rust, all, bytes) = (of("control", 0), of("control", 1), of("control", 2));
    let others = of("others", 1);
    println!(
        "| {trigger} | {ticks} | {rust:.1} | {:.1} | {bytes:.0} | {others:.1} |",
        all - rust
    );
    Ok(json!({
        "trigger": trigger, "ticks": ticks, "rust_per_tick": rust, "middleware_per_tick": all - rust,
        "bytes_per_tick": bytes, "other_threads_per_tick": others,
    }))
}

/// Lets the node command for the time that is asked for; how many ticks it has sent then.
fn watch(arguments: &Arguments) -> anyhow::Result<u64> {
    let robot = Robot::start(&[NAMESPACE.to_owned()], arguments.rate);
    let mut receiver = Receiver::new(NAMESPACE)?;
    receiver.wait_until_active(0.0)?;
    let end = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut ticks = 0;
    while Instant::now() < end {
        receiver.pump(
            Duration::from_millis(10),
            |_, _| {},
            |action, _| ticks = action.sequence + 1,
        );
    }
    robot.end()?;
    ensure!(ticks > 0, "no record of a tick has arrived");
    Ok(ticks)
}

/// A copy of this program that is the node.
fn start(trigger: &str, policy: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("the path of this program")?);
    command.env(IS_NODE, "1").env("RUST_LOG", "warn");
    command.args(["--ros-args", "-r", &format!("__ns:={NAMESPACE}")]);
    command.args(["-p", &format!("policy:={}", policy.display())]);
    command.args(["-p", &format!("trigger:={trigger}")]);
    for parameter in without_stages() {
        command.args(["-p", &parameter]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().context("starting the node")
}

/// Asks the copy to end, and reads what it has counted.
fn end_and_read(copy: Child) -> anyhow::Result<Value> {
    kill(Pid::from_raw(copy.id().cast_signed()), Signal::SIGTERM).context("ending the node")?;
    let output = copy.wait_with_output().context("waiting for the node")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find_map(|line| line.strip_prefix(COUNTED));
    let line = line.with_context(|| format!("the node ended with {} and told no counts", output.status))?;
    Ok(serde_json::from_str(line)?)
}
