//! The frame of a held SYN.

use orch_common::{
    address::{self, v4_octets},
    hold::HeldSyn,
    syn::OPTION_BYTES,
};

use super::sum;

/// An Ethernet header without addresses, as far as the type: whoever gets it looks no further.
const NO_ADDRESSES: [u8; 12] = [0; 12];
/// Hops that are left to a packet of our own making.
const TTL: u8 = 64;
const TCP: u8 = 6;
/// Bytes of a TCP header without options.
const HEADER: usize = 20;
/// "Don't fragment".
const WHOLE: [u8; 2] = [0x40, 0];

/// The frame to be sent on, its checksum whole. `None` if it was damaged on its way.
pub fn of(held: &HeldSyn) -> Option<Vec<u8>> {
    if held.len == 0 {
        return rebuild(held);
    }
    let mut frame = held.bytes().to_vec();
    sum::complete(&mut frame).then_some(frame)
}

/// A frame from what is remembered of a SYN, as its client would have sent it over a plain link.
fn rebuild(held: &HeldSyn) -> Option<Vec<u8>> {
    let (header, rest) = held.frame.split_first_chunk::<HEADER>()?;
    let (options, rest) = rest.split_first_chunk::<OPTION_BYTES>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let tos = u32::from_ne_bytes(*rest.first_chunk::<4>()?) as u8;
    let options = options.get(..u32::from_ne_bytes(*length) as usize)?;
    let segment = (HEADER + options.len()) as u16;
    let mut frame = NO_ADDRESSES.to_vec();
    let key = &held.key;
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
}
