//! Nanoseconds per packet by `BPF_PROG_TEST_RUN`, sizes of the programs, memory of the maps.
//!
//! A run changes the packet, so each frame runs once, cold: system call, timer and caches are part
//! of it, as the time of the empty program shows. Where the program leaves the frame as it is, the
//! same is measured warm as well, in many runs of one call. So that a hit is among them, one slot
//! has the service's own port: everything is done as ever and the frame is the same afterwards.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use orch::{
    config::Local,
    dataplane::{Dataplane, Reach, SlotEntry},
};
use orch_common::{
    layout::{
        map,
        program::{EGRESS, GUARD, INGRESS, RECEIVED, SENT},
    },
    slot::{SlotKey, SlotState},
};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, PSH, SYN},
};

use crate::{
    Result,
    empty::Empty,
    peers,
    report::{Table, bytes, median, percentile},
    topology::Topology,
};

/// Runs of one call, warm.
const WARM: u32 = 100_000;
/// Such calls, of which the median counts.
const CALLS: usize = 9;

/// One kind of packet.
struct Case {
    what: &'static str,
    program: &'static str,
    frame: fn(u16) -> Vec<u8>,
    /// Whether the program leaves the frame as it is.
    unchanged: bool,
}

/// The tables of this part.
pub(crate) fn measure(runs: u16) -> Result<Vec<Table>> {
    let topology = Topology::new()?;
    let mut dataplane = peers::orch(&topology, Local::Auto, peers::port)?;
    let mut empty = Empty::load()?;
    let times = times(&mut dataplane, &mut empty, runs)?;
    let tables = vec![times, programs(&dataplane), memory(&dataplane)?];
    peers::Running::Orch(dataplane).stop(&topology)?;
    Ok(tables)
}

fn times(dataplane: &mut Dataplane, empty: &mut Empty, runs: u16) -> Result<Table> {
    let head = [
        "packet",
        "program",
        "cold ns",
        "p99",
        "less empty",
        "warm ns",
        "less empty",
    ];
    let mut table = Table::new("Time per packet", &head);
    let cold = (0..runs)
        .map(|port| Ok(nanos(empty.time(&data(port), 1)?)))
        .collect::<Result<Vec<f64>>>()?;
    let idle = (0..CALLS)
        .map(|_| Ok(nanos(empty.time(&data(0), WARM)?)))
        .collect::<Result<Vec<f64>>>()?;
    let (cold_floor, warm_floor) = (median(cold.clone()), median(idle));
    table.row(row(
        "empty program",
        "orch_empty",
        &cold,
        Some(warm_floor),
        (cold_floor, warm_floor),
    ));
    for case in cases() {
        table.row(case.measure(dataplane, runs, (cold_floor, warm_floor))?);
    }
    for (what, frame) in [
        ("known flow, ACK", data as fn(u16) -> Vec<u8>),
        ("known flow, request", request),
    ] {
        same_port(dataplane)?;
        dataplane.trial(INGRESS, &syn(0))?;
        let time = warm(dataplane, INGRESS, &frame(0))?;
        table.row(row(
            what,
            INGRESS,
            &[],
            Some(time),
            (cold_floor, warm_floor),
        ));
    }
    Ok(table)
}

impl Case {
    fn measure(
        &self,
        dataplane: &mut Dataplane,
        runs: u16,
        floor: (f64, f64),
    ) -> Result<Vec<String>> {
        prepare(dataplane, runs)?;
        let cold = (0..runs)
            .map(|port| {
                Ok(nanos(dataplane.time(
                    self.program,
                    &(self.frame)(port),
                    1,
                )?))
            })
            .collect::<Result<Vec<f64>>>()?;
        let warm = if self.unchanged {
            Some(warm(dataplane, self.program, &(self.frame)(0))?)
        } else {
            None
        };
        Ok(row(self.what, self.program, &cold, warm, floor))
    }
}

fn row(
    what: &str,
    program: &str,
    cold: &[f64],
    warm: Option<f64>,
    floor: (f64, f64),
) -> Vec<String> {
    let none = || "-".to_owned();
    let number = |value: f64| format!("{value:.0}");
    let has = !cold.is_empty();
    let middle = median(cold.iter().copied());
    vec![
        what.to_owned(),
        program.to_owned(),
        if has { number(middle) } else { none() },
        if has {
            number(percentile(cold.iter().copied(), 99))
        } else {
            none()
        },
        if has {
            number(middle - floor.0)
        } else {
            none()
        },
        warm.map_or_else(none, number),
        warm.map_or_else(none, |value| number(value - floor.1)),
    ]
}

fn warm(dataplane: &mut Dataplane, program: &'static str, frame: &[u8]) -> Result<f64> {
    let calls = (0..CALLS)
        .map(|_| Ok(nanos(dataplane.time(program, frame, WARM)?)))
        .collect::<Result<Vec<f64>>>()?;
    Ok(median(calls))
}

fn nanos(time: std::time::Duration) -> f64 {
    time.as_nanos() as f64
}

/// Three slots, and a known flow for every client port and both families.
fn prepare(dataplane: &mut Dataplane, runs: u16) -> Result<()> {
    slot(dataplane, 8000)?;
    dataplane.set_ring(0, &[0])?;
    for port in 0..runs {
        dataplane.trial(INGRESS, &syn(port))?;
        dataplane.trial(INGRESS, &syn6(port))?;
    }
    Ok(())
}

/// A slot that has the service's own port.
fn same_port(dataplane: &mut Dataplane) -> Result<()> {
    dataplane.remove_slot(SlotKey {
        service: 0,
        slot: 0,
    })?;
    slot(dataplane, 80)
}

fn slot(dataplane: &mut Dataplane, port: u16) -> Result<()> {
    let entry = SlotEntry {
        address: ([127, 0, 0, 1], port).into(),
        reach: Reach::Port,
        pid: None,
        port,
        state: SlotState::Ready,
        generation: if port == 80 { 2 } else { 1 },
    };
    Ok(dataplane.set_slot(
        SlotKey {
            service: 0,
            slot: 0,
        },
        &entry,
    )?)
}

fn cases() -> Vec<Case> {
    let case = |what, program, frame, unchanged| Case {
        what,
        program,
        frame,
        unchanged,
    };
    vec![
        case("known flow, ACK", INGRESS, data, false),
        case("known flow, request", INGRESS, request, false),
        case("known flow, IPv6", INGRESS, data6, false),
        case("new flow", INGRESS, |port| syn(port + 20_000), false),
        case("reply", EGRESS, reply, false),
        case("not ours, arriving", INGRESS, other, true),
        case("not ours, leaving", EGRESS, other, true),
        case("not ours, guarded", GUARD, other, true),
        case("not ours, sent", SENT, other, true),
        case("not ours, received", RECEIVED, other, true),
        case("SYN to a slot port", INGRESS, slot_syn, true),
        case("fragment", INGRESS, fragment, true),
        case("no flow", INGRESS, |port| data(port + 40_000), true),
    ]
}

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 9, 0, 2], 1000 + port))
}

fn host(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 9, 0, 1], port))
}

fn v6(last: u16, port: u16) -> SocketAddr {
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, last)),
        port,
    )
}

fn syn(port: u16) -> Vec<u8> {
    Tcp::new(client(port), host(80), SYN).frame()
}

fn syn6(port: u16) -> Vec<u8> {
    Tcp::new(v6(2, 1000 + port), v6(1, 80), SYN).frame()
}

fn data(port: u16) -> Vec<u8> {
    Tcp::new(client(port), host(80), ACK)
        .numbers(1001, 501)
        .frame()
}

fn data6(port: u16) -> Vec<u8> {
    Tcp::new(v6(2, 1000 + port), v6(1, 80), ACK)
        .numbers(1001, 501)
        .frame()
}

fn request(port: u16) -> Vec<u8> {
    Tcp::new(client(port), host(80), ACK | PSH)
        .numbers(1001, 501)
        .payload(b"GET /api/v1/acts HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .frame()
}

fn reply(port: u16) -> Vec<u8> {
    Tcp::new(host(8000), client(port), ACK)
        .numbers(501, 1001)
        .frame()
}

fn other(port: u16) -> Vec<u8> {
    Tcp::new(client(port), host(443), ACK).frame()
}

fn slot_syn(port: u16) -> Vec<u8> {
    Tcp::new(client(port), host(8001), SYN).frame()
}

fn fragment(port: u16) -> Vec<u8> {
    let mut tcp = Tcp::new(client(port), host(80), ACK);
    tcp.fragment = 0x2000;
    tcp.frame()
}

fn programs(dataplane: &Dataplane) -> Table {
    let head = ["program", "instructions", "machine code", "verified"];
    let mut table = Table::new("Programs", &head);
    for size in dataplane.programs() {
        table.row(vec![
            size.name,
            size.instructions.to_string(),
            bytes(size.machine_code.into()),
            size.verified.to_string(),
        ]);
    }
    table
}

fn memory(dataplane: &Dataplane) -> Result<Table> {
    let head = ["map", "entries", "memory", "bytes per entry"];
    let mut table = Table::new("Kernel memory", &head);
    let maps = dataplane.memory()?;
    let total = maps.iter().map(|map| map.bytes).sum();
    for map in maps.iter().filter(|map| map.name == map::FLOWS) {
        table.row(vec![
            map.name.to_owned(),
            map.entries.to_string(),
            bytes(map.bytes),
            format!("{:.0}", map.bytes as f64 / f64::from(map.entries)),
        ]);
    }
    table.row(vec![
        "all maps".to_owned(),
        String::new(),
        bytes(total),
        String::new(),
    ]);
    Ok(table)
}
