//! The kernel's counts beside what clients have sent and received, and what backends say, over requests of
//! every kind: keep-alive, pairs in one segment, bodies of many segments, lines that come in pieces; in
//! segments by themselves, and many at once as TSO and GRO hand them over.

use std::{io, ops::AddAssign, thread};

use orch::dataplane::SlotReading;
use orch_common::counter::{Bytes, Failure};
use orch_tests::{client::Client, netns::NetNs, server::Server};

use super::{VIP, VIP6, World, containers};

/// How many requests, unless `ORCH_MIXED` says so.
const REQUESTS: u64 = 20_000;
/// Requests on one connection.
const PER_CONNECTION: u64 = 50;

/// What a client knows of its own requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Truth {
    requests: u64,
    /// Those that the service's rules exclude.
    excluded: u64,
    /// The second ones of pairs in one segment. The kernel looks at how a segment begins, so that it does
    /// not see them: a case that is not exact.
    hidden: u64,
    /// By the first digit of the status.
    responses: [u64; 6],
    bytes: Bytes,
}

impl AddAssign for Truth {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.excluded += other.excluded;
        self.hidden += other.hidden;
        self.bytes += other.bytes;
        for (sum, part) in self.responses.iter_mut().zip(other.responses) {
            *sum += part;
        }
    }
}

/// A connection, and what its client knows.
struct Talker {
    client: Client<std::net::TcpStream>,
    truth: Truth,
}

impl Talker {
    fn new(address: &str) -> Self {
        Self {
            client: Client::connect(address.parse().unwrap()).unwrap(),
            truth: Truth::default(),
        }
    }

    /// Sends the parts of a request, each by itself.
    fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        for part in parts {
            self.truth.bytes.received += part.len() as u64;
            self.client.send(part)?;
        }
        Ok(())
    }

    /// Takes the answer. Gives the first digit of its status.
    fn answer(&mut self) -> io::Result<usize> {
        let answer = self.client.answer()?;
        let length = answer.body.len();
        let head = format!(
            "HTTP/1.1 {} X\r\nContent-Length: {length}\r\n\r\n",
            answer.status
        );
        self.truth.bytes.sent += (head.len() + length) as u64;
        self.truth.requests += 1;
        Ok(usize::from(answer.status / 100))
    }

    fn answered(&mut self) -> io::Result<()> {
        let class = self.answer()?;
        self.truth.responses[class] += 1;
        Ok(())
    }

    /// The request of this number: each kind in turn, of ever other sizes.
    fn ask(&mut self, number: u64) -> io::Result<()> {
        let size = (number * 7919 % 60_000) as usize;
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let post = |size: usize| {
            format!("POST /api/x HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n")
        };
        match number % 9 {
            0 => self.send(&[get("/api/x").as_bytes()])?,
            1 => self.send(&[get("/api/status/404").as_bytes()])?,
            2 => self.send(&[get("/api/status/503").as_bytes()])?,
            // A body that looks like a request, written by itself.
            3 => self.send(&[post(14).as_bytes(), b"GET / HTTP/1.1"])?,
            // One of many segments.
            4 => {
                let body = b"GET /api/".repeat(size / 9 + 1);
                self.send(&[post(body.len()).as_bytes(), &body])?;
            }
            // Lines in pieces. A cut path would count as its first part says, which may be outside of the
            // prefix: the other case that is not exact, and not in here.
            5 => self.send(&[b"GE", &get("/api/x").as_bytes()[2..]])?,
            6 => {
                let text = get("/api/x");
                let (slow, rest) = text.as_bytes().split_at(4);
                let mut parts: Vec<&[u8]> = slow.chunks(1).collect();
                parts.push(rest);
                self.send(&parts)?;
            }
            7 => {
                self.send(&[get(&format!("/api/bytes/{size}")).as_bytes()])?;
            }
            _ => return self.odd(number),
        }
        self.answered()
    }

    /// What is not counted, or not by itself.
    fn odd(&mut self, number: u64) -> io::Result<()> {
        if number.is_multiple_of(2) {
            self.send(&[b"GET /api/_health HTTP/1.1\r\nHost: test\r\n\r\n"])?;
            self.truth.excluded += 1;
            self.answer()?;
            return Ok(());
        }
        let pair = "GET /api/x HTTP/1.1\r\nHost: test\r\n\r\n".repeat(2);
        self.send(&[pair.as_bytes()])?;
        self.truth.hidden += 1;
        self.answered()?;
        self.answer()?;
        Ok(())
    }
}

/// So many requests to an address, on one connection after the other.
fn talk(address: &str, requests: u64) -> Truth {
    let mut sum = Truth::default();
    while sum.requests < requests {
        let mut talker = Talker::new(address);
        for number in sum.requests..sum.requests + PER_CONNECTION {
            talker.ask(number).unwrap();
        }
        sum += talker.truth;
    }
    sum
}

/// So many requests from outside and on the host at once, over both families; half of them while nothing is
/// cut or put together on the way: each packet is one segment then.
fn mixed(host: &NetNs, outside: &NetNs, devices: &[(&NetNs, &str)]) -> Truth {
    let wanted = std::env::var("ORCH_MIXED").ok();
    let wanted = wanted.map_or(REQUESTS, |number| number.parse().unwrap());
    let clients = [
        (outside, VIP),
        (outside, VIP6),
        (host, "127.0.0.1:80"),
        (host, "[::1]:80"),
    ];
    let each = wanted / 8;
    let mut truth = Truth::default();
    for single in [false, true] {
        if single {
            for (netns, device) in devices {
                netns.ip(&["link", "set", device, "gso_max_segs", "1"]);
            }
        }
        thread::scope(|scope| {
            let all =
                clients.map(|(netns, to)| scope.spawn(move || netns.within(|| talk(to, each))));
            for client in all {
                truth += client.join().unwrap();
            }
        });
    }
    truth
}

/// What the kernel has counted must be what clients say, and what backends were asked.
fn compare(slots: &[SlotReading], asked: u64, truth: Truth) {
    let (mut kernel, mut connections) = (Truth::default(), 0);
    for slot in slots {
        kernel += Truth {
            requests: slot.counters.requests + slot.counters.excluded,
            excluded: slot.counters.excluded,
            hidden: 0,
            responses: slot.counters.responses,
            bytes: slot.bytes,
        };
        assert_eq!(slot.in_flight, 0, "{slot:?}");
        assert_eq!(slot.counters.failures, [0; Failure::COUNT], "{slot:?}");
        connections += slot.connections;
    }
    assert_eq!(asked, truth.requests, "the backends' own count");
    println!("{connections} connections: {truth:?}");
    let seen = Truth {
        requests: truth.requests - truth.hidden,
        hidden: 0,
        ..truth
    };
    assert_eq!(kernel, seen);
}

#[test]
fn the_kernel_counts_what_clients_and_backends_do() {
    let mut world = World::new("mixed");
    let devices = [(&world.host, "up0"), (&world.outside, "far0")];
    let truth = mixed(&world.host, &world.outside, &devices);
    world.drained();
    let asked = world.servers.iter().map(Server::requests).sum();
    compare(&world.read().slots, asked, truth);
}

#[test]
fn the_same_at_the_backends_own_addresses() {
    let world = containers::World::new("mixed-direct");
    let mut devices = vec![
        (&world.host, "up0"),
        (&world.host, "br0"),
        (&world.outside, "far0"),
    ];
    let ports = ["br0v2", "br0v3", "br0v4"];
    devices.extend(ports.map(|port| (&world.host, port)));
    devices.extend(world.containers.iter().map(|one| (&one.netns, "eth0")));
    let truth = mixed(&world.host, &world.outside, &devices);
    world.drained();
    let asked = world.requests().iter().sum();
    compare(&world.read().slots, asked, truth);
}
