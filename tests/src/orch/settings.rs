//! What may a test want otherwise, and how does the file say so?

use std::path::PathBuf;

use super::{IMAGE, Orch, acts, place::ROOM};

/// What runs the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Containers.
    Docker,
    /// Processes.
    Process,
}

/// What a test may want otherwise. Text goes into the file as it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What runs the copies.
    pub kind: Kind,
    /// Copies at first, and at the least.
    pub copies: u16,
    /// How long connections may finish.
    pub drain: &'static str,
    /// Lines for `[dataplane]`.
    pub dataplane: String,
    /// Lines for `[[service]]`.
    pub service: String,
    /// Lines for `[service.backend]`.
    pub backend: String,
    /// Lines for `[service.scale]`.
    pub scale: String,
    /// The image.
    pub image: String,
    /// The program of copies that are processes; without it, the demo service.
    pub program: Option<PathBuf>,
    /// The status address; empty: none.
    pub status: String,
    /// The controller's environment.
    pub env: Vec<(String, String)>,
}

impl Settings {
    /// The demo service, one copy.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            copies: 1,
            drain: "1s",
            dataplane: String::new(),
            service: String::new(),
            backend: String::new(),
            scale: String::new(),
            image: IMAGE.to_owned(),
            program: None,
            status: String::new(),
            env: Vec::new(),
        }
    }

    /// As many copies.
    #[must_use]
    pub fn copies(mut self, copies: u16) -> Self {
        self.copies = copies;
        self
    }
}

impl Orch {
    /// The file as the settings want it.
    pub fn text(&self) -> String {
        let Settings {
            copies,
            drain,
            dataplane,
            service,
            backend,
            scale,
            image,
            program,
            status,
            ..
        } = &self.settings;
        let volume = self.volume();
        let runs = match self.settings.kind {
            Kind::Docker => format!("runtime = \"docker\"\nimage = {image:?}"),
            Kind::Process => format!(
                "runtime = \"process\"\ncommand = [\"{}\", \"--port\", \"{{port}}\", \
                 \"--data\", \"{{volume:{volume}}}\"]",
                program.clone().unwrap_or_else(acts).display()
            ),
        };
        let dir = self.dir.path().display();
        let (listen, start_port) = (self.listen, self.start_port);
        format!(
            "state_dir = \"{dir}/state\"\ncontrol = \"{dir}/orch.sock\"\nstatus = \"{status}\"\n\
             [dataplane]\npin_dir = \"{}\"\n{dataplane}\n\
             [[service]]\nname = \"acts\"\nlisten = \"{listen}\"\nstart_port = {start_port}\n\
             {service}\n\
             [service.backend]\n{runs}\nvolumes = [\"{volume}:/data\"]\n\
             drain_limit = \"{drain}\"\n{backend}\n\
             [service.health]\npath = \"/api/v1/_health\"\n\
             [service.count]\nprefix = \"/api/\"\nexclude = [\"/api/v1/_health\"]\n\
             [service.scale]\nrequests_per_replica = 100000000\nmin = {copies}\nmax = {ROOM}\n\
             {scale}\n",
            self.pins().display()
        )
    }
}
