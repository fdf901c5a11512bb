//! One `GET` on a connection of its own, of which only the status is wanted. By hand, since there
//! are so many of them: the tasks and channels of an HTTP client were a tenth of what the
//! controller costs at rest.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
};

use httparse::{EMPTY_HEADER, Response, Status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{Answer, probe::Target};

/// Read at once. A body that fits is read with its head, so that closing does not reset.
const FIRST_READ: usize = 8 << 10;
/// Longest head, with those of interim responses before it.
const HEAD_LIMIT: usize = 64 << 10;
/// Most header lines.
const HEADERS: usize = 100;
/// The one interim status that is the last: the server leaves HTTP.
const SWITCHING_PROTOCOLS: u16 = 101;

/// Ports that no other connection takes by itself, and root alone may have (ip(7), RFC 6335, 6).
const RESERVED: std::ops::Range<u16> = 600..1024;
/// How many of these are tried.
const TRIES: usize = 8;

/// Asks, and waits as long as it takes.
pub(super) async fn get(target: &Target) -> Answer {
    match connect(target.address).await {
        Ok(stream) => ask(stream, target).await.unwrap_or(Answer::Broken),
        Err(error) => Answer::of_connecting(&error),
    }
}

/// Clients on this host can use up all ports for connections to a backend, a minute each: how it is can
/// be asked all the same.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    match TcpStream::connect(address).await {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            connect_from_reserved(address).await.or(Err(error))
        }
        done => done,
    }
}

async fn connect_from_reserved(address: SocketAddr) -> io::Result<TcpStream> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for _ in 0..TRIES {
        let port = RESERVED.start + NEXT.fetch_add(1, Ordering::Relaxed) % RESERVED.len() as u16;
        match connect_from(port, address).await {
            Err(error) if is_about_the_port(&error) => last = error,
            done => return done,
        }
    }
    Err(last)
}

fn is_about_the_port(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

async fn connect_from(port: u16, address: SocketAddr) -> io::Result<TcpStream> {
    let (socket, any): (_, IpAddr) = if address.is_ipv4() {
        (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into())
    } else {
        (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into())
    };
    socket.set_reuseaddr(true)?;
    socket.bind((any, port).into())?;
    socket.connect(address).await
}

/// What was answered. Fails where the connection ends before the head does.
async fn ask(mut stream: TcpStream, target: &Target) -> io::Result<Answer> {
    let Target { address, path } = target;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: orch\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(FIRST_READ);
    while head.len() < HEAD_LIMIT {
        let read = stream.read_buf(&mut head).await?;
        if read == 0 {
            return Ok(Answer::Broken);
        }
        match status(&head) {
            // The body is left unread: the status says all.
            Ok(Some(status)) => return Ok(Answer::Status(status)),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    Ok(Answer::NotHttp)
}

/// The final status, once its head is whole. A server may send interim responses (1xx) first.
fn status(mut bytes: &[u8]) -> Result<Option<u16>, httparse::Error> {
    loop {
        let mut headers = [EMPTY_HEADER; HEADERS];
        let mut response = Response::new(&mut headers);
        let Status::Complete(len) = response.parse(bytes)? else {
            return Ok(None);
        };
        match response.code {
            Some(code @ 100..200) if code != SWITCHING_PROTOCOLS => {
                bytes = bytes.get(len..).unwrap_or_default();
            }
            code => return Ok(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        net::TcpListener,
        time::{sleep, timeout},
    };

    use super::*;

    async fn listener() -> (TcpListener, Target) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            address: listener.local_addr().unwrap(),
            path: "/api/v1/_health".into(),
        };
        (listener, target)
    }

    /// Answers one request with these bytes, part by part, closes, and returns the request.
    async fn answer(listener: TcpListener, response: &[&[u8]]) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = vec![0; 1024];
        let len = stream.read(&mut request).await.unwrap();
        for (at, part) in response.iter().enumerate() {
            if at > 0 {
                // So that the parts are read one by one.
                sleep(Duration::from_millis(5)).await;
            }
            // Whoever asks may have heard enough.
            if stream.write_all(part).await.is_err() {
                break;
            }
        }
        request.truncate(len);
        String::from_utf8(request).unwrap()
    }

    async fn asked(response: &[&[u8]]) -> (Answer, String) {
        let (listener, target) = listener().await;
        tokio::join!(get(&target), answer(listener, response))
    }

    #[tokio::test]
    async fn the_request_is_one_of_http_1_1() {
        let (_, request) = asked(&[]).await;
        let mut lines = request.split("\r\n");
        assert_eq!(lines.next(), Some("GET /api/v1/_health HTTP/1.1"));
        let host = lines.next().unwrap();
        assert!(host.starts_with("host: 127.0.0.1:"), "{request}");
        assert!(request.contains("\r\nconnection: close\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n"), "{request}");
    }

    #[tokio::test]
    async fn the_status_is_the_answer() {
        let rows: [(&[&[u8]], u16); 11] = [
            (&[b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], 200),
            (&[b"HTTP/1.0 500 Oh\r\n\r\nmuch text"], 500),
            (&[b"HTTP/1.1 204\r\n\r\n"], 204),
            (&[b"HTTP/1.1 200 \r\n\r\n"], 200),
            (&[b"\r\nHTTP/1.1 200 OK\r\n\r\n"], 200),
            (
                &[
                    b"HTTP/1.1 2",
                    b"00 OK\r\nconte",
                    b"nt-length: 0\r\n\r",
                    b"\n",
                ],
                200,
            ),
            (
                &[b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Wait\r\n\r\n"],
                503,
            ),
            (
                &[
                    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
                    b"HTTP/1.1 200 OK\r\n\r\n",
                ],
                200,
            ),
            (
                &[b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"],
                101,
            ),
            (&[b"HTTP/1.1 999 What\r\n\r\n"], 999),
            (
                &[b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ntoo short"],
                200,
            ),
        ];
        for (response, status) in rows {
            let shown = String::from_utf8_lossy(&response.concat()).into_owned();
            assert_eq!(asked(response).await.0, Answer::Status(status), "{shown:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_apart() {
        let (silent, target) = listener().await;
        let answer = timeout(Duration::from_millis(50), get(&target)).await;
        assert!(answer.is_err(), "the caller ends it");
        drop(silent);
        assert_eq!(get(&target).await, Answer::Refused);
        let rows: [(&[&[u8]], Answer); 10] = [
            (&[b""], Answer::Broken),
            (&[b"SSH-2.0-none\r\n"], Answer::NotHttp),
            (&[b"HTTP/1.1 200 OK"], Answer::Broken),
            (
                &[b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"],
                Answer::Broken,
            ),
            (&[b"HTTP/1.1 20x OK\r\n\r\n"], Answer::NotHttp),
            (&[b"HTTP/1.1 20 OK\r\n\r\n"], Answer::NotHttp),
            (&[b"HTTP/2.0 200 OK\r\n\r\n"], Answer::NotHttp),
            (&[b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"], Answer::NotHttp),
            (&[b"HTTP/1.1 100 Continue\r\n\r\n"], Answer::Broken),
            (&[b"\0\x01\x02", b"\xff"], Answer::NotHttp),
        ];
        for (response, expected) in rows {
            let shown = String::from_utf8_lossy(&response.concat()).into_owned();
            assert_eq!(asked(response).await.0, expected, "{shown:?}");
        }
    }

    #[tokio::test]
    async fn a_long_head_is_read_and_an_endless_one_is_not() {
        let head = |line: usize| [&b"HTTP/1.1 200 OK\r\nx: "[..], &vec![b'y'; line]].concat();
        let long = asked(&[&head(3 * FIRST_READ), b"\r\n\r\n"]).await.0;
        assert_eq!(long, Answer::Status(200));
        assert_eq!(asked(&[&head(2 * HEAD_LIMIT)]).await.0, Answer::NotHttp);
        let interim = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(HEAD_LIMIT / 20);
        assert_eq!(asked(&[&interim]).await.0, Answer::NotHttp);
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(HEADERS + 1));
        assert_eq!(asked(&[many.as_bytes()]).await.0, Answer::NotHttp);
    }
}
