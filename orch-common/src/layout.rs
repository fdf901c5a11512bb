//! Names and capacities of the BPF maps, and the version of their layout.

/// Version of everything in this crate that lives in a BPF map. Part of the pin path, so that a
/// controller never opens maps of another layout. Raise it with every change of a map type.
pub const LAYOUT_VERSION: u32 = 7;

/// Services one data plane can hold.
pub const MAX_SERVICES: usize = 16;
/// Slots one service can have.
pub const SLOTS_PER_SERVICE: usize = 64;
/// Slots in all services.
pub const MAX_SLOTS: usize = MAX_SERVICES * SLOTS_PER_SERVICE;
/// Rings kept per service. A ring is written into the bank after the current one and then named in
/// the service, so a packet that has read the old name still finds the old ring for three changes.
pub const RING_BANKS: usize = 4;
/// Turns that one ring can have: with weights, a slot has several.
pub const RING_TURNS: usize = 256;
/// Hashes that a Maglev table tells apart: a prime, so that every slot's walk meets each of them,
/// and large beside the slots, so that their shares are even (Eisenbud and others, "Maglev", NSDI
/// 2016, 3.4).
pub const MAGLEV_SIZE: usize = 4093;
/// Bytes of such a table: the next power of two, which an index can be masked to.
pub const MAGLEV_BYTES: usize = 4096;
/// Flows remembered when the configuration says nothing else.
pub const DEFAULT_FLOWS: usize = 262_144;
/// Fewest flows that may be configured. A smaller LRU map evicts live entries while it is mostly
/// empty, since each CPU holds back 128 free nodes (Linux d4adf1c9).
pub const MIN_FLOWS: usize = 65_536;
/// SYNs without an answer that are remembered. Whoever floods gets no rescue; nobody else notices.
pub const MAX_SYNS: usize = 16_384;
/// Flows that are half-open at a time, at the most: the oldest goes first.
pub const MAX_HALF_OPEN: usize = 65_536;
/// Processes of backends that are watched.
pub const MAX_PROCESSES: usize = 4096;
/// Local addresses of the host that are known to the kernel programs.
pub const MAX_ADDRESSES: usize = 4096;
/// Connections between the gateway and copies whose bytes go from socket to socket. While there are so
/// many, new ones go by TCP.
pub const MAX_RELAYS: usize = 4096;
/// Network namespaces of containers whose connections are balanced where they start.
pub const MAX_NETNS: usize = 4096;
/// Path rules (prefix and exclusions) of all services.
pub const MAX_PATHS: usize = 4096;
/// Bytes of the ring buffer of events.
pub const EVENTS_BYTES: usize = 65_536;
/// TCP ports.
pub const PORTS: usize = 65_536;
/// Words of [`map::SOCKET_PORTS`].
pub const PORT_WORDS: usize = PORTS / 64;

/// Names of the maps, as `bpftool map` shows them.
pub mod map {
    /// Service index to [`crate::service::Service`]. Written by the controller.
    pub const SERVICES: &str = "SERVICES";
    /// Listening address and port to service index. Written by the controller.
    pub const LISTENERS: &str = "LISTENERS";
    /// [`crate::slot::SlotKey`] to [`crate::slot::Slot`]. Written by the kernel programs alone.
    pub const SLOTS: &str = "SLOTS";
    /// Index of a slot to the generation of its backend, 0 for none: what every segment is checked
    /// against. Written by the kernel programs alone.
    pub const GENERATIONS: &str = "GENERATIONS";
    /// [`crate::service::RingKey`] to [`crate::service::Ring`]. Written by the controller.
    pub const RING: &str = "RING";
    /// [`crate::service::RingKey`] to [`crate::service::Maglev`], for services with `source_ip`.
    /// Written by the controller.
    pub const MAGLEV: &str = "MAGLEV";
    /// Service index to the count of picks so far. Written by the kernel programs alone.
    pub const CURSOR: &str = "CURSOR";
    /// TCP port to [`crate::service::Port`]. Written by the controller.
    pub const PORTS: &str = "PORTS";
    /// One bit per TCP port: whether it is a slot's, to which a balanced socket may be connected. Eight
    /// kilobytes that stay in the first cache, for a question that every packet of every socket
    /// asks. Written by the controller.
    pub const SOCKET_PORTS: &str = "SOCKET_PORTS";
    /// Local addresses of the host. Written by the controller.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Cookies of network namespaces to [`crate::service::Netns`]. Written by the controller.
    pub const NETNS: &str = "NETNS";
    /// [`crate::flow::FlowKey`] to [`crate::flow::Flow`]. Written by the kernel programs alone.
    pub const FLOWS: &str = "FLOWS";
    /// [`crate::flow::Flow::reply_key`] to [`crate::flow::FlowKey`], for delivery `direct`. Written
    /// by the kernel programs alone.
    pub const REPLIES: &str = "REPLIES";
    /// [`crate::flow::FlowKey`] to [`crate::syn::Syn`]: SYNs for delivery `direct` that have not been
    /// answered. Written by the kernel programs alone.
    pub const SYNS: &str = "SYNS";
    /// Place to [`crate::flow::FlowKey`] of the flow that took it last. Written by the kernel programs
    /// alone.
    pub const HALF_OPEN: &str = "HALF_OPEN";
    /// 0 to [`crate::flow::Queue`].
    pub const QUEUE: &str = "QUEUE";
    /// 0 to [`crate::flow::Scratch`] of the CPU.
    pub const SCRATCH: &str = "SCRATCH";
    /// Pid of a backend's first process to [`crate::slot::Owner`]. Written by the controller; the
    /// kernel programs remove what has ended.
    pub const PROCESSES: &str = "PROCESSES";
    /// Balanced sockets of this host. Written by the kernel programs alone.
    pub const SOCKETS: &str = "SOCKETS";
    /// The gateway's [`crate::relay::RelayKey`] to [`crate::relay::Relay`]. Written by the kernel
    /// programs alone.
    pub const RELAYS: &str = "RELAYS";
    /// [`crate::relay::RelayKey`] to a socket. Written by the kernel programs alone.
    pub const RELAY_ENDS: &str = "RELAY_ENDS";
    /// Sockets to [`crate::relay::RelayEnd`]. Written by the kernel programs alone.
    pub const RELAY_SOCKETS: &str = "RELAY_SOCKETS";
    /// Path rules of the services. Written by the controller.
    pub const PATHS: &str = "PATHS";
    /// Per slot: requests, responses, failed connections. Written by the kernel programs alone.
    pub const COUNTERS: &str = "COUNTERS";
    /// Index of a slot to [`crate::counter::Bytes`]. Written by the kernel programs; the controller
    /// clears those of a slot that begins.
    pub const BYTES: &str = "BYTES";
    /// Per reason: packets. Written by the kernel programs alone.
    pub const REASONS: &str = "REASONS";
    /// Per slot: histogram of response times. Written by the kernel programs alone.
    pub const LATENCY: &str = "LATENCY";
    /// Index of a slot to [`crate::pulse::Pulse`]: what its traffic says of its backend. Written by
    /// the kernel programs alone.
    pub const PULSES: &str = "PULSES";
    /// Index of a slot to [`crate::flow::Census`]. Written by the sweep program.
    pub const CENSUS: &str = "CENSUS";
    /// Sweeps so far: the clock by which flows expire. Written by the sweep program.
    pub const EPOCH: &str = "EPOCH";
    /// Ring buffer of [`crate::event::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// Service index to [`crate::hold::Holding`]. Written by the controller.
    pub const HOLDING: &str = "HOLDING";
    /// Ring buffer of [`crate::hold::HeldSyn`].
    pub const HELD: &str = "HELD";
    /// Signatures of the SYNs that are held. Written by the kernel programs alone.
    pub const SIGNATURES: &str = "SIGNATURES";
    /// Token buckets of services and sources whose SYNs are held. Written by the kernel programs
    /// alone.
    pub const BUCKETS: &str = "BUCKETS";

    /// Every map, in the order of this module.
    pub const ALL: [&str; 35] = [
        SERVICES,
        LISTENERS,
        SLOTS,
        GENERATIONS,
        RING,
        MAGLEV,
        CURSOR,
        PORTS,
        SOCKET_PORTS,
        ADDRESSES,
        NETNS,
        FLOWS,
        REPLIES,
        SYNS,
        HALF_OPEN,
        QUEUE,
        SCRATCH,
        PROCESSES,
        SOCKETS,
        RELAYS,
        RELAY_ENDS,
        RELAY_SOCKETS,
        PATHS,
        COUNTERS,
        BYTES,
        REASONS,
        LATENCY,
        PULSES,
        CENSUS,
        EPOCH,
        EVENTS,
        HOLDING,
        HELD,
        SIGNATURES,
        BUCKETS,
    ];
}

/// Names of the programs, as `bpftool prog` shows them (the kernel keeps 15 characters).
pub mod program {
    /// TC ingress of an uplink: balances new flows, rewrites towards the backend.
    pub const INGRESS: &str = "orch_ingress";
    /// TC egress of an uplink: rewrites replies.
    pub const EGRESS: &str = "orch_egress";
    /// TC ingress of the host's end of a backend's interface: rewrites its replies and sends them
    /// out by the client's uplink.
    pub const VETH: &str = "orch_veth";
    /// TC egress of the same: counts what clients of this host send to the backend's own address.
    pub const ENTRY: &str = "orch_entry";
    /// TC ingress of an interface that is not an uplink: keeps outsiders off slot ports, no more.
    pub const GUARD: &str = "orch_guard";
    /// cgroup/connect4.
    pub const CONNECT4: &str = "orch_connect4";
    /// cgroup/connect6.
    pub const CONNECT6: &str = "orch_connect6";
    /// cgroup/getpeername4.
    pub const PEER4: &str = "orch_peer4";
    /// cgroup/getpeername6.
    pub const PEER6: &str = "orch_peer6";
    /// `cgroup/sock_release`.
    pub const RELEASE: &str = "orch_release";
    /// `sockops`: balanced sockets are about to connect to a backend's own address.
    pub const DIAL: &str = "orch_dial";
    /// `sockops`: a socket of the gateway or of a copy is connected.
    pub const JOIN: &str = "orch_join";
    /// `sk_msg`: such a socket sends.
    pub const RELAY: &str = "orch_relay";
    /// `cgroup_skb/egress`: what balanced sockets send.
    pub const SENT: &str = "orch_sent";
    /// `cgroup_skb/ingress`: what balanced sockets receive.
    pub const RECEIVED: &str = "orch_received";
    /// Raw tracepoint `sched_process_exit`: a process ends.
    pub const EXIT: &str = "orch_exit";
    /// Raw tracepoint `signal_generate`: a process is sent a signal.
    pub const SIGNAL: &str = "orch_signal";
    /// Raw tracepoint `signal_deliver`, where the one before cannot be used: a process takes a
    /// signal.
    pub const DELIVER: &str = "orch_deliver";
    /// Run by the controller through `BPF_PROG_TEST_RUN`: changes one slot.
    pub const COMMAND: &str = "orch_command";
    /// Run by the controller through `BPF_PROG_TEST_RUN`: frees closed and silent flows.
    pub const SWEEP: &str = "orch_sweep";
    /// Run by the controller through `BPF_PROG_TEST_RUN`: has a held SYN arrive once more.
    pub const INJECT: &str = "orch_inject";
    /// Run by the controller through `BPF_PROG_TEST_RUN`: hands over the SYNs that dead backends have
    /// swallowed.
    pub const REPLAY: &str = "orch_replay";
}

const _: () = assert!(SLOTS_PER_SERVICE.is_power_of_two() && RING_BANKS.is_power_of_two());
const _: () = assert!(RING_TURNS.is_power_of_two() && MAGLEV_BYTES.is_power_of_two());
const _: () = assert!(MAGLEV_SIZE < MAGLEV_BYTES && SLOTS_PER_SERVICE <= RING_TURNS);
const _: () = assert!(
    SLOTS_PER_SERVICE <= u8::MAX as usize,
    "Port::slot is one byte"
);
