//! A million random frames through every TC program: what is not ours comes out as it went in. What
//! is ours is decided by `oracle`.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
};

use orch_common::{
    counter::Reason,
    layout::program::{EGRESS, ENTRY, GUARD, INGRESS, VETH},
    slot::SlotState,
};
use orch_tests::frame::{Tcp, tagged};

use self::oracle::{Ours, is_right, judge, number};
use super::world::{PORT, REDIRECT, World, at, at6, backend, backend6, client, client6, hex};

mod oracle;

/// How many, unless `ORCH_FRAMES` says so.
const FRAMES: u64 = 1_000_000;
const THREADS: u64 = 2;
const SEED: u64 = 0x0001_0c7e_57ab_1e5d;
/// Slots that the service may have: 8000 to 8009.
const SLOT_PORTS: std::ops::Range<u16> = 8000..8010;
/// Slots of delivery `direct`; slot 0 is one of delivery `port`.
const DIRECT: [u16; 2] = [1, 2];
/// Frames after which dead backends are made to answer again.
const REPAIR: u64 = 500;

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
    let (from, to): (SocketAddr, SocketAddr) = match dice.below(6) {
        0 | 1 => (here, there),
        // Slot 0 has another delivery, and there is no slot 3.
        2 => {
            let number = dice.of(&[0, 1, 1, 1, 2, 2, 2, 3]);
            let mut from = if here.is_ipv4() { backend } else { backend6 }(number);
            from.set_port(dice.of(&[PORT, PORT, PORT, PORT, PORT, 8081, 8000, 80]));
            (from, there)
        }
        _ => (there, here),
    };
    let flags = dice.of(&[2, 2, 18, 16, 24, 17, 4, 20, dice.0 as u8]);
    let mut tcp = Tcp::new(from, to, flags).numbers(dice.next() as u32, dice.next() as u32);
    // Often the numbers of one handshake. A slot port gets others: a SYN that has been balanced may
    // come by there again.
    if to.port() == 80 && dice.one_in(2) {
        tcp.seq = 1000;
    }
    if dice.one_in(2) {
        tcp.ack = 1001;
    }
    if dice.one_in(4) {
        return tcp;
    }
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

/// What came of a share of the frames.
#[derive(Default)]
struct Share {
    /// How many frames there were of each kind.
    kinds: [u64; Ours::COUNT],
    /// How often each program sent one elsewhere.
    redirected: [u64; 2],
}

/// Makes every backend one that is thought to answer.
fn repair(world: &mut World) {
    world.slot(0, SlotState::Ready, 2);
    for number in DIRECT {
        world.direct_slot(number, 1);
    }
}

/// Runs its share of the frames and says what came of them.
fn share(seed: u64, frames: u64) -> Share {
    let mut world = World::direct();
    let addresses: Vec<IpAddr> = ["10.9.0.1", "fd09::1", "127.0.0.1", "::1"]
        .map(|address| address.parse().unwrap())
        .to_vec();
    let slots: Vec<u16> = SLOT_PORTS.collect();
    let mut dice = Dice(seed);
    let mut share = Share::default();
    for count in 0..frames {
        if count % REPAIR == 0 {
            repair(&mut world);
        }
        let frame = roll(&mut dice);
        let place = || format!("seed {seed:#x}, frame {count}");
        for program in [INGRESS, EGRESS, GUARD, VETH, ENTRY] {
            let (ours, tcp) = judge(program, &frame, &addresses);
            share.kinds[ours as usize] += 1;
            let Ok(trial) = world.plane().trial(program, &frame) else {
                // The kernel takes no frame into a test run that ends within its IP header.
                let least = if number(&frame, 12) == Some(0x86dd) {
                    54
                } else {
                    34
                };
                assert!(frame.len() < least, "{}: {}", place(), hex(&frame));
                continue;
            };
            share.redirected[usize::from(program == VETH)] += u64::from(trial.verdict == REDIRECT);
            assert!(
                is_right(ours, &frame, &trial, tcp, &slots),
                "{}, {program}: {ours:?}, verdict {}\n in {}\nout {}",
                place(),
                trial.verdict,
                hex(&frame),
                hex(&trial.frame)
            );
        }
    }
    for reason in [
        Reason::NewFlow,
        Reason::Hit,
        Reason::Reply,
        Reason::Stale,
        Reason::Rescued,
    ] {
        assert!(world.reason(reason) > 0, "{}", reason.name());
    }
    share
}

#[test]
fn a_million_random_frames() {
    let frames = std::env::var("ORCH_FRAMES").ok();
    let frames: u64 = frames.map_or(FRAMES, |number| number.parse().unwrap());
    let shares: Vec<_> = (0..THREADS)
        .map(|number| {
            let seed = SEED ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            thread::spawn(move || share(seed, frames / THREADS))
        })
        .collect();
    let (mut seen, mut redirected) = ([0; Ours::COUNT], [0; 2]);
    // All of them end, and clean up, before one of them may fail the test.
    let parts: Vec<_> = shares.into_iter().map(thread::JoinHandle::join).collect();
    for part in parts {
        let part = part.unwrap();
        for (sum, part) in seen.iter_mut().zip(part.kinds) {
            *sum += part;
        }
        for (sum, part) in redirected.iter_mut().zip(part.redirected) {
            *sum += part;
        }
    }
    println!("not ours, service, slot, reply, answer: {seen:?}");
    println!("to backends, to clients or from backend to backend: {redirected:?}");
    assert!(seen.iter().all(|&count| count > frames / 100), "{seen:?}");
    assert!(
        redirected.iter().all(|&count| count > frames / 500),
        "{redirected:?}"
    );
}
