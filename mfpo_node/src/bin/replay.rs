//! `replay`: computes the actions of a recording again and says whether they are the same. Needs no ROS.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use mfpo_node::replay::{Report, replay};
use mfpo_policy::kernel::InstructionSet;

/// Computes every action of recordings again, and says `identical` or the first difference.
///
/// A recording is what the control node writes where its parameter record.folder says so: an MCAP file with every tick
/// and the policies that acted. MFPO_KERNEL=avx512|avx2|neon|baseline chooses the instruction set that
/// computes.
#[derive(Debug, Parser)]
#[command(name = "replay", version)]
struct Arguments {
    /// Recordings.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = InstructionSet::check_asked() {
        eprintln!("replay: {error}");
        return ExitCode::FAILURE;
    }
    let mut all_identical = true;
    for file in &arguments.files {
        match replay(file) {
            Ok(report) => {
                all_identical &= report.is_identical();
                println!("{}", words(&report, file));
            }
            Err(error) => {
                all_identical = false;
                eprintln!("replay {}: {error}", file.display());
            }
        }
    }
    if all_identical {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What a report says.
fn words(report: &Report, file: &Path) -> String {
    let said = |key: &str| report.metadata.get(key).map_or("?", String::as_str);
    let mut text = format!(
        "{}: {} ticks of node /{}, robot {}, seed {}, recorded with kernel {} on {}; kernel here: {}\n",
        file.display(),
        report.ticks,
        said("node"),
        said("robot"),
        said("seed"),
        report.kernel(),
        said("device"),
        Report::kernel_here(),
    );
    text.push_str(&verdict(report));
    // Writing to a string does not fail.
    if report.missing > 0 {
        let _ = write!(text, "\n{} actions in between were not recorded", report.missing);
    }
    if report.is_unfinished {
        text.push_str("\nthe file was not finished: everything up to its last whole chunk is compared");
    }
    text
}

fn verdict(report: &Report) -> String {
    let Some(first) = &report.first else {
        return format!(
            "identical: {} actions of {} policies",
            report.actions, report.policies
        );
    };
    let (run, version) = &first.policy;
    let mut text = format!(
        "different: tick {} (draw {}, version {version} of run '{run}'): component {} of the action was recorded as {:e} \
         ({:08x}), got {:e} ({:08x}); {} of {} actions differ, by {:e} at most",
        first.tick,
        first.draw,
        first.component,
        first.recorded,
        first.recorded.to_bits(),
        first.got,
        first.got.to_bits(),
        report.differing,
        report.actions,
        report.largest,
    );
    let here = Report::kernel_here();
    let recorded = report.kernel();
    if recorded != here {
        let _ = write!(
            text,
            "\nanother kernel computed it: {recorded}, here it is {here}; for a comparison bit for bit, on a processor \
             that has it: MFPO_KERNEL={recorded} replay FILE"
        );
    }
    if report
        .metadata
        .get("device")
        .is_some_and(|device| device != "cpu")
    {
        text.push_str("\nit was not computed on a CPU: only there the same bits come back");
    }
    text
}
