//! Which sources make the kernel object. The test `orch-user/tests/object.rs` includes this file,
//! so that "stale" means the same for the one who builds and the one who checks.

use std::{fmt::Write, fs, io, path::Path};

use sha2::{Digest, Sha256};

/// The object, relative to the root of the repository.
pub(crate) const OBJECT: &str = "orch-ebpf/orch.bpf.o";
/// The record of what the object was made from.
pub(crate) const RECORD: &str = "orch-ebpf/orch.bpf.digest";
/// Flags of the compiler that shape the object.
pub(crate) const FLAGS: [&str; 2] = ["-Cdebuginfo=2", "-Clink-arg=--btf"];
/// Settings of Cargo that shape the object, whatever profile the workspace has for its programs.
pub(crate) const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "false"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_STRIP", "none"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
];

const TREES: [&str; 2] = ["orch-ebpf/src", "orch-common/src"];
const FILES: [&str; 2] = ["orch-ebpf/Cargo.toml", "orch-common/Cargo.toml"];
/// Parts of the shared crate that the kernel side never compiles (feature `user`).
const USER_ONLY: [&str; 2] = ["orch-common/src/netns.rs", "orch-common/src/pod.rs"];
/// The first letters of the dependencies that are compiled into the object.
const DEPENDENCIES: &str = "name = \"aya-ebpf";

/// What the record says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Digest of the sources.
    pub(crate) sources: String,
    /// Digest of the object.
    pub(crate) object: String,
    /// Compiler and linker.
    pub(crate) built_with: String,
}

impl Record {
    /// The text of the file.
    pub(crate) fn to_text(&self) -> String {
        format!(
            "sources {}\nobject {}\nbuilt-with {}\n",
            self.sources, self.object, self.built_with
        )
    }

    /// Reads the text of the file; a line that is missing reads as empty, which equals nothing.
    pub(crate) fn from_text(text: &str) -> Self {
        let field = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name));
            found.unwrap_or_default().trim().to_owned()
        };
        Self {
            sources: field("sources "),
            object: field("object "),
            built_with: field("built-with "),
        }
    }
}

/// The digest of bytes, in hexadecimal.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The digest of everything that makes the object.
pub(crate) fn of_sources(root: &Path) -> io::Result<String> {
    let mut files: Vec<String> = FILES.map(String::from).to_vec();
    for tree in TREES {
        collect(root, tree, &mut files)?;
    }
    files.retain(|file| !USER_ONLY.contains(&file.as_str()));
    files.sort();
    let mut summary = String::new();
    for file in files {
        let digest = of_bytes(&fs::read(root.join(&file))?);
        summary += &[&file, " ", &digest, "\n"].concat();
    }
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    for package in lock
        .split("[[package]]")
        .filter(|text| text.trim().starts_with(DEPENDENCIES))
    {
        summary += package.trim();
    }
    let settings = format!("\n{FLAGS:?}\n{PROFILE:?}\n");
    Ok(of_bytes([summary, settings].concat().as_bytes()))
}

fn collect(root: &Path, directory: &str, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(directory))? {
        let entry = entry?;
        let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
