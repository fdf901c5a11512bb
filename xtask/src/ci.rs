//! `cargo xtask ci`: everything that must hold before a merge, with nothing left out.

use crate::{aside::Ahead, build_ebpf, error::Error, shell};

/// Runs the checks, the quick ones first, and stops at the first that fails.
pub(crate) fn ci() -> Result<(), Error> {
    let _ahead = Ahead::start();
    check("format", || {
        shell::run(shell::cargo("fmt").args(["--all", "--check"]))
    })?;
    check("clippy, host", || {
        let mut clippy = shell::cargo("clippy");
        clippy.args([
            "--quiet",
            "--locked",
            "--workspace",
            "--exclude",
            "orch-ebpf",
        ]);
        shell::run(clippy.args(["--all-targets", "--", "-D", "warnings"]))
    })?;
    check("links of the documentation", || {
        let mut doc = shell::cargo("doc");
        doc.args(["--quiet", "--locked", "--no-deps"]);
        doc.args(["--package", "orch-user", "--package", "orch-common"]);
        doc.arg("--document-private-items");
        shell::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    check("clippy, BPF target", build_ebpf::clippy)?;
    check("object is not stale", || {
        let mut test = shell::cargo("test");
        shell::run(test.args(["--quiet", "--package", "orch-user", "--test", "object"]))
    })?;
    check("object has the bytes of its sources", || {
        build_ebpf::build_ebpf(&build_ebpf::Args {
            check: true,
            record: false,
        })
    })?;
    check("licences and advisories", licences)?;
    // As another process: what the tests find in the environment is what they decide by.
    check("tests", || {
        let mut test = shell::cargo("xtask");
        shell::run(test.arg("test").env("CI", "true"))
    })
}

/// cargo-deny takes longer to build than everything else here: it runs where it is installed.
fn licences() -> Result<(), Error> {
    if shell::find("cargo-deny").is_none() {
        eprintln!("    left out: cargo-deny is not installed");
        return Ok(());
    }
    // Advisories come from a repository of their own, which a build must not depend on.
    shell::run(shell::cargo("deny").args(["check", "bans", "licenses", "sources"]))
}

fn check(name: &str, run: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    eprintln!("==> {name}");
    run()
}
