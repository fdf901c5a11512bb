//! A controller of its own for a test: own sockets, pins, directories, ports. It goes, with all that
//! it made, when it is dropped.

use std::{
    fs::{self, File, Permissions},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use orch::view::{EventRow, ServiceRow, SlotRow};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::{self, Answer},
    netns::run,
    wait::until,
};

/// The demo service's image.
pub const IMAGE: &str = "acts:demo";
/// First port that services listen on.
const LISTEN: u16 = 18081;
/// First slot port.
const SLOTS: u16 = 18200;
/// Slot ports per controller.
const ROOM: u16 = 10;
/// Controllers per process, until their ports are used again.
const CONTROLLERS: u16 = 23;
/// Processes that may run such tests beside each other.
const PROCESSES: u16 = 5;

static NEXT: AtomicU16 = AtomicU16::new(0);
/// Which of these processes this one is. The socket is held to the end, so that it is no other.
static PLACE: LazyLock<(u16, UnixListener)> = LazyLock::new(|| {
    let take = |place: u16| {
        let address = SocketAddr::from_abstract_name(format!("orch-e2e-{place}")).unwrap();
        Some((place, UnixListener::bind_addr(&address).ok()?))
    };
    let taken = (0..PROCESSES).find_map(take);
    taken.expect("too many processes run these tests at once")
});

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

/// A controller. See the module.
#[derive(Debug)]
pub struct Orch {
    /// What it was set up with.
    pub settings: Settings,
    /// The service's port.
    pub listen: u16,
    /// Slot 0's port.
    pub start_port: u16,
    /// Its own directory.
    pub dir: TempDir,
    number: u16,
    child: Option<Child>,
}

impl Orch {
    /// Ports, directory and file, and nothing that runs.
    pub fn prepare(settings: Settings) -> Self {
        crate::leftovers::once();
        if settings.kind == Kind::Docker {
            ensure_image(IMAGE, "acts", &acts());
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let ports = CONTROLLERS * PLACE.0 + number % CONTROLLERS;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let orch = Self {
            settings,
            number,
            listen: LISTEN + ports,
            start_port: SLOTS + ROOM * ports,
            dir,
            child: None,
        };
        orch.write_file(&orch.text());
        orch
    }

    /// A controller whose copies are all in the ring.
    pub fn start(settings: Settings) -> Self {
        let mut orch = Self::prepare(settings);
        orch.launch();
        orch.wait_ready(orch.settings.copies);
        orch
    }

    /// The file's path.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("orch.toml")
    }

    /// The control socket's path.
    pub fn control(&self) -> PathBuf {
        self.dir.path().join("orch.sock")
    }

    /// The directory of the pins.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(self.volume())
    }

    /// The volume that the copies share.
    pub fn volume(&self) -> String {
        format!("orch-e2e-{}-{}", std::process::id(), self.number)
    }

    /// Writes the file.
    pub fn write_file(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

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

    /// `orch` with these arguments, told which controller is meant.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).env("ORCH_CONTROL", self.control());
        let env = &self.settings.env;
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a verb to its end.
    pub fn verb(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a verb prints as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.verb(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `orch run`, which is expected to end by itself: its exit code and what it said.
    pub fn refused(&self) -> (i32, String) {
        let file = self.file();
        let output = self.verb(&["run", "--quiet", "-f", file.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), text)
    }

    /// Starts `orch run`.
    pub fn launch(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let file = self.file();
        let mut command = self.command(&["run", "-f", file.to_str().unwrap()]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().unwrap().id() as i32)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        until("the controller ends", || child.try_wait().unwrap())
    }

    /// Sends it a signal and waits for its end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.ended()
    }

    /// Its slots, by its socket; nothing while it does not answer.
    pub fn slots(&self) -> Vec<SlotRow> {
        self.rows("/v1/slots")
    }

    /// Its services.
    pub fn services(&self) -> Vec<ServiceRow> {
        self.rows("/v1/services")
    }

    /// Its events.
    pub fn events(&self) -> Vec<EventRow> {
        self.rows("/v1/events")
    }

    fn rows<T: serde::de::DeserializeOwned>(&self, path: &str) -> Vec<T> {
        let answer = client::get_unix(&self.control(), path).unwrap_or_default();
        serde_json::from_str(&answer).unwrap_or_default()
    }

    /// The slot, if it is shown.
    pub fn slot(&self, slot: u16) -> Option<SlotRow> {
        self.slots().into_iter().find(|row| row.slot == slot)
    }

    /// Ids of the copies by slot.
    pub fn ids(&self) -> Vec<String> {
        self.slots().into_iter().map(|row| row.backend).collect()
    }

    /// Waits until exactly so many copies are there, all ready; spares are not looked at.
    pub fn wait_ready(&self, copies: u16) -> Vec<SlotRow> {
        let right = || {
            let mut rows = self.slots();
            rows.retain(|row| !row.is_spare());
            let ready = rows.iter().all(|row| row.state == "ready" && row.healthy);
            (ready && rows.len() == usize::from(copies)).then_some(rows)
        };
        self.until(&format!("{copies} copies are ready"), right)
    }

    /// Waits for an event of this kind with these words, after the event `after`.
    pub fn wait_event(&self, after: u64, kind: &str, words: &str) -> EventRow {
        self.until(&format!("an event {kind}: {words}"), || {
            let mut events = self.events().into_iter();
            events.find(|row| row.id > after && row.kind == kind && row.text.contains(words))
        })
    }

    /// The id of the latest event.
    pub fn last_event(&self) -> u64 {
        self.events().last().map_or(0, |row| row.id)
    }

    /// Waits for a condition. Where it never comes, the slots are shown, and the log when this is dropped.
    pub fn until<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + crate::wait::PATIENCE;
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(Instant::now() < end, "{what}: in vain; {:?}", self.slots());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// `orch scale`.
    pub fn scale(&self, copies: u16) {
        let output = self.verb(&["scale", &format!("acts={copies}")]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }

    /// Where local clients connect.
    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.listen).into()
    }

    /// A slot's own port.
    pub fn slot_address(&self, slot: u16) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.start_port + slot).into()
    }

    /// Asks the service once.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        client::once(self.address(), method, path, body).unwrap()
    }

    /// `orch down`.
    pub fn down(&self) -> Output {
        let file = self.file();
        self.verb(&["down", "-f", file.to_str().unwrap()])
    }

    /// What is there of this controller: containers, processes, pins, sockets, links.
    pub fn remains(&self) -> Vec<String> {
        let mut found = Vec::new();
        for path in [
            self.pins(),
            self.control(),
            self.dir.path().join("orch.sock.lock"),
            self.dir.path().join("orch.sock.gw"),
            self.dir.path().join("state/gate"),
        ] {
            if path.exists() {
                found.push(path.display().to_string());
            }
        }
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

impl Drop for Orch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the controller\n{}----", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
        }
        // A test may have broken the file, or cut the way to the engine.
        self.write_file(&self.text());
        self.settings.env.clear();
        let _ = self.down();
        let _ = Command::new("docker")
            .args(["volume", "rm", "-f", &self.volume()])
            .output();
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

/// Runs `docker`, and gives what it prints.
pub fn docker(args: &[&str]) -> String {
    let output = run("docker", args);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The binary under test.
pub fn binary() -> PathBuf {
    program("ORCH_BIN", &["release/orch", "debug/orch"])
}

/// The demo service's static binary.
pub fn acts() -> PathBuf {
    program("ACTS_BIN", &["acts/acts", "release/acts", "debug/acts"])
}

/// The static binary of the example `cna`.
pub fn cna() -> PathBuf {
    program("CNA_BIN", &["cna/cna", "release/cna", "debug/cna"])
}

fn program(variable: &str, usual: &[&str]) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let mut paths = usual.iter().map(|path| target.join(path));
    let found = paths.find(|path| path.is_file());
    let found = found.unwrap_or_else(|| panic!("build {usual:?} first, or set {variable}"));
    found.canonicalize().unwrap()
}

/// Builds an example's image of its binary if it is not there.
pub fn ensure_image(image: &str, example: &str, binary: &Path) {
    let there = Command::new("docker")
        .args(["image", "inspect", image])
        .output();
    if there.unwrap().status.success() {
        return;
    }
    let context = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let recipe = examples.join(example).join("Dockerfile");
    fs::copy(recipe, context.path().join("Dockerfile")).unwrap();
    fs::copy(binary, context.path().join(example)).unwrap();
    let built = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "--quiet", "--force-rm", "--tag", image])
        .arg(context.path())
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
}
