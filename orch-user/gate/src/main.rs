//! The gate: what a gated spare runs until it is needed. It waits for a signal without using the
//! processor, then becomes the program that it was given: the same process, with its environment,
//! directory and user. It is linked statically, so that it runs in an image that holds nothing else.
#![forbid(unsafe_code)]

use std::{
    env,
    io::ErrorKind,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use nix::sys::signal::{SigSet, Signal};

/// What opens it: a signal that no image names as the one that stops it. `orch` knows it as well.
const OPEN: Signal = Signal::SIGIO;
/// Exit codes of a shell for a program that is not there, and for one that cannot be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
/// A shell adds the number of the signal that ended a program to this.
const SIGNALLED: u8 = 128;

fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("orch-gate: there is no program to wait for");
        return ExitCode::from(2);
    };
    if let Err(end) = wait() {
        return end;
    }
    // This gives the program the signal mask of a new process, too.
    let error = Command::new(&program).args(words).exec();
    eprintln!("orch-gate: cannot run {}: {error}", program.display());
    ExitCode::from(match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    })
}

/// Until the gate is opened; how to end if it is told to before. The first process of a container
/// is spared the signals that it has no handler for, so all are blocked and taken one by one.
fn wait() -> Result<(), ExitCode> {
    let all = SigSet::all();
    let failed = |error| {
        eprintln!("orch-gate: cannot wait for signals: {error}");
        ExitCode::FAILURE
    };
    all.thread_block().map_err(failed)?;
    loop {
        match all.wait() {
            Ok(OPEN) => return Ok(()),
            // What nobody sends to end a program.
            Ok(Signal::SIGCHLD | Signal::SIGCONT | Signal::SIGURG) => {}
            Ok(signal) => return Err(ExitCode::from(SIGNALLED + signal as u8)),
            // A real-time signal, which has no name here: some images name one to be stopped by.
            Err(_) => return Err(ExitCode::from(SIGNALLED)),
        }
    }
}
