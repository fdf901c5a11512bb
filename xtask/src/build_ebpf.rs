//! `cargo xtask build-ebpf`: the kernel programs, as the object that is committed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    digest::{self, FLAGS, OBJECT, PROFILE, RECORD, Record},
    error::Error,
    functions,
    instructions::{self, FIGURES},
    paths, shell, stack,
    toolchain::{self, Toolchain},
};

/// How to build.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing: compare with the committed object, byte for byte.
    #[arg(long)]
    pub(crate) check: bool,
    /// Accept the programs' sizes: write how many instructions each has now.
    #[arg(long, conflicts_with = "check")]
    pub(crate) record: bool,
}

/// Builds the object and writes it, or compares it.
pub(crate) fn build_ebpf(args: &Args) -> Result<(), Error> {
    let toolchain = Toolchain::find()?;
    let object = read(&compile(&toolchain)?)?;
    let record = Record {
        sources: digest::of_sources(paths::root()).map_err(at("orch-ebpf"))?,
        object: digest::of_bytes(&object),
        built_with: toolchain.versions()?,
    };
    if args.check {
        compare(&record)?;
        eprintln!("  object    {OBJECT} has the bytes of its sources");
        return Ok(());
    }
    write(OBJECT, &object)?;
    write(RECORD, record.to_text().as_bytes())?;
    measure(&object, args.record)?;
    eprintln!(
        "  object    {OBJECT}: {} bytes, {}",
        object.len(),
        record.built_with
    );
    Ok(())
}

/// The BPF target's clippy, with warnings as errors.
pub(crate) fn clippy() -> Result<(), Error> {
    let toolchain = Toolchain::find()?;
    let mut cargo = cargo(&toolchain, "clippy");
    shell::run(cargo.args(["--", "-D", "warnings"]))
}

fn compile(toolchain: &Toolchain) -> Result<PathBuf, Error> {
    let mut cargo = cargo(toolchain, "build");
    shell::run(&mut cargo)?;
    Ok(target().join("bpfel-unknown-none/release/orch"))
}

fn cargo(toolchain: &Toolchain, verb: &str) -> std::process::Command {
    let mut cargo = toolchain.program("cargo");
    cargo.args([
        verb,
        "--quiet",
        "--locked",
        "--release",
        "--package",
        "orch-ebpf",
    ]);
    cargo.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"]);
    cargo.arg("--target-dir").arg(target());
    let flags: Vec<_> = FLAGS
        .map(String::from)
        .into_iter()
        .chain(toolchain::remaps(toolchain))
        .collect();
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo.envs(PROFILE);
    cargo
}

/// Apart from the other builds, which use another compiler.
fn target() -> PathBuf {
    paths::target().join("ebpf")
}

fn compare(built: &Record) -> Result<(), Error> {
    let text = fs::read_to_string(paths::root().join(RECORD)).map_err(at(RECORD))?;
    let committed = Record::from_text(&text);
    if committed.sources != built.sources {
        return Err(Error::Stale);
    }
    let object = digest::of_bytes(&read(&paths::root().join(OBJECT))?);
    if object != built.object || object != committed.object {
        return Err(Error::OtherBytes {
            built_with: built.built_with.clone(),
            committed_with: committed.built_with,
        });
    }
    Ok(())
}

/// Looks at the stack, and keeps the record of instructions, or writes it anew.
fn measure(object: &[u8], anew: bool) -> Result<(), Error> {
    let functions = functions::of_object(object).ok_or(Error::NoElf)?;
    for sentence in stack::beyond(&functions) {
        eprintln!("  {sentence}: Linux 6.1 will refuse it");
    }
    let now = instructions::of(&functions);
    // There is none before the first build.
    let text = fs::read_to_string(paths::root().join(FIGURES)).unwrap_or_default();
    let recorded = if anew {
        now.clone()
    } else {
        instructions::kept(&instructions::from_text(&text), &now)
    };
    for sentence in instructions::outgrown(&recorded, &now) {
        eprintln!("  {sentence}: shorten it, or accept it by `build-ebpf --record`");
    }
    write(FIGURES, instructions::to_text(&recorded).as_bytes())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(at(path))
}

fn write(path: &str, bytes: &[u8]) -> Result<(), Error> {
    fs::write(paths::root().join(path), bytes).map_err(at(path))
}

fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    |source| Error::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rustup's nightly gets is what Debian's compiler gets, but for the name.
    #[test]
    fn any_toolchain_builds_core_for_the_bpf_target() {
        for name in ["nightly", "bpf"] {
            let cargo = cargo(&Toolchain::named(name), "build");
            let words: Vec<_> = cargo
                .get_args()
                .map(|word| word.to_string_lossy())
                .collect();
            let line = words.join(" ");
            assert_eq!(cargo.get_program(), "rustup");
            assert!(
                line.starts_with(&format!("run {name} cargo build ")),
                "{line}"
            );
            assert!(
                line.contains("--locked --release --package orch-ebpf"),
                "{line}"
            );
            assert!(
                line.contains("--target bpfel-unknown-none -Z build-std=core"),
                "{line}"
            );
            let variable = |name: &str| {
                let found = cargo.get_envs().find(|(key, _)| *key == name);
                found.map(|(_, value)| value.map(|value| value.to_string_lossy().into_owned()))
            };
            // Nightly takes the unstable flag by itself, a stable compiler by this; both may have it.
            assert_eq!(variable("RUSTC_BOOTSTRAP"), Some(Some("1".to_owned())));
            // The toolchain that xtask was started with must not shine through.
            for removed in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
                assert_eq!(variable(removed), Some(None), "{removed}");
            }
            let path = variable("PATH").flatten().unwrap_or_default();
            assert!(path.starts_with("/tools:"), "{path}");
            let flags = variable("CARGO_ENCODED_RUSTFLAGS")
                .flatten()
                .unwrap_or_default();
            let sources = format!("--remap-path-prefix=/rustup/{name}/lib/rustlib/src/rust=/rust");
            assert!(flags.split('\u{1f}').any(|flag| flag == sources), "{flags}");
        }
    }
}
