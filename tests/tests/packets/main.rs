//! Packet tables: what goes in, the verdict, what comes out byte for byte, through
//! `BPF_PROG_TEST_RUN`. Checksums are right in what is expected, so they are verified too.
#![allow(clippy::unwrap_used, reason = "tests panic")]
#![allow(clippy::too_many_lines, reason = "tables")]

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use orch::{
    config::{Local, ServiceConfig},
    dataplane::{Dataplane, Reach, SlotEntry, Trial},
};
use orch_common::{
    address,
    counter::Reason,
    flow::{FlowKey, FlowState},
    layout::program::{EGRESS, GUARD, INGRESS},
    slot::{SlotKey, SlotState},
};
use orch_tests::{
    fixture,
    frame::{
        Tcp,
        flag::{ACK, FIN, PSH, RST, SYN, URG},
        tagged,
    },
    netns::NetNs,
};

mod random;

/// `TC_ACT_UNSPEC`: on to the next program.
const PASS: i32 = -1;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

fn host() -> IpAddr {
    "10.9.0.1".parse().unwrap()
}

fn host6() -> IpAddr {
    "fd09::1".parse().unwrap()
}

fn client(port: u16) -> SocketAddr {
    SocketAddr::new("10.9.0.2".parse().unwrap(), port)
}

fn client6(port: u16) -> SocketAddr {
    SocketAddr::new("fd09::2".parse().unwrap(), port)
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(host(), port)
}

fn at6(port: u16) -> SocketAddr {
    SocketAddr::new(host6(), port)
}

fn service(expose_slots: bool) -> ServiceConfig {
    ServiceConfig {
        expose_slots,
        ..fixture::service()
    }
}

/// A data plane with three ready slots, in a namespace of its own.
struct World {
    dataplane: Option<Dataplane>,
    pin_dir: PathBuf,
    _netns: NetNs,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl World {
    fn new() -> Self {
        Self::with(&service(false))
    }

    fn with(service: &ServiceConfig) -> Self {
        let netns = NetNs::new();
        netns.ip(&["addr", "add", "10.9.0.1/24", "dev", "lo"]);
        netns.ip(&["addr", "add", "fd09::1/64", "dev", "lo", "nodad"]);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let config = fixture::dataplane(&format!("packets{number}"), Local::Off);
        let pin_dir = config.pin_dir.clone();
        let mut dataplane = netns.within(|| Dataplane::open(&config)).unwrap();
        dataplane
            .set_services(std::slice::from_ref(service))
            .unwrap();
        let mut world = Self {
            dataplane: Some(dataplane),
            pin_dir,
            _netns: netns,
        };
        for slot in 0..3 {
            world.slot(slot, SlotState::Ready, 1);
        }
        world.plane().set_ring(0, &[0, 1, 2]).unwrap();
        world
    }

    fn plane(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().unwrap()
    }

    fn slot(&mut self, slot: u16, state: SlotState, generation: u32) {
        let port = 8000 + slot;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let entry = SlotEntry {
            address,
            reach: Reach::Port,
            pid: None,
            port,
            state,
            generation,
        };
        self.plane()
            .set_slot(SlotKey { service: 0, slot }, &entry)
            .unwrap();
    }

    fn arrive(&mut self, tcp: &Tcp) -> Trial {
        self.plane().trial(INGRESS, &tcp.frame()).unwrap()
    }

    fn leave(&mut self, tcp: &Tcp) -> Trial {
        self.plane().trial(EGRESS, &tcp.frame()).unwrap()
    }

    /// What the table says must be what happens.
    fn expect(
        &mut self,
        what: &str,
        program: &'static str,
        input: &Tcp,
        verdict: i32,
        output: &Tcp,
    ) {
        let trial = self.plane().trial(program, &input.frame()).unwrap();
        assert_eq!(trial.verdict, verdict, "{what}: verdict");
        assert_eq!(hex(&trial.frame), hex(&output.frame()), "{what}: bytes");
    }

    fn live(&mut self) -> Vec<u64> {
        self.plane()
            .read()
            .unwrap()
            .slots
            .iter()
            .map(|slot| slot.live)
            .collect()
    }

    fn reason(&mut self, reason: Reason) -> u64 {
        self.plane().read().unwrap().reasons[reason as usize]
    }

    /// Opens a connection and gives its slot port.
    fn connect(&mut self, port: u16, seq: u32) -> u16 {
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
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The same segment with another destination port.
fn towards(tcp: &Tcp, port: u16) -> Tcp {
    let mut out = tcp.clone();
    out.to.set_port(port);
    out
}

/// The same segment with another source port.
fn coming_from(tcp: &Tcp, port: u16) -> Tcp {
    let mut out = tcp.clone();
    out.from.set_port(port);
    out
}

#[test]
fn a_connection_from_syn_to_fin() {
    let mut world = World::new();
    let syn = Tcp::new(client(40000), at(80), SYN);
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8000));
    world.expect("SYN again", INGRESS, &syn, PASS, &towards(&syn, 8000));
    assert_eq!(world.reason(Reason::NewFlow), 1);
    assert_eq!(world.reason(Reason::SynAgain), 1);
    assert_eq!(world.live(), [1, 0, 0]);
    let steps = [
        (
            EGRESS,
            Tcp::new(at(8000), client(40000), SYN | ACK).numbers(500, 1001),
        ),
        (
            INGRESS,
            Tcp::new(client(40000), at(80), ACK).numbers(1001, 501),
        ),
        (
            INGRESS,
            Tcp::new(client(40000), at(80), ACK | PSH)
                .numbers(1001, 501)
                .payload(b"GET /api/x HTTP/1.1\r\n\r\n"),
        ),
        (
            EGRESS,
            Tcp::new(at(8000), client(40000), ACK | PSH)
                .numbers(501, 1024)
                .payload(b"HTTP/1.1 200 OK\r\n\r\n"),
        ),
        (
            EGRESS,
            Tcp::new(at(8000), client(40000), FIN | ACK).numbers(520, 1024),
        ),
        (
            INGRESS,
            Tcp::new(client(40000), at(80), FIN | ACK).numbers(1024, 521),
        ),
        (
            EGRESS,
            Tcp::new(at(8000), client(40000), ACK).numbers(521, 1025),
        ),
    ];
    for (program, input) in &steps {
        let output = if *program == INGRESS {
            towards(input, 8000)
        } else {
            coming_from(input, 80)
        };
        world.expect(&format!("{input:?}"), program, input, PASS, &output);
    }
    assert_eq!(world.live(), [0, 0, 0], "closed");
    let next = Tcp::new(client(40001), at(80), SYN);
    world.expect("next SYN", INGRESS, &next, PASS, &towards(&next, 8001));
    let reading = world.plane().read().unwrap();
    assert_eq!(reading.slots[0].counters.requests, 1);
    assert_eq!(reading.slots[0].counters.responses, [0, 0, 1, 0, 0, 0]);
    assert_eq!(reading.slots[0].connections, 1);
    let latency = world
        .plane()
        .latency(SlotKey {
            service: 0,
            slot: 0,
        })
        .unwrap();
    assert_eq!(latency.buckets.iter().sum::<u64>(), 1);
}

#[test]
fn the_same_over_ipv6() {
    let mut world = World::new();
    let syn = Tcp::new(client6(40000), at6(80), SYN);
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8000));
    let answer = Tcp::new(at6(8000), client6(40000), SYN | ACK).numbers(9, 1001);
    world.expect("SYN-ACK", EGRESS, &answer, PASS, &coming_from(&answer, 80));
    let data = Tcp::new(client6(40000), at6(80), ACK)
        .numbers(1001, 10)
        .payload(&[7; 1000]);
    world.expect("data", INGRESS, &data, PASS, &towards(&data, 8000));
    let reset = Tcp::new(client6(40000), at6(80), RST).numbers(2001, 0);
    world.expect("RST", INGRESS, &reset, PASS, &towards(&reset, 8000));
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn options_are_carried_and_padding_is_kept() {
    let mut world = World::new();
    let mut syn = Tcp::new(client(40000), at(80), SYN);
    syn.options = vec![
        2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    syn.ip_options = vec![0x94, 4, 0, 0];
    world.expect(
        "SYN with options",
        INGRESS,
        &syn,
        PASS,
        &towards(&syn, 8000),
    );
    syn.ip_options = vec![1; 40];
    syn.from = client(40001);
    world.expect("all IP options", INGRESS, &syn, PASS, &towards(&syn, 8001));
    let mut short = Tcp::new(client(40002), at(80), SYN);
    short.padding = 6;
    world.expect("padded", INGRESS, &short, PASS, &towards(&short, 8002));
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let mut world = World::new();
    let elsewhere = |port| SocketAddr::new("10.9.0.77".parse().unwrap(), port);
    let mut second_fragment = Tcp::new(client(1), at(80), SYN);
    second_fragment.fragment = 100;
    let table = [
        ("another port", INGRESS, Tcp::new(client(1), at(81), SYN)),
        (
            "another host's port 80",
            INGRESS,
            Tcp::new(client(1), elsewhere(80), SYN),
        ),
        (
            "another host's slot port",
            INGRESS,
            Tcp::new(client(1), elsewhere(8000), SYN),
        ),
        ("a later fragment", INGRESS, second_fragment),
        (
            "an answer from a port 80 elsewhere",
            INGRESS,
            Tcp::new(client(80), at(40000), SYN | ACK),
        ),
        (
            "a slot's answer that no flow knows",
            EGRESS,
            Tcp::new(at(8000), client(1), ACK),
        ),
        (
            "what leaves by another port",
            EGRESS,
            Tcp::new(at(22), client(1), ACK),
        ),
        (
            "established traffic to a slot",
            INGRESS,
            Tcp::new(client(1), at(8000), ACK),
        ),
    ];
    for (what, program, input) in &table {
        world.expect(what, program, input, PASS, input);
    }
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn what_is_ours_but_cannot_be_balanced_is_counted() {
    let mut world = World::new();
    let stray = Tcp::new(client(1), at(80), ACK);
    world.expect("no flow", INGRESS, &stray, PASS, &stray);
    assert_eq!(world.reason(Reason::NoFlow), 1);
    let mut fragment = Tcp::new(client(1), at(80), SYN);
    fragment.fragment = 0x2000;
    world.expect("first fragment", INGRESS, &fragment, PASS, &fragment);
    assert_eq!(world.reason(Reason::Fragment), 1);
    world.plane().set_ring(0, &[]).unwrap();
    let syn = Tcp::new(client(1), at(80), SYN);
    world.expect("no backend", INGRESS, &syn, PASS, &syn);
    assert_eq!(world.reason(Reason::NoBackend), 1);
}

#[test]
fn outsiders_stay_off_slot_ports() {
    let mut world = World::new();
    for port in [8000, 8001, 8009] {
        let syn = Tcp::new(client(1), at(port), SYN);
        world.expect("SYN to a slot", INGRESS, &syn, DROP, &syn);
        world.expect("SYN to a slot", GUARD, &syn, DROP, &syn);
    }
    assert_eq!(world.reason(Reason::SlotGuard), 6);
    let beyond = Tcp::new(client(1), at(8010), SYN);
    world.expect("SYN beyond the slots", INGRESS, &beyond, PASS, &beyond);
    let service_port = Tcp::new(client(1), at(80), SYN);
    world.expect(
        "the guard does not balance",
        GUARD,
        &service_port,
        PASS,
        &service_port,
    );
}

#[test]
fn one_client_port_for_balancer_and_slot() {
    let mut world = World::with(&service(true));
    let direct = Tcp::new(client(5000), at(8000), SYN);
    world.expect("direct SYN", INGRESS, &direct, PASS, &direct);
    let balanced = Tcp::new(client(5000), at(80), SYN);
    world.expect(
        "balanced SYN avoids slot 0",
        INGRESS,
        &balanced,
        PASS,
        &towards(&balanced, 8001),
    );
    let answer = Tcp::new(at(8000), client(5000), SYN | ACK).numbers(1, 1001);
    world.expect(
        "the direct answer is left alone",
        EGRESS,
        &answer,
        PASS,
        &answer,
    );
    let second = Tcp::new(client(5000), at(8001), SYN).numbers(77_000, 0);
    world.expect(
        "direct SYN to the balanced slot",
        INGRESS,
        &second,
        DROP,
        &second,
    );
    assert_eq!(world.reason(Reason::Collision), 1);
}

#[test]
fn a_stale_flow_does_not_touch_a_direct_answer() {
    let mut world = World::new();
    assert_eq!(world.connect(5000, 1000), 8000);
    let reset = Tcp::new(client(5000), at(80), RST).numbers(1001, 0);
    world.expect("RST", INGRESS, &reset, PASS, &towards(&reset, 8000));
    let answer = Tcp::new(at(8000), client(5000), SYN | ACK).numbers(7, 77_777);
    world.expect("somebody else's SYN-ACK", EGRESS, &answer, PASS, &answer);
    let data = Tcp::new(at(8000), client(5000), ACK).numbers(8, 77_777);
    world.expect("and what follows", EGRESS, &data, PASS, &data);
    assert_eq!(world.reason(Reason::Stale), 1);
}

#[test]
fn a_new_sequence_number_is_a_new_connection() {
    let mut world = World::new();
    assert_eq!(world.connect(5000, 1000), 8000);
    assert_eq!(world.connect(5000, 900_000), 8001);
    assert_eq!(world.live(), [0, 1, 0], "the old one is no longer counted");
    assert_eq!(world.reason(Reason::Reopened), 1);
}

#[test]
fn flows_of_a_removed_backend_are_dead() {
    let mut world = World::new();
    world.connect(5000, 1000);
    world.connect(5001, 1000);
    world.slot(0, SlotState::Starting, 2);
    let data = Tcp::new(client(5000), at(80), ACK)
        .numbers(1001, 501)
        .payload(b"x");
    world.expect("replaced", INGRESS, &data, PASS, &data);
    world
        .plane()
        .remove_slot(SlotKey {
            service: 0,
            slot: 1,
        })
        .unwrap();
    let data = Tcp::new(client(5001), at(80), ACK)
        .numbers(1001, 501)
        .payload(b"x");
    world.expect("removed", INGRESS, &data, PASS, &data);
    assert_eq!(world.reason(Reason::DeadBackend), 2);
    assert_eq!(world.live(), [0, 0]);
}

#[test]
fn a_blind_reset_ends_nothing() {
    let mut world = World::new();
    world.connect(5000, 1000);
    let blind = Tcp::new(client(5000), at(80), RST).numbers(0x7000_0000, 0);
    world.expect("blind RST", INGRESS, &blind, PASS, &towards(&blind, 8000));
    assert_eq!(world.live(), [1, 0, 0]);
}

#[test]
fn round_robin_is_exact() {
    let mut world = World::new();
    let mut picks = [0_u32; 3];
    for port in 1000..11_000 {
        let trial = world.arrive(&Tcp::new(client(port), at(80), SYN));
        picks[usize::from(u16::from_be_bytes([trial.frame[36], trial.frame[37]]) - 8000)] += 1;
    }
    assert_eq!(picks, [3334, 3333, 3333]);
}

#[test]
fn requests_count_by_path() {
    let mut world = World::new();
    world.plane().set_ring(0, &[0]).unwrap();
    let long = format!("/api/{}", "x".repeat(300));
    let table = [
        ("/api/v1/acts", true),
        ("/api/", true),
        (long.as_str(), true),
        ("/", false),
        ("/apis", false),
        ("/api/_health", false),
        ("/api/_health?x=1", false),
        ("/api/_health/deep", false),
        ("/api/_healthy", true),
    ];
    let (mut requests, mut excluded) = (0, 0);
    for (number, (path, counts)) in table.iter().enumerate() {
        let port = 6000 + number as u16;
        world.connect(port, 1000);
        let line = format!("POST {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let request = Tcp::new(client(port), at(80), ACK)
            .numbers(1001, 501)
            .payload(line.as_bytes());
        world.arrive(&request);
        world.arrive(&request);
        let answer = Tcp::new(at(8000), client(port), ACK).numbers(501, 1001 + line.len() as u32);
        world.leave(&answer.payload(b"HTTP/1.1 404 Not Found\r\n\r\n"));
        if *counts {
            requests += 1;
        } else {
            excluded += 1;
        }
        let counters = world.plane().read().unwrap().slots[0].counters;
        assert_eq!(
            (counters.requests, counters.excluded),
            (requests, excluded),
            "{path}"
        );
        assert_eq!(counters.responses[4], requests, "{path}");
    }
}

#[test]
fn headers_cut_off_anywhere_pass_untouched() {
    let mut world = World::new();
    for (whole, shortest) in [
        (Tcp::new(client(1), at(80), SYN).frame(), 34),
        (Tcp::new(client6(1), at6(80), SYN).frame(), 54),
    ] {
        for len in shortest..whole.len() {
            for program in [INGRESS, EGRESS, GUARD] {
                let trial = world.plane().trial(program, &whole[..len]).unwrap();
                assert_eq!(trial.verdict, PASS, "{len} bytes");
                assert_eq!(hex(&trial.frame), hex(&whole[..len]), "{len} bytes");
            }
        }
    }
    let mut lying = Tcp::new(client(1), at(80), SYN).frame();
    lying[46] = 0xf0;
    let trial = world.plane().trial(INGRESS, &lying).unwrap();
    assert_eq!(
        (trial.verdict, hex(&trial.frame)),
        (PASS, hex(&lying)),
        "data offset beyond the end"
    );
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn the_sweep_frees_closed_flows() {
    let mut world = World::new();
    world.connect(5000, 1000);
    world.connect(5001, 1000);
    world.arrive(&Tcp::new(client(5000), at(80), RST).numbers(1001, 0));
    let key = |port| FlowKey {
        client: address::from_v4([10, 9, 0, 2]),
        local: address::from_v4([10, 9, 0, 1]),
        client_port: port,
        local_port: 80,
    };
    assert_eq!(
        world.plane().flow(&key(5000)).unwrap().unwrap().state,
        FlowState::Closed
    );
    for _ in 0..FlowState::Closed.patience() {
        assert_eq!(world.plane().sweep().unwrap(), 2);
    }
    assert_eq!(world.plane().sweep().unwrap(), 1);
    assert!(world.plane().flow(&key(5000)).unwrap().is_none());
    assert!(world.plane().flow(&key(5001)).unwrap().is_some());
    for _ in 0..=FlowState::Established.patience() {
        world.plane().sweep().unwrap();
    }
    assert_eq!(world.live(), [0, 0, 0], "a silent flow ends as well");
    assert_eq!(world.reason(Reason::Expired), 1);
}

/// A destination options header with nothing but padding in it.
fn destination_options() -> (u8, Vec<u8>) {
    (60, vec![0, 1, 4, 0, 0, 0, 0])
}

#[test]
fn a_slot_port_is_guarded_against_every_flag_that_could_open_it() {
    let mut world = World::new();
    for flags in 0..=255 {
        let input = Tcp::new(client(1), at(8000), flags);
        let input6 = Tcp::new(client6(1), at6(8000), flags);
        let opens = flags & (SYN | ACK) == SYN;
        let verdict = if opens { DROP } else { PASS };
        for program in [INGRESS, GUARD] {
            let what = format!("flags {flags:#04x}");
            world.expect(&what, program, &input, verdict, &input);
            world.expect(&what, program, &input6, verdict, &input6);
        }
    }
}

#[test]
fn a_slot_port_is_guarded_against_fragments() {
    let mut world = World::new();
    let mut whole = Tcp::new(client(1), at(8000), SYN);
    whole.options = vec![1; 40];
    whole.payload = vec![7; 64];
    whole.fragment = 0x2000;
    let frame = whole.frame();
    // A first fragment carries a multiple of eight bytes; the flags are in the second eight.
    for len in (14 + 20 + 8..frame.len()).step_by(8) {
        for flags in [SYN, ACK, 0] {
            let mut cut = frame[..len].to_vec();
            cut[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
            if len > 47 {
                cut[47] = flags;
            }
            for program in [INGRESS, GUARD] {
                let trial = world.plane().trial(program, &cut).unwrap();
                assert_eq!(trial.verdict, DROP, "{len} bytes, flags {flags}");
            }
        }
    }
    let mut elsewhere = whole.clone();
    elsewhere.to.set_ip("10.9.0.77".parse().unwrap());
    world.expect("not this host", GUARD, &elsewhere, PASS, &elsewhere);
    let mut six = Tcp::new(client6(1), at6(8000), ACK);
    six.extensions = vec![(44, vec![0, 0, 1, 0, 0, 0, 9])];
    world.expect("IPv6, more to come", INGRESS, &six, DROP, &six);
    six.extensions = vec![(44, vec![0, 0, 0, 0, 0, 0, 9])];
    world.expect("an ACK, atomic", INGRESS, &six, PASS, &six);
    six.flags = SYN;
    world.expect("a SYN, atomic", INGRESS, &six, DROP, &six);
    six.extensions = vec![(44, vec![0, 0, 8, 0, 0, 0, 9])];
    world.expect("a later fragment", INGRESS, &six, PASS, &six);
}

#[test]
fn extension_headers_hide_nothing() {
    let mut world = World::new();
    let kinds = [
        (0, vec![0, 1, 4, 0, 0, 0, 0]),
        (43, vec![0, 0, 0, 0, 0, 0, 0]),
        (44, vec![0, 0, 0, 0, 0, 0, 9]),
        (51, vec![1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
        destination_options(),
        (60, [vec![1, 1, 12], vec![0; 12]].concat()),
    ];
    for (at_most, kind) in kinds.iter().enumerate() {
        for chain in [
            vec![kind.clone()],
            vec![kind.clone(), destination_options()],
            kinds[..=at_most].to_vec(),
        ] {
            let mut syn = Tcp::new(client6(1), at6(8000), SYN);
            syn.extensions = chain.clone();
            world.expect(&format!("{chain:?}"), INGRESS, &syn, DROP, &syn);
            world.expect(&format!("{chain:?}"), GUARD, &syn, DROP, &syn);
            let mut other = Tcp::new(client6(1), at6(81), SYN);
            other.extensions = chain;
            world.expect("another port", INGRESS, &other, PASS, &other);
        }
    }
    for length in 7..20 {
        let mut syn = Tcp::new(client6(1), at6(8000), SYN);
        syn.extensions = vec![destination_options(); length];
        world.expect("longer than anybody needs", INGRESS, &syn, DROP, &syn);
        syn.to.set_ip("fd09::77".parse().unwrap());
        world.expect("not this host", INGRESS, &syn, PASS, &syn);
    }
    let mut syn = Tcp::new(client6(40_000), at6(80), SYN);
    syn.extensions = vec![destination_options()];
    world.expect("balanced", INGRESS, &syn, PASS, &towards(&syn, 8000));
}

#[test]
fn what_comes_by_twice_is_balanced_once() {
    let mut world = World::new();
    let syn = Tcp::new(client(40_000), at(80), SYN);
    let balanced = towards(&syn, 8000);
    world.expect("at the parent", INGRESS, &syn, PASS, &balanced);
    for program in [INGRESS, GUARD] {
        world.expect("at the VLAN", program, &balanced, PASS, &balanced);
    }
    let other = balanced.clone().numbers(2000, 0);
    world.expect("another SYN", GUARD, &other, DROP, &other);
    let other = towards(&balanced, 8001);
    world.expect("another slot", GUARD, &other, DROP, &other);
    assert_eq!(world.live(), [1, 0, 0]);
}

#[test]
fn ipv6_cut_off_anywhere_passes_untouched() {
    let mut world = World::new();
    let mut syn = Tcp::new(client6(1), at6(80), SYN);
    for chain in [vec![], vec![destination_options(); 2]] {
        syn.extensions = chain;
        for port in [80, 8000, 81] {
            syn.to.set_port(port);
            let whole = syn.frame();
            for len in 54..whole.len() {
                for program in [INGRESS, EGRESS, GUARD] {
                    let trial = world.plane().trial(program, &whole[..len]).unwrap();
                    assert_eq!(trial.verdict, PASS, "{len} bytes to {port}");
                    assert_eq!(hex(&trial.frame), hex(&whole[..len]), "{len} to {port}");
                }
            }
        }
    }
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn other_protocols_pass_untouched() {
    let mut world = World::new();
    let syn = Tcp::new(client(1), at(80), SYN).frame();
    let mut udp = syn.clone();
    udp[23] = 17;
    let mut version = syn.clone();
    version[14] = 0x65;
    let mut arp = syn.clone();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let mut six_as_four = Tcp::new(client6(1), at6(80), SYN).frame();
    six_as_four[14] = 0x40;
    let slot = Tcp::new(client(1), at(8000), SYN).frame();
    let table = [
        ("UDP to port 80", udp),
        ("a version that is none", version),
        ("ARP", arp),
        ("IPv4 in an IPv6 frame", six_as_four),
        ("tagged", tagged(&syn, 5)),
        ("tagged, to a slot", tagged(&slot, 5)),
        ("tagged twice", tagged(&tagged(&slot, 5), 6)),
    ];
    for (what, frame) in &table {
        for program in [INGRESS, EGRESS, GUARD] {
            let trial = world.plane().trial(program, frame).unwrap();
            assert_eq!(
                (trial.verdict, hex(&trial.frame)),
                (PASS, hex(frame)),
                "{what}"
            );
        }
    }
    assert_eq!(world.live(), [0, 0, 0]);
}

/// What it is, the segments that end a connection, and its live count before and after the last.
type Ending = (
    &'static str,
    &'static [(orch_common::flow::Side, u8)],
    [u64; 2],
);

#[test]
fn every_way_to_close_brings_the_count_to_0() {
    use orch_common::flow::Side::{Client, Server};
    let ends: [Ending; 7] = [
        (
            "client first",
            &[(Client, FIN | ACK), (Server, FIN | ACK)],
            [1, 0],
        ),
        (
            "server first",
            &[(Server, FIN | ACK), (Client, FIN | ACK)],
            [1, 0],
        ),
        (
            "a FIN again",
            &[(Client, FIN | ACK), (Client, FIN | ACK)],
            [1, 1],
        ),
        ("client resets", &[(Client, RST)], [0, 0]),
        ("server resets", &[(Server, RST | ACK)], [0, 0]),
        (
            "server resets after a FIN",
            &[(Client, FIN | ACK), (Server, RST)],
            [1, 0],
        ),
        (
            "both reset",
            &[(Client, RST | ACK), (Server, RST | ACK)],
            [0, 0],
        ),
    ];
    let mut world = World::new();
    world.plane().set_ring(0, &[1]).unwrap();
    let mut left = 0;
    for (number, (what, segments, live)) in ends.iter().enumerate() {
        let port = 7000 + number as u16;
        assert_eq!(world.connect(port, 1000), 8001);
        for (step, &(side, flags)) in segments.iter().enumerate() {
            match side {
                Client => {
                    let input = Tcp::new(client(port), at(80), flags).numbers(1001, 501);
                    world.expect(what, INGRESS, &input, PASS, &towards(&input, 8001));
                }
                Server => {
                    let input = Tcp::new(at(8001), client(port), flags).numbers(501, 1001);
                    world.expect(what, EGRESS, &input, PASS, &coming_from(&input, 80));
                }
            }
            let expected = if step + 1 == segments.len() {
                live[1]
            } else {
                live[0]
            };
            assert_eq!(world.live(), [0, left + expected, 0], "{what}, step {step}");
        }
        left += live[1];
    }
}

#[test]
fn a_request_that_comes_with_the_syn_is_counted() {
    let mut world = World::new();
    let request = b"GET /api/x HTTP/1.1\r\n\r\n";
    let mut syn = Tcp::new(client(7000), at(80), SYN).payload(request);
    syn.options = vec![34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8000));
    world.expect("again", INGRESS, &syn, PASS, &towards(&syn, 8000));
    for acknowledged in [1001, 1001 + request.len() as u32] {
        let answer = Tcp::new(at(8000), client(7000), SYN | ACK).numbers(500, acknowledged);
        world.expect("SYN-ACK", EGRESS, &answer, PASS, &coming_from(&answer, 80));
    }
    let stale =
        Tcp::new(at(8000), client(7000), SYN | ACK).numbers(500, 1002 + request.len() as u32);
    world.expect("too much acknowledged", EGRESS, &stale, PASS, &stale);
    assert_eq!(world.plane().read().unwrap().slots[0].counters.requests, 1);
}

#[test]
fn a_full_ring_takes_turns_under_a_flood() {
    const SLOTS: u16 = 64;
    let mut config = service(false);
    config.scale.max = SLOTS;
    let mut world = World::with(&config);
    for slot in 3..SLOTS {
        world.slot(slot, SlotState::Ready, 1);
    }
    let all: Vec<u16> = (0..SLOTS).collect();
    world.plane().set_ring(0, &all).unwrap();
    for number in 0..20 * SLOTS {
        let mut syn = Tcp::new(client(1000 + number), at(80), SYN).numbers(u32::from(number), 0);
        syn.flags |= [0, PSH, URG, 0xc0][usize::from(number % 4)];
        let slot_port = 8000 + number % SLOTS;
        world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, slot_port));
    }
    assert_eq!(world.live(), vec![20; usize::from(SLOTS)]);
}

#[test]
fn what_an_earlier_connection_left_is_reset_where_it_is() {
    let mut world = World::new();
    assert_eq!(world.connect(5000, 1000), 8000);
    let syn = Tcp::new(client(5000), at(80), SYN).numbers(900_000, 0);
    world.expect("SYN", INGRESS, &syn, PASS, &towards(&syn, 8001));
    let challenge = Tcp::new(at(8001), client(5000), ACK).numbers(77, 1234);
    world.expect(
        "the challenge of what is left there",
        EGRESS,
        &challenge,
        PASS,
        &coming_from(&challenge, 80),
    );
    let reset = Tcp::new(client(5000), at(80), RST).numbers(1234, 0);
    world.expect("RST", INGRESS, &reset, PASS, &towards(&reset, 8001));
    assert_eq!(world.live(), [0, 1, 0], "the new connection goes on");
    world.expect("SYN again", INGRESS, &syn, PASS, &towards(&syn, 8001));
    let reset = Tcp::new(client(5000), at(80), RST).numbers(900_001, 0);
    world.expect("its own RST", INGRESS, &reset, PASS, &towards(&reset, 8001));
    assert_eq!(world.live(), [0, 0, 0]);
}

#[test]
fn a_refused_syn_is_told_to_the_controller() {
    let mut world = World::new();
    world.arrive(&Tcp::new(client(5000), at(80), SYN));
    assert_eq!(world.plane().refused(), []);
    let refusal = Tcp::new(at(8000), client(5000), RST | ACK).numbers(0, 1001);
    world.expect("RST", EGRESS, &refusal, PASS, &coming_from(&refusal, 80));
    let slot = SlotKey {
        service: 0,
        slot: 0,
    };
    assert_eq!(world.plane().refused(), [(slot, 1)]);
    assert_eq!(world.plane().refused(), [], "told once");
}
