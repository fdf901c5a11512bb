//! Builds the gate of gated spares (`gate/`) as a static program and hands its path to the code that
//! holds its bytes. Where no static program can be linked, those are none, and `orch` says so when
//! somebody wants gated spares: everything else works without.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Static, and at a fixed address: nothing is relocated, so its pages are shared by all that wait.
const FLAGS: &str = "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static";
/// As small as it gets: each gated spare maps it.
const PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
    ("CARGO_PROFILE_RELEASE_LTO", "true"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
];
/// What the cargo around this one says to its compilers (clippy, coverage) is not for this build.
const NOT_INHERITED: [&str; 4] = [
    "RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
];

fn main() {
    for file in ["gate/src/main.rs", "gate/Cargo.toml", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let gate = PathBuf::from(variable("OUT_DIR")).join("gate");
    let built = build(&gate.with_extension("target"));
    let placed = built.and_then(|from| {
        fs::copy(&from, &gate).map_err(|error| format!("{}: {error}", from.display()))
    });
    if let Err(why) = placed {
        for line in why.lines() {
            println!("cargo::warning={line}");
        }
        println!(
            "cargo::warning=orch will be without gated spares: the static C library is missing"
        );
        fs::write(&gate, []).expect("the build's own directory can be written");
    }
}

/// Another cargo, with a target directory of its own: for one program the flags differ from those
/// of all others. It fetches nothing, since the workspace has what it needs.
fn build(target_dir: &Path) -> Result<PathBuf, String> {
    let target = variable("TARGET");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args(["build", "--quiet", "--release", "--offline"])
        .args(["--manifest-path", "gate/Cargo.toml", "--target", &target])
        .arg("--target-dir")
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS)
        .envs(PROFILE)
        .stdin(Stdio::null());
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    let output = cargo.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(target_dir.join(target).join("release/orch-gate"))
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
