//! A client outside of the host: a namespace that a veth joins to the host's own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
};

use crate::netns::{NetNs, run};

static NEXT: AtomicU8 = AtomicU8::new(0);

/// A client outside. It goes, with its cable, when this is dropped.
#[derive(Debug)]
pub struct Outside {
    /// Where the client is.
    pub netns: NetNs,
    /// The host's end of the cable.
    pub device: String,
    /// The host's address on it.
    pub host: Ipv4Addr,
}

impl Outside {
    /// Makes one.
    pub fn new() -> Self {
        let netns = NetNs::new();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let device = format!("o{pid}x{number}");
        // Of the range for benchmarks, which no real network uses.
        let host = Ipv4Addr::new(198, 18, pid as u8, 4 * number + 1);
        let far = Ipv4Addr::from(u32::from(host) + 1);
        run(
            "ip",
            &[
                "link",
                "add",
                &device,
                "type",
                "veth",
                "peer",
                "name",
                "far0",
                "netns",
                &netns.name,
            ],
        );
        let made = Self {
            netns,
            device,
            host,
        };
        run(
            "ip",
            &["addr", "add", &format!("{host}/30"), "dev", &made.device],
        );
        run("ip", &["link", "set", &made.device, "up"]);
        made.netns
            .ip(&["addr", "add", &format!("{far}/30"), "dev", "far0"]);
        made.netns.ip(&["link", "set", "far0", "up"]);
        made
    }

    /// A port of the host, as this client sees it.
    pub fn to(&self, port: u16) -> SocketAddr {
        (self.host, port).into()
    }
}

impl Default for Outside {
    fn default() -> Self {
        Self::new()
    }
}
