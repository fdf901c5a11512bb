//! The checksum of a held SYN. A SYN from another namespace of this host carries only the sum of its
//! pseudo-header: a device was to complete it, and there is none on the way back in.

const ETHERNET: usize = 14;
const V4: [u8; 2] = [0x08, 0x00];
const V6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
/// Offset of the sum in a TCP header.
const SUM: usize = 16;
/// Extension headers of IPv6 whose length stands in them (RFC 8200, 4): hop-by-hop options, routing,
/// destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];

/// Makes the TCP checksum of a frame whole. Says whether it is: a sum that is neither right nor that
/// of the pseudo-header alone is that of a damaged packet, which must not be healed.
pub fn complete(frame: &mut [u8]) -> bool {
    let Some((segment, pseudo)) = locate(frame) else {
        return false;
    };
    let Some(segment) = frame.get_mut(segment) else {
        return false;
    };
    if fold(pseudo + add(segment)) == 0xffff {
        return true;
    }
    let partial = segment.get(SUM..SUM + 2) == Some(&fold(pseudo).to_be_bytes());
    partial && put(segment, pseudo).is_some()
}

/// Gives a frame of our own making its TCP checksum.
pub fn write(frame: &mut [u8]) -> Option<()> {
    let (segment, pseudo) = locate(frame)?;
    put(frame.get_mut(segment)?, pseudo)
}

/// The checksum of an IPv4 header whose own field is zero.
pub fn of_header(header: &[u8]) -> u16 {
    !fold(add(header))
}

fn put(segment: &mut [u8], pseudo: u32) -> Option<()> {
    let field = SUM..SUM + 2;
    segment.get_mut(field.clone())?.copy_from_slice(&[0, 0]);
    let sum = !fold(pseudo + add(segment));
    segment.get_mut(field)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Where the TCP segment is, and the sum of its pseudo-header.
fn locate(frame: &[u8]) -> Option<(std::ops::Range<usize>, u32)> {
    let (link, ip) = frame.split_at_checked(ETHERNET)?;
    let (start, end, addresses) = if link.ends_with(&V4) {
        let header = usize::from(ip.first()? & 0x0f) * 4;
        (header, usize::from(number(ip, 2)?), ip.get(12..20)?)
    } else if link.ends_with(&V6) {
        let end = 40 + usize::from(number(ip, 4)?);
        (transport_v6(ip)?, end, ip.get(8..40)?)
    } else {
        return None;
    };
    let length = u32::try_from(end.checked_sub(start)?).ok()?;
    let pseudo = add(addresses) + u32::from(TCP) + length;
    Some((ETHERNET + start..ETHERNET + end, pseudo))
}

/// Where the TCP header is in an IPv6 packet.
fn transport_v6(ip: &[u8]) -> Option<usize> {
    let (mut next, mut at) = (*ip.get(6)?, 40);
    while EXTENSIONS.contains(&next) {
        next = *ip.get(at)?;
        at += 8 + 8 * usize::from(*ip.get(at + 1)?);
    }
    (next == TCP).then_some(at)
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The sum of 16-bit words (RFC 1071), not folded. Frames here are far too short to overflow it.
fn add(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    };
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN from 10.9.0.2:40000 to 10.9.0.1:80 as a device sent it, sum included.
    const SYN: [u8; 54] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, // Ethernet
        0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0x26, 0xba, 10, 9, 0, 2, 10, 9, 0, 1, // IPv4
        0x9c, 0x40, 0, 80, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0xdb, 0x55, 0,
        0, // TCP
    ];

    #[test]
    fn a_right_sum_stays() {
        let mut frame = SYN;
        assert!(complete(&mut frame));
        assert_eq!(frame, SYN);
    }

    #[test]
    fn the_sum_of_the_pseudo_header_is_completed() {
        let mut frame = SYN;
        // 10.9.0.2, 10.9.0.1, TCP, 20 bytes: 0x0a09 + 2 + 0x0a09 + 1 + 6 + 20.
        frame[50..52].copy_from_slice(&[0x14, 0x2f]);
        assert!(complete(&mut frame));
        assert_eq!(frame, SYN);
    }

    #[test]
    fn any_other_sum_is_that_of_a_damaged_packet() {
        for at in 26..54 {
            let mut frame = SYN;
            frame[at] ^= 0x10;
            assert!(!complete(&mut frame), "byte {at}");
        }
    }

    #[test]
    fn no_frame_makes_it_panic() {
        for len in 0..SYN.len() {
            assert!(!complete(&mut SYN[..len].to_vec()), "{len} bytes");
        }
        let mut six = SYN;
        six[12..14].copy_from_slice(&V6);
        assert!(!complete(&mut six));
    }

    #[test]
    fn padding_is_no_part_of_it() {
        let mut frame = [SYN.as_slice(), &[0xee; 6]].concat();
        assert!(complete(&mut frame));
    }
}
