//! What may become of a frame: a parser and a judge of its own, written from the RFCs alone.

use std::net::{IpAddr, SocketAddr};

use orch::dataplane::Trial;
use orch_common::layout::program::{EGRESS, ENTRY, GUARD, INGRESS, VETH};

use super::{
    super::world::{DROP, PASS, REDIRECT, at, at6, backend, backend6},
    DIRECT, SLOT_PORTS,
};

/// What may become of a frame that is TCP to or from a port of the service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ours {
    /// Nothing may change.
    Not,
    /// To the service: the destination port may change to a slot's.
    Service,
    /// To a slot's port in a way that could open a connection: must be dropped.
    Slot,
    /// From a slot's port: the source port may change to the service's.
    Reply,
    /// From a backend's own address and port: its source may change to the service's address and
    /// port, it may become a SYN for another backend, or be dropped.
    Answer,
}

impl Ours {
    pub(super) const COUNT: usize = 5;
}

/// TCP as this oracle sees it.
struct Seen {
    /// Offset of the TCP header.
    tcp: usize,
    /// The source's address for what leaves, the destination's for what arrives.
    local: IpAddr,
    from_port: u16,
    to_port: u16,
    fragment: bool,
    /// Flags, where the whole header is there and does not contradict itself.
    flags: Option<u8>,
}

pub(super) fn number(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

/// Where TCP is in a frame, if it is there. `Err` for extension headers without an end.
fn see(frame: &[u8], destination: bool) -> Result<Option<Seen>, IpAddr> {
    Ok(match number(frame, 12) {
        Some(0x0800) => see_v4(frame, destination),
        Some(0x86dd) if frame.len() >= 54 && frame[14] >> 4 == 6 => {
            return see_v6(frame, destination);
        }
        _ => None,
    })
}

fn see_v4(frame: &[u8], destination: bool) -> Option<Seen> {
    let header = usize::from(frame.get(14)? & 15) * 4;
    let place = number(frame, 20)?;
    if frame[14] >> 4 != 4 || header < 20 || *frame.get(23)? != 6 || place & 0x1fff != 0 {
        return None;
    }
    let at = if destination { 30 } else { 26 };
    let octets: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
    let stated = 14 + usize::from(number(frame, 16)?);
    let end = if stated == 14 { usize::MAX } else { stated };
    behind_ip(frame, 14 + header, end, octets.into(), place & 0x2000 != 0)
}

fn see_v6(frame: &[u8], destination: bool) -> Result<Option<Seen>, IpAddr> {
    let octets: [u8; 16] = frame[if destination { 38 } else { 22 }..][..16]
        .try_into()
        .unwrap();
    let local = IpAddr::from(octets);
    let stated = usize::from(number(frame, 18).unwrap());
    let end = if stated == 0 { usize::MAX } else { 54 + stated };
    let (mut kind, mut at, mut fragment) = (frame[20], 54, false);
    for _ in 0..=6 {
        if kind == 6 {
            return Ok(behind_ip(frame, at, end, local, fragment));
        }
        let Some(head) = frame.get(at..at + 4) else {
            return Ok(None);
        };
        at += match kind {
            0 | 43 | 60 => 8 * (usize::from(head[1]) + 1),
            51 => 4 * (usize::from(head[1]) + 2),
            44 if head[2] == 0 && head[3] & 0xf8 == 0 => 8,
            _ => return Ok(None),
        };
        fragment |= kind == 44 && head[3] & 1 == 1;
        kind = head[0];
    }
    Err(local)
}

fn behind_ip(frame: &[u8], tcp: usize, end: usize, local: IpAddr, fragment: bool) -> Option<Seen> {
    let (from_port, to_port) = (number(frame, tcp)?, number(frame, tcp + 2)?);
    let end = end.min(frame.len());
    let offset = frame
        .get(tcp + 12)
        .map_or(0, |byte| usize::from(byte >> 4) * 4);
    let whole = frame.len() >= tcp + 20 && offset >= 20 && tcp + offset <= end;
    Some(Seen {
        tcp,
        local,
        from_port,
        to_port,
        fragment,
        flags: whole.then(|| frame[tcp + 13]),
    })
}

/// What the programs may do to this frame.
pub(super) fn judge(program: &str, frame: &[u8], addresses: &[IpAddr]) -> (Ours, usize) {
    if program == ENTRY {
        return (Ours::Not, 0);
    }
    let arrives = program == INGRESS || program == GUARD;
    let seen = match see(frame, arrives) {
        Ok(Some(seen)) => seen,
        Err(local) if arrives && addresses.contains(&local) => return (Ours::Slot, 0),
        _ => return (Ours::Not, 0),
    };
    let here = addresses.contains(&seen.local);
    let asks = seen.flags.is_some_and(|flags| flags & 0x12 == 2);
    let ours = if program == VETH {
        let from = SocketAddr::new(seen.local, seen.from_port);
        let ours = ends(&from).contains(&from) && seen.flags.is_some();
        if ours { Ours::Answer } else { Ours::Not }
    } else if program == EGRESS {
        let ours = SLOT_PORTS.contains(&seen.from_port) && seen.flags.is_some();
        if ours { Ours::Reply } else { Ours::Not }
    } else if here && SLOT_PORTS.contains(&seen.to_port) && (asks || seen.fragment) {
        Ours::Slot
    } else if here && program == INGRESS && seen.to_port == 80 && seen.flags.is_some() {
        if seen.fragment {
            Ours::Not
        } else {
            Ours::Service
        }
    } else {
        Ours::Not
    };
    (ours, seen.tcp)
}

/// The backends of delivery `direct`, in the family of an address.
fn ends(like: &SocketAddr) -> [SocketAddr; DIRECT.len()] {
    DIRECT.map(if like.is_ipv4() { backend } else { backend6 })
}

/// Where a frame has the fields of one of its ends.
struct Fields {
    v4: bool,
    tcp: usize,
    address: usize,
    port: usize,
}

impl Fields {
    fn of(frame: &[u8], tcp: usize, source: bool) -> Self {
        let v4 = number(frame, 12) == Some(0x0800);
        Self {
            v4,
            tcp,
            address: match (v4, source) {
                (true, true) => 26,
                (true, false) => 30,
                (false, true) => 22,
                (false, false) => 38,
            },
            port: if source { tcp } else { tcp + 2 },
        }
    }

    fn address_bytes(&self) -> std::ops::Range<usize> {
        self.address..self.address + if self.v4 { 4 } else { 16 }
    }

    fn end(&self, frame: &[u8]) -> Option<SocketAddr> {
        let bytes = frame.get(self.address_bytes())?;
        let ip = if self.v4 {
            IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)
        } else {
            IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)
        };
        Some(SocketAddr::new(ip, number(frame, self.port)?))
    }

    /// Whether the change of this end, and of the checksums over it, is all that happened.
    fn alone_changed(&self, before: &[u8], after: &[u8]) -> bool {
        if before.len() != after.len() {
            return false;
        }
        let mut restored = after.to_vec();
        let mut restore = |range: std::ops::Range<usize>| {
            restored[range.clone()].copy_from_slice(&before[range]);
        };
        restore(self.address_bytes());
        restore(self.port..self.port + 2);
        restore(self.tcp + 16..self.tcp + 18);
        if self.v4 {
            restore(24..26);
        }
        let sum = |frame: &[u8], extra: &[usize]| {
            let address = self.address_bytes().step_by(2);
            let fields = address.chain(extra.iter().copied());
            fields
                .map(|at| u32::from(number(frame, at).unwrap()))
                .sum::<u32>()
                % 0xffff
        };
        let same = |extra: &[usize]| sum(before, extra) == sum(after, extra);
        restored == before && same(&[self.port, self.tcp + 16]) && (!self.v4 || same(&[24]))
    }
}

/// Whether only the port of one end has changed, to an allowed one.
fn only_a_port(before: &[u8], after: &[u8], fields: &Fields, allowed: &[u16]) -> bool {
    before == after
        || fields.alone_changed(before, after)
            && before[fields.address_bytes()] == after[fields.address_bytes()]
            && fields
                .end(after)
                .is_some_and(|end| allowed.contains(&end.port()))
}

/// Whether only one end has changed, to an allowed one.
fn only_an_end(before: &[u8], after: &[u8], fields: &Fields, allowed: &[SocketAddr]) -> bool {
    fields.alone_changed(before, after)
        && fields.end(after).is_some_and(|end| allowed.contains(&end))
}

/// Whether a backend's refusal became the SYN of its client for another backend. What it is to look
/// like in full is in the tables; which SYN it was cannot be seen here, where clients make up numbers.
fn is_rescued(before: &[u8], after: &[u8], tcp: usize) -> bool {
    let (from, to) = (
        Fields::of(before, tcp, true),
        Fields::of(before, tcp, false),
    );
    let (Some(refusing), Some(client)) = (from.end(before), to.end(before)) else {
        return false;
    };
    let Some(taking) = to.end(after) else {
        return false;
    };
    let others = ends(&refusing);
    before[tcp + 13] & 0x14 == 0x14
        && after[tcp + 13] & 0x17 == 2
        && after.len() == tcp + usize::from(after[tcp + 12] >> 4) * 4
        && from.end(after) == Some(client)
        && taking != refusing
        && others.contains(&taking)
        && after[12..14] == before[12..14]
        && residue(before, tcp) == residue(after, tcp)
        && is_plain(after, tcp)
}

/// What is wrong about a TCP checksum; 0 if it is right. It must stay wrong, so that nobody takes what
/// was damaged.
fn residue(frame: &[u8], tcp: usize) -> u32 {
    let addresses = if number(frame, 12) == Some(0x0800) {
        26..34
    } else {
        22..54
    };
    let segment = &frame[tcp..];
    (sum(&frame[addresses]) + 6 + segment.len() as u32 + sum(segment)) % 0xffff
}

/// Whether the IP header is plain and right: version, length, next header, checksum.
fn is_plain(frame: &[u8], tcp: usize) -> bool {
    let length = |at: usize| usize::from(number(frame, at).unwrap());
    if number(frame, 12) == Some(0x0800) {
        return tcp == 34
            && frame[14] == 0x45
            && length(16) == frame.len() - 14
            && frame[23] == 6
            && sum(&frame[14..34]).is_multiple_of(0xffff);
    }
    tcp == 54 && frame[14] >> 4 == 6 && length(18) == frame.len() - 54 && frame[20] == 6
}

fn sum(bytes: &[u8]) -> u32 {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(pair).sum()
}

/// Whether what a program made of a frame is one of what it may make of it.
pub(super) fn is_right(
    ours: Ours,
    before: &[u8],
    trial: &Trial,
    tcp: usize,
    slots: &[u16],
) -> bool {
    let (verdict, after) = (trial.verdict, trial.frame.as_slice());
    let same = after == before;
    match (ours, verdict) {
        (Ours::Service, PASS) => only_a_port(before, after, &Fields::of(before, tcp, false), slots),
        (Ours::Service, REDIRECT) => {
            let fields = Fields::of(before, tcp, false);
            let asked = fields.end(before).unwrap();
            only_an_end(before, after, &fields, &ends(&asked))
        }
        (Ours::Reply, PASS) => only_a_port(before, after, &Fields::of(before, tcp, true), &[80]),
        (Ours::Answer, REDIRECT) => {
            let fields = Fields::of(before, tcp, true);
            only_an_end(before, after, &fields, &[at(80), at6(80)])
                || is_rescued(before, after, tcp)
        }
        // A late answer to a SYN that another backend has been given since.
        (Ours::Answer, DROP) => same && matches!(before[tcp + 13] & 0x16, 0x12 | 0x14 | 0x16),
        (Ours::Slot, DROP) | (Ours::Not | Ours::Answer, PASS) => same,
        _ => false,
    }
}
