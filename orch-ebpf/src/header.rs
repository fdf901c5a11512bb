//! What lies between the link layer and TCP: IP headers, their options and extensions.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};

use crate::reach::read;

const TCP: u8 = 6;
const V6_HEADER: usize = 40;
/// More fragments, and the offset of a fragment (RFC 791, 3.1).
const FRAGMENT: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// Extension headers that are walked through: RFC 8200, 4.1 knows no reason for more.
const EXTENSIONS: usize = 6;

/// Why a packet is not looked at.
#[derive(Clone, Copy)]
pub enum Miss {
    /// It is something else, or cut off.
    Other,
    /// TCP may be in it, behind more extension headers than anybody needs.
    Hidden,
}

/// Where a TCP header is.
#[derive(Clone, Copy)]
pub struct Transport {
    /// Its offset.
    pub offset: usize,
    /// Whether it is in the first fragment of a datagram.
    pub fragment: bool,
}

/// Finds TCP behind an IPv4 header.
#[inline(always)]
pub fn v4(skb: *mut __sk_buff, ip: usize) -> Result<Transport, Miss> {
    let first = read!(skb, ip, u8).ok_or(Miss::Other)?;
    let length = usize::from(first & 0x0f) * 4;
    let protocol = read!(skb, ip + 9, u8).ok_or(Miss::Other)?;
    if first >> 4 != 4 || length < 20 || protocol != TCP {
        return Err(Miss::Other);
    }
    let fragment = read!(skb, ip + 6, u16).ok_or(Miss::Other)?;
    if fragment & FRAGMENT_OFFSET != 0 {
        return Err(Miss::Other);
    }
    Ok(Transport {
        offset: ip + length,
        fragment: fragment & FRAGMENT != 0,
    })
}

/// Finds TCP behind an IPv6 header and its extensions.
#[inline(always)]
pub fn v6(skb: *mut __sk_buff, ip: usize) -> Result<Transport, Miss> {
    let kind = read!(skb, ip + 6, u8).ok_or(Miss::Other)?;
    let version = read!(skb, ip, u8).ok_or(Miss::Other)? >> 4;
    if version != 6 {
        return Err(Miss::Other);
    }
    if kind == TCP {
        return Ok(Transport {
            offset: ip + V6_HEADER,
            fragment: false,
        });
    }
    extended(skb, ip + V6_HEADER, kind)
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENTED: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Walks through extension headers. The first of kind `kind` is at `start`. In plain numbers: a
/// structure would lie in memory for a while, where the verifier loses its bounds.
#[inline(always)]
fn extended(skb: *mut __sk_buff, start: usize, mut kind: u8) -> Result<Transport, Miss> {
    let (mut offset, mut fragment) = (start, false);
    for _ in 0..EXTENSIONS {
        let [next, length, _, low] = extension(skb, offset, kind)
            .ok_or(Miss::Other)?
            .to_be_bytes();
        fragment |= kind == FRAGMENTED && low & 1 != 0;
        offset += match kind {
            FRAGMENTED => 8,
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        if next == TCP {
            return Ok(Transport { offset, fragment });
        }
        kind = next;
    }
    match extension(skb, offset, kind) {
        Some(_) => Err(Miss::Hidden),
        None => Err(Miss::Other),
    }
}

/// The first four bytes of the extension header at an offset (RFC 8200, 4). `None` if `kind` is
/// none that this host would walk through, or if it belongs to a later fragment.
#[inline(always)]
fn extension(skb: *mut __sk_buff, offset: usize, kind: u8) -> Option<u32> {
    if !matches!(
        kind,
        HOP_BY_HOP | ROUTING | FRAGMENTED | AUTHENTICATION | DESTINATION
    ) {
        return None;
    }
    let mut bytes = [0_u8; 4];
    // SAFETY: the helper checks the offset against the packet and fills the buffer or fails.
    let failed = unsafe {
        bpf_skb_load_bytes(
            skb.cast(),
            offset as u32,
            bytes.as_mut_ptr().cast(),
            bytes.len() as u32,
        )
    };
    let word = u32::from_be_bytes(bytes);
    let later = kind == FRAGMENTED && word & 0xfff8 != 0;
    (failed == 0 && !later).then_some(word)
}
