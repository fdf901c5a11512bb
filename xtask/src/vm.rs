//! The rung of other kernels: `tests/vm/run` boots them, and runs test programs in each.

use std::{fs, path::PathBuf, process::Command};

use crate::{error::Error, paths, rung, shell};

/// Programs without which no machine can be made, and Debian's packages of them.
const TOOLS: [(&str, &str); 9] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
    ("strip", "binutils"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
];

/// Why no machine can be made here, or nothing. Fetches the kernels if they are not there yet.
pub(crate) fn obstacle(named: bool) -> Option<String> {
    if !rung::is_wanted(named) {
        return Some("takes minutes: `cargo xtask test vm`".to_owned());
    }
    if !cfg!(target_arch = "x86_64") {
        return Some("its machines are x86_64, and this host is not".to_owned());
    }
    let missing = |(tool, _): &&(&str, &str)| shell::find(tool).is_none();
    if let Some((tool, package)) = TOOLS.iter().find(missing) {
        return Some(format!("needs the program `{tool}` (package {package})"));
    }
    let mut kernels = shell::command("tests/vm/kernels");
    match shell::output(kernels.arg(work())) {
        Ok(_) => None,
        Err(Error::Failed { said, .. }) => Some(said.trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Builds the test programs and runs them in every machine.
pub(crate) fn run(files: &[&str]) -> Result<(), Error> {
    let programs = work().join("programs");
    let at = |source| Error::File {
        path: programs.clone(),
        source,
    };
    // Those of earlier builds have other names.
    if programs.exists() {
        fs::remove_dir_all(&programs).map_err(at)?;
    }
    fs::create_dir_all(&programs).map_err(at)?;
    shell::run(&mut collect(files, &programs.display().to_string()))?;
    let mut machines = shell::command("tests/vm/run");
    machines.arg(work());
    machines.env("ORCH_BIN", paths::orch());
    machines.env("ACTS_BIN", paths::acts());
    shell::run(&mut machines)
}

/// Cargo knows where its test programs are: it has them "run" by a program that copies them.
fn collect(files: &[&str], to: &str) -> Command {
    let mut cargo = shell::cargo("test");
    cargo.args(["--package", "orch-tests"]);
    for file in files {
        cargo.args(["--test", file]);
    }
    let runner = format!("target.'cfg(all())'.runner = [\"cp\", \"-t\", {to:?}]");
    cargo.args(["--config", &runner]);
    cargo
}

/// Kernels, images and logs.
fn work() -> PathBuf {
    paths::target().join("vm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_copies_the_programs_instead_of_running_them() {
        let cargo = collect(&["packets", "netns"], "/x/programs");
        let args: Vec<_> = cargo.get_args().map(|arg| arg.to_string_lossy()).collect();
        let line = args.join(" ");
        assert!(line.contains("--test packets --test netns"), "{line}");
        assert!(
            line.ends_with("runner = [\"cp\", \"-t\", \"/x/programs\"]"),
            "{line}"
        );
    }
}
