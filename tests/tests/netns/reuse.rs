//! A client that uses one source port again and again.

use std::{
    io::{ErrorKind, Read},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use orch_common::counter::Reason;
use orch_tests::{netns::NetNs, wait::until};
use socket2::{Domain, SockRef, Socket, Type};

use super::{VIP, VIP6, World, ask};

const TIMES: usize = 60;
/// A SYN that has to be sent again is sent again after a second (RFC 6298, 2.1).
const STALL: Duration = Duration::from_secs(1);

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The server closes, then the client.
    Closed,
    /// The client resets.
    Reset,
    /// The client is gone, and nobody hears of it.
    Vanished,
}

/// Connects from this port, as soon as the client's own kernel lets go of it.
fn connect_from(port: u16, to: &str) -> (TcpStream, Duration) {
    let to: SocketAddr = to.parse().unwrap();
    let from = SocketAddr::new(
        if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap(),
        port,
    );
    until("the port is free", || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        let begin = Instant::now();
        let done = socket
            .bind(&from.into())
            .and_then(|()| socket.connect(&to.into()));
        match done {
            Ok(()) => Some((TcpStream::from(socket), begin.elapsed())),
            Err(error) => {
                let kinds = [ErrorKind::AddrInUse, ErrorKind::AddrNotAvailable];
                assert!(kinds.contains(&error.kind()), "{error}");
                None
            }
        }
    })
}

/// Keeps what ends a connection from leaving a namespace.
fn mute(netns: &NetNs, on: bool) {
    let rule = if on {
        "add table inet mute; add chain inet mute out { type filter hook output priority 0; }; \
         add rule inet mute out tcp flags & (fin | rst) != 0 drop"
    } else {
        "delete table inet mute"
    };
    assert!(netns.command("nft").arg(rule).status().unwrap().success());
}

fn end(netns: &NetNs, mut stream: TcpStream, how: End) {
    match how {
        End::Closed => {
            assert_eq!(ask(&mut stream, "/close").unwrap().0, 200);
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
        End::Reset | End::Vanished => {
            let vanished = matches!(how, End::Vanished);
            if vanished {
                mute(netns, true);
            }
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(stream);
            if vanished {
                mute(netns, false);
            }
        }
    }
}

fn again_and_again(name: &str, ring: &[u16], how: End) {
    let mut world = World::new(name);
    world.plane().set_ring(0, ring).unwrap();
    let mut taken = Vec::new();
    for time in 0..TIMES {
        let outside = &world.outside;
        let stream = outside.within(|| {
            let (mut stream, time) = connect_from(4000, [VIP, VIP6][time % 2]);
            taken.push(time);
            assert_eq!(ask(&mut stream, "/api/x").unwrap().0, 200);
            stream
        });
        end(outside, stream, how);
    }
    let last = world
        .outside
        .within(|| [VIP, VIP6].map(|address| connect_from(4000, address).0));
    drop(last);
    world.drained();
    taken.sort_unstable();
    // Now and then a loaded machine stalls on its own.
    assert!(taken[TIMES * 9 / 10] < STALL, "{how:?}: {taken:?}");
    if !matches!(how, End::Vanished) {
        assert_eq!(world.reason(Reason::SynAgain), 0, "{how:?}: {taken:?}");
    }
}

#[test]
fn a_port_closed_is_a_port_free() {
    again_and_again("closed", &[0, 1, 2], End::Closed);
    again_and_again("closed1", &[0], End::Closed);
}

#[test]
fn a_port_reset_is_a_port_free() {
    again_and_again("reset", &[0, 1, 2], End::Reset);
    again_and_again("reset1", &[0], End::Reset);
}

#[test]
fn a_port_whose_user_vanished_is_a_port_free() {
    again_and_again("vanished", &[0, 1, 2], End::Vanished);
    again_and_again("vanished1", &[0], End::Vanished);
}
