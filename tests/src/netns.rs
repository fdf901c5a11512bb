//! Network namespaces that remove themselves.

use std::{
    fs::File,
    io::Write,
    os::fd::AsFd,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sched::{CloneFlags, setns};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace. It goes when this is dropped.
#[derive(Debug)]
pub struct NetNs {
    /// Its name, as `ip netns` knows it.
    pub name: String,
}

impl NetNs {
    /// Makes a namespace with loopback up.
    pub fn new() -> Self {
        crate::leftovers::once();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("orch-test-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"]);
        netns
    }

    /// Runs `ip` in it.
    pub fn ip(&self, args: &[&str]) {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(args);
        run("ip", &all);
    }

    /// Runs `tc` in it, with these words.
    pub fn tc(&self, words: &str) {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(words.split(' '));
        run("tc", &all);
    }

    /// Runs many commands of `ip` in it at once, one on each line.
    pub fn batch(&self, commands: &str) {
        let mut ip = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = ip.stdin.take().unwrap();
        input.write_all(commands.as_bytes()).unwrap();
        drop(input);
        assert!(ip.wait().unwrap().success(), "{commands}");
    }

    /// Sets a kernel parameter of it, in the notation of `sysctl`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.within(|| std::fs::write(path, value)).unwrap();
    }

    /// Loads rules of nftables.
    pub fn nft(&self, rules: &str) {
        let mut nft = self
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = nft.stdin.take().unwrap();
        input.write_all(rules.as_bytes()).unwrap();
        drop(input);
        assert!(nft.wait().unwrap().success());
    }

    /// Packets that a named counter of an `inet` table has seen.
    pub fn counter(&self, table: &str, counter: &str) -> u64 {
        let output = self
            .command("nft")
            .args(["list", "counter", "inet", table, counter])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let after = text.split("packets ").nth(1).unwrap();
        after.split(' ').next().unwrap().parse().unwrap()
    }

    /// A command that will run in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `body` on a thread of its own that is in the namespace.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        self.entry().within(body)
    }

    /// The way in for a thread that outlives the call.
    pub fn entry(&self) -> Entry {
        Entry(File::open(format!("/run/netns/{}", self.name)).unwrap())
    }

    /// Joins two namespaces by a pair of veth interfaces of these names, up and without addresses.
    pub fn link(&self, own: &str, other: &Self, others: &str) {
        self.ip(&[
            "link",
            "add",
            own,
            "type",
            "veth",
            "peer",
            "name",
            others,
            "netns",
            &other.name,
        ]);
        self.ip(&["link", "set", own, "up"]);
        other.ip(&["link", "set", others, "up"]);
    }
}

/// The way into a namespace.
#[derive(Debug)]
pub struct Entry(File);

impl Entry {
    /// The way to where a process is.
    pub fn of(pid: u32) -> Self {
        Self(File::open(format!("/proc/{pid}/ns/net")).unwrap())
    }

    /// The way back to where the calling thread is.
    pub fn here() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }

    /// Moves the calling thread in, for good.
    pub fn enter(&self) {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// Runs `body` there, in a thread of its own.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                body()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Default for NetNs {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Runs a command that must succeed.
pub fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
