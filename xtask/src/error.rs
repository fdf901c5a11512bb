//! What ends a verb early.

use std::{io, path::PathBuf, process::ExitStatus};

use thiserror::Error;

/// Why a verb failed.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} failed ({status}){said}")]
    Failed {
        program: String,
        status: ExitStatus,
        said: String,
    },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{0} is not text")]
    NotText(String),
    #[error("there is no file {}", .0.display())]
    NoFile(PathBuf),
    #[error("no copy came to be ready; orch run said:\n{said}")]
    NotReady { said: String },
    #[error("orch needs root for its kernel programs, and there is no sudo: run this as root")]
    NoSudo,
    #[error(
        "no compiler for kernel programs: `rustup toolchain install nightly --component rust-src`, \
         or link one that has the sources of core as `rustup toolchain link bpf DIRECTORY`"
    )]
    NoBpfCompiler,
    #[error(
        "no bpf-linker: `cargo install bpf-linker` (0.13.0, with the compiler's version of LLVM)"
    )]
    NoBpfLinker,
    #[error(
        "the committed object was made from other sources: run `cargo xtask build-ebpf` and \
         commit orch-ebpf/orch.bpf.o and orch-ebpf/orch.bpf.digest"
    )]
    Stale,
    #[error(
        "{built_with} makes other bytes of these sources than the committed object has, which was \
         made with {committed_with}"
    )]
    OtherBytes {
        built_with: String,
        committed_with: String,
    },
    #[error("the compiler has made no ELF object")]
    NoElf,
    #[error("{0}")]
    Missing(&'static str),
    #[error("failed: {0}")]
    Rungs(String),
}
