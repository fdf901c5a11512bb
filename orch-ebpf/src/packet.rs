//! The only parser. It finds the TCP header in two steps, so that a packet that is not ours costs
//! no more than the first: `locate` gives the ports, `Located::segment` the rest. Header lengths
//! are checked against the packet and each other; nothing here can fail but by answering `None`.

use aya_ebpf::bindings::__sk_buff;
use orch_common::flow::Flags;

use crate::{
    header::{self, Miss},
    reach::{at, at_unknown, pull, read},
    segment::Segment,
};

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// A packet that begins with its IP header, as cgroup programs see it.
pub const BARE: usize = 0;

const ETHERTYPE_OFFSET: usize = 12;
const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;
const V6_HEADER: usize = 40;
/// Header bytes that are pulled into reach when a driver left them in a fragment of the buffer.
const PULL: u32 = 14 + 60 + 20;

/// A TCP header (RFC 9293, 3.1), numbers in network order.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpHeader {
    source_port: u16,
    destination_port: u16,
    seq: u32,
    ack: u32,
    offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// Where the headers of a TCP packet are.
#[derive(Clone, Copy)]
pub struct Located {
    /// The packet.
    pub skb: *mut __sk_buff,
    /// Whether it is IPv6.
    pub v6: bool,
    /// Offset of the IP header.
    pub ip: usize,
    /// Offset of the TCP header.
    pub tcp: usize,
    /// Whether it is the first fragment of a datagram.
    pub fragment: bool,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// Finds the headers of a TCP packet whose IP header begins after `link` bytes: as far as the
/// ports, which the first fragment of a datagram always has, and nobody can keep out of it.
#[inline(always)]
pub fn locate(skb: *mut __sk_buff, link: usize) -> Result<Located, Miss> {
    if link == ETHERNET && at::<[u8; V6_HEADER]>(skb, link).is_none() {
        pull(skb, PULL);
    }
    if link == ETHERNET && is_tagged(skb) {
        return Err(Miss::Other);
    }
    let v6 = is_v6(skb, link).ok_or(Miss::Other)?;
    let transport = if v6 {
        header::v6(skb, link)?
    } else {
        header::v4(skb, link)?
    };
    if link == ETHERNET && at_unknown::<TcpHeader>(skb, transport.offset).is_none() {
        pull(skb, (transport.offset + size_of::<TcpHeader>()) as u32);
    }
    let ports = at_unknown::<[u16; 2]>(skb, transport.offset).ok_or(Miss::Other)?;
    // SAFETY: `at_unknown` has checked the bounds.
    let [source, destination] = unsafe { *ports };
    Ok(Located {
        skb,
        v6,
        ip: link,
        tcp: transport.offset,
        fragment: transport.fragment,
        source_port: u16::from_be(source),
        destination_port: u16::from_be(destination),
    })
}

/// Whether the packet belongs to a VLAN, whose own interface sees it without the tag: the kernel takes
/// that out of the frame before anybody looks. Number 0 is a priority alone (IEEE 802.1Q, 9.6). Before
/// Linux 6.2 the number stays where it was when the tag has gone.
#[inline(always)]
fn is_tagged(skb: *mut __sk_buff) -> bool {
    const NUMBER: u32 = 0x0fff;
    // SAFETY: the context is the kernel's.
    unsafe { (*skb).vlan_present != 0 && (*skb).vlan_tci & NUMBER != 0 }
}

/// Whether the packet says of itself that it is IPv6. `None` if it is not IP.
#[inline(always)]
fn is_v6(skb: *mut __sk_buff, link: usize) -> Option<bool> {
    if link == ETHERNET {
        return match read!(skb, ETHERTYPE_OFFSET, u16)? {
            ETHERTYPE_V4 => Some(false),
            ETHERTYPE_V6 => Some(true),
            _ => None,
        };
    }
    // Twenty bytes at once: the verifier does not follow a check of the very first byte.
    let header = at::<[u8; 20]>(skb, link)?;
    // SAFETY: `at` has checked the bounds.
    Some(unsafe { (*header)[0] >> 4 == 6 })
}

impl Located {
    /// The segment. `None` if its header is cut off or contradicts itself.
    #[inline(always)]
    pub fn segment(&self) -> Option<Segment> {
        let header = at_unknown::<TcpHeader>(self.skb, self.tcp)?;
        // SAFETY: `at_unknown` has checked the bounds.
        let (header, whole) = unsafe { (*header, (*self.skb).len) };
        let length = u32::from(header.offset >> 4) * 4;
        let payload = self.tcp as u32 + length;
        let end = self.end()?.min(whole);
        if length < size_of::<TcpHeader>() as u32 || payload > end {
            return None;
        }
        Some(Segment {
            skb: self.skb,
            seq: u32::from_be(header.seq),
            ack: u32::from_be(header.ack),
            flags: Flags(header.flags),
            payload,
            len: end - payload,
        })
    }

    /// Where the datagram ends by its own account; behind it there may be padding. A length of 0
    /// is that of a buffer beyond 64 KiB (BIG TCP): then all of it counts.
    #[inline(always)]
    fn end(&self) -> Option<u32> {
        let (stated, from) = if self.v6 {
            (read!(self.skb, self.ip + 4, u16)?, self.ip + V6_HEADER)
        } else {
            (read!(self.skb, self.ip + 2, u16)?, self.ip)
        };
        Some(if stated == 0 {
            u32::MAX
        } else {
            from as u32 + u32::from(stated)
        })
    }
}
