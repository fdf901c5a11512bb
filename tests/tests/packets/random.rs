//! A million random frames through every TC program: what is not ours comes out as it went in. What
//! is ours is decided by a parser of its own, written from the RFCs alone.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
};

use orch_common::{
    counter::Reason,
    layout::program::{EGRESS, GUARD, INGRESS},
};
use orch_tests::frame::{Tcp, tagged};

use super::world::{DROP, PASS, World, at, at6, client, client6, hex};

const FRAMES: u64 = 1_000_000;
const THREADS: u64 = 2;
const SEED: u64 = 0x0001_0c7e_57ab_1e5d;
/// Slots that the service may have: 8000 to 8009.
const SLOT_PORTS: std::ops::Range<u16> = 8000..8010;

/// A small generator (xorshift64*), so that a seed gives the same frames everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 33) as usize) % limit
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// What may become of a frame that is TCP to or from a port of the service.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ours {
    /// Nothing may change.
    Not,
    /// To the service: the destination port may change to a slot's.
    Service,
    /// To a slot's port in a way that could open a connection: must be dropped.
    Slot,
    /// From a slot's port: the source port may change to the service's.
    Reply,
}

/// TCP as this oracle sees it.
struct Seen {
    /// Offset of the TCP header.
    tcp: usize,
    local: IpAddr,
    from_port: u16,
    to_port: u16,
    fragment: bool,
    /// Flags, where the whole header is there and does not contradict itself.
    flags: Option<u8>,
}

fn number(frame: &[u8], at: usize) -> Option<u16> {
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
fn judge(program: &str, frame: &[u8], addresses: &[IpAddr]) -> (Ours, usize) {
    let seen = match see(frame, program != EGRESS) {
        Ok(Some(seen)) => seen,
        Err(local) if program != EGRESS && addresses.contains(&local) => return (Ours::Slot, 0),
        _ => return (Ours::Not, 0),
    };
    let here = addresses.contains(&seen.local);
    let asks = seen.flags.is_some_and(|flags| flags & 0x12 == 2);
    let ours = if program == EGRESS {
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

/// Whether the change of a port, and of the checksum over it, is all that happened.
fn only_a_port(before: &[u8], after: &[u8], port_at: usize, tcp: usize, allowed: &[u16]) -> bool {
    if before == after {
        return true;
    }
    let mut restored = after.to_vec();
    let Some(port) = number(after, port_at) else {
        return false;
    };
    restored[port_at..port_at + 2].copy_from_slice(&before[port_at..port_at + 2]);
    restored[tcp + 16..tcp + 18].copy_from_slice(&before[tcp + 16..tcp + 18]);
    let sum = |frame: &[u8]| {
        let of = |at| u32::from(number(frame, at).unwrap());
        (of(port_at) + of(tcp + 16)) % 0xffff
    };
    restored == before && allowed.contains(&port) && sum(before) == sum(after)
}

/// A random frame: noise, noise behind a true header, or a true frame that was tampered with.
fn roll(dice: &mut Dice) -> Vec<u8> {
    if dice.one_in(8) {
        let len = 14 + dice.below(150);
        let mut noise = dice.bytes(len);
        let kind = dice.of(&[0x0800_u16, 0x86dd, 0x0806, 0x8100]);
        noise[12..14].copy_from_slice(&kind.to_be_bytes());
        return noise;
    }
    let mut frame = segment(dice).frame();
    if dice.one_in(16) {
        frame = tagged(&frame, dice.below(4096) as u16);
    }
    if dice.one_in(2) {
        for _ in 0..=dice.below(3) {
            tamper(dice, &mut frame);
        }
    }
    if dice.one_in(4) {
        frame.truncate(14 + dice.below(frame.len() - 13));
    }
    frame
}

/// A segment of the service's surroundings.
fn segment(dice: &mut Dice) -> Tcp {
    let port = dice.of(&[80, 80, 80, 8000, 8001, 8009, 8010, 7999, 81, 443]);
    let peer = 40_000 + dice.below(500) as u16;
    let (mut here, there) = if dice.one_in(3) {
        (at6(port), client6(peer))
    } else {
        (at(port), client(peer))
    };
    if dice.one_in(8) {
        let elsewhere: [IpAddr; 2] = ["10.9.0.77".parse().unwrap(), "fd09::77".parse().unwrap()];
        here.set_ip(elsewhere[usize::from(here.is_ipv6())]);
    }
    let (from, to): (SocketAddr, SocketAddr) = if dice.one_in(3) {
        (here, there)
    } else {
        (there, here)
    };
    let flags = dice.of(&[2, 2, 18, 16, 24, 17, 4, 20, dice.0 as u8]);
    let mut tcp = Tcp::new(from, to, flags).numbers(dice.next() as u32, dice.next() as u32);
    let len = dice.below(60);
    tcp.payload = dice.bytes(len);
    tcp.options = vec![1; 4 * dice.below(11)];
    if dice.one_in(4) {
        tcp.ip_options = vec![1; 4 * dice.below(11)];
        tcp.fragment = dice.of(&[0, 0x4000, 0x2000, 1, 0x2001]);
        for _ in 0..dice.below(9) {
            let kind = dice.of(&[0, 43, 44, 51, 60]);
            let mut bytes = vec![0; 7];
            if kind == 44 {
                bytes[2] = dice.of(&[0, 0, 1, 8]);
            }
            tcp.extensions.push((kind, bytes));
        }
    }
    tcp.padding = dice.of(&[0, 0, 6, 40]);
    tcp
}

fn tamper(dice: &mut Dice, frame: &mut [u8]) {
    let len = frame.len();
    let at = match dice.below(4) {
        // Version and header length, lengths, data offset, anything.
        0 => 14,
        1 => dice.of(&[16, 17, 18, 19, 20]),
        2 => dice.of(&[46, 47, 66, 67]),
        _ => dice.below(len),
    };
    frame[at.min(len - 1)] = dice.next() as u8;
}

/// Runs its share of the frames and gives what each kind of frame came to.
fn share(seed: u64, frames: u64) -> [u64; 4] {
    let mut world = World::new();
    let addresses: Vec<IpAddr> = ["10.9.0.1", "fd09::1", "127.0.0.1", "::1"]
        .map(|address| address.parse().unwrap())
        .to_vec();
    let slots: Vec<u16> = SLOT_PORTS.collect();
    let mut dice = Dice(seed);
    let mut kinds = [0; 4];
    for count in 0..frames {
        let frame = roll(&mut dice);
        let place = format!("seed {seed:#x}, frame {count}");
        for program in [INGRESS, EGRESS, GUARD] {
            let (ours, tcp) = judge(program, &frame, &addresses);
            kinds[ours as usize] += 1;
            let Ok(trial) = world.plane().trial(program, &frame) else {
                // The kernel takes no frame into a test run that ends within its IP header.
                let least = if number(&frame, 12) == Some(0x86dd) {
                    54
                } else {
                    34
                };
                assert!(frame.len() < least, "{place}: {}", hex(&frame));
                continue;
            };
            let right = match ours {
                Ours::Not => trial.verdict == PASS && trial.frame == frame,
                Ours::Slot => trial.verdict == DROP && trial.frame == frame,
                Ours::Service => {
                    trial.verdict == PASS && only_a_port(&frame, &trial.frame, tcp + 2, tcp, &slots)
                }
                Ours::Reply => {
                    trial.verdict == PASS && only_a_port(&frame, &trial.frame, tcp, tcp, &[80])
                }
            };
            assert!(
                right,
                "{place}, {program}: {ours:?}, verdict {}\n in {}\nout {}",
                trial.verdict,
                hex(&frame),
                hex(&trial.frame)
            );
        }
    }
    assert!(world.reason(Reason::NewFlow) > 0 && world.reason(Reason::Hit) > 0);
    kinds
}

#[test]
fn a_million_random_frames() {
    let shares: Vec<_> = (0..THREADS)
        .map(|number| {
            let seed = SEED ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            thread::spawn(move || share(seed, FRAMES / THREADS))
        })
        .collect();
    let mut seen = [0; 4];
    // All of them end, and clean up, before one of them may fail the test.
    let parts: Vec<_> = shares.into_iter().map(thread::JoinHandle::join).collect();
    for part in parts {
        let part = part.unwrap();
        for (sum, part) in seen.iter_mut().zip(part) {
            *sum += part;
        }
    }
    println!("not ours, service, slot, reply: {seen:?}");
    assert!(seen.iter().all(|&count| count > FRAMES / 100), "{seen:?}");
}
