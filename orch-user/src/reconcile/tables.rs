//! The data plane as the controller uses it, so that tests can stand in for the kernel.

use std::{collections::BTreeMap, net::SocketAddr, os::fd::OwnedFd};

use orch_common::{
    event::Event,
    hold::{HeldSyn, Release},
    latency::Histogram,
    slot::SlotKey,
};

use crate::{
    config::ServiceConfig,
    dataplane::{
        Bridge, Dataplane, DataplaneError, HoldTerms, Injected, Reach, Reading, SlotEntry,
    },
};

/// What a call to the data plane gives.
pub type Outcome<T> = Result<T, DataplaneError>;

/// The calls of [`Dataplane`] that the controller makes; each is described there.
#[allow(missing_docs, reason = "described at Dataplane")]
pub trait Tables: Send {
    fn set_services(&mut self, services: &[ServiceConfig]) -> Outcome<()>;
    /// A service that leaves takes no new clients; the kernel's have none once its ring is empty.
    fn retire(&mut self, _service: u16, _leaving: bool) -> Outcome<()> {
        Ok(())
    }
    fn set_slot(&mut self, key: SlotKey, entry: &SlotEntry) -> Outcome<()>;
    fn prepare(&mut self, reach: &Reach, address: SocketAddr) -> Outcome<()>;
    fn remove_slot(&mut self, key: SlotKey) -> Outcome<()>;
    fn set_ring(&mut self, service: u16, slots: &[u16]) -> Outcome<()>;
    fn ring(&self, service: u16) -> Vec<u16>;
    fn set_shares(&mut self, service: u16, shares: &BTreeMap<u16, u8>) -> Outcome<()>;
    fn read(&self) -> Outcome<Reading>;
    fn latency(&self, key: SlotKey) -> Outcome<Histogram>;
    fn sync_host(&mut self) -> Outcome<Vec<String>>;
    /// By which containers talk to this host.
    fn bridges(&self) -> &[Bridge] {
        &[]
    }
    /// Readable whenever [`Self::cut_off`] may have changed, or the host's addresses or routes.
    fn link_bell(&self) -> Option<OwnedFd> {
        None
    }
    /// Silences it, and has open connections follow the routes; whether the host may have other addresses.
    fn hear(&mut self) -> Outcome<bool> {
        Ok(false)
    }
    fn cut_off(&self) -> Vec<SlotKey>;
    fn sweep(&mut self) -> Outcome<u64>;
    fn alarms(&mut self) -> Vec<Event>;
    fn bell(&self) -> Option<OwnedFd>;
    fn held(&mut self) -> Vec<HeldSyn>;
    fn replay(&mut self) -> Outcome<u32>;
    fn hold_bell(&self) -> Option<OwnedFd>;
    fn set_holding(&mut self, service: u16, terms: Option<HoldTerms>) -> Outcome<()>;
    fn inject(&mut self, ifindex: u32, frame: &[u8], release: Release) -> Outcome<Injected>;
    /// Has what the gateway and copies say to each other go from socket to socket, or not any more;
    /// whether it does.
    fn relay(&mut self, _wanted: bool) -> Outcome<bool> {
        Ok(false)
    }
    /// Readable whenever [`Self::waiting`] or [`Self::alarms`] may have news that `read` brings.
    fn wait_bell(&self) -> Option<OwnedFd> {
        None
    }
    /// Requests that wait for a copy where they are balanced outside of the kernel.
    fn waiting(&self, _service: u16) -> u64 {
        0
    }
    fn detach(self) -> Outcome<()>
    where
        Self: Sized;
}

impl Tables for Dataplane {
    fn set_services(&mut self, services: &[ServiceConfig]) -> Outcome<()> {
        Self::set_services(self, services)
    }

    fn set_slot(&mut self, key: SlotKey, entry: &SlotEntry) -> Outcome<()> {
        Self::set_slot(self, key, entry)
    }

    fn prepare(&mut self, reach: &Reach, address: SocketAddr) -> Outcome<()> {
        Self::prepare(self, reach, address)
    }

    fn remove_slot(&mut self, key: SlotKey) -> Outcome<()> {
        Self::remove_slot(self, key)
    }

    fn set_ring(&mut self, service: u16, slots: &[u16]) -> Outcome<()> {
        Self::set_ring(self, service, slots)
    }

    fn ring(&self, service: u16) -> Vec<u16> {
        Self::ring(self, service)
    }

    fn set_shares(&mut self, service: u16, shares: &BTreeMap<u16, u8>) -> Outcome<()> {
        Self::set_shares(self, service, shares)
    }

    fn read(&self) -> Outcome<Reading> {
        Self::read(self)
    }

    fn latency(&self, key: SlotKey) -> Outcome<Histogram> {
        Self::latency(self, key)
    }

    fn sync_host(&mut self) -> Outcome<Vec<String>> {
        Self::sync_host(self)
    }

    fn bridges(&self) -> &[Bridge] {
        Self::bridges(self)
    }

    fn link_bell(&self) -> Option<OwnedFd> {
        Self::link_bell(self)
    }

    fn hear(&mut self) -> Outcome<bool> {
        Self::hear(self)
    }

    fn cut_off(&self) -> Vec<SlotKey> {
        Self::cut_off(self)
    }

    fn sweep(&mut self) -> Outcome<u64> {
        Self::sweep(self)
    }

    fn alarms(&mut self) -> Vec<Event> {
        Self::alarms(self)
    }

    fn bell(&self) -> Option<OwnedFd> {
        Self::bell(self)
    }

    fn held(&mut self) -> Vec<HeldSyn> {
        Self::held(self)
    }

    fn replay(&mut self) -> Outcome<u32> {
        Self::replay(self)
    }

    fn hold_bell(&self) -> Option<OwnedFd> {
        Self::hold_bell(self)
    }

    fn set_holding(&mut self, service: u16, terms: Option<HoldTerms>) -> Outcome<()> {
        Self::set_holding(self, service, terms)
    }

    fn inject(&mut self, ifindex: u32, frame: &[u8], release: Release) -> Outcome<Injected> {
        Self::inject(self, ifindex, frame, release)
    }

    fn relay(&mut self, wanted: bool) -> Outcome<bool> {
        Self::relay(self, wanted)
    }

    fn detach(self) -> Outcome<()> {
        Self::detach(self)
    }
}
