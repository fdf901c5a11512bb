//! HTTP clients as test scripts are: a connection per request, or one that is kept.

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
    let mut stream = connect(to)?;
    ask(&mut stream, "close", method, path, body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn ask(
    stream: &mut TcpStream,
    then: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> io::Result<()> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: acts\r\nConnection: {then}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// A connection that is used for every request.
#[derive(Debug)]
pub struct Kept(TcpStream);

impl Kept {
    /// Connects.
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        Ok(Self(connect(to)?))
    }

    /// Asks, and leaves the connection open. Answers must have their length in their heads.
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        ask(&mut self.0, "keep-alive", method, path, body)?;
        let mut bytes = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            if let Some(answer) = parse(&bytes) {
                return Ok(answer);
            }
            match self.0.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => bytes.extend_from_slice(&piece[..count]),
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..end]).ok()?;
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    };
    let body = bytes[end + 4..].to_vec();
    if let Some(body) = field("transfer-encoding").map(|_| chunks(&body)) {
        return answer(head, field("x-backend"), body?);
    }
    let length = field("content-length").and_then(|text| text.parse().ok());
    if length.is_some_and(|length: usize| length != body.len()) {
        return None;
    }
    answer(head, field("x-backend"), body)
}

fn answer(head: &str, backend: Option<&str>, body: Vec<u8>) -> Option<Answer> {
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        backend: backend.unwrap_or_default().split(':').next()?.to_owned(),
        body,
    })
}

/// The body that comes in these chunks; `None` while it is not whole.
fn chunks(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
        let rest = bytes.get(end + 2..)?;
        body.extend_from_slice(rest.get(..size)?);
        bytes = rest.get(size..)?.strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some(body);
        }
    }
}
