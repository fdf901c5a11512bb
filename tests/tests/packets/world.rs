//! The host that packets come to: its addresses, its slots, and the data plane under test.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use orch::{
    config::{DataplaneConfig, Local, ServiceConfig},
    dataplane::{Dataplane, Reach, SlotEntry, Trial},
};
use orch_common::{
    address,
    counter::Reason,
    event::EventKind,
    flow::{Flow, FlowKey},
    layout::program::{EGRESS, INGRESS, VETH},
    slot::{SlotKey, SlotState},
};
use orch_tests::{
    fixture,
    frame::{
        Tcp,
        flag::{ACK, RST, SYN},
    },
    netns::{Entry, NetNs},
};

/// `TC_ACT_UNSPEC`: on to the next program.
pub(crate) const PASS: i32 = -1;
/// `TC_ACT_SHOT`.
pub(crate) const DROP: i32 = 2;
/// `TC_ACT_REDIRECT`.
pub(crate) const REDIRECT: i32 = 7;
/// The port at which every backend with an address of its own listens.
pub(crate) const PORT: u16 = 8080;

pub(crate) fn client(port: u16) -> SocketAddr {
    SocketAddr::new("10.9.0.2".parse().unwrap(), port)
}

pub(crate) fn client6(port: u16) -> SocketAddr {
    SocketAddr::new("fd09::2".parse().unwrap(), port)
}

/// A port of the host.
pub(crate) fn at(port: u16) -> SocketAddr {
    SocketAddr::new("10.9.0.1".parse().unwrap(), port)
}

pub(crate) fn at6(port: u16) -> SocketAddr {
    SocketAddr::new("fd09::1".parse().unwrap(), port)
}

/// The backend of a slot for delivery `direct`.
pub(crate) fn backend(slot: u16) -> SocketAddr {
    SocketAddr::from(([172, 30, 0, 2 + slot as u8], PORT))
}

pub(crate) fn backend6(slot: u16) -> SocketAddr {
    SocketAddr::from(([0xfd30, 0, 0, 0, 0, 0, 0, 2 + slot], PORT))
}

/// Who talks to whom, in one family of addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) client: fn(u16) -> SocketAddr,
    pub(crate) at: fn(u16) -> SocketAddr,
    pub(crate) backend: fn(u16) -> SocketAddr,
}

pub(crate) const V4: Family = Family {
    client,
    at,
    backend,
};

pub(crate) const V6: Family = Family {
    client: client6,
    at: at6,
    backend: backend6,
};

/// A client's connection to a service or slot port of the host, over delivery `direct`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    pub(crate) family: Family,
    pub(crate) client: SocketAddr,
    pub(crate) asked: SocketAddr,
}

impl Talk {
    /// To the service.
    pub(crate) fn new(family: Family, port: u16) -> Self {
        Self {
            family,
            client: (family.client)(port),
            asked: (family.at)(80),
        }
    }

    /// To another address or port.
    pub(crate) fn asking(self, asked: SocketAddr) -> Self {
        Self { asked, ..self }
    }

    /// A segment of the client.
    pub(crate) fn says(&self, flags: u8, seq: u32, ack: u32) -> Tcp {
        Tcp::new(self.client, self.asked, flags).numbers(seq, ack)
    }

    /// A segment of a slot's backend.
    pub(crate) fn answers(&self, slot: u16, flags: u8, seq: u32, ack: u32) -> Tcp {
        Tcp::new((self.family.backend)(slot), self.client, flags).numbers(seq, ack)
    }
}

pub(crate) const fn slot(slot: u16) -> SlotKey {
    SlotKey { service: 0, slot }
}

pub(crate) fn service(expose_slots: bool) -> ServiceConfig {
    ServiceConfig {
        expose_slots,
        ..fixture::service()
    }
}

/// The key of the flow of a connection.
pub(crate) fn flow_key(client: SocketAddr, local: SocketAddr) -> FlowKey {
    let bytes = |ip| match ip {
        IpAddr::V4(ip) => address::from_v4(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    };
    FlowKey {
        client: bytes(client.ip()),
        local: bytes(local.ip()),
        client_port: client.port(),
        local_port: local.port(),
    }
}

/// A data plane with three ready slots, in a namespace of its own, where the test's thread is as
/// well: programs look for interfaces where they run.
pub(crate) struct World {
    dataplane: Option<Dataplane>,
    pin_dir: PathBuf,
    before: Entry,
    backends: Option<NetNs>,
    netns: NetNs,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl World {
    /// With delivery `port`.
    pub(crate) fn new() -> Self {
        Self::with(&service(false))
    }

    pub(crate) fn with(service: &ServiceConfig) -> Self {
        let mut world = Self::empty(service);
        for slot in 0..3 {
            world.slot(slot, SlotState::Ready, 1);
        }
        world.plane().set_ring(0, &[0, 1, 2]).unwrap();
        world
    }

    /// With delivery `direct`: each backend has an interface of its own, with an address of both
    /// families.
    pub(crate) fn direct() -> Self {
        Self::direct_with(&service(false), 3)
    }

    /// The same, with so many slots.
    pub(crate) fn direct_with(service: &ServiceConfig, slots: u16) -> Self {
        let mut world = Self::empty(service);
        let backends = NetNs::new();
        let (mut here, mut there) = ("link add br0 type bridge\n".to_owned(), String::new());
        for slot in 0..slots {
            let name = &backends.name;
            writeln!(
                here,
                "link add h{slot} type veth peer name eth{slot} netns {name}\n\
                 link set h{slot} master br0 up"
            )
            .unwrap();
            writeln!(
                there,
                "addr add {}/32 dev eth{slot}\n\
                 addr add {}/128 dev eth{slot} nodad\n\
                 link set eth{slot} up",
                backend(slot).ip(),
                backend6(slot).ip()
            )
            .unwrap();
        }
        world.netns.batch(&here);
        backends.batch(&there);
        world.backends = Some(backends);
        for slot in 0..slots {
            world.direct_slot(slot, 1);
        }
        let all: Vec<u16> = (0..slots).collect();
        world.plane().set_ring(0, &all).unwrap();
        world
    }

    fn empty(service: &ServiceConfig) -> Self {
        Self::empty_with(service, None)
    }

    /// With delivery `port`, one slot, and room for so many flows.
    pub(crate) fn sized(flows: u32) -> Self {
        let mut world = Self::empty_with(&service(false), Some(flows));
        world.slot(0, SlotState::Ready, 1);
        world.plane().set_ring(0, &[0]).unwrap();
        world
    }

    fn empty_with(service: &ServiceConfig, flows: Option<u32>) -> Self {
        let netns = NetNs::new();
        netns.batch(
            "addr add 10.9.0.1/24 dev lo\n\
             addr add fd09::1/64 dev lo nodad\n",
        );
        let before = Entry::here();
        netns.entry().enter();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut config = fixture::dataplane(&format!("packets{number}"), Local::Off);
        config.flows = flows.unwrap_or(config.flows);
        let mut world = Self {
            dataplane: None,
            pin_dir: config.pin_dir.clone(),
            before,
            backends: None,
            netns,
        };
        let plane = world.dataplane.insert(Dataplane::open(&config).unwrap());
        plane.set_services(std::slice::from_ref(service)).unwrap();
        world
    }

    /// Another controller takes over, whose file says that there be room for so many flows.
    pub(crate) fn taken_over(&mut self, flows: u32) {
        drop(self.dataplane.take());
        let config = DataplaneConfig {
            flows,
            pin_dir: self.pin_dir.clone(),
            ..fixture::dataplane("", Local::Off)
        };
        self.dataplane = Some(Dataplane::open(&config).unwrap());
    }

    pub(crate) fn plane(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().unwrap()
    }

    pub(crate) fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// Changes something in the host's namespace.
    pub(crate) fn ip(&self, commands: &str) {
        self.netns.batch(commands);
    }

    /// Sets a kernel parameter of the host's namespace.
    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        self.netns.sysctl(name, value);
    }

    /// Changes something in the backends' namespace.
    pub(crate) fn ip_of_backends(&self, commands: &str) {
        self.backends.as_ref().unwrap().batch(commands);
    }

    /// A slot for delivery `port`.
    pub(crate) fn slot(&mut self, number: u16, state: SlotState, generation: u32) {
        let port = 8000 + number;
        let entry = SlotEntry {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            reach: Reach::Port,
            pid: None,
            port,
            state,
            generation,
        };
        self.plane().set_slot(slot(number), &entry).unwrap();
    }

    /// A ready slot for delivery `direct`.
    pub(crate) fn direct_slot(&mut self, number: u16, generation: u32) {
        let entry = self.direct_entry(number, generation);
        self.plane().set_slot(slot(number), &entry).unwrap();
    }

    pub(crate) fn direct_entry(&self, number: u16, generation: u32) -> SlotEntry {
        let name = &self.backends.as_ref().unwrap().name;
        SlotEntry {
            address: backend(number),
            reach: Reach::Direct {
                netns: PathBuf::from("/run/netns").join(name),
            },
            pid: None,
            port: 8000 + number,
            state: SlotState::Ready,
            generation,
        }
    }

    pub(crate) fn trial(&mut self, program: &'static str, tcp: &Tcp) -> Trial {
        self.plane().trial(program, &tcp.frame()).unwrap()
    }

    pub(crate) fn arrive(&mut self, tcp: &Tcp) -> Trial {
        self.trial(INGRESS, tcp)
    }

    pub(crate) fn leave(&mut self, tcp: &Tcp) -> Trial {
        self.trial(EGRESS, tcp)
    }

    /// What the table says must be what happens.
    #[track_caller]
    pub(crate) fn expect(
        &mut self,
        what: &str,
        program: &'static str,
        input: &Tcp,
        verdict: i32,
        output: &Tcp,
    ) {
        self.expect_frame(what, program, &input.frame(), verdict, &output.frame());
    }

    /// The same for bytes that are no segment.
    #[track_caller]
    pub(crate) fn expect_frame(
        &mut self,
        what: &str,
        program: &'static str,
        input: &[u8],
        verdict: i32,
        output: &[u8],
    ) {
        let trial = self.plane().trial(program, input).unwrap();
        assert_eq!(trial.verdict, verdict, "{what}: verdict");
        assert_eq!(hex(&trial.frame), hex(output), "{what}: bytes");
    }

    /// A client's segment must go to the backend of this slot, and otherwise stay as it is.
    #[track_caller]
    pub(crate) fn goes(&mut self, what: &str, talk: &Talk, input: &Tcp, slot: u16) {
        let output = sent_to(input, (talk.family.backend)(slot));
        self.expect(what, INGRESS, input, REDIRECT, &output);
    }

    /// A backend's segment must go to its client, and come from where the client connected to.
    #[track_caller]
    pub(crate) fn comes(&mut self, what: &str, talk: &Talk, input: &Tcp) {
        let output = sent_from(input, talk.asked);
        self.expect(what, VETH, input, REDIRECT, &output);
    }

    /// A connection must open to the backend of this slot.
    #[track_caller]
    pub(crate) fn opens(&mut self, talk: &Talk, seq: u32, slot: u16) {
        self.goes("SYN", talk, &talk.says(SYN, seq, 0), slot);
        let next = seq.wrapping_add(1);
        self.comes("SYN-ACK", talk, &talk.answers(slot, SYN | ACK, 500, next));
        self.goes("ACK", talk, &talk.says(ACK, next, 501), slot);
    }

    /// The client gives up: its RST must go to the backend of this slot.
    #[track_caller]
    pub(crate) fn resets(&mut self, talk: &Talk, seq: u32, slot: u16) {
        self.goes("RST", talk, &talk.says(RST, seq, 0), slot);
    }

    pub(crate) fn live(&mut self) -> Vec<u64> {
        let slots = self.plane().read().unwrap().slots;
        slots.iter().map(|slot| slot.live).collect()
    }

    /// Slots that have refused a SYN since the last call.
    pub(crate) fn refused(&mut self) -> Vec<(SlotKey, u32)> {
        let alarms = self.plane().alarms().into_iter();
        let refused = alarms.filter(|alarm| alarm.kind == EventKind::Refused);
        refused
            .map(|alarm| (alarm.slot, alarm.generation))
            .collect()
    }

    pub(crate) fn connections(&mut self) -> Vec<u64> {
        let slots = self.plane().read().unwrap().slots;
        slots.iter().map(|slot| slot.connections).collect()
    }

    pub(crate) fn reason(&mut self, reason: Reason) -> u64 {
        self.plane().read().unwrap().reasons[reason as usize]
    }

    pub(crate) fn flow(&mut self, talk: &Talk) -> Option<Flow> {
        let key = flow_key(talk.client, talk.asked);
        self.plane().flow(&key).unwrap()
    }

    /// Opens a connection over delivery `port` and gives its slot port.
    pub(crate) fn connect(&mut self, port: u16, seq: u32) -> u16 {
        let trial = self.arrive(&Tcp::new(client(port), at(80), SYN).numbers(seq, 0));
        assert_eq!(trial.verdict, PASS);
        let slot_port = u16::from_be_bytes([trial.frame[36], trial.frame[37]]);
        let answer = Tcp::new(at(slot_port), client(port), SYN | ACK).numbers(500, seq + 1);
        let expected = Tcp::new(at(80), client(port), SYN | ACK).numbers(500, seq + 1);
        self.expect("SYN-ACK", EGRESS, &answer, PASS, &expected);
        self.arrive(&Tcp::new(client(port), at(80), ACK).numbers(seq + 1, 501));
        slot_port
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.dataplane.take().map(Dataplane::detach));
        let _ = std::fs::remove_dir(&self.pin_dir);
        self.before.enter();
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The same segment with another destination port.
pub(crate) fn towards(tcp: &Tcp, port: u16) -> Tcp {
    let mut out = tcp.clone();
    out.to.set_port(port);
    out
}

/// The same segment with another source port.
pub(crate) fn coming_from(tcp: &Tcp, port: u16) -> Tcp {
    let mut out = tcp.clone();
    out.from.set_port(port);
    out
}

/// The same segment to another address and port.
pub(crate) fn sent_to(tcp: &Tcp, to: SocketAddr) -> Tcp {
    Tcp { to, ..tcp.clone() }
}

/// The same segment from another address and port.
pub(crate) fn sent_from(tcp: &Tcp, from: SocketAddr) -> Tcp {
    Tcp {
        from,
        ..tcp.clone()
    }
}

/// A destination options header with nothing but padding in it.
pub(crate) fn destination_options() -> (u8, Vec<u8>) {
    (60, vec![0, 1, 4, 0, 0, 0, 0])
}
