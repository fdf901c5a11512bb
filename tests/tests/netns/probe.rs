//! Probes of a host that has no ports left.

use std::net::TcpStream;

use orch::health::{
    Answer,
    probe::{HttpProber, Prober, Target},
};
use orch_tests::{netns::NetNs, server::Server};

const SERVER: u16 = 8080;

/// Clients have all ports for connections to the backend: it is asked from one that they cannot take.
#[test]
fn a_backend_is_asked_though_clients_have_all_ports() {
    let host = NetNs::new();
    host.sysctl("net.ipv4.ip_local_port_range", "40000 40001");
    let (clients, refused, answer) = host.within(|| {
        let server = Server::start(SERVER);
        let clients = [0, 1].map(|_| TcpStream::connect(server.address).unwrap());
        let refused = TcpStream::connect(server.address).unwrap_err();
        let target = Target {
            address: server.address,
            path: "/".to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let answer = runtime.block_on(HttpProber.ask(&target));
        (clients, refused, answer)
    });
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrNotAvailable);
    assert_eq!(answer, Answer::Status(200));
    drop(clients);
}
