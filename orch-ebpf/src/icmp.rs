//! ICMP errors about balanced connections: a router says that a reply was too large, or found no
//! way. It quotes the reply as it left this host, so only the balancer knows whose it was. The
//! error is led to that backend, whose kernel checks the sequence number in it (RFC 5927, 4.1).

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use orch_common::{address, counter::Reason, flow::FlowKey, service::PortClass};

use crate::{
    backend, direct, header::Miss, maps, packet::ETHERNET, quote, redirect, verdict::Verdict,
};

const TCP: u8 = 6;
const V4: u8 = 4;
const V6: u8 = 6;
const V6_HEADER: usize = 40;
/// ICMP's own header (RFC 792, RFC 4443, 2.1): the packet that it is about follows.
const ICMP_HEADER: usize = 8;

/// An ICMP error that quotes a TCP segment of this host.
pub struct Quote {
    /// The packet.
    pub skb: *mut __sk_buff,
    /// Whether it is IPv6.
    pub v6: bool,
    /// Offset of the ICMP header.
    pub icmp: usize,
    /// Offset of the quoted IP header.
    pub ip: usize,
    /// Offset of the quoted TCP header.
    pub tcp: usize,
}

/// `orch_icmp` answers: nothing of ours.
const NOT_OURS: i32 = i32::MIN;
/// The same: it goes on to this host.
const HERE: i32 = -1;
/// The same: it could not be rewritten.
const BROKEN: i32 = -2;

/// A packet in which no TCP was found arrives at an uplink.
#[inline(always)]
pub fn about_a_flow(skb: *mut __sk_buff, miss: Miss) -> Verdict {
    match orch_icmp(skb) {
        NOT_OURS => direct::missed(skb, miss),
        HERE => Verdict::Pass(Reason::Icmp),
        BROKEN => Verdict::Drop(Reason::Malformed),
        action => Verdict::Redirect(Reason::Icmp, action),
    }
}

/// Checked once, by itself (`choice`). Gives a TC action, or one of the answers above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_icmp(skb: *mut __sk_buff) -> i32 {
    let Some(version) = load::<u8>(skb, ETHERNET).map(|first| first >> 4) else {
        return NOT_OURS;
    };
    let mut key = FlowKey {
        client: address::ANY_V6,
        local: address::ANY_V6,
        client_port: 0,
        local_port: 0,
    };
    let found = match version {
        V4 => v4(skb, &mut key),
        V6 => v6(skb, &mut key),
        _ => None,
    };
    let Some(quote) = found else {
        return NOT_OURS;
    };
    let Some([source, destination]) = load::<[u16; 2]>(skb, quote.tcp) else {
        return NOT_OURS;
    };
    key.local_port = u16::from_be(source);
    key.client_port = u16::from_be(destination);
    lead(&quote, &key).unwrap_or(NOT_OURS)
}

#[inline(always)]
fn lead(quote: &Quote, key: &FlowKey) -> Option<i32> {
    if matches!(maps::port(key.local_port).class, PortClass::Other) {
        return None;
    }
    let flow = maps::flow(key).filter(|flow| backend::is_current(flow) && !flow.is_of_socket())?;
    if !quote::to_backend(quote, key, flow) {
        return Some(BROKEN);
    }
    Some(if flow.is_direct() {
        redirect::into_backend(flow)
    } else {
        HERE
    })
}

/// An error of ICMP (RFC 792), and the flow that it is about. Fragments are left alone.
#[inline(always)]
fn v4(skb: *mut __sk_buff, key: &mut FlowKey) -> Option<Quote> {
    const ICMP: u8 = 1;
    let icmp = ETHERNET + v4_header(skb, ETHERNET, ICMP)?;
    // Unreachable, too large (a code of unreachable), time exceeded, parameter problem.
    if !matches!(load::<u8>(skb, icmp)?, 3 | 11 | 12) {
        return None;
    }
    let ip = icmp + ICMP_HEADER;
    let tcp = ip + v4_header(skb, ip, TCP)?;
    let local = load::<[u8; 4]>(skb, ip + 12)?;
    if load::<[u8; 4]>(skb, ETHERNET + 16)? != local {
        return None;
    }
    key.local = address::from_v4(local);
    key.client = address::from_v4(load(skb, ip + 16)?);
    Some(Quote {
        skb,
        v6: false,
        icmp,
        ip,
        tcp,
    })
}

/// Length of the header at an offset. `None` for another protocol, or a fragment.
#[inline(always)]
fn v4_header(skb: *mut __sk_buff, at: usize, protocol: u8) -> Option<usize> {
    let first = load::<u8>(skb, at)?;
    let length = usize::from(first & 0x0f) * 4;
    let fragment = u16::from_be(load(skb, at + 6)?) & 0x3fff;
    let fits = first >> 4 == V4 && length >= 20 && load::<u8>(skb, at + 9)? == protocol;
    (fits && fragment == 0).then_some(length)
}

/// An error of `ICMPv6` (RFC 4443, 3). Extension headers, outside or quoted, are left alone.
#[inline(always)]
fn v6(skb: *mut __sk_buff, key: &mut FlowKey) -> Option<Quote> {
    const ICMP_V6: u8 = 58;
    let icmp = ETHERNET + V6_HEADER;
    let ip = icmp + ICMP_HEADER;
    // Unreachable, too large, time exceeded, parameter problem.
    let is_error = matches!(load::<u8>(skb, icmp)?, 1..=4);
    if load::<u8>(skb, ETHERNET + 6)? != ICMP_V6 || !is_error || load::<u8>(skb, ip + 6)? != TCP {
        return None;
    }
    // Whom the error is for must have sent what it quotes.
    load_to(skb, ETHERNET + 24, &mut key.client)?;
    load_to(skb, ip + 8, &mut key.local)?;
    if key.client != key.local {
        return None;
    }
    load_to(skb, ip + 24, &mut key.client)?;
    Some(Quote {
        skb,
        v6: true,
        icmp,
        ip,
        tcp: ip + V6_HEADER,
    })
}

/// Plain bytes of the packet, wherever they are in it.
#[inline(always)]
fn load<T: Copy + Default>(skb: *mut __sk_buff, offset: usize) -> Option<T> {
    let mut value = T::default();
    load_to(skb, offset, &mut value)?;
    Some(value)
}

/// The same into a place that is there already: the stack is short.
#[inline(always)]
fn load_to<T: Copy>(skb: *mut __sk_buff, offset: usize, value: &mut T) -> Option<()> {
    let size = size_of::<T>() as u32;
    // SAFETY: the helper checks the offset against the packet, and fills all of the value or fails;
    // any bytes are a value of the arrays and numbers that it is called for.
    let failed = unsafe {
        let value = core::ptr::from_mut(value).cast();
        bpf_skb_load_bytes(skb.cast(), offset as u32, value, size)
    };
    (failed == 0).then_some(())
}
