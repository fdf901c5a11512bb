//! The frame of a held SYN.

use orch_common::{
    address::{self, v4_octets},
    flow::FlowKey,
    hold::{HeldSyn, OF_SOCKET, REMEMBERED},
    syn::OPTION_BYTES,
};

use super::sum;

/// An Ethernet header without addresses, as far as the type: whoever gets it looks no further.
const NO_ADDRESSES: [u8; 12] = [0; 12];
/// Bytes of an Ethernet header.
const LINK: usize = 14;
/// Hops that are left to a packet of our own making.
const TTL: u8 = 64;
const TCP: u8 = 6;
/// Bytes of a TCP header without options.
const HEADER: usize = 20;
/// The window and the largest segment of a SYN of our own making: what every IPv6 link carries.
const WINDOW: u16 = 0xfaf0;
const SEGMENT: u16 = 1220;
/// "Don't fragment".
const WHOLE: [u8; 2] = [0x40, 0];

/// The frame to be sent on, its checksum whole. `None` if it was damaged on its way.
pub fn of(held: &HeldSyn) -> Option<Vec<u8>> {
    match held.len {
        REMEMBERED => rebuild(held),
        OF_SOCKET => of_socket(held),
        _ => {
            let mut frame = held.bytes().to_vec();
            sum::complete(&mut frame).then_some(frame)
        }
    }
}

/// The packet in a frame.
pub fn packet(frame: &[u8]) -> &[u8] {
    frame.get(LINK..).unwrap_or_default()
}

/// A SYN of which only the number is known. What it does not offer, its socket does not use: an
/// option holds where both ends have sent it (RFC 7323, 1.3; RFC 2018, 2).
fn of_socket(held: &HeldSyn) -> Option<Vec<u8>> {
    let mut header = [0; HEADER];
    header
        .get_mut(4..8)?
        .copy_from_slice(&held.seq.to_be_bytes());
    // Five words of header and one of options; SYN.
    header.get_mut(12..14)?.copy_from_slice(&[6 << 4, 1 << 1]);
    header
        .get_mut(14..16)?
        .copy_from_slice(&WINDOW.to_be_bytes());
    let [high, low] = SEGMENT.to_be_bytes();
    build(&held.key, &header, &[2, 4, high, low], 0)
}

/// A frame from what is remembered of a SYN, as its client would have sent it over a plain link.
fn rebuild(held: &HeldSyn) -> Option<Vec<u8>> {
    let (header, rest) = held.frame.split_first_chunk::<HEADER>()?;
    let (options, rest) = rest.split_first_chunk::<OPTION_BYTES>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let tos = u32::from_ne_bytes(*rest.first_chunk::<4>()?) as u8;
    let options = options.get(..u32::from_ne_bytes(*length) as usize)?;
    build(&held.key, header, options, tos)
}

/// A frame with this TCP header, whose ports and checksum are not looked at.
fn build(key: &FlowKey, header: &[u8; HEADER], options: &[u8], tos: u8) -> Option<Vec<u8>> {
    let segment = (HEADER + options.len()) as u16;
    let mut frame = NO_ADDRESSES.to_vec();
    if address::is_v4(&key.client) {
        let mut ip = vec![0x45, tos];
        ip.extend((20 + segment).to_be_bytes());
        ip.extend([0, 0]);
        ip.extend(WHOLE);
        ip.extend([TTL, TCP, 0, 0]);
        ip.extend(v4_octets(&key.client));
        ip.extend(v4_octets(&key.local));
        let sum = sum::of_header(&ip).to_be_bytes();
        ip.get_mut(10..12)?.copy_from_slice(&sum);
        frame.extend([0x08, 0x00]);
        frame.extend(ip);
    } else {
        frame.extend([0x86, 0xdd, 0x60 | tos >> 4, tos << 4, 0, 0]);
        frame.extend(segment.to_be_bytes());
        frame.extend([TCP, TTL]);
        frame.extend(key.client);
        frame.extend(key.local);
    }
    // The port in the header may be that of a backend which the SYN was sent to.
    frame.extend(key.client_port.to_be_bytes());
    frame.extend(key.local_port.to_be_bytes());
    frame.extend(header.get(4..)?);
    frame.extend(options);
    sum::write(&mut frame)?;
    Some(frame)
}

#[cfg(test)]
mod tests {
    use orch_common::{address::from_v4, flow::FlowKey, hold::FRAME_BYTES};

    use super::*;

    fn remembered(client: [u8; 16], local: [u8; 16]) -> HeldSyn {
        let mut frame = [0; FRAME_BYTES];
        let header = [
            0x9c, 0x40, 0x1f, 0x90, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0x60, 2, 0x20, 0, 1, 2, 0, 0,
        ];
        frame[..20].copy_from_slice(&header);
        frame[20..24].copy_from_slice(&[2, 4, 5, 0xb4]);
        frame[60..64].copy_from_slice(&4_u32.to_ne_bytes());
        frame[64..68].copy_from_slice(&0xb9_u32.to_ne_bytes());
        HeldSyn {
            key: FlowKey {
                client,
                local,
                client_port: 40_000,
                local_port: 80,
            },
            seq: 1000,
            ifindex: 1,
            service: 0,
            len: 0,
            frame,
        }
    }

    #[test]
    fn a_remembered_syn_becomes_the_client_s_own_again() {
        let four = (from_v4([10, 9, 0, 2]), from_v4([10, 9, 0, 1]));
        let six = ([0x20; 16], [0x30; 16]);
        for ((client, local), ip) in [(four, 20), (six, 40)] {
            let held = remembered(client, local);
            let mut frame = of(&held).unwrap();
            assert!(sum::complete(&mut frame), "its checksum is right");
            let tcp = &frame[14 + ip..];
            assert_eq!(tcp[..4], [0x9c, 0x40, 0, 80], "to the service again");
            assert_eq!(tcp[4..16], held.frame[4..16]);
            assert_eq!(tcp[20..], [2, 4, 5, 0xb4]);
        }
        assert_eq!(of(&remembered(four.0, four.1)).unwrap()[15], 0xb9);
    }

    #[test]
    fn a_socket_s_syn_is_made_of_its_number() {
        let four = (from_v4([172, 17, 0, 1]), from_v4([172, 17, 0, 2]));
        for ((client, local), ip) in [(four, 20), (([0x20; 16], [0x30; 16]), 40)] {
            let mut held = remembered(client, local);
            (held.len, held.seq) = (OF_SOCKET, 0x0102_0304);
            let mut frame = of(&held).unwrap();
            assert!(sum::complete(&mut frame), "its checksum is right");
            let tcp = &packet(&frame)[ip..];
            assert_eq!(tcp[..4], [0x9c, 0x40, 0, 80]);
            assert_eq!(tcp[4..12], [1, 2, 3, 4, 0, 0, 0, 0]);
            assert_eq!(tcp[12..14], [0x60, 2], "a SYN with one word of options");
            assert_eq!(tcp[20..], [2, 4, 4, 196]);
        }
    }
}
