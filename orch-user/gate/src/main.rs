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

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal},
    signalfd::{SfdFlags, SignalFd},
};

/// What opens it: a signal that no image names as the one that stops it. `orch` knows it as well.
const OPEN: u32 = Signal::SIGIO as u32;
/// What nobody sends to end a program.
const CHILD: u32 = Signal::SIGCHLD as u32;
const CONTINUE: u32 = Signal::SIGCONT as u32;
const URGENT: u32 = Signal::SIGURG as u32;
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
    let error = Command::new(&program).args(words).exec();
    eprintln!("orch-gate: cannot run {}: {error}", program.display());
    ExitCode::from(match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    })
}

/// Until the gate is opened; how to end if it is told to before. The first process of a container
/// is spared the signals that it has no handler for, so all are blocked and read one by one. That
/// they are blocked is also how `orch` sees that it waits (`sigwait` would unblock them meanwhile).
fn wait() -> Result<(), ExitCode> {
    let failed = |error| {
        eprintln!("orch-gate: cannot wait for signals: {error}");
        ExitCode::FAILURE
    };
    let all = SigSet::all();
    let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC).map_err(failed)?;
    let usual = all
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(failed)?;
    loop {
        // Empty only of a descriptor that does not block.
        let Some(signal) = signals.read_signal().map_err(failed)? else {
            continue;
        };
        match signal.ssi_signo {
            // The program inherits the mask.
            OPEN => return usual.thread_set_mask().map_err(failed),
            CHILD | CONTINUE | URGENT => {}
            number => return Err(ExitCode::from(SIGNALLED.saturating_add(number as u8))),
        }
    }
}
