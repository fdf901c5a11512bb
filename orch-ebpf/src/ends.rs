//! The two ends of a packet, as the maps hold addresses.

use aya_ebpf::bindings::__sk_buff;
use orch_common::{address::Address, flow::FlowKey};

use crate::{packet::Located, reach::at};

impl Located {
    /// The flow of a packet of its client's.
    #[inline(always)]
    pub fn key(&self) -> Option<FlowKey> {
        let (client, local) = self.addresses()?;
        Some(FlowKey {
            client,
            local,
            client_port: self.source_port,
            local_port: self.destination_port,
        })
    }

    /// Source and destination address.
    #[inline(always)]
    pub fn addresses(&self) -> Option<(Address, Address)> {
        if self.v6 {
            return v6_addresses(self.skb, self.ip);
        }
        let (mut source, mut destination) = ([0, 0, MAPPED, 0], [0, 0, MAPPED, 0]);
        let found = at::<[u32; 2]>(self.skb, self.ip + 12)?;
        // SAFETY: `at` has checked the bounds.
        [source[3], destination[3]] = unsafe { *found };
        Some((bytes(source), bytes(destination)))
    }
}

/// Source and destination of an IPv6 header.
#[inline(always)]
pub fn v6_addresses(skb: *mut __sk_buff, ip: usize) -> Option<(Address, Address)> {
    let found = at::<[[u32; 4]; 2]>(skb, ip + 8)?;
    // SAFETY: `at` has checked the bounds.
    let [source, destination] = unsafe { *found };
    Some((bytes(source), bytes(destination)))
}

/// `::ffff:0:0/96` as the third word of an address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Words as they lie in memory, as bytes.
#[inline(always)]
fn bytes(words: [u32; 4]) -> Address {
    // SAFETY: both are sixteen plain bytes.
    unsafe { core::mem::transmute::<[u32; 4], Address>(words) }
}
