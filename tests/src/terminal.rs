//! A program in a terminal of its own, and what stands on its screen.

use std::{
    io::{Read, Write},
    num::NonZeroU16,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use vt100::Parser;

use crate::wait::until;

/// Rows and columns of the screen.
const SIZE: (NonZeroU16, NonZeroU16) =
    (NonZeroU16::new(40).unwrap(), NonZeroU16::new(140).unwrap());

/// A program under `script`, which gives it a terminal, and the screen that it draws.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    parser: Arc<Mutex<Parser>>,
}

impl Terminal {
    /// Runs a shell's line in a terminal. Variables are taken from `as_for`.
    pub fn open(as_for: &Command, line: &str) -> Self {
        let (rows, columns) = SIZE;
        let line = format!("stty rows {rows} cols {columns}; {line}");
        let mut script = Command::new("script");
        script.args(["--quiet", "--flush", "--return", "--command", &line]);
        script.arg("/dev/null").env("TERM", "xterm-256color");
        let variables = as_for.get_envs();
        script.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let parser = Arc::new(Mutex::new(Parser::new(rows, columns, 0)));
        let screen = Arc::clone(&parser);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = output.read(&mut bytes)
                && count > 0
            {
                screen.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self {
            keys: child.stdin.take().unwrap(),
            child,
            parser,
        }
    }

    /// What stands on the screen.
    pub fn text(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Whether a program has the whole screen, rather than a shell's lines.
    pub fn is_taken(&self) -> bool {
        self.parser.lock().unwrap().screen().alternate_screen()
    }

    /// Waits until the screen is as it should be.
    pub fn until(&self, what: &str, shown: impl Fn(&str) -> bool) {
        until(what, || shown(&self.text()).then_some(()));
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until the program has ended.
    pub fn end(&mut self) -> ExitStatus {
        until("the program ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // `script` ends its program with itself.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
