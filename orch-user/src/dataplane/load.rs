//! Loading the committed object with its maps pinned, after a check that pins of an earlier
//! controller have the shape this one needs: the loader would take them as they are.

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapInfo, MapType},
    programs::{CgroupSkb, CgroupSock, CgroupSockAddr, ProgramError, SchedClassifier, SockOps},
};
use orch_common::{
    address::Address,
    counter::{Bytes, Reason, SlotCounters},
    flow::{Census, Flow, FlowKey, Queue, Scratch, Socket},
    hold::{BUCKETS, HELD_BYTES, Holding, SIGNATURES},
    latency::Histogram,
    layout::{
        EVENTS_BYTES, MAX_ADDRESSES, MAX_HALF_OPEN, MAX_NETNS, MAX_PATHS, MAX_PROCESSES,
        MAX_RELAYS, MAX_SERVICES, MAX_SLOTS, PORT_WORDS, PORTS, RING_BANKS, map, program,
    },
    pulse::Pulse,
    relay::{Relay, RelayEnd, RelayKey},
    service::{ListenerKey, Maglev, Netns, PathKey, PathRule, Port, Ring, RingKey, Service},
    slot::{Owner, Slot, SlotKey},
    syn::Syn,
};

use super::{DataplaneError, pin::Pins};

/// The object, built from `orch-ebpf` by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../orch-ebpf/orch.bpf.o");

/// Type, key size, value size and entries of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape(MapType, usize, usize, usize);

/// The shape of every map but for the entries of LRU maps; those of `FLOWS` and `REPLIES` the configuration sets.
#[expect(clippy::too_many_lines, reason = "a table")]
fn shapes() -> [(&'static str, Shape); map::ALL.len()] {
    use MapType::{
        Array, Hash, LpmTrie, LruHash, PerCpuArray, PerCpuHash, RingBuf, SkStorage, SockHash,
    };
    const KEY: usize = size_of::<SlotKey>();
    [
        (
            map::SERVICES,
            Shape(Hash, 4, size_of::<Service>(), MAX_SERVICES),
        ),
        (
            map::LISTENERS,
            Shape(Hash, size_of::<ListenerKey>(), 4, 2 * MAX_SERVICES),
        ),
        (map::SLOTS, Shape(Hash, KEY, size_of::<Slot>(), MAX_SLOTS)),
        (map::GENERATIONS, Shape(Array, 4, 4, MAX_SLOTS)),
        (
            map::RING,
            Shape(
                Hash,
                size_of::<RingKey>(),
                size_of::<Ring>(),
                MAX_SERVICES * RING_BANKS,
            ),
        ),
        (
            map::MAGLEV,
            Shape(
                Hash,
                size_of::<RingKey>(),
                size_of::<Maglev>(),
                MAX_SERVICES * RING_BANKS,
            ),
        ),
        (map::CURSOR, Shape(Array, 4, 8, MAX_SERVICES)),
        (map::PORTS, Shape(Array, 4, size_of::<Port>(), PORTS)),
        (map::SOCKET_PORTS, Shape(Array, 4, 8, PORT_WORDS)),
        (
            map::ADDRESSES,
            Shape(Hash, size_of::<Address>(), 4, MAX_ADDRESSES),
        ),
        (map::NETNS, Shape(Hash, 8, size_of::<Netns>(), MAX_NETNS)),
        (
            map::FLOWS,
            Shape(LruHash, size_of::<FlowKey>(), size_of::<Flow>(), 0),
        ),
        (
            map::REPLIES,
            Shape(LruHash, size_of::<FlowKey>(), size_of::<FlowKey>(), 0),
        ),
        (
            map::SYNS,
            Shape(LruHash, size_of::<FlowKey>(), size_of::<Syn>(), 0),
        ),
        (
            map::HALF_OPEN,
            Shape(Array, 4, size_of::<FlowKey>(), MAX_HALF_OPEN),
        ),
        (map::QUEUE, Shape(Array, 4, size_of::<Queue>(), 1)),
        (map::SCRATCH, Shape(PerCpuArray, 4, size_of::<Scratch>(), 1)),
        (
            map::PROCESSES,
            Shape(Hash, 4, size_of::<Owner>(), MAX_PROCESSES),
        ),
        (map::SOCKETS, Shape(SkStorage, 4, size_of::<Socket>(), 0)),
        (
            map::RELAYS,
            Shape(Hash, size_of::<RelayKey>(), size_of::<Relay>(), MAX_RELAYS),
        ),
        (
            map::RELAY_ENDS,
            Shape(SockHash, size_of::<RelayKey>(), 4, 2 * MAX_RELAYS),
        ),
        (
            map::RELAY_SOCKETS,
            Shape(SkStorage, 4, size_of::<RelayEnd>(), 0),
        ),
        (
            map::PATHS,
            Shape(
                LpmTrie,
                4 + size_of::<PathKey>(),
                size_of::<PathRule>(),
                MAX_PATHS,
            ),
        ),
        (
            map::COUNTERS,
            Shape(PerCpuHash, KEY, size_of::<SlotCounters>(), MAX_SLOTS),
        ),
        (
            map::BYTES,
            Shape(PerCpuArray, 4, size_of::<Bytes>(), MAX_SLOTS),
        ),
        (map::REASONS, Shape(PerCpuArray, 4, 8, Reason::COUNT)),
        (
            map::LATENCY,
            Shape(Hash, KEY, size_of::<Histogram>(), MAX_SLOTS),
        ),
        (map::PULSES, Shape(Array, 4, size_of::<Pulse>(), MAX_SLOTS)),
        (map::CENSUS, Shape(Array, 4, size_of::<Census>(), MAX_SLOTS)),
        (map::EPOCH, Shape(Array, 4, 4, 1)),
        (map::EVENTS, Shape(RingBuf, 0, 0, EVENTS_BYTES)),
        (
            map::HOLDING,
            Shape(Array, 4, size_of::<Holding>(), MAX_SERVICES),
        ),
        (map::HELD, Shape(RingBuf, 0, 0, HELD_BYTES)),
        (map::SIGNATURES, Shape(Array, 4, 8, SIGNATURES)),
        (map::BUCKETS, Shape(Array, 4, 8, BUCKETS)),
    ]
}

/// Loads maps and programs. Maps that are pinned already are taken over.
///
/// `task_tgid` is where the kernel keeps a process's number, if that is known; `signals`, whether the
/// programs look at what connections carry.
pub(super) fn load(
    pins: &Pins,
    flows: u32,
    task_tgid: Option<u32>,
    signals: bool,
) -> Result<Ebpf, DataplaneError> {
    let mut loader = EbpfLoader::new();
    let (offset, signals) = (task_tgid.unwrap_or_default(), u32::from(signals));
    loader.override_global("TASK_TGID", &offset, true);
    loader.override_global("SIGNALS", &signals, true);
    loader.map_max_entries(map::FLOWS, flows);
    loader.map_max_entries(map::REPLIES, flows);
    for (name, expected) in shapes() {
        let path = pins.map(name);
        if path.exists() {
            check(&path, expected)?;
        }
        loader.map_pin_path(name, path);
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|source| DataplaneError::Object {
            source: Box::new(source),
        })?;
    for name in [
        program::INGRESS,
        program::EGRESS,
        program::VETH,
        program::ENTRY,
        program::GUARD,
        program::COMMAND,
        program::SWEEP,
        program::INJECT,
        program::REPLAY,
    ] {
        classifier(&mut ebpf, name)?
            .load()
            .map_err(DataplaneError::program(name, "load"))?;
    }
    Ok(ebpf)
}

/// Loads the programs of the cgroup hooks, which an old kernel may lack.
pub(super) fn load_local(ebpf: &mut Ebpf) -> Result<(), DataplaneError> {
    for name in [
        program::CONNECT4,
        program::CONNECT6,
        program::PEER4,
        program::PEER6,
    ] {
        let hook: &mut CgroupSockAddr = typed(ebpf, name)?;
        hook.load().map_err(DataplaneError::program(name, "load"))?;
    }
    let release: &mut CgroupSock = typed(ebpf, program::RELEASE)?;
    release
        .load()
        .map_err(DataplaneError::program(program::RELEASE, "load"))?;
    let dial: &mut SockOps = typed(ebpf, program::DIAL)?;
    dial.load()
        .map_err(DataplaneError::program(program::DIAL, "load"))?;
    for name in [program::SENT, program::RECEIVED] {
        let hook: &mut CgroupSkb = typed(ebpf, name)?;
        hook.load().map_err(DataplaneError::program(name, "load"))?;
    }
    Ok(())
}

/// A TC program of the object.
pub(super) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DataplaneError> {
    typed(ebpf, name)
}

/// What is loaded already need not be loaded.
pub(super) fn once(loaded: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match loaded {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other,
    }
}

/// A program of the object.
pub(super) fn typed<'a, P>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut P, DataplaneError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(DataplaneError::Missing { name })?
        .try_into()
        .map_err(DataplaneError::program(name, "load"))
}

fn check(path: &std::path::Path, expected: Shape) -> Result<(), DataplaneError> {
    let info = MapInfo::from_pin(path).map_err(DataplaneError::map("of an earlier controller"))?;
    let found = info.map_type().ok().map(|kind| {
        let entries = if kind == MapType::LruHash {
            0
        } else {
            info.max_entries() as usize
        };
        Shape(
            kind,
            info.key_size() as usize,
            info.value_size() as usize,
            entries,
        )
    });
    if found == Some(expected) {
        return Ok(());
    }
    Err(DataplaneError::Foreign {
        path: path.to_owned(),
        found: format!("{found:?}"),
        expected: format!("{:?}", Some(expected)),
    })
}
