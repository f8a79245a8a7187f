//! The laws of the set-up of CUDA that hold without a GPU: what is taken from where, and that the driver's stand-in works.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{
    Cuda, DRIVER, Toolkit, WHEELS, capability, functions, link_libraries, linker_name, record, stamp,
    toolkit_of_compiler, toolkit_of_variable, wheels,
};
use crate::stamp::replace;
use crate::workspace::Workspace;

const HEADER: &str = "#define cuMemAlloc cuMemAlloc_v2\n\
                      CUresult CUDAAPI cuInit(unsigned int Flags);\n\
                      CUresult CUDAAPI cuMemAlloc(CUdeviceptr *dptr, size_t bytesize);\n\
                      typedef struct cuda_struct { int culprit; } CUthing;\n";

/// Calls two functions of the driver and prints what they return.
const CALLER: &str = "#include <stdio.h>\nint cuInit(unsigned);\nlong cuMemAlloc_v2(long *, long);\n\
                      int main(void) { long p = 5; int first = cuInit(2);\n\
                      printf(\"%d %ld %ld\", first, cuMemAlloc_v2(&p, 7), p); return 0; }\n";

/// A driver that has one of the two.
const A_DRIVER: &str = "int cuInit(unsigned flags) { return 40 + flags; }\n";

fn run(folder: &Path, words: &[&str]) -> String {
    let output = Command::new(words[0])
        .args(&words[1..])
        .current_dir(folder)
        .env("LD_LIBRARY_PATH", folder.join("driver"))
        .output()
        .expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn program_starts_without_the_driver_and_finds_one_that_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let files = [
        ("driver.c", DRIVER),
        ("functions.h", &functions(HEADER)),
        ("caller.c", CALLER),
        ("a_driver.c", A_DRIVER),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).expect("a file");
    }
    run(
        folder,
        &["cc", "-O2", "-fPIC", "-c", "driver.c", "-o", "driver.o"],
    );
    run(folder, &["ar", "rcs", "libcuda.a", "driver.o"]);
    run(
        folder,
        &["cc", "caller.c", "-L.", "-lcuda", "-ldl", "-o", "caller"],
    );
    if Path::new("/dev/nvidiactl").exists() {
        println!("a driver is here; a program without one cannot be shown");
    } else {
        assert_eq!(run(folder, &["./caller"]), "100 100 5");
    }
    fs::create_dir(folder.join("driver")).expect("a folder");
    run(
        folder,
        &[
            "cc",
            "-shared",
            "-fPIC",
            "a_driver.c",
            "-o",
            "driver/libcuda.so.1",
        ],
    );
    assert_eq!(run(folder, &["./caller"]), "42 500 5");
}

#[test]
fn functions_of_the_header_are_found_with_the_names_behind_its_macros() {
    let text = functions(HEADER);
    assert_eq!(
        text,
        "FUNCTION(cuInit)\nFUNCTION(cuMemAlloc)\nFUNCTION(cuMemAlloc_v2)\n"
    );
}

#[test]
fn compute_capability_is_taken_with_and_without_its_point() {
    let taken = |text| capability(text).expect("taken");
    assert_eq!(
        [taken("90"), taken("8.6"), taken("sm_120"), taken("90a")],
        ["90", "86", "120", "90a"]
    );
    for bad in ["", "hopper", "9", "9000", "90x", "a90"] {
        let error = capability(bad).expect_err("refused").to_string();
        assert!(
            error.contains("expected two or three digits") && error.contains(bad),
            "{error}"
        );
    }
}

#[test]
fn linker_finds_every_library_under_the_name_without_a_version() {
    assert_eq!(linker_name("libcudart.so.13").as_deref(), Some("libcudart.so"));
    for other in ["libcudart_static.a", "libnvrtc.alt.so.13", "libcudart.so"] {
        assert_eq!(linker_name(other), None, "{other}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("libcublas.so.13"), "").expect("a file");
    for _ in 0..2 {
        link_libraries(folder.path()).expect("linked, also where it was before");
    }
    let target = fs::read_link(folder.path().join("libcublas.so")).expect("a link");
    assert_eq!(target, Path::new("libcublas.so.13"));
}

#[test]
fn toolkit_of_the_user_is_found_by_its_compiler_and_checked_where_a_variable_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().canonicalize().expect("a path").join("cuda-12.9");
    let error = toolkit_of_variable("CUDA_HOME", home.clone())
        .expect_err("not there")
        .to_string();
    assert!(
        error.contains("cuda-12.9/bin/nvcc") && error.contains("unset CUDA_HOME"),
        "{error}"
    );
    fs::create_dir_all(home.join("bin")).expect("a folder");
    fs::write(home.join("bin/nvcc"), "").expect("a file");
    assert_eq!(
        toolkit_of_variable("CUDA_HOME", home.clone()).expect("there"),
        home
    );
    std::os::unix::fs::symlink("cuda-12.9", folder.path().join("cuda")).expect("a link");
    assert_eq!(
        toolkit_of_compiler(&folder.path().join("cuda/bin/nvcc")),
        Some(home)
    );
}

#[test]
fn request_is_remembered_until_the_toolkit_or_the_folder_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let workspace = Workspace::at(folder.path()).expect("a workspace");
    assert_eq!(Cuda::found(&workspace), None);
    replace(&record(&workspace), "wheels\n86\n").expect("written");
    assert_eq!(Cuda::found(&workspace), None, "not installed to the end");
    fs::create_dir_all(wheels(&workspace).join("bin")).expect("a folder");
    fs::write(wheels(&workspace).join("bin/nvcc"), "").expect("a file");
    stamp(&workspace).set().expect("set");
    let found = Cuda::found(&workspace).expect("there");
    assert_eq!(found.toolkit, Toolkit::Wheels(wheels(&workspace)));
    assert_eq!(found.capability, "86");
    let own = folder.path().join("own");
    replace(&record(&workspace), &format!("{}\n90\n", own.display())).expect("written");
    assert_eq!(Cuda::found(&workspace), None, "its compiler is gone");
}

#[test]
fn every_wheel_is_pinned_and_of_the_cuda_that_an_early_driver_takes() {
    for line in WHEELS.lines().filter(|line| !line.starts_with('#')) {
        let (name, version) = line
            .split_once("==")
            .unwrap_or_else(|| panic!("not pinned: {line}"));
        let of_13_0 =
            version.starts_with("13.0.") || name == "nvidia-curand" && version.starts_with("10.4.0.");
        assert!(
            of_13_0,
            "{line}: a newer nvcc writes PTX that a driver of CUDA 13.0 refuses"
        );
    }
}
