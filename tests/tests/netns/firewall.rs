//! Beside a stateful firewall: conntrack sees one connection per connection, and nothing invalid.

use orch_tests::netns::NetNs;

use super::{VIP, VIP6, World, ask, connect};

const RULES: &str = "
table inet watch {
    counter invalid {}
    counter known {}
    chain first { type filter hook prerouting priority filter; jump look; }
    chain into { type filter hook input priority filter; jump look; }
    chain out { type filter hook output priority filter; jump look; }
    chain last { type filter hook postrouting priority filter; jump look; }
    chain look {
        ct state invalid counter name invalid drop
        ct state established counter name known
    }
}";

/// TCP connections that conntrack knows.
fn tracked(netns: &NetNs) -> usize {
    let count = |family| {
        let output = netns
            .command("conntrack")
            .args(["-L", "-f", family, "-p", "tcp"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().count()
    };
    count("ipv4") + count("ipv6")
}

#[test]
fn conntrack_sees_one_connection_per_connection_and_nothing_invalid() {
    const EACH: usize = 12;
    let mut world = World::new("conntrack");
    world.host.nft(RULES);
    let clients = [
        (&world.outside, VIP),
        (&world.outside, VIP6),
        (&world.host, VIP),
        (&world.host, VIP6),
        (&world.host, "127.0.0.1:80"),
        (&world.host, "[::1]:80"),
    ];
    let mut streams = Vec::new();
    for (netns, address) in clients {
        for _ in 0..EACH {
            let mut stream = netns.within(|| connect(address));
            assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
            streams.push(stream);
        }
    }
    let open = clients.len() * EACH;
    assert_eq!(tracked(&world.host), open, "while they are open");
    for (number, mut stream) in streams.into_iter().enumerate() {
        match number % 3 {
            // Closed by the server, by the client, reset by the client.
            0 => {
                assert_eq!(ask(&mut stream, "/close").unwrap().0, 200);
                assert_eq!(std::io::Read::read(&mut stream, &mut [0]).unwrap(), 0);
            }
            1 => {}
            _ => socket2::SockRef::from(&stream)
                .set_linger(Some(std::time::Duration::ZERO))
                .unwrap(),
        }
    }
    world.drained();
    let left = tracked(&world.host);
    assert!(left <= open, "{left} entries after {open} connections");
    assert_eq!(world.host.counter("watch", "invalid"), 0);
    assert!(
        world.host.counter("watch", "known") > open as u64,
        "the rules see them"
    );
}
