//! The data plane beside a Docker engine, in the host's own network namespace: containers as
//! clients, and Docker's firewall rules. Takes ports, an interface and a table of its own, and
//! removes everything afterwards.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use orch::{
    config::{DataplaneConfig, Interfaces, Listen, Local, ServiceConfig},
    dataplane::{Dataplane, Reach, Reading, SlotEntry},
};
use orch_common::{
    counter::Reason,
    slot::{SlotKey, SlotState},
};
use orch_tests::{
    fixture,
    netns::{NetNs, run},
    server::{Server, ask},
    wait::until,
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A service on this host with three slots, a client outside, an image with a client.
struct World {
    dataplane: Option<Dataplane>,
    pin_dir: PathBuf,
    servers: Vec<Server>,
    outside: NetNs,
    name: String,
    uplink: String,
    network: String,
    port: u16,
}

impl World {
    fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (pid, outside) = (process::id(), NetNs::new());
        let name = format!("orch-test-dataplane-{pid}-{number}");
        build_image(&name);
        // Names and numbers of its own for each process and test.
        let port = 20_000 + ((pid * 4 + number) % 500 * 20) as u16;
        let uplink = format!("orcht{}", (pid * 4 + number) % 1_000_000);
        let network = format!("10.9{}.{}", number + 6, pid % 250);
        let link = [
            "link", "add", &uplink, "type", "veth", "peer", "name", "far0", "netns",
        ];
        run("ip", &[&link[..], &[&outside.name]].concat());
        run(
            "ip",
            &["addr", "add", &format!("{network}.1/24"), "dev", &uplink],
        );
        run("ip", &["link", "set", &uplink, "up"]);
        outside.ip(&["addr", "add", &format!("{network}.2/24"), "dev", "far0"]);
        outside.ip(&["link", "set", "far0", "up"]);
        let config = DataplaneConfig {
            interfaces: Interfaces::Named(vec![uplink.clone()]),
            ..fixture::dataplane(&name, Local::Connect)
        };
        let mut world = Self {
            dataplane: None,
            pin_dir: config.pin_dir.clone(),
            servers: (1..=3).map(|slot| Server::start(port + slot)).collect(),
            outside,
            name,
            uplink,
            network,
            port,
        };
        world.watch_conntrack();
        world.dataplane = Some(Dataplane::open(&config).unwrap());
        world.fill();
        world
    }

    /// Three ready slots.
    fn fill(&mut self) {
        let port = self.port;
        let service = ServiceConfig {
            listen: Listen {
                address: None,
                port,
            },
            start_port: port + 1,
            ..fixture::service()
        };
        self.plane().set_services(&[service]).unwrap();
        for slot in 0..3 {
            let entry = SlotEntry {
                address: SocketAddr::from(([127, 0, 0, 1], port + 1 + slot)),
                reach: Reach::Port,
                pid: None,
                port: port + 1 + slot,
                state: SlotState::Ready,
                generation: 1,
            };
            let key = SlotKey { service: 0, slot };
            self.plane().set_slot(key, &entry).unwrap();
        }
        self.plane().set_ring(0, &[0, 1, 2]).unwrap();
    }

    /// Counts what conntrack finds invalid on the service's ports, and drops none of it.
    fn watch_conntrack(&self) {
        let ports = format!("{}-{}", self.port, self.port + 10);
        let look = |name: &str| {
            format!(
                "chain {name} {{ type filter hook {name} priority filter; \
                 tcp dport {ports} ct state invalid counter name invalid; \
                 tcp sport {ports} ct state invalid counter name invalid; \
                 tcp dport {ports} ct state established counter name known; }}"
            )
        };
        let hooks = ["prerouting", "input", "output", "postrouting"].map(look);
        let table = format!(
            "table inet {} {{ counter invalid {{}}; counter known {{}}; {}\n}}",
            self.name,
            hooks.join("\n")
        );
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin
            .take()
            .unwrap()
            .write_all(table.as_bytes())
            .unwrap();
        assert!(nft.wait().unwrap().success(), "{table}");
    }

    /// Packets that a counter of the table has seen.
    fn packets(&self, counter: &str) -> u64 {
        let output = run("nft", &["list", "counter", "inet", &self.name, counter]);
        let text = String::from_utf8(output.stdout).unwrap();
        let after = text.split("packets ").nth(1).unwrap();
        after.split(' ').next().unwrap().parse().unwrap()
    }

    /// Connections to the service's ports that conntrack knows.
    fn tracked(&self) -> usize {
        let output = run("conntrack", &["-L", "-p", "tcp"]);
        let ports = self.port..=self.port + 10;
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| line.split("dport=").nth(1)?.split(' ').next()?.parse().ok())
            .filter(|port: &u16| ports.contains(port))
            .count()
    }

    fn plane(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().unwrap()
    }

    fn read(&mut self) -> Reading {
        self.plane().read().unwrap()
    }

    fn uplink_address(&self) -> String {
        format!("{}.1:{}", self.network, self.port)
    }

    /// The host's address on Docker's own bridge.
    fn bridge_address(&self) -> String {
        let output = run("ip", &["-4", "-o", "address", "show", "docker0"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let address = text
            .split("inet ")
            .nth(1)
            .unwrap()
            .split('/')
            .next()
            .unwrap();
        format!("{address}:{}", self.port)
    }

    /// Starts a container with the client in it.
    fn client(&self, arguments: &[&str]) -> Child {
        Command::new("docker")
            .args(["run", "--rm", "--label", &self.name, &self.name])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits until no connection is open.
    fn drained(&mut self) {
        until("every live count is 0", || {
            self.read()
                .slots
                .iter()
                .all(|slot| slot.live == 0)
                .then_some(())
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.dataplane.take().map(Dataplane::detach));
        let _ = fs::remove_dir(&self.pin_dir);
        let quietly = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        quietly("nft", &["delete", "table", "inet", &self.name]);
        quietly("ip", &["link", "del", &self.uplink]);
        let filter = format!("label={}", self.name);
        for id in quietly("docker", &["ps", "-aq", "--filter", &filter]).lines() {
            quietly("docker", &["rm", "-f", id]);
        }
        quietly("docker", &["rmi", "-f", &self.name]);
    }
}

/// From nothing, with a static binary: no image has to be pulled.
fn build_image(image: &str) {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker_dataplane/client.rs");
    let binary = dir.path().join("client");
    let options = [
        "--edition",
        "2024",
        "-O",
        "-C",
        "target-feature=+crt-static",
        "-o",
    ];
    let rustc = Command::new("rustc")
        .args(options)
        .arg(&binary)
        .arg(source)
        .output()
        .unwrap();
    assert!(
        rustc.status.success(),
        "{}",
        String::from_utf8_lossy(&rustc.stderr)
    );
    let dockerfile = "FROM scratch\nCOPY client /client\nENTRYPOINT [\"/client\"]\n";
    fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    let build = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "-q", "-t", image])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(
        build.status.success(),
        "{}",
        String::from_utf8_lossy(&build.stderr)
    );
}

/// What a client that has ended well printed.
fn printed(client: Child) -> Vec<String> {
    let output = client.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The port that answers a new connection to this address.
fn answered_by(address: &str) -> String {
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), limit).unwrap();
    stream.set_read_timeout(Some(limit)).unwrap();
    ask(&mut stream, "/api/x").unwrap().1
}

/// Keeps the calling thread on one CPU, where the machine has it.
fn on_cpu(number: usize) {
    let mut set = CpuSet::new();
    set.set(number).unwrap();
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

#[test]
fn a_container_is_balanced_from_its_first_connection_on() {
    let mut world = World::new();
    let addresses = [world.bridge_address(), world.uplink_address()];
    for turn in 0..9_u16 {
        let address = &addresses[usize::from(turn) % 2];
        let client = world.client(&["balanced", address, "1"]);
        let expected = (world.port + 1 + turn % 3).to_string();
        assert_eq!(printed(client), [expected, "1".to_owned()], "turn {turn}");
    }
    world.drained();
    let reading = world.read();
    assert_eq!(reading.reasons[Reason::LocalConnect as usize], 9);
    assert_eq!(reading.reasons[Reason::NewFlow as usize], 0);
    for slot in reading.slots {
        assert_eq!((slot.connections, slot.counters.requests), (3, 3));
        assert_eq!(slot.counters.responses[2], 3);
    }
}

#[test]
fn a_containers_own_loopback_is_its_own() {
    let mut world = World::new();
    let client = world.client(&["loopback", &world.port.to_string()]);
    assert_eq!(printed(client), ["connection refused", "own", "own"]);
    assert!(world.read().slots.iter().all(|slot| slot.connections == 0));
}

#[test]
fn outsiders_the_host_and_a_container_share_one_ring_and_conntrack_minds_nothing() {
    const OUTSIDE: u64 = 3334;
    const OTHERS: u64 = 3333;
    const ALL: u64 = OUTSIDE + 2 * OTHERS;
    let mut world = World::new();
    let before = world.tracked() as u64;
    let (bridge, uplink) = (world.bridge_address(), world.uplink_address());
    let own = format!("127.0.0.1:{}", world.port);
    let mut client = world.client(&["balanced", &bridge, &OTHERS.to_string()]);
    until("the container connects or fails", || {
        let slots = world.read().slots;
        let connects = slots.iter().any(|slot| slot.connections > 0);
        (connects || client.try_wait().unwrap().is_some()).then_some(())
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            world.outside.within(|| {
                on_cpu(0);
                (0..OUTSIDE).for_each(|_| drop(answered_by(&uplink)));
            });
        });
        scope.spawn(|| {
            on_cpu(1);
            (0..OTHERS).for_each(|_| drop(answered_by(&own)));
        });
    });
    assert_eq!(printed(client)[1], OTHERS.to_string());
    world.drained();
    let reading = world.read();
    let given: Vec<u64> = reading.slots.iter().map(|slot| slot.connections).collect();
    let asked: Vec<u64> = reading
        .slots
        .iter()
        .map(|slot| slot.counters.requests)
        .collect();
    let accepted: Vec<u64> = world.servers.iter().map(Server::accepted).collect();
    assert_eq!(given.iter().sum::<u64>(), ALL);
    assert!(given.iter().all(|&n| n.abs_diff(ALL / 3) <= 1), "{given:?}");
    assert_eq!((&asked, &accepted), (&given, &given));
    assert_eq!(reading.reasons[Reason::NewFlow as usize], OUTSIDE);
    assert_eq!(reading.reasons[Reason::LocalConnect as usize], 2 * OTHERS);
    let tracked = world.tracked() as u64;
    assert!(
        (1..=ALL + before).contains(&tracked),
        "{tracked} entries after {ALL} connections, {before} before"
    );
    assert_eq!(world.packets("invalid"), 0);
    assert!(world.packets("known") > ALL, "the rules see them");
}
