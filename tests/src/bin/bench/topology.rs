//! A host and a client outside, each a network namespace, and the backends on the host.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use orch_tests::{netns::NetNs, server::ask};

use crate::{
    Result,
    leftovers::{Child, remember},
};

/// The host's address, as the client outside knows it.
pub(crate) const HOST: &str = "10.9.0.1";
/// Ports of the backends. One: a client that goes past the balancer can only go to one, and three
/// would have three times as many ports to wait out.
pub(crate) const PORTS: [u16; 1] = [8000];

/// Set in both namespaces: enough ports and queues that neither is what is measured.
const SYSCTLS: [&str; 5] = [
    "net.ipv4.ip_local_port_range=10240 65535",
    "net.ipv4.tcp_tw_reuse=1",
    "net.ipv4.tcp_max_syn_backlog=8192",
    "net.core.somaxconn=8192",
    "net.ipv4.tcp_syncookies=0",
];

/// Two namespaces joined by a veth pair.
pub(crate) struct Topology {
    /// Where the balancer and the backends are.
    pub(crate) host: NetNs,
    /// Where clients from outside are.
    pub(crate) client: NetNs,
    /// For configurations and files.
    pub(crate) dir: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Topology {
    pub(crate) fn new() -> Result<Self> {
        let temporary = tempfile::tempdir()?;
        remember(temporary.path().to_owned());
        let (host, client) = (NetNs::new(), NetNs::new());
        host.link("up0", &client, "far0");
        host.ip(&["addr", "add", &format!("{HOST}/24"), "dev", "up0"]);
        host.ip(&["addr", "add", "fd09::1/64", "dev", "up0", "nodad"]);
        client.ip(&["addr", "add", "10.9.0.2/24", "dev", "far0"]);
        for netns in [&host, &client] {
            for setting in SYSCTLS {
                // A kernel without one of them is measured as it is.
                let _ = netns
                    .command("sysctl")
                    .args(["-qw", setting])
                    .stderr(Stdio::null())
                    .status();
            }
        }
        Ok(Self {
            host,
            client,
            dir: temporary.path().to_owned(),
            _temporary: temporary,
        })
    }

    /// Starts nginx as all the backends: one program on three ports, so that a client that goes to
    /// one port directly meets the same one as a client that is balanced.
    pub(crate) fn backends(&self, threads: usize) -> Result<Child> {
        std::fs::write(self.dir.join("big"), vec![b'x'; 1 << 20])?;
        let listen = lines(|port| format!("listen {port} backlog=8192 reuseport;"));
        let dir = self.dir.display();
        let text = format!(
            "user root;\nworker_processes {threads};\ndaemon off;\npid {dir}/backend.pid;\n\
             error_log {dir}/backend.log;\nevents {{ worker_connections 8192; }}\n\
             http {{\naccess_log off;\nsendfile on;\ntcp_nopush on;\ntcp_nodelay on;\n\
             keepalive_requests 1000000000;\ndefault_type text/plain;\n\
             server {{\n{listen}location = / {{ return 200 \"ok\\n\"; }}\n\
             location / {{ root {dir}; }}\n}}\n}}\n"
        );
        let child = self.nginx("backend", &text)?;
        for port in PORTS {
            self.host.within(|| answers(&format!("127.0.0.1:{port}")))?;
        }
        Ok(child)
    }

    /// Starts nginx on the host.
    pub(crate) fn nginx(&self, name: &str, text: &str) -> Result<Child> {
        let file = self.dir.join(format!("{name}.conf"));
        std::fs::write(&file, text)?;
        let log = self.dir.join(format!("{name}.log"));
        let mut command = self.host.command("nginx");
        command
            .arg("-e")
            .arg(log)
            .arg("-p")
            .arg(&self.dir)
            .arg("-c")
            .arg(&file);
        Child::start(&mut command)
    }
}

/// A line of a configuration for every backend's port.
pub(crate) fn lines(line: impl FnMut(u16) -> String) -> String {
    let lines: Vec<String> = PORTS.into_iter().map(line).collect();
    lines.join("\n")
}

/// Waits until a request to this address is answered with 200.
pub(crate) fn answers(address: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = TcpStream::connect_timeout(&address.parse()?, Duration::from_secs(2))
            .and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                ask(&mut stream, "/")
            });
        match answer {
            Ok((200, _)) => return Ok(()),
            Ok((status, _)) => return Err(format!("{address} answers {status}").into()),
            Err(error) if Instant::now() > end => return Err(format!("{address}: {error}").into()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Whether a program is installed, and how to install it if not.
pub(crate) fn installed(program: &str, package: &str) -> Result<()> {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .chain([Path::new("/usr/sbin").to_owned()])
            .any(|dir| dir.join(program).exists())
    });
    if found {
        return Ok(());
    }
    Err(format!("not installed (apt-get install {package})").into())
}

/// Directory of nginx's stream module, if the module is one of its own; an error if there is none.
pub(crate) fn stream_module() -> Result<Option<PathBuf>> {
    installed("nginx", "nginx-light")?;
    let output = Command::new("nginx").arg("-V").output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !text.contains("--with-stream=dynamic") {
        return if text.contains("--with-stream") {
            Ok(None)
        } else {
            Err("nginx has no stream module".into())
        };
    }
    let path = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("--modules-path="))
        .map(|dir| Path::new(dir).join("ngx_stream_module.so"))
        .filter(|path| path.exists());
    path.map(Some)
        .ok_or_else(|| "no stream module (apt-get install libnginx-mod-stream)".into())
}
