//! Files that are written at the end, and made at the beginning.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use crate::load::{error::LoadError, report::Report};

/// A file for the report.
pub(super) struct JsonFile {
    path: PathBuf,
    file: File,
}

/// Makes the file.
pub(super) fn create(path: &Path) -> Result<JsonFile, LoadError> {
    let path = path.to_owned();
    match File::create(&path) {
        Ok(file) => Ok(JsonFile { path, file }),
        Err(source) => Err(LoadError::Write { path, source }),
    }
}

impl JsonFile {
    /// Writes the report into it.
    pub(super) fn write(self, report: &Report) -> Result<(), LoadError> {
        let mut file = BufWriter::new(self.file);
        let written = serde_json::to_writer_pretty(&mut file, report).map_err(Into::into);
        let written = written.and_then(|()| file.write_all(b"\n"));
        let written = written.and_then(|()| file.flush());
        written.map_err(|source| LoadError::Write {
            path: self.path,
            source,
        })
    }
}
