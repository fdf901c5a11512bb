//! An HTTP client for tests that says exactly what became of a request.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

/// No answer of a healthy service takes longer, even on a loaded machine.
const LIMIT: Duration = Duration::from_secs(10);

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Whether the server ends the connection.
    pub closes: bool,
    /// The copy that answered, as `X-Backend` has it.
    pub backend: String,
    /// The body.
    pub body: String,
}

/// A connection.
#[derive(Debug)]
pub struct Client<S: Read + Write>(BufReader<S>);

impl Client<TcpStream> {
    /// Connects over TCP.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket
            .connect_timeout(&address.into(), LIMIT)
            .map_err(|error| {
                let from = socket.local_addr().ok().and_then(|local| local.as_socket());
                io::Error::new(error.kind(), format!("connect: {error}, from {from:?}"))
            })?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Whether the server has ended the connection, nothing being asked.
    pub fn is_closed(&self) -> bool {
        let stream = self.0.get_ref();
        if stream.set_nonblocking(true).is_err() {
            return true;
        }
        let peeked = stream.peek(&mut [0]);
        let open = matches!(&peeked, Err(error) if error.kind() == ErrorKind::WouldBlock);
        stream.set_nonblocking(false).is_err() || !open
    }
}

impl<S: Read + Write> Client<S> {
    /// Asks, and reads the whole answer.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        let head = head(method, path, body.len(), "");
        self.send(format!("{head}{body}").as_bytes())?;
        self.answer()
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// Reads an answer. One that breaks off is an error.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            lines.push(line.to_owned());
        }
        let invalid = || io::Error::new(ErrorKind::InvalidData, lines.join(" | "));
        let status = lines.first().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|word| word.parse().ok());
        let field = |wanted: &str| {
            let mut fields = lines.iter().filter_map(|line| line.split_once(':'));
            let found = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map_or("", |(_, value)| value.trim())
        };
        let length = match field("content-length") {
            "" => 0,
            text => text.parse().map_err(|_| invalid())?,
        };
        let answer = Answer {
            status: status.ok_or_else(invalid)?,
            closes: field("connection").eq_ignore_ascii_case("close"),
            backend: field("x-backend").to_owned(),
            body: String::new(),
        };
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { body, ..answer })
    }
}

/// The head of a request.
pub fn head(method: &str, path: &str, length: usize, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{more}\r\n")
}

/// One request on a connection of its own.
pub fn once(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut client = Client::connect(address)?;
    let head = head(method, path, body.len(), "Connection: close\r\n");
    client.send(format!("{head}{body}").as_bytes())?;
    client.answer()
}

/// `GET` on a unix socket.
pub fn get_unix(socket: &Path, path: &str) -> io::Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let answer = Client(BufReader::new(stream)).ask("GET", path, "")?;
    Ok(answer.body)
}
