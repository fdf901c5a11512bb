//! Clients on this host and in its containers: rewritten once, when they connect.

use aya_ebpf::{EbpfContext, helpers::bpf_get_netns_cookie, programs::SockAddrContext};
use orch_common::{
    address::{self, Address},
    counter::Reason,
    flow::Counting,
    select,
    service::{Port, PortClass, Service},
    slot::SlotKey,
};

use crate::{
    backend::{self, Pick},
    call::Call,
    maps, service, storage, turn,
    verdict::count,
};

const TCP: u32 = 6;

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
    // The controller's connection can go where its own cannot.
    let bound = call.is_of_host() && call.is_bound_to_loopback() && leads_away(index, service);
    let picked = if bound {
        Err(Reason::NoBackend)
    } else {
        backend::choose(index, service, source, |pick| call.reaches(pick))
    };
    let reason = match picked {
        Ok(pick) => call.give(&pick, service.counting, Reason::LocalConnect),
        Err(Reason::NoBackend) => call.wait(index),
        Err(why) => why,
    };
    count(reason);
}

/// Whether connections go to backends' own addresses: what holds for one slot mostly holds for all.
#[inline(always)]
fn leads_away(index: u32, service: &Service) -> bool {
    let first = maps::ring(index, service.ring).map(|ring| turn::at(ring, 0).slot);
    let slot = first.and_then(|slot| {
        Pick::of(SlotKey {
            service: index as u16,
            slot: u16::from(slot),
        })
    });
    slot.is_some_and(|pick| pick.is_direct())
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
