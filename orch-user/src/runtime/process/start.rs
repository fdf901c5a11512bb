//! A note of each start that is under way, `<state_dir>/backends/<n>.start`. A controller that is
//! killed between a start and its record leaves a process that no record names: the next one finds
//! it by this note, and ends it. Nobody was ever led to it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{group, in_file, limits, proc, record};
use crate::runtime::RuntimeError;

/// What tells the process: it writes to this file, and leads a group.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    instance: String,
    output: PathBuf,
}

/// A start that is under way, until this is dropped: then there is a record, or no process.
#[derive(Debug)]
pub(super) struct Start {
    path: PathBuf,
    file: File,
}

impl Start {
    /// Notes the start of a process that will write to `log`; without one, to the note.
    pub(super) fn note(
        state_dir: &Path,
        instance: &str,
        log: Option<&Path>,
    ) -> Result<Self, RuntimeError> {
        let dir = record::dir(state_dir);
        fs::create_dir_all(&dir).map_err(in_file(&dir))?;
        let (path, file) = create(&dir).map_err(in_file(&dir))?;
        let mut start = Self { path, file };
        let note = Note {
            instance: instance.to_owned(),
            output: log.unwrap_or(&start.path).to_owned(),
        };
        let text = serde_json::to_vec(&note).map_err(io::Error::from);
        let written = text.and_then(|text| start.file.write_all(&text));
        written.map_err(in_file(&start.path))?;
        Ok(start)
    }

    /// What a process that has no log yet is to write to: it is told by that.
    pub(super) fn output(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        // One that stays is removed by the next controller.
        let _ = fs::remove_file(&self.path);
    }
}

/// The first name that nobody has.
fn create(dir: &Path) -> io::Result<(PathBuf, File)> {
    let mut number = 0_u64;
    loop {
        let path = dir.join(format!("{}-{number}.start", std::process::id()));
        let opened = OpenOptions::new().write(true).create_new(true).open(&path);
        match opened {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            opened => return Ok((path, opened?)),
        }
    }
}

/// Ends what an earlier controller of this instance has started and not recorded, and removes what
/// it was about to write.
pub(super) async fn end_unrecorded(state_dir: &Path, instance: &str) -> Result<(), RuntimeError> {
    let dir = record::dir(state_dir);
    for path in files(&dir, "start") {
        let note = read(&path);
        let ours = note.as_ref().map(|note| note.instance == instance);
        if !ours.unwrap_or_else(|| !is_being_written(&path)) {
            continue;
        }
        if let Some(note) = note
            && let Some(pid) = find(&note.output)
            && record::read(state_dir, instance, pid)?.is_none_or(|record| !record.is_alive())
        {
            log::warn!("ending process {pid}, which was started when the controller was killed");
            group::end(pid, || writes_to(pid, &note.output)).await;
            limits::remove(pid);
        }
        // Fails where another controller has this directory, too, and has just removed it.
        let _ = fs::remove_file(&path);
    }
    for path in files(&dir, "tmp") {
        let pid = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        // That of a process that lives goes with its record. One that was just ended may not be reaped.
        let stat = pid.and_then(proc::stat);
        if stat.is_none_or(|stat| stat.is_dead()) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Whether a note that is not whole may be so no longer in a moment: its name begins with its writer's pid.
fn is_being_written(path: &Path) -> bool {
    let name = path.file_stem().and_then(|stem| stem.to_str());
    let writer = name.and_then(|name| name.split('-').next()?.parse().ok());
    writer
        .and_then(proc::stat)
        .is_some_and(|stat| !stat.is_dead())
}

fn read(path: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

/// The first process that leads a group and writes to this file. Others are its descendants.
fn find(output: &Path) -> Option<i32> {
    let leaders = proc::leaders().into_iter();
    let writers = leaders.filter(|(pid, _)| writes_to(*pid, output));
    let first = writers.min_by_key(|(_, stat)| stat.start_ticks);
    first.map(|(pid, _)| pid)
}

/// Whether its standard output is this file, whatever the file is called by now.
fn writes_to(pid: i32, output: &Path) -> bool {
    let place = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let wanted = place(output);
    wanted.is_some() && wanted == place(&proc::dir(pid).join("fd/1"))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt,
        process::{Child, Command},
    };

    use super::*;

    const OURS: &str = "/run/a.sock";

    fn start(output: File) -> Child {
        let mut command = Command::new("sleep");
        command.arg("600").stdout(output).process_group(0);
        command.spawn().unwrap()
    }

    fn pid(child: &Child) -> i32 {
        child.id().try_into().unwrap()
    }

    fn lives(child: &Child) -> bool {
        proc::stat(pid(child)).is_some_and(|stat| !stat.is_dead())
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn left(state: &Path) -> Vec<PathBuf> {
        let dir = fs::read_dir(record::dir(state)).unwrap();
        dir.map(|entry| entry.unwrap().path()).collect()
    }

    #[tokio::test]
    async fn what_was_started_and_not_recorded_is_ended() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        let log = super::super::log::create(state, "web", 8000).unwrap();
        let bystander = start(File::create(state.join("other")).unwrap());
        // A killed controller drops nothing.
        let logged = Start::note(state, OURS, Some(&log.path)).unwrap();
        let with_log = start(log.file);
        let gated = Start::note(state, OURS, None).unwrap();
        let without = start(gated.output().unwrap());
        std::mem::forget((logged, gated));
        std::mem::forget(Start::note(state, OURS, Some(Path::new("/never/made"))));

        end_unrecorded(state, "/run/b.sock").await.unwrap();
        assert!(lives(&with_log) && lives(&without), "those of another");
        assert_eq!(left(state).len(), 3);
        end_unrecorded(state, OURS).await.unwrap();
        assert!(!lives(&with_log) && !lives(&without));
        assert!(lives(&bystander));
        assert!(left(state).is_empty(), "{:?}", left(state));
        [with_log, without, bystander].into_iter().for_each(end);
    }

    #[tokio::test]
    async fn what_was_recorded_lives_on() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        let begun = Start::note(state, OURS, None).unwrap();
        let child = start(begun.output().unwrap());
        std::mem::forget(begun);
        let pid = pid(&child);
        record::Record::example(OURS, pid).write(state).unwrap();
        end_unrecorded(state, OURS).await.unwrap();
        assert!(lives(&child));
        assert_eq!(
            left(state),
            [record::dir(state).join(format!("{pid}.json"))]
        );
        end(child);
    }

    #[tokio::test]
    async fn half_a_record_goes_with_its_process() {
        let state = tempfile::tempdir().unwrap();
        let dir = record::dir(state.path());
        fs::create_dir_all(&dir).unwrap();
        let own = dir.join(format!("{}.tmp", std::process::id()));
        let (old, new) = (
            "999999999-0.start",
            format!("{}-0.start", std::process::id()),
        );
        let (old, new) = (dir.join(old), dir.join(new));
        let mut dead = Command::new("true").spawn().unwrap();
        let unreaped = i32::try_from(dead.id()).unwrap();
        while !proc::stat(unreaped).unwrap().is_dead() {
            tokio::task::yield_now().await;
        }
        let of_dead = dir.join(format!("{unreaped}.tmp"));
        for path in [&own, &dir.join("999999999.tmp"), &of_dead, &old, &new] {
            fs::write(path, "{").unwrap();
        }
        end_unrecorded(state.path(), OURS).await.unwrap();
        dead.wait().unwrap();
        let mut left = left(state.path());
        left.sort_unstable();
        assert_eq!(left, [new, own], "who writes them lives");
    }
}
