//! What runs beside rungs that wait more than they compute: it takes what they leave of the processors.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::{build, error::Error, paths, rung::Rung, shell};

/// A rung in a process of its own.
pub(crate) struct Aside {
    pub(crate) rung: Rung,
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
        let mut test = shell::cargo("xtask");
        test.args(["test", name]);
        let child = shell::yielding(&test).stdout(log).stderr(errors).spawn();
        let child = child.map_err(|source| Error::Start {
            program: "nice".to_owned(),
            source,
        })?;
        let begin = Instant::now();
        Ok(Self {
            rung,
            child,
            said,
            begin,
        })
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

/// The programs that later rungs run, on their way: the first checks do not need them, and at their end
/// a compiler keeps one processor only. Whether it succeeds is seen when they are built again.
pub(crate) struct Ahead(Vec<Child>);

impl Ahead {
    pub(crate) fn start() -> Self {
        let builds = build::programs().into_iter().flatten();
        // Cargo has each wait for the other where they would be in each other's way.
        let quiet =
            builds.map(|mut build| build.stdout(Stdio::null()).stderr(Stdio::null()).spawn());
        Self(quiet.flatten().collect())
    }

    pub(crate) fn end(mut self) {
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

impl Drop for Ahead {
    /// Nobody waits for them any more.
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
