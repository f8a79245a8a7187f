//! All golden tests once more with each instruction set that the processor has, in processes of their own: a process chooses
//! its own once.

use std::process::Command;

use mfpo_policy::kernel::InstructionSet;

use crate::files::FOLDER;
use crate::reference::device;

/// The environment variable that names an instruction set.
const KERNEL: &str = "MFPO_KERNEL";
/// What a process writes before the name of its instruction set.
const USED: &str = "golden tests run with kernel ";
/// ENOEXEC: a program of an emulated processor starts no other of its kind by itself.
const NOT_OF_THIS_PROCESSOR: i32 = 8;
/// What each golden test writes of its comparison, behind a number.
const COMPARED: &str = " tensors compared";
/// So many of them compare something, where the files are those of this repository.
const COMPARISONS: usize = 10;

fn asked() -> Option<String> {
    std::env::var(KERNEL).ok().filter(|name| !name.is_empty())
}

#[test]
fn the_kernel_is_the_one_that_was_asked_for() {
    let used = InstructionSet::detect().name();
    if let Some(asked) = asked() {
        assert_eq!(
            used, asked,
            "{KERNEL} asks for another kernel than the one that is used"
        );
    }
    println!("{USED}{used}");
}

#[test]
fn golden_tests_hold_with_every_kernel_of_this_processor() {
    if let Some(kernel) = asked() {
        println!("{KERNEL} asks for {kernel} alone");
        return;
    }
    if !device().is_cpu() {
        println!("the kernels are the CPU's; nothing compared");
        return;
    }
    let own = InstructionSet::detect();
    // This process has the best one, which with AMX has the name of the one without.
    for kernel in InstructionSet::available()
        .into_iter()
        .filter(|name| *name != own.name() || own.uses_tiles())
    {
        run_with(kernel);
    }
}

/// Every test of this program in a process with `kernel`.
fn run_with(kernel: &str) {
    let program = std::env::current_exe().expect("the path of this test");
    let mut command = Command::new(program);
    let output = match command.arg("--nocapture").env(KERNEL, kernel).output() {
        Err(error) if error.raw_os_error() == Some(NOT_OF_THIS_PROCESSOR) => {
            println!("an emulator runs this: {KERNEL}={kernel} has to be asked for by hand");
            return;
        }
        output => output.expect("this test can be run again"),
    };
    let told = String::from_utf8_lossy(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the golden tests fail with kernel {kernel}:\n{told}\n{words}"
    );
    assert!(
        told.contains(&format!("{USED}{kernel}\n")),
        "kernel {kernel} was asked for, and this was told:\n{told}"
    );
    let comparisons: Vec<&str> = told.lines().filter(|line| has_compared(line)).collect();
    assert!(
        comparisons.len() >= COMPARISONS || std::env::var_os(FOLDER).is_some(),
        "only these were compared with kernel {kernel}:\n{told}"
    );
    println!("with kernel {kernel}:");
    comparisons.iter().for_each(|line| println!("  {line}"));
}

/// Does this line tell of a comparison in which there was something to compare?
fn has_compared(line: &str) -> bool {
    let number = line.split_once(COMPARED).and_then(|(before, _)| {
        let number = before.rsplit(' ').next()?;
        number.parse::<usize>().ok()
    });
    number.is_some_and(|number| number > 0)
}

#[test]
fn a_comparison_of_nothing_does_not_count() {
    assert!(has_compared(
        "layers: 12 tensors compared; worst 0.10 of the tolerance (a)"
    ));
    assert!(has_compared("initial statistics: 60 tensors compared"));
    for line in [
        "layers: 0 tensors compared; worst 0.00 of the tolerance ()",
        "layers",
        "no tensors compared",
    ] {
        assert!(!has_compared(line), "{line}");
    }
}
