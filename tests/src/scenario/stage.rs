//! `orch` with the demo service on the host's own port 80, and a client's network beside it.

use std::{
    env,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::client::{self, Answer, Kept};
use crate::{
    netns::{NetNs, run},
    wait::until,
};

/// What the copies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Containers.
    Docker,
    /// Plain processes.
    Process,
}

/// How requests get to the copies, and how clients send them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Balanced by the kernel, a connection per request.
    Tcp,
    /// Balanced by the gateway, a connection per request.
    Http,
    /// Balanced by the gateway, one connection for all requests of a host.
    HttpKept,
}

impl Mode {
    /// Whether orch answers for `/` itself.
    pub fn has_page(self) -> bool {
        self != Self::Tcp
    }
}

/// A host on which `orch` runs. Everything goes when this is dropped, after a panic, too.
#[derive(Debug)]
pub struct Stage {
    kind: Kind,
    /// How requests get to the copies.
    pub mode: Mode,
    kept: [Mutex<Option<Kept>>; 2],
    orch: Option<Child>,
    outside: NetNs,
    public: SocketAddr,
    dir: TempDir,
    volume: String,
    // Locks are released as files are closed: last.
    _alone: File,
}

/// The host's end of the link to the outside.
const NEAR: &str = "10.213.80.1";
/// The outside's end.
const FAR: &str = "10.213.80.2";

impl Stage {
    /// Starts `orch` with windows of this length and waits until the only copy answers.
    pub fn open(kind: Kind, mode: Mode, interval: Duration) -> Self {
        let alone = alone();
        crate::leftovers::once();
        for port in [80, 8000, 8001, 8002, 8003] {
            assert!(
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(),
                "port {port} answers already: end what serves it, this test needs ports 80 and 8000..8009"
            );
        }
        let number = std::process::id();
        let volume = format!("orch-scenario-{number}");
        let mut stage = Self {
            kind,
            mode,
            kept: [Mutex::new(None), Mutex::new(None)],
            orch: None,
            outside: outside(number),
            public: SocketAddr::new(public(), 80),
            dir: tempfile::tempdir().unwrap(),
            volume,
            _alone: alone,
        };
        fs::write(stage.file(), stage.config(interval)).unwrap();
        stage.start();
        until("the only copy is ready", || stage.try_settled());
        stage
    }

    fn start(&mut self) {
        let log = File::create(self.path("orch.log")).unwrap();
        let child = Command::new(program("ORCH_BIN", "release/orch"))
            .args(["run", "-f"])
            .arg(self.file())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.orch = Some(child.unwrap());
    }

    fn try_settled(&mut self) -> Option<()> {
        let ended = self.orch.as_mut().and_then(|orch| orch.try_wait().unwrap());
        assert_eq!(ended, None, "orch has ended");
        let answers = self.command(&["status"]).output().unwrap();
        (answers.status.success() && self.is_settled(1)).then_some(())
    }

    fn config(&self, interval: Duration) -> String {
        let dir = self.dir.path().display();
        let mode = if self.mode == Mode::Tcp {
            "tcp"
        } else {
            "http"
        };
        let backend = match self.kind {
            Kind::Docker => "image = \"acts:demo\"\nport = 8080".to_owned(),
            Kind::Process => format!(
                "runtime = \"process\"\ncommand = [\"{}\", \"--port\", \"{{port}}\", \"--data\", \"{{volume:{}}}\"]",
                program("ACTS_BIN", "acts/acts").display(),
                self.volume
            ),
        };
        format!(
            "state_dir = \"{dir}/state\"\ncontrol = \"{dir}/orch.sock\"\nstatus = \"\"\n\n\
             [dataplane]\npin_dir = \"{}\"\n\n\
             [[service]]\nname = \"acts\"\nlisten = \"80\"\nmode = \"{mode}\"\n\n\
             [service.backend]\n{backend}\nvolumes = [\"{}:/data\"]\n\n\
             [service.health]\npath = \"/api/v1/_health\"\n\n\
             [service.count]\nprefix = \"/api/\"\n\
             exclude = [\"/api/v1/_health\", \"/api/v1/_crash\"]\n\n\
             [service.scale]\ninterval = \"{}s\"\n",
            self.pin_dir(),
            self.volume,
            interval.as_secs(),
        )
    }

    fn pin_dir(&self) -> String {
        format!("/sys/fs/bpf/{}", self.volume)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("orch.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("ORCH_BIN", "release/orch"));
        command.args(args).arg("-f").arg(self.file());
        command
    }

    /// What a verb of `orch`, which must succeed, prints.
    pub fn orch(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "orch {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Asks the service's public address, from the host itself.
    pub fn inside(&self, path: &str) -> Answer {
        self.ask(false, "GET", path, b"")
    }

    /// Asks the service's public address, from another host.
    pub fn outside(&self, path: &str) -> Answer {
        self.ask(true, "GET", path, b"")
    }

    /// Posts to the service's public address, from another host or from this one.
    pub fn post(&self, outside: bool, path: &str, body: &[u8]) -> Answer {
        self.ask(outside, "POST", path, body)
    }

    fn ask(&self, outside: bool, method: &str, path: &str, body: &[u8]) -> Answer {
        let ask = || match (self.mode, method) {
            (Mode::HttpKept, _) => {
                let mut kept = self.kept[usize::from(outside)].lock().unwrap();
                let open = || Kept::open(self.public).unwrap();
                let kept = kept.get_or_insert_with(open);
                kept.ask(method, path, body).unwrap()
            }
            (_, "GET") => client::get(self.public, path).unwrap(),
            _ => client::post(self.public, path, body).unwrap(),
        };
        if outside {
            self.outside.within(ask)
        } else {
            ask()
        }
    }

    /// What a backend of `orch ps` calls itself in its answers.
    pub fn name(&self, backend: &str) -> String {
        match self.kind {
            // A container knows the first twelve digits of its id.
            Kind::Docker => backend.chars().take(12).collect(),
            Kind::Process => backend.to_owned(),
        }
    }

    /// Whether a backend of this name is still there, running or not.
    pub fn exists(&self, name: &str) -> bool {
        match self.kind {
            Kind::Docker => {
                let output = Command::new("docker").args(["inspect", name]).output();
                output.unwrap().status.success()
            }
            Kind::Process => Path::new("/proc").join(name).exists(),
        }
    }

    /// Ends `orch` as Ctrl-C does, and checks that it leaves nothing.
    pub fn close(mut self) {
        let copies: Vec<_> = self
            .ps()
            .iter()
            .map(|row| self.name(&row.backend))
            .collect();
        let mut child = self.orch.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        let status = until("orch ends", || child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.log());
        for copy in copies {
            assert!(!self.exists(&copy), "{copy} is left behind");
        }
        for port in [80, 8000] {
            assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        }
        assert!(!Path::new(&self.pin_dir()).join("v1").exists(), "pins stay");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("orch.log")).unwrap_or_default()
    }

    fn end_orch(&mut self) {
        let _ = self.command(&["down"]).output();
        let Some(mut child) = self.orch.take() else {
            return;
        };
        let end = Instant::now() + Duration::from_secs(5);
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- the log of orch\n{}", self.log());
            for verb in ["ps", "status", "why"] {
                let shown = self.command(&[verb]).output();
                let text = shown.map(|output| output.stdout).unwrap_or_default();
                println!("--- orch {verb}\n{}", String::from_utf8_lossy(&text));
            }
        }
        self.end_orch();
        let _ = fs::remove_dir(self.pin_dir());
        if self.kind == Kind::Docker {
            let remove = ["volume", "rm", "-f", &self.volume];
            let _ = Command::new("docker").args(remove).output();
        }
    }
}

/// Waits until no other test of this kind runs, and keeps others from starting.
fn alone() -> File {
    let path = env::temp_dir().join("orch-scenario.lock");
    let file = File::create(path).unwrap();
    file.lock().unwrap();
    file
}

/// Another host whose default route leads here.
fn outside(number: u32) -> NetNs {
    let outside = NetNs::new();
    let near = format!("orchsc{}", number % 1_000_000);
    // A namespace is taken down a little after its name: the test before may still have the link.
    let _ = Command::new("ip").args(["link", "del", &near]).output();
    let peer = ["type", "veth", "peer", "name", "far0", "netns"];
    let mut link = vec!["link", "add", &near];
    link.extend(peer);
    link.push(&outside.name);
    run("ip", &link);
    run("ip", &["addr", "add", &format!("{NEAR}/30"), "dev", &near]);
    run("ip", &["link", "set", &near, "up"]);
    outside.ip(&["addr", "add", &format!("{FAR}/30"), "dev", "far0"]);
    outside.ip(&["link", "set", "far0", "up"]);
    outside.ip(&["route", "add", "default", "via", NEAR]);
    outside
}

/// The address that others know the host by, or the end of the link to the outside if it has none.
fn public() -> IpAddr {
    let up = getifaddrs().unwrap().filter(|entry| {
        let flags = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let device = Path::new("/sys/class/net").join(&entry.interface_name);
        let real = !device.join("bridge").exists() && !entry.interface_name.starts_with("orchsc");
        entry.flags.contains(flags) && real
    });
    let addresses = up.filter_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip()));
    let mut usable = addresses.filter(|ip| !ip.is_loopback() && !ip.is_link_local());
    let found = usable.next();
    found.map_or_else(|| NEAR.parse().unwrap(), IpAddr::V4)
}

/// A program, from the environment or from where it is built.
fn program(variable: &str, built: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let path = env::var_os(variable).map_or_else(|| target.join(built), PathBuf::from);
    assert!(path.exists(), "{} is not built", path.display());
    path
}
