//! An HTTP client as test scripts are: a connection per request, nothing kept alive.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The identity of the copy that answered, without its port.
    pub backend: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Asks on a connection of its own.
pub fn get(to: SocketAddr, path: &str) -> io::Result<Answer> {
    exchange(to, "GET", path, b"")
}

/// Sends a body on a connection of its own.
pub fn post(to: SocketAddr, path: &str, body: &[u8]) -> io::Result<Answer> {
    exchange(to, "POST", path, body)
}

fn exchange(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: acts\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..end]).ok()?;
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    };
    let body = bytes[end + 4..].to_vec();
    let length = field("content-length").and_then(|text| text.parse().ok());
    if length.is_some_and(|length: usize| length != body.len()) {
        return None;
    }
    let backend = field("x-backend").unwrap_or_default();
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        backend: backend.split(':').next()?.to_owned(),
        body,
    })
}
