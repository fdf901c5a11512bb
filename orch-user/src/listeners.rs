//! Who listens on which TCP port of this host, from `/proc`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A listening TCP socket of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address; unspecified for all of its family.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Number of the socket's inode, by which its owner is found.
    pub inode: u64,
}

/// Every listening TCP socket, IPv4 and IPv6. What cannot be read is left out.
pub fn all() -> Vec<Listener> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let texts = tables
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    texts.flat_map(|text| parse(&text)).collect()
}

/// The lines of `/proc/net/tcp` or `/proc/net/tcp6` that are listeners.
fn parse(table: &str) -> Vec<Listener> {
    const LISTEN: &str = "0A";
    let line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (address, port) = local.split_once(':')?;
        let listener = Listener {
            address: parse_address(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
            inode: inode.parse().ok()?,
        };
        (*state == LISTEN).then_some(listener)
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// Words of 32 bits, each printed as a number in the host's byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

/// The program that owns a socket, and its pid. `None` where it cannot be seen.
pub fn owner(inode: u64) -> Option<(String, u32)> {
    let link = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let mut links = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok());
        if links.any(|target| target.as_os_str() == link.as_str()) {
            let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((program.trim().to_owned(), pid));
        }
    }
    None
}

/// Who listens there, for a person.
pub fn holder(found: &Listener) -> String {
    owner(found.inode).map_or_else(
        || "another program".to_owned(),
        |(program, pid)| format!("{program} (pid {pid})"),
    )
}

/// Who listens at a port, whatever the address.
pub fn holder_of(port: u16) -> String {
    let found = all().into_iter().find(|found| found.port == port);
    found.map_or_else(|| "another program".to_owned(), |found| holder(&found))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn own_listeners_are_found_with_their_owner() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = TcpListener::bind(address) else {
                continue;
            };
            let local = socket.local_addr().unwrap();
            let found = all().into_iter().find(|one| one.port == local.port());
            let found = found.expect("it listens");
            assert_eq!(found.address, local.ip());
            let pid = std::process::id();
            assert_eq!(owner(found.inode).unwrap().1, pid);
        }
    }

    #[test]
    fn what_does_not_listen_is_left_out() {
        let table = "sl local rem st\n 0: 0100007F:1F40 00000000:0000 01 a b c d e 77\n";
        assert_eq!(parse(table), []);
    }
}
