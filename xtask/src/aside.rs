//! What runs beside rungs that wait more than they compute: it takes what they leave of the processors.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Child,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{build, error::Error, paths, rung::Rung, shell};

/// A rung in a process of its own.
pub(crate) struct Aside {
    child: Child,
    /// What it says, for later: two that talk at once are understood by nobody.
    said: PathBuf,
    begin: Instant,
}

impl Aside {
    pub(crate) fn start(rung: Rung) -> Result<Self, Error> {
        let name = rung.name();
        let said = paths::target().join(format!("test-{name}.log"));
        let at = |source| Error::File {
            path: said.clone(),
            source,
        };
        let log = File::create(&said).map_err(at)?;
        let errors = log.try_clone().map_err(at)?;
        let mut rung = shell::cargo("xtask");
        rung.args(["test", name]);
        let child = shell::yielding(&rung).stdout(log).stderr(errors).spawn();
        let child = child.map_err(|source| Error::Start {
            program: "nice".to_owned(),
            source,
        })?;
        let begin = Instant::now();
        Ok(Self { child, said, begin })
    }

    /// Waits for its end and shows what it said; whether it passed, and how long it took.
    pub(crate) fn end(mut self) -> (bool, Duration) {
        let passed = self.child.wait().is_ok_and(|status| status.success());
        let time = self.begin.elapsed();
        match fs::read(&self.said) {
            Ok(said) => eprint!("{}", String::from_utf8_lossy(&said)),
            Err(error) => eprintln!("    {}: {error}", paths::short(&self.said)),
        }
        (passed, time)
    }
}

/// Begins to build the programs that later rungs run: the first ones do not need them, and leave a
/// processor idle. Whether it succeeds is seen when they are built again.
pub(crate) fn build_ahead() -> JoinHandle<()> {
    thread::spawn(|| {
        for build in build::programs() {
            let _ = build.and_then(|build| shell::output(&mut shell::yielding(&build)));
        }
    })
}
