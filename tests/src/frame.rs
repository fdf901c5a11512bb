//! Ethernet frames with TCP in them, built and taken apart byte by byte, independently of the code
//! under test.

use std::net::{IpAddr, SocketAddr};

/// TCP flags.
pub mod flag {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// URG.
    pub const URG: u8 = 0x20;
}

/// A TCP segment to be built.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Source address and port.
    pub from: SocketAddr,
    /// Destination address and port.
    pub to: SocketAddr,
    /// Flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// TCP options; a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv4 options; a multiple of four bytes.
    pub ip_options: Vec<u8>,
    /// IPv6 extension headers in front of TCP: the kind of each, and its bytes without that of the
    /// next header, which is filled in.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Flags and offset of the IPv4 fragment field.
    pub fragment: u16,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// The IPv4 identification.
    pub id: u16,
    /// The four bits behind the data offset, the last of which is a flag of ECN (RFC 9768).
    pub reserved: u8,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Payload.
    pub payload: Vec<u8>,
    /// Bytes behind the datagram, as Ethernet adds to short ones.
    pub padding: usize,
}

impl Tcp {
    /// A segment without payload and options.
    pub fn new(from: SocketAddr, to: SocketAddr, flags: u8) -> Self {
        Self {
            from,
            to,
            flags,
            seq: 1000,
            ack: 0,
            options: Vec::new(),
            ip_options: Vec::new(),
            extensions: Vec::new(),
            fragment: 0,
            tos: 0,
            id: 1,
            reserved: 0,
            window: 0x2000,
            urgent: 0,
            payload: Vec::new(),
            padding: 0,
        }
    }

    /// With these numbers.
    #[must_use]
    pub fn numbers(mut self, seq: u32, ack: u32) -> Self {
        self.seq = seq;
        self.ack = ack;
        self
    }

    /// With this payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The frame, all checksums right.
    pub fn frame(&self) -> Vec<u8> {
        let mut segment = self.segment();
        let sum = self.checksum(&segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([0x08, 0x00]);
                frame.extend(self.v4_header(from.octets(), to.octets(), segment.len()));
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                let (first, chain) = self.chain();
                frame.extend(((chain.len() + segment.len()) as u16).to_be_bytes());
                frame.extend([first, 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                frame.extend(chain);
            }
            _ => panic!("both ends must be of one family"),
        }
        frame.extend(segment);
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    /// Kind of the first extension header, and all of them.
    fn chain(&self) -> (u8, Vec<u8>) {
        let mut next = 6;
        let mut out = Vec::new();
        for (kind, bytes) in self.extensions.iter().rev() {
            out.splice(0..0, std::iter::once(next).chain(bytes.iter().copied()));
            next = *kind;
        }
        (next, out)
    }

    fn segment(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.from.port().to_be_bytes());
        out.extend(self.to.port().to_be_bytes());
        out.extend(self.seq.to_be_bytes());
        out.extend(self.ack.to_be_bytes());
        out.push((5 + self.options.len() as u8 / 4) << 4 | self.reserved);
        out.push(self.flags);
        out.extend(self.window.to_be_bytes());
        out.extend([0, 0]);
        out.extend(self.urgent.to_be_bytes());
        out.extend(&self.options);
        out.extend(&self.payload);
        out
    }

    fn v4_header(&self, from: [u8; 4], to: [u8; 4], segment: usize) -> Vec<u8> {
        let header = 20 + self.ip_options.len();
        let mut out = vec![0x40 | (header / 4) as u8, self.tos];
        out.extend(((header + segment) as u16).to_be_bytes());
        out.extend(self.id.to_be_bytes());
        out.extend(self.fragment.to_be_bytes());
        out.extend([64, 6, 0, 0]);
        out.extend(from);
        out.extend(to);
        out.extend(&self.ip_options);
        let sum = !fold(sum(&out));
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// The TCP checksum over a segment whose own field counts as it is.
    fn checksum(&self, segment: &[u8]) -> u16 {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let pseudo =
            sum(&octets(self.from.ip())) + sum(&octets(self.to.ip())) + 6 + segment.len() as u32;
        !fold(pseudo + sum(segment))
    }
}

/// An ICMP error (RFC 792, RFC 4443) of a router, in a frame with all checksums right.
#[derive(Clone, Debug)]
pub struct Icmp {
    /// Who sends it.
    pub from: IpAddr,
    /// Whom it is for.
    pub to: IpAddr,
    /// Type and code.
    pub kind: (u8, u8),
    /// What follows the checksum: the MTU, where a packet was too large.
    pub rest: u32,
    /// The packet that it is about, from its IP header on, as much as is quoted.
    pub quote: Vec<u8>,
}

impl Icmp {
    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut message = vec![self.kind.0, self.kind.1, 0, 0];
        message.extend(self.rest.to_be_bytes());
        message.extend(&self.quote);
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        let length = message.len() as u16;
        let mut pseudo = 0;
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let [high, low] = (20 + length).to_be_bytes();
                let mut header = vec![0x45, 0, high, low, 0, 7, 0, 0, 64, 1, 0, 0];
                header.extend(from.octets());
                header.extend(to.octets());
                let sum = !fold(sum(&header));
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend([0x08, 0x00]);
                frame.extend(header);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([58, 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                pseudo = sum(&from.octets()) + sum(&to.octets()) + 58 + u32::from(length);
            }
            _ => panic!("both ends must be of one family"),
        }
        let sum = !fold(pseudo + sum(&message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        frame.extend(message);
        frame
    }
}

/// The checksum of an IPv4 header without options, written anew.
pub fn summed_v4(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = !fold(sum(&header[..20]));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Gives a frame a VLAN tag (IEEE 802.1Q), in the frame itself.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let tag = vlan.to_be_bytes();
    let mut out = frame[..12].to_vec();
    out.extend([0x81, 0x00, tag[0], tag[1]]);
    out.extend(&frame[12..]);
    out
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
