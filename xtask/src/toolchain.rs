//! The compiler for the BPF target.

use std::{env, path::PathBuf, process::Command};

use crate::{error::Error, paths, shell};

/// Names that rustup may know a fitting toolchain by: one linked for this purpose, then nightly.
const CANDIDATES: [&str; 2] = ["bpf", "nightly"];

/// A toolchain that has the sources of `core`.
pub(crate) struct Toolchain {
    name: &'static str,
    sysroot: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    /// Finds one, and the linker.
    pub(crate) fn find() -> Result<Self, Error> {
        let (name, sysroot) = CANDIDATES
            .into_iter()
            .find_map(|name| Some((name, sysroot_with_sources(name)?)))
            .ok_or(Error::NoBpfCompiler)?;
        Ok(Self {
            name,
            sysroot,
            linker: shell::find("bpf-linker").ok_or(Error::NoBpfLinker)?,
        })
    }

    /// The sources of the standard library, under the name that the compiler was installed with
    /// and under the one that it resolves to.
    pub(crate) fn library_sources(&self) -> Vec<PathBuf> {
        let sources = self.sysroot.join("lib/rustlib/src/rust");
        let resolved = sources.canonicalize().ok();
        [Some(sources), resolved].into_iter().flatten().collect()
    }

    /// A program of this toolchain, with the linker on its path.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = shell::command("rustup");
        command.args(["run", self.name, name]);
        // Cargo sets these for the toolchain that xtask itself was started with.
        for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
            command.env_remove(variable);
        }
        let linker = self.linker.parent().map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = env::join_paths(linker.into_iter().chain(env::split_paths(&path))) {
            command.env("PATH", path);
        }
        // The target's standard library is built from source, which stable compilers refuse else.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// What makes the bytes: compiler and linker, with their versions.
    pub(crate) fn versions(&self) -> Result<String, Error> {
        let compiler = shell::output(self.program("rustc").arg("--version"))?;
        let linker = shell::output(Command::new(&self.linker).arg("--version"))?;
        Ok(format!("{compiler}, {linker}"))
    }
}

#[cfg(test)]
impl Toolchain {
    /// One that need not be there.
    pub(crate) fn named(name: &'static str) -> Self {
        Self {
            name,
            sysroot: format!("/rustup/{name}").into(),
            linker: "/tools/bpf-linker".into(),
        }
    }
}

fn sysroot_with_sources(name: &str) -> Option<PathBuf> {
    let mut rustc = shell::command("rustup");
    rustc.env_remove("RUSTUP_TOOLCHAIN");
    rustc.args(["run", name, "rustc", "--print", "sysroot"]);
    let sysroot = PathBuf::from(shell::output(&mut rustc).ok()?);
    let core = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
    core.is_file().then_some(sysroot)
}

/// Flags that take this machine's directories out of the debug information.
pub(crate) fn remaps(toolchain: &Toolchain) -> Vec<String> {
    let registry = paths::cargo_home().map(|home| home.join("registry/src"));
    let mut from: Vec<(PathBuf, &str)> = vec![(paths::root().to_owned(), "/orch")];
    from.extend(
        registries(registry)
            .into_iter()
            .map(|path| (path, "/cargo")),
    );
    let sources = toolchain.library_sources();
    from.extend(sources.into_iter().map(|path| (path, "/rust")));
    from.into_iter()
        .map(|(path, to)| format!("--remap-path-prefix={}={to}", path.display()))
        .collect()
}

/// Cargo's directories of unpacked crates: one per registry, named with a hash.
fn registries(sources: Option<PathBuf>) -> Vec<PathBuf> {
    let entries = sources.and_then(|directory| directory.read_dir().ok());
    let mut found: Vec<_> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    found.sort();
    found
}
