//! The controller: at rest with ten slots, and from `orch run` to the first answered request.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    Result, cpu,
    leftovers::{Child, remember},
    report::{Table, bytes, median},
    topology::{HOST, Topology},
};

const SLOTS: u16 = 10;
const STARTS: usize = 5;

/// The programs that are run.
pub(crate) struct Programs {
    /// The controller.
    pub(crate) orch: PathBuf,
    /// The demo service.
    pub(crate) acts: PathBuf,
}

/// Measures and gives the table.
pub(crate) fn measure(programs: &Programs, seconds: u64) -> Result<Table> {
    let topology = Topology::new()?;
    let mut first = Vec::new();
    for _ in 0..STARTS {
        let begin = Instant::now();
        let mut run = run(programs, &topology, 1)?;
        topology.client.within(first_answer)?;
        first.push(begin.elapsed().as_secs_f64() * 1e3);
        stop(&mut run)?;
    }
    let mut run = run(programs, &topology, SLOTS)?;
    topology.client.within(first_answer)?;
    let rest = at_rest(run.id(), programs, &topology, seconds);
    stop(&mut run)?;
    let (memory, share) = rest?;
    let mut table = Table::new("Controller", &["", "value"]);
    table.row(vec![
        format!("resident memory, {SLOTS} slots"),
        bytes(memory),
    ]);
    table.row(vec![
        format!("CPU at rest, {SLOTS} slots"),
        format!("{share:.2} %"),
    ]);
    table.row(vec![
        format!("first answer after, median of {STARTS}"),
        format!("{:.0} ms", median(first)),
    ]);
    Ok(table)
}

/// Starts `orch run` on the host with so many copies of the demo service.
fn run(programs: &Programs, topology: &Topology, copies: u16) -> Result<Child> {
    let dir = topology.dir.join("controller");
    let pins = format!("/sys/fs/bpf/orch-bench-run-{}", std::process::id());
    remember(pins.clone().into());
    std::fs::create_dir_all(dir.join("data"))?;
    let file = dir.join("orch.toml");
    std::fs::write(&file, config(&dir, &pins, &programs.acts, copies))?;
    let log = std::fs::File::create(dir.join("orch.log"))?;
    let mut command = on_host(topology, &programs.orch);
    command
        .args(["run", "-f"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(log);
    Child::start(&mut command)
}

/// A command on the host. `ip netns exec` would hide cgroup2 and the BPF file system, since it
/// mounts a /sys of its own.
pub(crate) fn on_host(topology: &Topology, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", topology.host.name))
        .arg(program);
    command
}

fn config(dir: &Path, pins: &str, acts: &Path, copies: u16) -> String {
    let (dir, acts) = (dir.display(), acts.display());
    format!(
        r#"state_dir = "{dir}/state"
control = "{dir}/orch.sock"
status = "127.0.0.1:9180"

[dataplane]
pin_dir = "{pins}"

[[service]]
name = "acts"
listen = "80"

[service.backend]
runtime = "process"
command = ["{acts}", "--port", "{{port}}", "--data", "{dir}/data"]

[service.health]
path = "/api/v1/_health"

[service.scale]
min = {copies}
max = {SLOTS}
"#
    )
}

/// Waits until the service answers a client from outside.
fn first_answer() -> Result<()> {
    let address = format!("{HOST}:80").parse()?;
    let end = Instant::now() + Duration::from_secs(30);
    let limit = Duration::from_millis(500);
    while Instant::now() < end {
        let answer = TcpStream::connect_timeout(&address, limit).and_then(ask);
        if answer.is_ok_and(|head| head.starts_with(b"HTTP/1.1 200")) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err("the service does not answer within 30 s".into())
}

/// Asks in one segment, and gives the first bytes of the answer.
fn ask(mut stream: TcpStream) -> io::Result<[u8; 12]> {
    let mut head = [0; 12];
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(
        b"GET /api/v1/_health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )?;
    stream.read_exact(&mut head)?;
    Ok(head)
}

/// Resident bytes and share of a CPU in percent, once all slots are ready.
fn at_rest(id: u32, programs: &Programs, topology: &Topology, seconds: u64) -> Result<(u64, f64)> {
    wait_ready(programs, topology)?;
    // The flow of the first answer is freed after ten seconds; while there is one, the table is
    // swept every other second.
    thread::sleep(Duration::from_secs(15));
    let (begin, before) = (Instant::now(), cpu::of_process(id)?);
    thread::sleep(Duration::from_secs(seconds));
    let share = (cpu::of_process(id)? - before) / begin.elapsed().as_secs_f64() * 100.0;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let resident: u64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .ok_or("no VmRSS")?;
    Ok((resident * 1024, share))
}

fn wait_ready(programs: &Programs, topology: &Topology) -> Result<()> {
    let socket = topology.dir.join("controller/orch.sock");
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let output = on_host(topology, &programs.orch)
            .args(["ps", "-o", "json", "--control"])
            .arg(&socket)
            .output()?;
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let ready = rows
            .as_array()
            .into_iter()
            .flatten()
            .filter(|row| row["state"] == "ready");
        if ready.count() == usize::from(SLOTS) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(format!("not {SLOTS} slots ready within 30 s").into())
}

fn stop(run: &mut Child) -> Result<()> {
    if run.stop(Signal::SIGINT, Duration::from_secs(20)) {
        return Ok(());
    }
    Err("orch does not end within 20 s of SIGINT".into())
}
