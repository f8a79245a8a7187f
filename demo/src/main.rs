//! The whole loop on one screen: a robot in MuJoCo on ROS 2, the control node, and the trainer whose better policies
//! go live while the robot moves. Success is measured on the robot, before and after.

mod budget;
mod children;
mod conductor;
mod domain;
mod lines;
mod panels;
mod report;
mod ros;
mod screen;
mod story;
mod trainer;
mod trial;
mod view;

use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use mfpo_ros::{environment, this_machine, transport};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tracing_subscriber::EnvFilter;

use crate::conductor::{Conductor, Options, TrainerEnd};
use crate::lines::Lines;
use crate::report::Summary;
use crate::screen::Screen;
use crate::story::Phase;
use crate::view::View;

/// How often everything is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Shows the whole loop: a simulated robot on ROS 2 is commanded by a MeanFlow policy, the trainer learns the task at
/// the same time, and every better policy goes live while the robot moves. Leaves a report in target/demo.
#[derive(Debug, Parser)]
#[command(name = "mfpo_demo", version)]
struct Cli {
    /// How long the whole loop may take, s; a short one measures fewer starts
    #[arg(long, value_name = "N", default_value_t = 180,
          value_parser = clap::value_parser!(u64).range(budget::SHORTEST..=86_400))]
    seconds: u64,
    /// Seed of the training, of the policy's noise and of the robot's starts
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_u64 << 53))]
    seed: u64,
    /// Print lines instead of a screen, and end with one line that holds one JSON object
    #[arg(long)]
    headless: bool,
}

/// Names the process that has a domain of its own.
const ISOLATED: &str = "MFPO_DEMO_PROCESS";

/// How the demo ended.
enum End {
    /// The loop ran to its end.
    Whole,
    /// A person stopped it.
    Stopped,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = own_ros_domain().and_then(|()| {
        transport::settle();
        run(&cli)
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mfpo_demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// This machine only, and a domain that nobody else uses here: the demo's topics have the names of a real robot's, which
/// may be running in the domain that a shell has set. The program begins anew for it.
fn own_ros_domain() -> anyhow::Result<()> {
    let process = std::process::id().to_string();
    // What is below is done: this process has begun anew since.
    if std::env::var(ISOLATED).is_ok_and(|by| by == process) {
        return Ok(());
    }
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let told = variable("ROS_DOMAIN_ID");
    let domain = domain::own(told.as_deref(), std::process::id()).to_string();
    if let Some(told) = told.filter(|told| *told != domain) {
        eprintln!(
            "ROS_DOMAIN_ID is {told}: expected a domain (0 to 232) that no program of this machine uses; the demo takes \
             {domain}, so that it moves no other robot. To look at it: export ROS_DOMAIN_ID={domain}"
        );
    }
    let (range, value) = this_machine::variable(variable("ROS_DISTRO").as_deref());
    let mut wanted = vec![
        (range, Some(value)),
        ("ROS_DOMAIN_ID", Some(domain.as_str())),
        (ISOLATED, Some(process.as_str())),
    ];
    wanted.extend(this_machine::ELSEWHERE.map(|name| (name, None)));
    environment::restart_with(&wanted).context("the demo cannot begin anew in a ROS 2 domain of its own")
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let asked = stop_on_signals()?;
    let programs = programs()?;
    let _lock = lock(&programs)?;
    let folder = fresh_folder(&programs)?;
    let log = init_log(&folder.join("demo.log"))?;
    let mut view = view(cli, &log)?;
    let options = Options {
        budget: Duration::from_secs(cli.seconds),
        seed: cli.seed,
        programs: programs.clone(),
        folder: folder.clone(),
    };
    let mut conductor = Conductor::start(options)?;
    let end = play(&mut conductor, &mut view, &asked);
    drop(view);
    let summary = match end {
        Ok(End::Whole) => Some(Summary::new(&conductor.story, &conductor.trainer_end())?),
        _ => None,
    };
    asked.store(false, Ordering::Relaxed);
    conductor.stop(&|| asked.load(Ordering::Relaxed));
    end?;
    let Some(summary) = summary else {
        eprintln!("Stopped; no process is left. Logs are in {}.", folder.display());
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let missing = report::write(&folder, &summary, &conductor.poses, &programs)?;
    println!("\n{}", summary.text());
    println!("  report      {}", folder.display());
    for line in missing {
        println!("  not there   {line}");
    }
    let end = conductor.trainer_end();
    if cli.headless {
        println!("{}", serde_json::to_string(&summary)?);
    }
    if let TrainerEnd::Died(how) = end {
        bail!(
            "the trainer {how} before its end; see {}",
            folder.join("trainer.log").display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Until the loop has run to its end, or a person stops it.
fn play(conductor: &mut Conductor, view: &mut View, asked: &AtomicBool) -> anyhow::Result<End> {
    loop {
        conductor.advance()?;
        let quit = view.show(&conductor.story)?;
        if quit || asked.load(Ordering::Relaxed) {
            return Ok(End::Stopped);
        }
        if conductor.story.phase == Phase::Done {
            return Ok(End::Whole);
        }
    }
}

fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&asked)).context("cannot catch signals")?;
    }
    Ok(asked)
}

/// The other programs lie beside this one.
fn programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let folder = own
        .parent()
        .context("this program's file has no folder")?
        .to_owned();
    for name in ["robot", "control", "mfpo_train"] {
        if !folder.join(name).exists() {
            bail!(
                "{} is not there; build everything with: cargo xtask demo",
                folder.join(name).display()
            );
        }
    }
    Ok(folder)
}

/// Two demos would write into the same folder.
fn lock(programs: &Path) -> anyhow::Result<File> {
    let path = programs.join("mfpo_demo.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.try_lock()
        .context("another demo runs already; wait for its end or stop it with Ctrl-C")?;
    Ok(file)
}

/// `target/demo`, empty.
fn fresh_folder(programs: &Path) -> anyhow::Result<PathBuf> {
    let folder = programs.parent().unwrap_or(programs).join("demo");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn init_log(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .with_writer(file.try_clone()?)
        .init();
    Ok(file)
}

fn view(cli: &Cli, log: &File) -> anyhow::Result<View> {
    if cli.headless {
        return Ok(View::Lines(Lines::default()));
    }
    if !std::io::stdout().is_terminal() {
        println!("standard output is no terminal: lines instead of a screen");
        return Ok(View::Lines(Lines::default()));
    }
    Ok(View::Screen(Box::new(Screen::open(log)?)))
}
