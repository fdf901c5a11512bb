//! The checked configuration: what the rest of the controller sees. `raw` holds what the user
//! typed, `check` builds this from it and reports every problem at once.

mod check;
mod example;
mod http;
mod problem;
mod raw;
mod section;
mod source;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::scale::Policy;

pub use example::EXAMPLE;
pub use http::{HttpConfig, Mode, TlsConfig};
pub use orch_common::service::Balance;
pub use problem::{ConfigError, Problem};
pub use source::{DEFAULT_FILE, Source, examine, parse};

/// The control socket where nothing else is said.
pub const DEFAULT_CONTROL: &str = "/run/orch/orch.sock";
/// The state directory where nothing else is said.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/orch";
/// The pin directory where nothing else is said.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/orch";

/// A whole configuration, checked: ports do not overlap, names are unique, every value is in range.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the controller keeps what must survive a restart.
    pub state_dir: PathBuf,
    /// The control socket (mode 0600).
    pub control: PathBuf,
    /// The status address; `None` if turned off.
    pub status: Option<SocketAddr>,
    /// Holds the token with which changes may be asked for at the status address; `None`: never.
    pub token_file: Option<PathBuf>,
    /// The data plane.
    pub dataplane: DataplaneConfig,
    /// The services, in the order of the file. Their index here is their index in the data plane.
    pub services: Vec<ServiceConfig>,
}

/// The data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataplaneConfig {
    /// Which interfaces outsiders come from.
    pub interfaces: Interfaces,
    /// How clients on this host are balanced.
    pub local: Local,
    /// How flows reach their backends.
    pub delivery: Delivery,
    /// Mode http: what the gateway and copies say to each other goes from socket to socket, where
    /// the kernel can.
    pub relay: bool,
    /// Flows remembered, `MIN_FLOWS` at the least.
    pub flows: u32,
    /// Where maps and links are pinned; below it, `v<LAYOUT_VERSION>`.
    pub pin_dir: PathBuf,
}

/// Which interfaces outsiders come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// Every interface with an address that is neither loopback, nor a bridge, nor part of one.
    Auto,
    /// These, by name.
    Named(Vec<String>),
}

/// How clients on this host are balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// `Connect` where there is a cgroup2 hierarchy, else off with a warning.
    Auto,
    /// When they connect, by cgroup hooks.
    Connect,
    /// Not at all.
    Off,
}

/// How a flow reaches its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The best that works here.
    Auto,
    /// To the container's own address, or not at all.
    Direct,
    /// Only the port is rewritten.
    Port,
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceConfig {
    /// Its name: at most 40 letters, digits, `-` and `_`.
    pub name: String,
    /// Where clients connect.
    pub listen: Listen,
    /// How a slot is chosen for a connection.
    pub balance: Balance,
    /// Weights by slot, 1 to 100; 1 for those behind the end.
    pub weights: Vec<u8>,
    /// How long a slot that is new in the ring takes to come to its share; zero: none.
    pub slow_start: Duration,
    /// What is balanced.
    pub mode: Mode,
    /// Mode `http`: what is forwarded, and within which limits.
    pub http: HttpConfig,
    /// Slot k has port `start_port + k`.
    pub start_port: u16,
    /// Whether Docker publishes the slot ports, and where.
    pub publish: Publish,
    /// Whether outsiders may reach slot ports past the balancer.
    pub expose_slots: bool,
    /// How long a connection may wait for a backend while there is none; zero refuses it at once.
    pub hold: Duration,
    /// Connections that may wait at a time, and come in a second; at least 1.
    pub hold_limit: u32,
    /// What runs in the slots.
    pub backend: BackendConfig,
    /// How it is seen to be well.
    pub health: HealthConfig,
    /// Which requests count.
    pub count: CountConfig,
    /// How many copies run.
    pub scale: ScaleConfig,
}

/// A listening address: `80`, `10.0.0.1:80`, `[::]:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// `None` for every address of the host, IPv4 and IPv6. `0.0.0.0` is all of IPv4, `::` all of
    /// IPv6.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => self.port.fmt(f),
            Some(address) => SocketAddr::new(address, self.port).fmt(f),
        }
    }
}

/// Whether Docker publishes the slot ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// No further than the delivery needs: nowhere for `direct`, on the host's addresses for `port`.
    None,
    /// On 127.0.0.1 and `::1`.
    Localhost,
    /// On every address.
    All,
}

/// What runs in the slots of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendConfig {
    /// What creates it.
    pub runtime: RuntimeChoice,
    /// Docker: the image.
    pub image: Option<String>,
    /// Docker: overrides CMD. Process: program and arguments, with `{port}` replaced.
    pub command: Vec<String>,
    /// The port inside the container.
    pub port: u16,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Volumes, shared by all backends of the service.
    pub volumes: Vec<Volume>,
    /// Memory limit in bytes; 0 for none.
    pub memory: u64,
    /// CPUs; 0.0 for no limit.
    pub cpus: f64,
    /// How long live flows may take to finish before a stop.
    pub drain_limit: Duration,
    /// Between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
}

impl BackendConfig {
    /// Whether it is a process, rather than a container: `auto` is a container if an image is named.
    pub const fn is_process(&self) -> bool {
        match self.runtime {
            RuntimeChoice::Docker => false,
            RuntimeChoice::Process => true,
            RuntimeChoice::Auto => self.image.is_none(),
        }
    }
}

/// Which runtime a service asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// Docker if an image is named, else process.
    Auto,
    /// Containers.
    Docker,
    /// Plain processes.
    Process,
}

/// A volume: `name:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Docker: the volume's name or a directory of the host. Process: the directory
    /// `<state_dir>/volumes/<name>` is made, and its path replaces `{volume:name}` in command and
    /// environment.
    pub source: String,
    /// Where the container sees it.
    pub target: String,
}

/// How a backend is seen to be well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// `GET` of it must answer 200.
    pub path: String,
    /// Between two probes of one backend.
    pub interval: Duration,
    /// Shorter than the interval.
    pub timeout: Duration,
    /// Refused or timed-out probes in a row that make a backend unhealthy. An answered non-200
    /// does so at once.
    pub unhealthy_after: u32,
    /// Longest time from start to the first 200.
    pub start_limit: Duration,
}

/// Which requests count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountConfig {
    /// Paths that begin so.
    pub prefix: String,
    /// But not these, nor what lies below them.
    pub exclude: Vec<String>,
}

/// How many copies run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaleConfig {
    /// What decides.
    pub policy: Policy,
    /// Most copies that may be starting at a time; 0 for no limit.
    pub max_surge: u16,
    /// Length of the window.
    pub interval: Duration,
    /// Requests in a window that one copy is for; at least 1.
    pub requests_per_replica: u64,
    /// Fewest copies; with 0, nothing runs until somebody connects.
    pub min: u16,
    /// Most copies.
    pub max: u16,
    /// Ready backends without a slot.
    pub spares: u16,
    /// How they wait.
    pub spare_kind: SpareKind,
    /// With `min` 0: scale to zero after this long without a request; zero for never.
    pub idle: Duration,
}

/// How spares wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpareKind {
    /// As any other backend, and are probed.
    Running,
    /// Started, well, and without the processor.
    Frozen,
    /// In front of their program. Not in this version.
    Gated,
}
