//! The PROXY protocol, versions 1 and 2: what a proxy before us says of its client.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1.
const LINE: usize = 107;

/// Reads the header, and leaves in `early` what was read behind it. `None` for a connection of the
/// proxy itself.
pub(super) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    early: &mut Vec<u8>,
) -> io::Result<Option<SocketAddr>> {
    loop {
        if let Some((source, taken)) = parse(early)? {
            early.drain(..taken);
            return Ok(source);
        }
        if stream.read_buf(early).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The source that a header names and how long the header is; `None` while it is not whole.
fn parse(bytes: &[u8]) -> io::Result<Option<(Option<SocketAddr>, usize)>> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    if bytes.starts_with(SIGNATURE) {
        return version2(bytes);
    }
    if SIGNATURE.starts_with(bytes) || b"PROXY ".starts_with(bytes) {
        return Ok(None);
    }
    let rest = bytes.strip_prefix(b"PROXY ").ok_or_else(wrong)?;
    let line = rest.get(..LINE.min(rest.len())).unwrap_or_default();
    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
        return if rest.len() >= LINE {
            Err(wrong())
        } else {
            Ok(None)
        };
    };
    let text = str::from_utf8(line.get(..end).unwrap_or_default()).map_err(|_| wrong())?;
    let words: Vec<&str> = text.split(' ').collect();
    let source = match words.as_slice() {
        ["UNKNOWN", ..] => None,
        [family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let ip: IpAddr = source.parse().map_err(|_| wrong())?;
            if ip.is_ipv4() != (*family == "TCP4") {
                return Err(wrong());
            }
            Some(SocketAddr::new(ip, port.parse().map_err(|_| wrong())?))
        }
        _ => return Err(wrong()),
    };
    Ok(Some((source, 6 + end + 2)))
}

fn version2(bytes: &[u8]) -> io::Result<Option<(Option<SocketAddr>, usize)>> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let Some(&[command, family, high, low]) = bytes.get(12..16) else {
        return Ok(None);
    };
    let len = 16 + usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 {
        return Err(wrong());
    }
    let Some(addresses) = bytes.get(16..len) else {
        return Ok(None);
    };
    let port = |at: usize| {
        let port = addresses.get(at..at + 2).and_then(|two| two.first_chunk());
        port.copied().map(u16::from_be_bytes).ok_or_else(wrong)
    };
    let source = match (command & 15, family >> 4) {
        (1, 1) => {
            let ip: [u8; 4] = *addresses.first_chunk().ok_or_else(wrong)?;
            Some(SocketAddr::new(Ipv4Addr::from(ip).into(), port(8)?))
        }
        (1, 2) => {
            let ip: [u8; 16] = *addresses.first_chunk().ok_or_else(wrong)?;
            Some(SocketAddr::new(Ipv6Addr::from(ip).into(), port(32)?))
        }
        (0 | 1, _) => None,
        _ => return Err(wrong()),
    };
    Ok(Some((source, len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_and_nothing_else() {
        let line = b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\nGET";
        let source = "1.2.3.4:1000".parse().unwrap();
        assert_eq!(parse(line).unwrap(), Some((Some(source), line.len() - 3)));
        for cut in 0..line.len() - 4 {
            assert_eq!(parse(&line[..cut]).unwrap(), None, "{cut}");
        }
        assert_eq!(parse(b"PROXY UNKNOWN\r\n").unwrap(), Some((None, 15)));
        let mut two = SIGNATURE.to_vec();
        two.extend([0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 3, 232, 0, 80]);
        assert_eq!(parse(&two).unwrap(), Some((Some(source), 28)));
        assert_eq!(parse(&two[..27]).unwrap(), None);
        let mut long = two.clone();
        long[14..16].copy_from_slice(&[0xff, 0xff]);
        long.resize(16 + 0xffff, 0);
        assert_eq!(parse(&long).unwrap(), Some((Some(source), 16 + 0xffff)));
        two[12] = 0x20;
        assert_eq!(parse(&two).unwrap(), Some((None, 28)), "a check of health");
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 x\r\n",
            b"PROXY TCP4 ::1 ::1 1000 80\r\n",
            b"PROXY A\r\n",
        ] {
            parse(bad).unwrap_err();
        }
        parse(&[b"PROXY ".as_slice(), &[b'a'; 200]].concat()).unwrap_err();
    }
}
