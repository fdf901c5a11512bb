//! A small HTTP server for tests: answers every request with the port it listens on, or with the
//! client's address if the path is `/peer`, with much if it is `/bulk`, with so many bytes if it ends in
//! `/bytes/N`, keeps connections open unless the path is `/close`, and can be told what status to give, or by a
//! path that ends in `/status/N`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    thread,
};

use crate::wait::until;

/// Bytes of the body at `/bulk`: more than a socket's buffers take before anything is acknowledged.
pub const BULK: usize = 4_000_000;

/// A server that serves until the test ends, or until it is stopped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    status: AtomicU16,
    accepted: AtomicU64,
    requests: AtomicU64,
    stopped: AtomicBool,
}

impl Server {
    /// Listens on a port of all addresses of the namespace that the calling thread is in.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("::", port)).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let shared = Arc::new(Shared {
            status: AtomicU16::new(200),
            accepted: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let state = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if state.stopped.load(Ordering::Relaxed) {
                    return;
                }
                state.accepted.fetch_add(1, Ordering::Relaxed);
                let state = Arc::clone(&state);
                thread::spawn(move || serve(stream, port, &state));
            }
        });
        Self { address, shared }
    }

    /// The status of every answer from now on.
    pub fn set_status(&self, status: u16) {
        self.shared.status.store(status, Ordering::Relaxed);
    }

    /// Closes the listener; connections that are open go on. To be called in its namespace.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // The first one wakes the listener, which ends without taking it.
        until("nobody listens", || {
            TcpStream::connect(self.address).err().map(|_| ())
        });
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream, port: u16, state: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let (mut length, mut closes, mut asks, mut bulk) = (0, false, false, false);
        let (mut size, mut wanted) = (None, None);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            closes |= line.starts_with("get /close ");
            asks |= line.starts_with("get /peer ");
            bulk |= line.starts_with("get /bulk ");
            size = size.or_else(|| number_in(&line, "/bytes/"));
            wanted = wanted.or_else(|| number_in(&line, "/status/"));
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let text = if asks {
            stream.peer_addr().ok()?.ip().to_canonical().to_string()
        } else if bulk {
            "bulk".repeat(BULK / 4)
        } else if let Some(size) = size {
            "x".repeat(size)
        } else {
            port.to_string()
        };
        let status = wanted.unwrap_or_else(|| state.status.load(Ordering::Relaxed).into());
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        state.requests.fetch_add(1, Ordering::Relaxed);
        stream.write_all(head.as_bytes()).ok()?;
        if closes {
            return None;
        }
    }
}

/// The number behind this part of a request's path.
fn number_in(line: &str, part: &str) -> Option<usize> {
    let (_, rest) = line.split_once(part)?;
    rest.split(' ').next()?.parse().ok()
}

/// Asks on an open connection and gives status and body.
pub fn ask(stream: &mut TcpStream, path: &str) -> std::io::Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")?;
    answer(stream)
}

/// Reads an answer with a length.
pub fn answer(stream: &mut TcpStream) -> std::io::Result<(u16, String)> {
    let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(invalid)?;
    let length = head
        .split("content-length:")
        .nth(1)
        .and_then(|rest| rest.lines().next()?.trim().parse().ok())
        .ok_or_else(invalid)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
