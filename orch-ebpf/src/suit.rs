//! Whether a connection from outside can be given to a slot.

use aya_ebpf::bindings::__sk_buff;
use orch_common::{
    address::{self, Address},
    counter::Reason,
    event::EventKind,
    flow::{FlowKey, FlowState},
    slot::SlotKey,
};

use crate::{
    backend::{self, Pick},
    maps, redirect,
};

/// A connection that asks for a slot.
pub struct Ask<'a> {
    /// Its SYN.
    pub skb: *mut __sk_buff,
    /// The connection.
    pub key: &'a FlowKey,
    /// Room for another key.
    pub other: *mut FlowKey,
}

impl Ask<'_> {
    /// Whether a connection can be given to a slot for delivery `direct`: its backend has an address
    /// of the client's family, from which it can answer, its interface is there, and no other connection has the same four
    /// numbers at the backend, as it would if one client port were in use to two addresses of this
    /// host.
    #[inline(always)]
    pub fn suits(&self, pick: &Pick) -> Result<(), Reason> {
        if !pick.is_direct() {
            return Ok(());
        }
        if orch_vanished(self.skb, pick.key.packed(), pick.slot.ifindex) != 0 {
            return Err(Reason::PassedBy);
        }
        let v6 = !address::is_v4(&self.key.client);
        // On the backend's own link nobody has the address of a client on another.
        if address::is_link_local(&self.key.client) {
            return Err(Reason::NoFamily);
        }
        let address = pick.address(v6).ok_or(Reason::NoFamily)?;
        let reply = self.like(&address, pick.slot.backend_port);
        match maps::reply(reply) {
            Some(owner) if *owner != *self.key && occupies(owner, reply) => Err(Reason::Collision),
            _ => Ok(()),
        }
    }

    /// Whether the same client port is in use for a connection past the balancer to this slot port:
    /// at the backend the two would be one.
    #[inline(always)]
    pub fn is_taken(&self, slot_port: u16) -> bool {
        let past = self.like(&self.key.local, slot_port);
        maps::flow(past).is_some_and(|flow| !matches!(flow.state, FlowState::Closed))
    }

    /// The key with another local end.
    #[inline(always)]
    fn like(&self, local: &Address, local_port: u16) -> &FlowKey {
        // SAFETY: the scratch room is this program's until it ends: a program of TC is not
        // interrupted by another one.
        let other = unsafe { &mut *self.other };
        other.client = self.key.client;
        other.client_port = self.key.client_port;
        other.local = *local;
        other.local_port = local_port;
        other
    }
}

/// Whether a slot's interface is gone; `slot` is packed. Nobody may have been
/// told: a container lives on without its network. What is on its way there is lost, and arrives once
/// more when the controller hears of it. Checked once by itself, for the sake of its stack.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_vanished(skb: *mut __sk_buff, slot: u32, ifindex: u32) -> i32 {
    if redirect::exists(skb, ifindex) {
        return 0;
    }
    let key = SlotKey::unpacked(slot);
    backend::pass_by(key, maps::generation(key), EventKind::Refused);
    1
}

/// Whether a connection lives, and still at this backend: it may have been given to another.
#[inline(always)]
fn occupies(other: &FlowKey, reply: &FlowKey) -> bool {
    maps::flow(other).is_some_and(|flow| {
        !matches!(flow.state, FlowState::Closed)
            && flow.address == reply.local
            && flow.backend_port == reply.local_port
    })
}
