//! What the gateway and copies say to each other goes from socket to socket, in order and whole, and
//! by TCP where it has to. Kernels that do not count what waits in a socket of a sockmap go by TCP.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use aya::programs::links::PinnedLink;
use orch::{
    config::{CountConfig, Listen},
    dataplane::relayed,
    http::{Client, ServiceTable, SlotTable, Table},
};
use orch_common::{
    layout::{LAYOUT_VERSION, map, program},
    relay::MOST,
};
use orch_tests::{
    fixture,
    netns::{NetNs, run},
    orch::binary,
    tcp_info::Info,
    wait::until,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::containers::World;

/// Where the servers of this file listen.
const PORT: u16 = 8090;
const SIZES: [usize; 8] = [
    0,
    1,
    1000,
    70_000,
    MOST as usize - 1,
    MOST as usize + 1,
    1_500_000,
    3_000_000,
];

/// Whether this kernel can, once somebody has tried.
static CAN: OnceLock<bool> = OnceLock::new();

/// A host whose kernel relays; `None` where this one cannot.
fn world(name: &str) -> Option<World> {
    if !CAN.get_or_init(|| relays(&mut World::new("relay-can"))) {
        println!("left out: this kernel does not count what waits in a socket of a sockmap");
        return None;
    }
    let mut world = World::new(name);
    assert!(relays(&mut world));
    Some(world)
}

fn relays(world: &mut World) -> bool {
    let World {
        host, dataplane, ..
    } = world;
    let plane = dataplane.as_mut().unwrap();
    let relays = host.within(|| plane.relay(true)).unwrap();
    assert_eq!(world.has(program::JOIN), relays);
    relays
}

/// Byte number `at` of an answer.
fn byte(seed: usize, at: usize) -> u8 {
    ((seed ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8
}

fn bytes(seed: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| byte(seed, at)).collect()
}

/// Answers each line `SIZE SEED` with so many bytes, in pieces of all lengths.
fn answer(stream: &TcpStream) -> io::Result<()> {
    let mut random = Pcg64::seed_from_u64(7);
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let mut numbers = line.split(' ').map(|word| word.parse().unwrap());
        let (size, seed) = (numbers.next().unwrap(), numbers.next().unwrap());
        let all = bytes(seed, size);
        let mut left = all.as_slice();
        while !left.is_empty() {
            let most = [1, 100, 20_000, 700_000][random.random_range(0..4)];
            let (piece, rest) = left.split_at(random.random_range(1..=most).min(left.len()));
            (&mut &*stream).write_all(piece)?;
            left = rest;
        }
    }
    Ok(())
}

/// Serves in a namespace until the process ends.
fn serve(netns: &NetNs) {
    netns.within(|| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
        let entry = netns.entry();
        thread::spawn(move || {
            entry.enter();
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer(&stream));
            }
        });
    });
}

/// A connection as the gateway makes it, nonblocking.
fn dial(to: SocketAddr) -> TcpStream {
    let socket = relayed(to).unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

/// Asks, and reads the answer as it comes; sometimes slowly.
fn ask(stream: &mut TcpStream, size: usize, random: &mut impl Rng) {
    let seed = random.random::<u32>() as usize;
    stream
        .write_all(format!("{size} {seed}\n").as_bytes())
        .unwrap();
    let mut room = vec![0; 200_000];
    let mut at = 0;
    while at < size {
        let most = random.random_range(1..=room.len());
        let read = match stream.read(&mut room[..most]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::yield_now();
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        assert_ne!(read, 0, "the answer ends at {at} of {size}");
        let wrong = (0..read).find(|here| room[*here] != byte(seed, at + here));
        assert_eq!(wrong, None, "behind {at} of {size}");
        at += read;
        if random.random_range(0..20) == 0 {
            // What comes meanwhile comes both ways.
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn address(world: &World, container: usize) -> SocketAddr {
    SocketAddr::new(world.containers[container].address, PORT)
}

#[test]
fn what_is_said_goes_past_tcp_up_to_a_limit() {
    let Some(world) = world("relay-bytes") else {
        return;
    };
    serve(&world.containers[0].netns);
    let mut random = Pcg64::seed_from_u64(1);
    world.host.within(|| {
        let mut stream = dial(address(&world, 0));
        for size in [0, 1, 5000, MOST as usize] {
            ask(&mut stream, size, &mut random);
        }
        let info = Info::of(&stream);
        // The SYN counts.
        assert_eq!((info.acked, info.received), (1, 0), "all of it past TCP");
        ask(&mut stream, 5_000_000, &mut random);
        let by_tcp = Info::of(&stream).received;
        // The piece in which the limit is reached goes with it.
        assert!(
            (5_000_000 - 2 * u64::from(MOST)..=5_000_000 - u64::from(MOST)).contains(&by_tcp),
            "{by_tcp}"
        );
        ask(&mut stream, 5000, &mut random);
        assert_eq!(Info::of(&stream).received, by_tcp, "and past it again");
    });
}

#[test]
fn answers_are_whole_and_in_order_however_they_come() {
    let Some(world) = world("relay-order") else {
        return;
    };
    for container in &world.containers {
        serve(&container.netns);
    }
    let world = &world;
    thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn(move || {
                let mut random = Pcg64::seed_from_u64(number);
                world.host.within(|| {
                    let mut stream = dial(address(world, number as usize % 3));
                    for _ in 0..60 {
                        let size = SIZES[random.random_range(0..SIZES.len())];
                        ask(&mut stream, size, &mut random);
                    }
                    assert_eq!(Info::of(&stream).acked, 1, "no request by TCP");
                });
            });
        }
    });
}

#[test]
fn nobody_elses_connections_are_touched() {
    let Some(world) = world("relay-others") else {
        return;
    };
    serve(&world.containers[0].netns);
    let to = address(&world, 0);
    let by_tcp = |mut stream: TcpStream| {
        stream.set_nonblocking(true).unwrap();
        ask(&mut stream, 5000, &mut Pcg64::seed_from_u64(2));
        assert_eq!(Info::of(&stream).received, 5000);
    };
    world
        .host
        .within(|| by_tcp(TcpStream::connect(to).unwrap()));
    // A container asks as the gateway does.
    world.containers[1].netns.within(|| by_tcp(dial(to)));
}

#[test]
fn an_end_is_an_end() {
    let Some(world) = world("relay-end") else {
        return;
    };
    let netns = &world.containers[0].netns;
    let listener = netns.within(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap());
    world.host.within(|| {
        let mut asks = dial(address(&world, 0));
        asks.set_nonblocking(false).unwrap();
        let (mut answers, _) = listener.accept().unwrap();
        asks.write_all(b"question").unwrap();
        answers.write_all(b"half of the ans").unwrap();
        // With the question unread.
        drop(answers);
        let mut all = Vec::new();
        let _ = asks.read_to_end(&mut all);
        assert_eq!(all, b"half of the ans");

        let mut asks = dial(address(&world, 0));
        let (mut answers, _) = listener.accept().unwrap();
        asks.write_all(b"question").unwrap();
        drop(asks);
        let mut all = Vec::new();
        answers.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"question");
        until("its end is heard", || answers.write_all(b"answer").err());
    });
    let known = world
        .pin_dir
        .join(format!("v{LAYOUT_VERSION}/maps/{}", map::RELAYS));
    let known = known.display().to_string();
    until("connections that have ended have no place", || {
        let shown = run("bpftool", &["-j", "map", "dump", "pinned", &known]).stdout;
        (shown.trim_ascii() == b"[]").then_some(())
    });
}

#[test]
fn it_ends_and_begins_again_under_open_connections() {
    let Some(mut world) = world("relay-again") else {
        return;
    };
    serve(&world.containers[0].netns);
    let to = address(&world, 0);
    let mut random = Pcg64::seed_from_u64(3);
    let mut old = world.host.within(|| dial(to));
    ask(&mut old, 2_000_000, &mut random);
    // The kernel may be late to give it up: then both are asked.
    let name = format!("v{LAYOUT_VERSION}/links/{}", program::JOIN);
    let late = PinnedLink::from_pin(world.pin_dir.join(name)).unwrap();
    world.reopen();
    ask(&mut old, 2_000_000, &mut random);
    let host = &world.host;
    let plane = world.dataplane.as_mut().unwrap();
    assert!(host.within(|| plane.relay(true)).unwrap());
    let mut new = host.within(|| dial(to));
    for stream in [&mut old, &mut new] {
        ask(stream, 5000, &mut random);
    }
    assert_eq!(Info::of(&new).received, 0);
    drop(late);
    assert!(!host.within(|| plane.relay(false)).unwrap());
    until("new connections go by TCP", || {
        let mut by_tcp = host.within(|| dial(to));
        ask(&mut by_tcp, 2_000_000, &mut random);
        (Info::of(&by_tcp).received == 2_000_000).then_some(())
    });
    for stream in [&mut old, &mut new] {
        ask(stream, 2_000_000, &mut random);
    }
    assert!(!world.has(program::JOIN));
}

/// What a server has sent, and how much of it by TCP.
#[derive(Default)]
struct Sent {
    all: AtomicU64,
    by_tcp: AtomicU64,
}

/// An HTTP server: `GET /api/SIZE` is answered with so many bytes, any other request with its body.
fn http_server(netns: &NetNs, sent: &Arc<Sent>) {
    let sent = Arc::clone(sent);
    netns.within(|| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
        let entry = netns.entry();
        thread::spawn(move || {
            entry.enter();
            for stream in listener.incoming().flatten() {
                let sent = Arc::clone(&sent);
                thread::spawn(move || http_answer(&stream, &sent));
            }
        });
    });
}

fn http_answer(mut stream: &TcpStream, sent: &Sent) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let size = first
            .strip_prefix("GET /api/")
            .and_then(|rest| rest.split(' ').next());
        if let Some(size) = size {
            let size = size.parse().unwrap();
            body = bytes(size, size);
        }
        let before = Info::of(&stream).acked;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(&body)?;
        sent.all.fetch_add((head.len() + body.len()) as u64, SeqCst);
        sent.by_tcp
            .fetch_add(Info::of(&stream).acked - before, SeqCst);
    }
}

/// A gateway in the host's namespace, ended with this.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn gateway(world: &World, dir: &std::path::Path) -> Gateway {
    let socket = dir.join("gw");
    let mut command: Command = world.host.command(&binary().display().to_string());
    command.args(["gateway", "--socket"]).arg(&socket);
    let child = Gateway(command.stdin(Stdio::null()).spawn().unwrap());
    let client = until("the gateway answers", || {
        Client::connect(&socket, Duration::from_secs(5)).ok()
    });
    let mut http = fixture::http();
    http.routes = vec!["/".to_owned()];
    let service = ServiceTable {
        name: "web".to_owned(),
        listen: Listen {
            address: Some(Ipv4Addr::UNSPECIFIED.into()),
            port: 80,
        },
        closed: false,
        http,
        count: CountConfig {
            prefix: "/".to_owned(),
            exclude: Vec::new(),
        },
        ring: vec![0, 1, 2],
        slots: (0..3)
            .map(|slot| SlotTable {
                slot,
                address: address(world, usize::from(slot)),
                generation: 1,
                direct: true,
                pardons: 0,
            })
            .collect(),
    };
    let table = Table {
        control: dir.join("none"),
        relay: true,
        services: vec![service],
    };
    client.set(&table).unwrap();
    child
}

/// One request on a connection that stays, and its answer.
fn request(stream: &mut BufReader<TcpStream>, size: usize, post: bool) {
    let body = if post { bytes(size, size) } else { Vec::new() };
    let head = if post {
        format!("POST /api/echo HTTP/1.1\r\nhost: t\r\ncontent-length: {size}\r\n\r\n")
    } else {
        format!("GET /api/{size} HTTP/1.1\r\nhost: t\r\n\r\n")
    };
    let whole = [head.as_bytes(), &body].concat();
    stream.get_mut().write_all(&whole).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line != "\r\n" {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0);
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer == bytes(size, size), "the answer of {size} bytes");
}

#[test]
fn the_gateway_loses_nothing_of_it() {
    let Some(mut world) = world("relay-gateway") else {
        return;
    };
    // The gateway has the port; the kernel leaves it alone in mode http.
    world.plane().set_services(&[]).unwrap();
    let sent = Arc::new(Sent::default());
    for container in &world.containers {
        http_server(&container.netns, &sent);
    }
    let dir = tempfile::tempdir().unwrap();
    let _gateway = gateway(&world, dir.path());
    let world = &world;
    thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn(move || {
                let mut random = Pcg64::seed_from_u64(number);
                world.outside.within(|| {
                    let stream = TcpStream::connect("10.9.0.1:80").unwrap();
                    let limit = Some(Duration::from_secs(20));
                    stream.set_read_timeout(limit).unwrap();
                    let mut stream = BufReader::new(stream);
                    for _ in 0..60 {
                        let size = SIZES[random.random_range(0..SIZES.len())];
                        request(&mut stream, size, random.random_range(0..4) == 0);
                    }
                });
            });
        }
    });
    let (all, by_tcp) = (sent.all.load(SeqCst), sent.by_tcp.load(SeqCst));
    println!("{by_tcp} of {all} bytes by TCP");
    assert!(by_tcp > 0 && by_tcp < all * 3 / 4, "{by_tcp} of {all}");
}
