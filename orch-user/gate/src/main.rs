//! The gate: what a gated spare runs until it is needed. It waits for a signal without using the
//! processor, then becomes a program: the same process, with its directory and user. It is linked
//! statically, so that it runs in an image that holds nothing else.
//!
//! `gate -- PROGRAM ARGS` becomes this program. `gate DIR` finds what to become in `DIR/PID.words`,
//! once it is opened: the path of a log, the number of variables, these as `NAME=VALUE`, program and
//! arguments, each ended by a zero byte. The file is removed.
#![forbid(unsafe_code)]

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::{self, Command, ExitCode},
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
    let mut words = env::args_os().skip(1).peekable();
    let dir = words.next_if(|word| word != "--");
    if dir.is_none() && words.nth(1).is_none() {
        eprintln!("orch-gate: there is no program to wait for");
        return ExitCode::from(2);
    }
    if let Err(end) = wait() {
        return end;
    }
    let told = dir.map_or_else(|| Ok(of_words(env::args_os().skip(2))), |dir| of_file(&dir));
    let (program, error) = match told {
        Ok(mut command) => (command.get_program().to_owned(), command.exec()),
        Err(error) => ("what it should become".into(), error),
    };
    eprintln!("orch-gate: cannot run {}: {error}", program.display());
    ExitCode::from(match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    })
}

fn of_words(mut words: impl Iterator<Item = OsString>) -> Command {
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// What the file of this process says.
fn of_file(dir: &OsStr) -> io::Result<Command> {
    let path = Path::new(dir).join(format!("{}.words", process::id()));
    let text = fs::read(&path)?;
    fs::remove_file(&path)?;
    let mut fields = text.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let log = File::options()
        .append(true)
        .open(fields.next().unwrap_or_default())?;
    let count = fields.next().and_then(OsStr::to_str);
    let count = count.and_then(|count| count.parse().ok());
    let variables: Vec<_> = fields.by_ref().take(count.unwrap_or(0)).collect();
    // The last zero byte ends the last word.
    let words: Vec<_> = fields.map(OsStr::to_owned).collect();
    let mut command = of_words(words.into_iter().rev().skip(1).rev());
    for variable in variables {
        let mut parts = variable.as_bytes().splitn(2, |byte| *byte == b'=');
        let mut part = || OsStr::from_bytes(parts.next().unwrap_or_default());
        command.env(part(), part());
    }
    command.stdout(log.try_clone()?).stderr(log);
    Ok(command)
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
