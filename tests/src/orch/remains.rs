//! What is there of a controller on this host?

use std::fs;

use super::{Kind, Orch, docker};

impl Orch {
    /// What is there of this controller: containers, processes, pins, sockets, links.
    pub fn remains(&self) -> Vec<String> {
        let mut found = Vec::new();
        for path in [
            self.pins(),
            self.control(),
            self.dir.path().join("orch.sock.lock"),
            self.dir.path().join("orch.sock.gw"),
        ] {
            if path.exists() {
                found.push(path.display().to_string());
            }
        }
        let state = fs::read_dir(self.dir.path().join("state"));
        let gates = state.into_iter().flatten().flatten();
        let gates = gates.filter(|entry| entry.file_name().to_string_lossy().starts_with("gate-"));
        found.extend(gates.map(|entry| entry.path().display().to_string()));
        let records = self.dir.path().join("state/backends");
        let records = fs::read_dir(records).into_iter().flatten().flatten();
        found.extend(records.map(|entry| entry.path().display().to_string()));
        found.extend(processes_of(&self.volume()));
        if self.settings.kind == Kind::Docker {
            found.extend(self.containers());
        }
        found
    }

    /// Ids of its containers, ended ones included.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=orch.instance={}", self.control().display());
        let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", &filter]);
        ids.lines().map(str::to_owned).collect()
    }
}

/// Processes that have this word in their command line, which only ours do.
fn processes_of(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(word) {
            found.push(format!("{}: {line}", entry.path().display()));
        }
    }
    found
}
