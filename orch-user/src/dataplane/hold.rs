//! Held SYNs: out of the kernel, and back in.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aya::{
    maps::{Array, MapData, RingBuf},
    programs::{TestRun, TestRunOptions},
};
use orch_common::{
    flow::FlowKey,
    hold::{BURST_NS, FRAME_BYTES, HeldSyn, Holding, Release},
    layout::{map, program},
};
use rustix::time::{ClockId, clock_gettime};

use super::{Dataplane, DataplaneError, load};
use crate::config::{Mode, ServiceConfig};

/// How long the kernel holds SYNs without hearing from the controller: one that has ended, or hangs,
/// sends none on.
const LEASE: Duration = Duration::from_secs(5);
/// Records taken at a time, so that a flood does not keep the controller from its work.
const AT_ONCE: usize = 1024;
/// Offset of `cb` in the context of a TC program (`struct __sk_buff`).
const CB: usize = 48;
/// Bytes of the context as far as the end of `cb`.
const CONTEXT: usize = CB + 5 * 4;

/// On which terms the connections of a service wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldTerms {
    /// How many may come in a second.
    pub limit: u32,
    /// Port of the loopback where connections of this host wait.
    pub listener: Option<u16>,
    /// Port where those of containers do, at the address that they ask for.
    pub bridge_listener: Option<u16>,
}

/// What became of a SYN that was sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// It has arrived.
    Arrived,
    /// A repetition of it had come in before.
    InAlready,
    /// Its interface is gone, or its bytes are no SYN.
    Lost,
}

/// The maps.
pub(super) struct Hold {
    held: RingBuf<MapData>,
    holding: Array<MapData, Holding>,
    /// Tells this controller's signatures from those of an earlier one.
    session: u32,
}

impl Hold {
    pub(super) fn new(held: RingBuf<MapData>, holding: Array<MapData, Holding>) -> Self {
        Self {
            held,
            holding,
            session: now_ns() as u32,
        }
    }

    /// Has connections from outside wait from the first packet on, as far as services want that.
    pub(super) fn begin(&mut self, services: &[ServiceConfig]) -> Result<(), DataplaneError> {
        for (index, service) in (0..).zip(services) {
            if service.mode == Mode::Tcp && !service.hold.is_zero() {
                let terms = HoldTerms {
                    limit: service.hold_limit,
                    listener: None,
                    bridge_listener: None,
                };
                self.set(index, Some(terms))?;
            }
        }
        Ok(())
    }

    fn set(&mut self, service: u16, terms: Option<HoldTerms>) -> Result<(), DataplaneError> {
        let holding = terms.map_or_else(Holding::default, |terms| Holding {
            until_ns: now_ns() + LEASE.as_nanos() as u64,
            cost_ns: BURST_NS / u64::from(terms.limit.max(1)),
            listener: terms.listener.unwrap_or_default(),
            bridge_listener: terms.bridge_listener.unwrap_or_default(),
            session: self.session,
        });
        self.holding
            .set(u32::from(service), holding, 0)
            .map_err(DataplaneError::map(map::HOLDING))
    }
}

impl Dataplane {
    /// SYNs that have come since the last call for services without a backend, oldest first: at most
    /// as many as are good to handle at a time.
    pub fn held(&mut self) -> Vec<HeldSyn> {
        let mut held = Vec::new();
        while held.len() < AT_ONCE
            && let Some(record) = self.hold.held.next()
        {
            held.extend(parse(&record));
        }
        held
    }

    /// Has the kernel hand over the SYNs that dead backends have left without an answer: they are
    /// among the next that [`Self::held`] gives. Gives how many.
    pub fn replay(&mut self) -> Result<u32, DataplaneError> {
        const ANY_FRAME: [u8; 64] = [0; 64];
        self.run(program::REPLAY, &ANY_FRAME)
    }

    /// Readable whenever [`Self::held`] has something new. `None` if the process has no descriptor
    /// left.
    pub fn hold_bell(&self) -> Option<OwnedFd> {
        self.hold.held.as_fd().try_clone_to_owned().ok()
    }

    /// Has connections of a service wait while it has no backend; `None` has them refused. Holds for
    /// some seconds, so that nobody waits for a controller that is gone: call it every second.
    pub fn set_holding(
        &mut self,
        service: u16,
        terms: Option<HoldTerms>,
    ) -> Result<(), DataplaneError> {
        self.hold.set(service, terms)
    }

    /// Ends the holding of a SYN. To arrive, its frame must have a whole checksum.
    pub fn inject(
        &mut self,
        ifindex: u32,
        frame: &[u8],
        release: Release,
    ) -> Result<Injected, DataplaneError> {
        let mut context = [0; CONTEXT];
        let words = [ifindex, release as u32, self.hold.session]
            .into_iter()
            .flat_map(u32::to_ne_bytes);
        for (byte, value) in context.iter_mut().skip(CB).zip(words) {
            *byte = value;
        }
        let tc = load::classifier(&mut self.ebpf, program::INJECT)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = tc
            .test_run(options)
            .map_err(DataplaneError::program(program::INJECT, "test run"))?;
        Ok(match result.return_value {
            0 => Injected::Arrived,
            1 => Injected::InAlready,
            _ => Injected::Lost,
        })
    }
}

/// `CLOCK_MONOTONIC`, as `bpf_ktime_get_ns` gives it.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A record as it comes out of the ring buffer. `None` if it is of another size.
fn parse(bytes: &[u8]) -> Option<HeldSyn> {
    const HEAD: usize = size_of::<HeldSyn>() - FRAME_BYTES;
    let bytes: &[u8; size_of::<HeldSyn>()] = bytes.try_into().ok()?;
    let (head, frame) = bytes.split_first_chunk::<HEAD>()?;
    let (client, rest) = head.split_first_chunk::<16>()?;
    let (local, rest) = rest.split_first_chunk::<16>()?;
    let half = |at: usize| Some(u16::from_ne_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    Some(HeldSyn {
        key: FlowKey {
            client: *client,
            local: *local,
            client_port: half(0)?,
            local_port: half(2)?,
        },
        seq: word(4)?,
        ifindex: word(8)?,
        service: half(12)?,
        len: half(14)?,
        frame: frame.try_into().ok()?,
    })
}
