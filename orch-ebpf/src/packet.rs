//! The only parser. It finds the TCP header in two steps, so that a packet that is not ours costs
//! no more than the first: `locate` gives the ports, `Located::segment` the rest. Header lengths
//! are checked against the packet and each other; nothing here can fail but by answering `None`.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_pull_data};
use orch_common::{address::Address, flow::Flags};

use crate::{opaque::opaque, segment::Segment};

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// A packet that begins with its IP header, as cgroup programs see it.
pub const BARE: usize = 0;

const ETHERTYPE_OFFSET: usize = 12;
const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;
const TCP: u8 = 6;
const V6_HEADER: usize = 40;
/// More fragments, and the offset of a fragment (RFC 791, 3.1).
const FRAGMENT: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;
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
    skb: *mut __sk_buff,
    header: *const TcpHeader,
    v6: bool,
    ip: usize,
    /// Offset of the TCP header.
    pub tcp: usize,
    /// Whether it is the first fragment of a datagram.
    pub fragment: bool,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// A pointer to `T` at an offset, if all of it lies within reach.
#[inline(always)]
fn at<T>(skb: *mut __sk_buff, offset: usize) -> Option<*const T> {
    // SAFETY: the context is the kernel's; the verifier knows these two fields.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if data + offset + size_of::<T>() > end {
        return None;
    }
    Some((data + offset) as *const T)
}

/// The TCP header, whose offset is not known at compile time.
#[inline(always)]
fn tcp_header(skb: *mut __sk_buff, offset: usize) -> Option<*const TcpHeader> {
    // SAFETY: as in `at`.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let start = opaque(data + offset);
    if start + size_of::<TcpHeader>() > end {
        return None;
    }
    Some(start as *const TcpHeader)
}

/// A number in network order. IP headers are aligned to four bytes in memory (`NET_IP_ALIGN`).
macro_rules! read {
    ($skb:expr, $offset:expr, $kind:ty) => {
        // SAFETY: `at` has checked the bounds, and the verifier checks them again.
        at::<$kind>($skb, $offset).map(|pointer| <$kind>::from_be(unsafe { *pointer }))
    };
}

/// Finds the headers of a TCP packet whose IP header begins after `link` bytes. `None` if it is
/// something else or cut off.
#[inline(always)]
pub fn locate(skb: *mut __sk_buff, link: usize) -> Option<Located> {
    if link == ETHERNET && at::<[u8; 40]>(skb, link).is_none() {
        // Only TC programs may. At a socket, headers always lie in direct reach.
        // SAFETY: the context is the kernel's. A packet shorter than asked for stays as it is.
        unsafe {
            let len = if (*skb).len < PULL { (*skb).len } else { PULL };
            bpf_skb_pull_data(skb, len);
        }
    }
    let v6 = if link == ETHERNET {
        match read!(skb, ETHERTYPE_OFFSET, u16)? {
            ETHERTYPE_V4 => false,
            ETHERTYPE_V6 => true,
            _ => return None,
        }
    } else {
        // Twenty bytes at once: the verifier does not follow a check of the very first byte.
        let header = at::<[u8; 20]>(skb, link)?;
        // SAFETY: `at` has checked the bounds.
        unsafe { (*header)[0] >> 4 == 6 }
    };
    let (tcp, fragment) = if v6 {
        v6_header(skb, link)?
    } else {
        v4_header(skb, link)?
    };
    let header = tcp_header(skb, tcp)?;
    // SAFETY: `tcp_header` has checked the bounds.
    let (source, destination) = unsafe { ((*header).source_port, (*header).destination_port) };
    Some(Located {
        skb,
        header,
        v6,
        ip: link,
        tcp,
        fragment,
        source_port: u16::from_be(source),
        destination_port: u16::from_be(destination),
    })
}

/// Offset of the TCP header behind an IPv4 header, and whether it is a first fragment.
#[inline(always)]
fn v4_header(skb: *mut __sk_buff, ip: usize) -> Option<(usize, bool)> {
    let first = read!(skb, ip, u8)?;
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || length < 20 || read!(skb, ip + 9, u8)? != TCP {
        return None;
    }
    let fragment = read!(skb, ip + 6, u16)?;
    if fragment & FRAGMENT_OFFSET != 0 {
        return None;
    }
    Some((ip + length, fragment & FRAGMENT != 0))
}

/// Offset of the TCP header behind an IPv6 header without extensions.
#[inline(always)]
fn v6_header(skb: *mut __sk_buff, ip: usize) -> Option<(usize, bool)> {
    (read!(skb, ip + 6, u8)? == TCP).then_some((ip + V6_HEADER, false))
}

impl Located {
    /// Source and destination address.
    #[inline(always)]
    pub fn addresses(&self) -> Option<(Address, Address)> {
        let (mut source, mut destination) = ([0, 0, MAPPED, 0], [0, 0, MAPPED, 0]);
        if self.v6 {
            let found = at::<[[u32; 4]; 2]>(self.skb, self.ip + 8)?;
            // SAFETY: `at` has checked the bounds.
            [source, destination] = unsafe { *found };
        } else {
            let found = at::<[u32; 2]>(self.skb, self.ip + 12)?;
            // SAFETY: `at` has checked the bounds.
            [source[3], destination[3]] = unsafe { *found };
        }
        Some((bytes(source), bytes(destination)))
    }

    /// The segment. `None` if its header is cut off or contradicts itself.
    #[inline(always)]
    pub fn segment(&self) -> Option<Segment> {
        // SAFETY: `tcp_header` has checked the bounds, and nothing has changed the packet since.
        let (header, whole) = unsafe { (*self.header, (*self.skb).len) };
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

/// `::ffff:0:0/96` as the third word of an address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Words as they lie in memory, as bytes.
#[inline(always)]
fn bytes(words: [u32; 4]) -> Address {
    // SAFETY: both are sixteen plain bytes.
    unsafe { core::mem::transmute::<[u32; 4], Address>(words) }
}
