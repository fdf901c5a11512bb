//! One call to connect of a client on this host, and what can be made of it.

use aya_ebpf::{bindings::BPF_SK_STORAGE_GET_F_CREATE, programs::SockAddrContext};
use orch_common::{
    address::{self, Address},
    counter::Reason,
    flow::{Counting, Flow, mark},
    hold::LET_GO,
    service::{Netns, NetnsKind},
};

use crate::{backend::Pick, compare, hold, live, maps, storage};

/// The loopback interface of every namespace.
const LOOPBACK: u32 = 1;

/// A call to connect, and what it asks for. `V6` is the family of the socket: each family's program
/// may touch its own fields only.
pub struct Call<'a, const V6: bool> {
    pub ctx: &'a SockAddrContext,
    pub asked: Address,
    pub port: u16,
    /// The namespace that the socket is in, and its cookie: the socket has no source address yet,
    /// so this is what stands for the client.
    pub netns: &'static Netns,
    pub cookie: u64,
    /// Whether it is an IPv6 socket that asks for an address of IPv6.
    pub v6: bool,
}

impl<const V6: bool> Call<'_, V6> {
    /// Whether the caller is in the network namespace of the host.
    #[inline(always)]
    pub const fn is_of_host(&self) -> bool {
        matches!(self.netns.kind, NetnsKind::Host)
    }

    /// Connecting to the unspecified address means this host, too.
    #[inline(always)]
    pub fn asks_for_loopback(&self) -> bool {
        address::is_loopback(&self.asked) || self.asked == address::any_of(&self.asked)
    }

    /// Whether the socket was bound to the loopback before: no backend's own address can be reached then.
    #[inline(always)]
    pub fn is_bound_to_loopback(&self) -> bool {
        // SAFETY: as in `is_controllers`.
        unsafe {
            let socket = (*self.ctx.sock_addr).__bindgen_anon_1.sk;
            if socket.is_null() {
                return false;
            }
            let source = if V6 {
                core::mem::transmute::<[u32; 4], Address>((*socket).src_ip6)
            } else {
                address::from_v4((*socket).src_ip4.to_ne_bytes())
            };
            (*socket).bound_dev_if == LOOPBACK || address::is_loopback(&source)
        }
    }

    /// Whether the backend can be reached from here. An engine keeps its networks apart: from one,
    /// an address on another cannot be reached.
    #[inline(always)]
    pub fn reaches(&self, pick: &Pick) -> Result<(), Reason> {
        if !pick.is_direct() {
            return Ok(());
        }
        let bridge = pick.slot.bridge;
        if !self.is_of_host() && (bridge == 0 || !self.netns.bridges.contains(&bridge)) {
            return Err(Reason::Elsewhere);
        }
        self.address(pick).map(|_| ())
    }

    /// The address to connect to. An IPv6 socket reaches IPv4 by the mapped address, unless it has
    /// been told not to.
    #[inline(always)]
    fn address(&self, pick: &Pick) -> Result<Address, Reason> {
        match pick.address(self.v6) {
            Some(address) => Ok(address),
            None if self.v6 => Ok(pick.slot.address),
            None => Err(Reason::NoFamily),
        }
    }

    /// Whether the controller connects for somebody who waits there already.
    #[inline(always)]
    fn is_controllers(&self) -> bool {
        // SAFETY: the context is the kernel's, and its socket lives as long as the call.
        unsafe {
            let socket = (*self.ctx.sock_addr).__bindgen_anon_1.sk;
            !socket.is_null() && (*socket).mark == LET_GO
        }
    }

    /// Leads the socket to the controller, which waits for a backend: on the host by the loopback,
    /// in a container at the address that it asked for.
    #[inline(always)]
    pub fn wait(&self, service: u32) -> Reason {
        let port = match (self.is_of_host(), self.is_controllers()) {
            (true, false) => hold::listener(service),
            // What comes by no bridge is held on its way in.
            (false, _) if self.netns.bridges[0] != 0 => hold::bridge_listener(service),
            _ => None,
        };
        let Some(port) = port else {
            return Reason::LocalNoBackend;
        };
        let Some(socket) = storage::of(self.ctx, BPF_SK_STORAGE_GET_F_CREATE) else {
            return Reason::TableFull;
        };
        // No slot's, so that nothing is counted; with an interface, so that its owner is told the
        // address that it asked for.
        socket.flow = Flow {
            backend_port: port,
            ifindex: LOOPBACK,
            counting: Counting::None,
            ..Flow::default()
        };
        socket.asked = self.asked;
        socket.asked_port = self.port;
        if self.is_of_host() {
            let here = address::loopback_of(self.v6);
            storage::set_address::<V6>(self.ctx.sock_addr, &here);
        }
        storage::set_port(self.ctx.sock_addr, port);
        Reason::LocalHeld
    }

    /// Makes the socket a connection of the slot, and says what became of it.
    #[inline(always)]
    pub fn give(&self, pick: &Pick, counting: Counting, done: Reason) -> Reason {
        let Ok(address) = self.address(pick) else {
            return Reason::NoFamily;
        };
        let Some(socket) = storage::of(self.ctx, BPF_SK_STORAGE_GET_F_CREATE) else {
            return Reason::TableFull;
        };
        let slot = &pick.slot;
        let direct = pick.is_direct();
        socket.flow = Flow {
            live: 1,
            generation: slot.generation,
            service: pick.key.service,
            slot: pick.key.slot,
            backend_port: if direct { slot.backend_port } else { slot.port },
            counting,
            marks: mark::LOCAL,
            ifindex: slot.ifindex,
            ..Flow::default()
        };
        socket.asked = self.asked;
        socket.asked_port = self.port;
        if let Some(slot) = maps::slot(&pick.key) {
            live::admit_local(slot);
        }
        compare::given(&mut socket.flow);
        if direct {
            socket.flow.address = address;
            storage::set_address::<V6>(self.ctx.sock_addr, &address);
        }
        storage::set_port(self.ctx.sock_addr, socket.flow.backend_port);
        done
    }
}
