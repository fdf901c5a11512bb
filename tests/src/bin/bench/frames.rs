//! Frames of a client, of which each port is one, and of backends.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use orch_tests::frame::{
    Tcp,
    flag::{ACK, PSH, SYN},
};

use crate::{docker::FIRST, topology::BACKEND};

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 9, 0, 2], 1000 + port))
}

fn host(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 9, 0, 1], port))
}

fn v6(last: u16, port: u16) -> SocketAddr {
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, last)),
        port,
    )
}

pub(crate) fn syn(port: u16) -> Vec<u8> {
    Tcp::new(client(port), host(80), SYN).frame()
}

pub(crate) fn syn6(port: u16) -> Vec<u8> {
    Tcp::new(v6(2, 1000 + port), v6(1, 80), SYN).frame()
}

pub(crate) fn data(port: u16) -> Vec<u8> {
    Tcp::new(client(port), host(80), ACK)
        .numbers(1001, 501)
        .frame()
}

pub(crate) fn data6(port: u16) -> Vec<u8> {
    Tcp::new(v6(2, 1000 + port), v6(1, 80), ACK)
        .numbers(1001, 501)
        .frame()
}

pub(crate) fn request(port: u16) -> Vec<u8> {
    Tcp::new(client(port), host(80), ACK | PSH)
        .numbers(1001, 501)
        .payload(b"GET /api/v1/acts HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .frame()
}

pub(crate) fn reply(port: u16) -> Vec<u8> {
    Tcp::new(host(8000), client(port), ACK)
        .numbers(501, 1001)
        .frame()
}

pub(crate) fn direct_reply(port: u16) -> Vec<u8> {
    Tcp::new((FIRST, BACKEND).into(), client(port), ACK)
        .numbers(501, 1001)
        .frame()
}

pub(crate) fn other(port: u16) -> Vec<u8> {
    Tcp::new(client(port), host(443), ACK).frame()
}

pub(crate) fn slot_syn(port: u16) -> Vec<u8> {
    Tcp::new(client(port), host(8001), SYN).frame()
}

pub(crate) fn fragment(port: u16) -> Vec<u8> {
    let mut tcp = Tcp::new(client(port), host(80), ACK);
    tcp.fragment = 0x2000;
    tcp.frame()
}
