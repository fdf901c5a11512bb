//! What backends write: a file per start, `<state_dir>/logs/<service>-<port>-<n>.log`.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use nix::fcntl::{FallocateFlags, fallocate};

use super::in_file;
use crate::runtime::RuntimeError;

/// Files kept per slot, the new one included.
const KEPT: usize = 3;
/// The most that a file takes on disk, roughly.
const FILE_LIMIT: u64 = 8 << 20;
/// What is left of a file that has reached the limit.
const FILE_REST: u64 = 1 << 20;
/// The most that `tail` reads.
const TAIL_LIMIT: u64 = 64 << 10;

/// A new log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// Opens the next log of a slot and removes its oldest ones.
pub(super) fn create(state_dir: &Path, service: &str, port: u16) -> Result<Log, RuntimeError> {
    let dir = state_dir.join("logs");
    fs::create_dir_all(&dir).map_err(in_file(&dir))?;
    let prefix = format!("{service}-{port}-");
    let mut numbers = numbers(&dir, &prefix)?;
    let next = numbers.last().map_or(1, |last| last + 1);
    numbers.truncate((numbers.len() + 1).saturating_sub(KEPT));
    for old in numbers {
        // A log that cannot be removed does no harm.
        let _ = fs::remove_file(dir.join(format!("{prefix}{old}.log")));
    }
    let path = dir.join(format!("{prefix}{next}.log"));
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(in_file(&path))?;
    Ok(Log { path, file })
}

/// The numbers of the logs of a slot, ascending.
fn numbers(dir: &Path, prefix: &str) -> Result<Vec<u64>, RuntimeError> {
    let entries = fs::read_dir(dir).map_err(in_file(dir))?;
    let mut numbers: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?.strip_prefix(prefix)?;
            name.strip_suffix(".log")?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Gives the disk space of a log's beginning back once the log is long. The writer is not
/// disturbed and no line of the rest is lost, as with a truncation; where the file system has no
/// holes, the log grows on.
pub(super) fn bound(path: &Path) {
    let Ok(file) = OpenOptions::new().write(true).open(path) else {
        return;
    };
    let Ok(meta) = file.metadata() else { return };
    let on_disk = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
    if on_disk > FILE_LIMIT {
        let length = i64::try_from(meta.len().saturating_sub(FILE_REST)).unwrap_or(i64::MAX);
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if let Err(error) = fallocate(&file, flags, 0, length) {
            log::debug!("cannot shorten {}: {error}", path.display());
        }
    }
}

/// The last lines of a log.
pub(super) fn tail(path: &Path, lines: usize) -> Result<String, RuntimeError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        file => file.map_err(in_file(path))?,
    };
    let size = file.metadata().map_err(in_file(path))?.len();
    let start = size.saturating_sub(TAIL_LIMIT);
    file.seek(SeekFrom::Start(start)).map_err(in_file(path))?;
    let mut bytes = Vec::new();
    file.take(TAIL_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(in_file(path))?;
    Ok(last_lines(&String::from_utf8_lossy(&bytes), lines))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn last_lines_of_a_text() {
        for (text, count, expected) in [
            ("", 3, ""),
            ("a\nb\nc\n", 2, "b\nc"),
            ("a\nb", 5, "a\nb"),
            ("a\nb\n", 0, ""),
        ] {
            assert_eq!(last_lines(text, count), expected, "{text:?} {count}");
        }
    }

    #[test]
    fn a_slot_keeps_its_newest_logs() {
        let state = tempfile::tempdir().unwrap();
        let other = create(state.path(), "web", 8001).map(|log| log.path);
        for _ in 0..12 {
            create(state.path(), "web", 8000).unwrap();
        }
        let dir = state.path().join("logs");
        assert_eq!(numbers(&dir, "web-8000-").unwrap(), [10, 11, 12]);
        assert!(other.unwrap().exists());
    }

    #[test]
    fn a_long_log_is_bounded_and_keeps_its_end() {
        use std::os::unix::fs::MetadataExt;
        let state = tempfile::tempdir().unwrap();
        let mut log = create(state.path(), "web", 8000).unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..FILE_LIMIT / 1024 + 1024 {
            log.file.write_all(line.as_bytes()).unwrap();
        }
        log.file.write_all(b"last\n").unwrap();
        log.file.sync_all().unwrap();
        bound(&log.path);
        log.file.write_all(b"after\n").unwrap();
        assert!(fs::metadata(&log.path).unwrap().blocks() * 512 <= FILE_LIMIT);
        assert_eq!(tail(&log.path, 2).unwrap(), "last\nafter");
    }
}
