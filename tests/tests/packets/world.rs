//! The host that packets come to: its addresses, its slots, and the data plane under test.

use std::{
    fmt::Write,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use orch::{
    config::{Local, ServiceConfig},
    dataplane::{Dataplane, Reach, SlotEntry, Trial},
};
use orch_common::{
    counter::Reason,
    layout::program::{EGRESS, INGRESS},
    slot::{SlotKey, SlotState},
};
use orch_tests::{
    fixture,
    frame::{
        Tcp,
        flag::{ACK, SYN},
    },
    netns::{Entry, NetNs},
};

/// `TC_ACT_UNSPEC`: on to the next program.
pub(crate) const PASS: i32 = -1;
/// `TC_ACT_SHOT`.
pub(crate) const DROP: i32 = 2;

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

pub(crate) const fn slot(slot: u16) -> SlotKey {
    SlotKey { service: 0, slot }
}

pub(crate) fn service(expose_slots: bool) -> ServiceConfig {
    ServiceConfig {
        expose_slots,
        ..fixture::service()
    }
}

/// A data plane with three ready slots, in a namespace of its own, where the test's thread is as
/// well: programs look for interfaces where they run.
pub(crate) struct World {
    dataplane: Option<Dataplane>,
    pin_dir: PathBuf,
    before: Entry,
    _netns: NetNs,
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

    fn empty(service: &ServiceConfig) -> Self {
        let netns = NetNs::new();
        netns.batch(
            "addr add 10.9.0.1/24 dev lo\n\
             addr add fd09::1/64 dev lo nodad\n",
        );
        let before = Entry::here();
        netns.entry().enter();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let config = fixture::dataplane(&format!("packets{number}"), Local::Off);
        let mut world = Self {
            dataplane: None,
            pin_dir: config.pin_dir.clone(),
            before,
            _netns: netns,
        };
        let plane = world.dataplane.insert(Dataplane::open(&config).unwrap());
        plane.set_services(std::slice::from_ref(service)).unwrap();
        world
    }

    pub(crate) fn plane(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().unwrap()
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

    pub(crate) fn live(&mut self) -> Vec<u64> {
        let slots = self.plane().read().unwrap().slots;
        slots.iter().map(|slot| slot.live).collect()
    }

    pub(crate) fn reason(&mut self, reason: Reason) -> u64 {
        self.plane().read().unwrap().reasons[reason as usize]
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

/// A destination options header with nothing but padding in it.
pub(crate) fn destination_options() -> (u8, Vec<u8>) {
    (60, vec![0, 1, 4, 0, 0, 0, 0])
}
