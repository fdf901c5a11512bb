//! Clients on this host and in its containers: rewritten once, when they connect.

use aya_ebpf::{
    EbpfContext, bindings::BPF_SK_STORAGE_GET_F_CREATE, helpers::bpf_get_netns_cookie,
    programs::SockAddrContext,
};
use orch_common::{
    address::{self, Address},
    counter::Reason,
    flow::{Counting, Flow, mark},
    hold::LET_GO,
    select,
    service::{Netns, NetnsKind, Port, PortClass},
    slot::SlotKey,
};

use crate::{
    backend::{self, Pick},
    hold, live, maps, service, storage,
    verdict::count,
};

const TCP: u32 = 6;
/// The loopback interface of every namespace.
const LOOPBACK: u32 = 1;

/// A call to connect, and what it asks for. `V6` is the family of the socket: each family's program
/// may touch its own fields only.
struct Call<'a, const V6: bool> {
    ctx: &'a SockAddrContext,
    asked: Address,
    port: u16,
    /// The namespace that the socket is in, and its cookie: the socket has no source address yet,
    /// so this is what stands for the client.
    netns: &'static Netns,
    cookie: u64,
    /// Whether it is an IPv6 socket that asks for an address of IPv6.
    v6: bool,
}

/// A socket connects over IPv4.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) {
    let call = ctx.sock_addr;
    // SAFETY: the context is the kernel's.
    let asked = unsafe { (*call).user_ip4 };
    connect::<false>(ctx, address::from_v4(asked.to_ne_bytes()));
}

/// A socket connects over IPv6, or over IPv4 by a mapped address.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) {
    connect::<true>(ctx, storage::asked_v6(ctx.sock_addr));
}

#[inline(always)]
fn connect<const V6: bool>(ctx: &SockAddrContext, asked: Address) {
    let port = storage::asked_port(ctx.sock_addr);
    // SAFETY: the context is the kernel's.
    let tcp = unsafe { (*ctx.sock_addr).protocol } == TCP;
    let known = maps::port(port);
    if !tcp || matches!(known.class, PortClass::Other) {
        return;
    }
    // SAFETY: the helper takes this context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let Some(netns) = maps::netns(cookie) else {
        return;
    };
    let call = Call::<'_, V6> {
        ctx,
        asked,
        port,
        netns,
        cookie,
        v6: !address::is_v4(&asked),
    };
    if matches!(known.class, PortClass::Service) {
        balance(&call);
    } else {
        answer_for(&call, &known);
    }
}

/// A connection to a service: a slot is picked.
#[inline(always)]
fn balance<const V6: bool>(call: &Call<'_, V6>) {
    let own = call.asks_for_loopback();
    // A container's own loopback is its own.
    if own && !call.is_of_host() {
        return;
    }
    let Some(index) = service::listening(&call.asked, call.port, own) else {
        return;
    };
    let Some(service) = maps::service(index) else {
        return;
    };
    if let Some(socket) = storage::of(call.ctx, 0) {
        // An earlier attempt of the same socket.
        storage::give_up(socket);
    }
    let source = || select::hash(call.cookie);
    let reason = match backend::choose(index, service, source, |pick| call.reaches(pick)) {
        Ok(pick) => call.give(&pick, service.counting, Reason::LocalConnect),
        Err(Reason::NoBackend) => call.wait(index),
        Err(why) => why,
    };
    count(reason);
}

/// A connection to a slot's port: nobody listens there where connections are delivered to the
/// backend's own address.
#[inline(always)]
fn answer_for<const V6: bool>(call: &Call<'_, V6>, port: &Port) {
    let own = call.asks_for_loopback();
    if !call.is_of_host() || !own && !maps::is_local(&call.asked) {
        return;
    }
    let pick = Pick::of(SlotKey {
        service: port.service,
        slot: u16::from(port.slot),
    });
    let Some(pick) = pick else {
        return;
    };
    if !pick.is_direct() {
        return;
    }
    if let Some(socket) = storage::of(call.ctx, 0) {
        storage::give_up(socket);
    }
    count(call.give(&pick, Counting::None, Reason::LocalSlot));
}

impl<const V6: bool> Call<'_, V6> {
    #[inline(always)]
    const fn is_of_host(&self) -> bool {
        matches!(self.netns.kind, NetnsKind::Host)
    }

    /// Connecting to the unspecified address means this host, too.
    #[inline(always)]
    fn asks_for_loopback(&self) -> bool {
        address::is_loopback(&self.asked) || self.asked == address::any_of(&self.asked)
    }

    /// Whether the backend can be reached from here. An engine keeps its networks apart: from one,
    /// an address on another cannot be reached.
    #[inline(always)]
    fn reaches(&self, pick: &Pick) -> Result<(), Reason> {
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
    fn wait(&self, service: u32) -> Reason {
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
    fn give(&self, pick: &Pick, counting: Counting, done: Reason) -> Reason {
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
        if direct {
            socket.flow.address = address;
            storage::set_address::<V6>(self.ctx.sock_addr, &address);
        }
        storage::set_port(self.ctx.sock_addr, socket.flow.backend_port);
        done
    }
}
