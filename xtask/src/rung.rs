//! The ladder of tests.

use std::{env, path::PathBuf, process::Command, thread};

use clap::ValueEnum;

use crate::{axe, docker, error::Error, host, host::Need, paths, schemathesis, shell, vm};

/// A rung: each needs more of the host than the one before.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rung {
    /// Everything that needs no root.
    Unit,
    /// Kernel programs on prepared packets.
    Packets,
    /// Real TCP between network namespaces, and the whole program with processes.
    Netns,
    /// Containers of a real engine.
    Docker,
    /// The whole story, from one copy to many, through a crash.
    Scenario,
    /// The status page in a headless browser.
    Browser,
    /// The API, asked for five minutes what its description allows and what it does not.
    Api,
    /// Other kernels, in virtual machines.
    Vm,
}

/// Test programs whose tests make their own namespaces and pins, and run beside each other.
const APART: [&str; 2] = ["packets", "netns"];

/// What became of a rung.
pub(crate) enum Outcome {
    Passed,
    Failed,
    LeftOut(String),
}

impl Rung {
    /// The name, as it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Packets => "packets",
            Self::Netns => "netns",
            Self::Docker => "docker",
            Self::Scenario => "scenario",
            Self::Browser => "browser",
            Self::Api => "api",
            Self::Vm => "vm",
        }
    }

    /// Whether `orch` and `acts` have to be there.
    pub(crate) fn runs_programs(self) -> bool {
        matches!(
            self,
            Self::Netns | Self::Docker | Self::Scenario | Self::Browser | Self::Api | Self::Vm
        )
    }

    /// Whether it takes minutes in which it can run beside others.
    pub(crate) fn is_long(self) -> bool {
        matches!(self, Self::Api | Self::Vm)
    }

    fn needs(self) -> &'static [Need] {
        use Need::{Bpf, Browser, Cgroup2, Docker, Namespaces, Root};
        match self {
            Self::Unit | Self::Vm => &[],
            Self::Packets => &[Root, Bpf],
            Self::Netns | Self::Scenario => &[Root, Bpf, Cgroup2, Namespaces],
            Self::Docker => &[Root, Bpf, Cgroup2, Namespaces, Docker],
            Self::Browser => &[Root, Bpf, Cgroup2, Browser],
            Self::Api => &[Root, Bpf, Cgroup2],
        }
    }

    /// Test programs of `tests/tests`, by name.
    fn files(self) -> Vec<&'static str> {
        let files: &[&str] = match self {
            Self::Unit => &[],
            Self::Vm => &["packets", "netns", "process"],
            Self::Packets => &["packets"],
            Self::Netns => &["netns", "process", "timeline", "cna"],
            Self::Docker => &["docker", "docker_dataplane", "docker_runtime"],
            Self::Scenario => &["scenario"],
            Self::Browser => &["browser"],
            Self::Api => &["api"],
        };
        let tests = paths::root().join("tests/tests");
        // As Cargo finds them: a file, or a directory with its `main.rs`.
        let exists = |file: &&str| {
            let places = [format!("{file}.rs"), format!("{file}/main.rs")];
            places.iter().any(|place| tests.join(place).is_file())
        };
        files.iter().copied().filter(exists).collect()
    }

    /// Why the rung cannot run here, or nothing. `named`: it was asked for by name.
    pub(crate) fn obstacle(self, named: bool) -> Option<String> {
        if self == Self::Vm {
            return vm::obstacle(named);
        }
        if self != Self::Unit && self.files().is_empty() {
            return Some("is not written yet".to_owned());
        }
        let needs = self.needs().iter();
        let missing = needs.map(|need| need.missing()).find(Option::is_some);
        let missing = missing.flatten().map(String::from);
        missing.or_else(|| match self {
            Self::Api if !is_wanted(named) => {
                Some("takes minutes: `cargo xtask test api`".to_owned())
            }
            Self::Api => cannot_get("schemathesis", schemathesis::program()),
            Self::Browser => cannot_get("axe-core", axe::script()),
            _ => None,
        })
    }

    /// Runs it.
    pub(crate) fn run(self, real_time: bool) -> Result<(), Error> {
        if self == Self::Vm {
            return vm::run(&self.files());
        }
        if self == Self::Api {
            return schemathesis::run();
        }
        if self == Self::Unit {
            return shell::run(shell::cargo("test").arg("--no-fail-fast"));
        }
        // Some make all that they need. The others share port 80, cgroups and the engine.
        let (apart, shared): (Vec<&str>, Vec<&str>) = self
            .files()
            .into_iter()
            .partition(|file| APART.contains(file));
        let apart = self.test(&apart, beside(), real_time);
        apart.and(self.test(&shared, 1, real_time))
    }

    /// Runs some of its test programs.
    fn test(self, files: &[&str], threads: usize, real_time: bool) -> Result<(), Error> {
        if files.is_empty() {
            return Ok(());
        }
        let mut cargo = shell::cargo("test");
        cargo.args(["--package", "orch-tests", "--no-fail-fast"]);
        for file in files {
            cargo.args(["--test", file]);
        }
        cargo.env("ORCH_BIN", paths::orch());
        cargo.env("ACTS_BIN", paths::acts());
        cargo.env("CNA_BIN", paths::example("cna"));
        cargo.env("ORCH_REAL_TIME", if real_time { "1" } else { "0" });
        if self == Self::Browser {
            cargo.env("AXE_SCRIPT", axe::script()?);
        }
        as_root(&mut cargo);
        // What they measure is shown also when they pass.
        cargo.args(["--", "--show-output"]);
        cargo.arg(format!("--test-threads={threads}"));
        if self == Self::Scenario && !docker::answers() {
            cargo.args(["--skip", "docker"]);
        }
        shell::run(&mut cargo)
    }

    /// What the rung itself had to leave out.
    pub(crate) fn remark(self) -> Option<&'static str> {
        (self == Self::Scenario && !docker::answers())
            .then_some("no Docker engine answers: with the process runtime only")
    }
}

/// How many tests run beside each other: each has tables of some fifty megabytes in the kernel.
fn beside() -> usize {
    thread::available_parallelism().map_or(1, |all| all.get().min(4))
}

/// Whether a rung that takes minutes is to run: where it is named, and where none is left out.
pub(crate) fn is_wanted(named: bool) -> bool {
    named || env::var("CI").is_ok_and(|value| value == "true")
}

fn cannot_get(tool: &str, got: Result<PathBuf, Error>) -> Option<String> {
    got.err().map(|error| format!("cannot get {tool}: {error}"))
}

/// Has the test programs, but not Cargo, run by root.
pub(crate) fn as_root(cargo: &mut Command) {
    if !host::is_root() {
        let runner = "sudo --preserve-env=ORCH_BIN,ACTS_BIN,CNA_BIN,ORCH_REAL_TIME,ORCH_SCREENSHOTS,ORCH_SCHEMATHESIS,ORCH_SCHEMATHESIS_SECONDS,AXE_SCRIPT,CI";
        cargo.args([
            "--config",
            &format!("target.'cfg(all())'.runner = {runner:?}"),
        ]);
    }
}
