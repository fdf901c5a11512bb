//! A gateway on loopback, with copies that are told what to do by the path.

use std::{
    convert::Infallible,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use orch::{
    config::{HttpConfig, parse},
    http::{Client, ServiceTable, SlotTable, Table},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until it gives something.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: in vain");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A gateway in a process of its own.
pub(crate) struct Gate {
    pub(crate) dir: TempDir,
    pub(crate) child: Child,
    pub(crate) client: Client,
    pub(crate) table: Table,
    pub(crate) address: SocketAddr,
}

/// A port that nobody uses, as far as one can know.
pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

/// The defaults of the file, with these lines for `[service.http]`.
pub(crate) fn http(lines: &str) -> HttpConfig {
    let text = format!(
        "[[service]]\nmode = \"http\"\nbackend.image = \"a:b\"\ncount.prefix = \"/api/\"\n[service.http]\n{lines}"
    );
    parse("test", &text).unwrap().services[0].http.clone()
}

impl Gate {
    pub(crate) fn open(lines: &str, copies: &[&Copy]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = orch::http::socket_path(&dir.path().join("control"));
        let child = spawn(&socket);
        let client = until("the gateway answers", || {
            Client::connect(&socket, PATIENCE).ok()
        });
        let port = free_port();
        let mut gate = Self {
            child,
            client,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            table: Table {
                control: dir.path().join("control"),
                // Without a data plane they are connections as all others, kept apart from those.
                relay: true,
                services: vec![ServiceTable {
                    name: "acts".to_owned(),
                    listen: orch::config::Listen {
                        address: Some(Ipv4Addr::LOCALHOST.into()),
                        port,
                    },
                    closed: false,
                    http: http(lines),
                    count: orch::config::CountConfig {
                        prefix: "/api/".to_owned(),
                        exclude: vec!["/api/_health".to_owned()],
                    },
                    ring: Vec::new(),
                    slots: Vec::new(),
                }],
            },
            dir,
        };
        gate.ring(copies);
        gate
    }

    pub(crate) fn socket(&self) -> PathBuf {
        orch::http::socket_path(&self.table.control)
    }

    pub(crate) fn service(&mut self) -> &mut ServiceTable {
        &mut self.table.services[0]
    }

    /// These are the slots 0, 1, 2 and all ready.
    pub(crate) fn ring(&mut self, copies: &[&Copy]) {
        let numbers: Vec<u16> = (0..copies.len() as u16).collect();
        self.service().slots = (0..)
            .zip(copies)
            .map(|(slot, copy)| SlotTable {
                slot,
                address: copy.address,
                generation: copy.generation,
                direct: true,
                pardons: 0,
            })
            .collect();
        self.only(&numbers);
    }

    /// Only these slots are ready.
    pub(crate) fn only(&mut self, ring: &[u16]) {
        self.service().ring = ring.to_vec();
        self.client.set(&self.table).unwrap();
    }

    pub(crate) fn connect(&self) -> Talk {
        Talk::to(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Answer {
        let mut talk = self.connect();
        talk.say(&format!(
            "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        ));
        talk.answer("GET")
    }

    /// Requests, and excluded ones, of all slots.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let report = self.client.read().unwrap();
        let slots = report.services.iter().flat_map(|one| &one.slots);
        slots.fold((0, 0), |(requests, excluded), slot| {
            (
                requests + slot.counts.requests,
                excluded + slot.counts.excluded,
            )
        })
    }

    pub(crate) fn live(&self) -> u64 {
        let report = self.client.read().unwrap();
        let slots = report.services.iter().flat_map(|one| &one.slots);
        slots.map(|slot| slot.live).sum()
    }
}

pub(crate) fn spawn(socket: &std::path::Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_orch"))
        .args(["gateway", "--socket"])
        .arg(socket)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Gate {
    fn drop(&mut self) {
        // One of a later version may answer there by now.
        if let Ok(client) = Client::connect(&self.socket(), PATIENCE) {
            let _ = client.end();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer, its head as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// A connection on which everything is said by hand.
pub(crate) struct Talk {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Talk {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Says it if the other side still listens.
    pub(crate) fn try_say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.say(&format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
        self.answer("GET")
    }

    /// The next answer, to a request of this method.
    pub(crate) fn answer(&mut self, method: &str) -> Answer {
        self.try_answer(method).expect("an answer")
    }

    /// `None` if the connection ends before it.
    pub(crate) fn try_answer(&mut self, method: &str) -> Option<Answer> {
        let end = loop {
            let end = self.read.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break end,
                None => self.more().then_some(())?,
            }
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        if (100..200).contains(&status) || method == "HEAD" || status == 204 || status == 304 {
            return Some(answer);
        }
        answer.body = match (
            answer.field("content-length"),
            answer.field("transfer-encoding"),
        ) {
            (Some(length), _) => self.take(length.parse().unwrap()),
            (None, Some(_)) => self.chunks(),
            (None, None) => self.rest(),
        };
        Some(answer)
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                while !self.line().is_empty() {}
                return body;
            }
            body.extend(self.take(size));
            assert_eq!(self.line(), "");
        }
    }

    pub(crate) fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return String::from_utf8(line[..end].to_vec()).unwrap();
            }
            assert!(self.more(), "the connection ends within a line");
        }
    }

    pub(crate) fn take(&mut self, size: usize) -> Vec<u8> {
        while self.read.len() < size {
            assert!(self.more(), "the connection ends within a body");
        }
        self.read.drain(..size).collect()
    }

    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.read)
    }

    /// Whether the other side has closed, with nothing more to say.
    pub(crate) fn is_closed(&mut self) -> bool {
        !self.more()
    }

    fn more(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                self.read.extend_from_slice(&piece[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing more comes: {error}"),
        }
    }
}

/// A copy: it says its name, and does what the path asks for.
pub(crate) struct Copy {
    pub(crate) address: SocketAddr,
    pub(crate) generation: u32,
    /// Connections that it has accepted.
    pub(crate) accepted: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Copy {
    pub(crate) fn start(name: &'static str) -> Self {
        Self::at(name, (Ipv4Addr::LOCALHOST, 0).into())
    }

    pub(crate) fn at(name: &'static str, address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(1024).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener: TcpListener = socket.into();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel();
        let counter = Arc::clone(&accepted);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, name, counter) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            generation: 1,
            accepted,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Ends it as a crash does: its connections break.
    pub(crate) fn crash(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.crash();
    }
}

async fn serve(listener: TcpListener, name: &'static str, accepted: Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        accepted.fetch_add(1, SeqCst);
        let service = service_fn(move |request| answer(name, request));
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::spawn(connection);
    }
}

type Body = BoxBody<Bytes, Infallible>;

fn full(text: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(text.into()).boxed()
}

/// Pieces of a body, made as they are wanted.
fn pieces(size: usize) -> Body {
    const PIECE: usize = 64 << 10;
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let count = size.div_ceil(PIECE);
    let frames = (0..count).map(move |at| {
        let len = PIECE.min(size - at * PIECE);
        Ok(Frame::data(piece.slice(..len)))
    });
    BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)))
}

async fn answer(
    name: &'static str,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').collect();
    let number = || words[3].parse().unwrap();
    let mut answer = match words[2] {
        "slow" => {
            tokio::time::sleep(Duration::from_millis(number())).await;
            Response::new(full(name))
        }
        "status" => {
            let mut answer = Response::new(full(name));
            *answer.status_mut() = StatusCode::from_u16(number() as u16).unwrap();
            answer
        }
        "bytes" => Response::new(pieces(number() as usize)),
        "upload" => Response::new(full(upload(&mut request).await)),
        "head" => Response::new(full(lines(&request))),
        "trailers" => trailers(),
        "close" => {
            let mut answer = Response::new(full(name));
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
            answer
        }
        "chat" => chat(request),
        _ if name == "failing" => {
            let mut answer = Response::new(full(name));
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
        _ if name == "frozen" => std::future::pending().await,
        _ => Response::new(full(name)),
    };
    let name = HeaderValue::from_static(name);
    answer.headers_mut().insert("x-copy", name);
    Ok(answer)
}

/// How many bytes came, and what trailers.
async fn upload(request: &mut Request<Incoming>) -> String {
    let mut size = 0;
    let mut trailers = String::new();
    while let Some(frame) = request.body_mut().frame().await {
        let Ok(frame) = frame else {
            return "broken".to_owned();
        };
        if let Some(data) = frame.data_ref() {
            size += data.len();
        } else if let Some(map) = frame.trailers_ref() {
            trailers = format!(" {map:?}");
        }
    }
    format!("{size}{trailers}")
}

fn lines(request: &Request<Incoming>) -> String {
    use std::fmt::Write;
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    text
}

fn trailers() -> Response<Body> {
    let mut map = HeaderMap::new();
    map.insert("x-sum", HeaderValue::from_static("7"));
    let frames = [Frame::data(Bytes::from("body")), Frame::trailers(map)];
    let frames = futures_util::stream::iter(frames.map(Ok));
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    let named = HeaderValue::from_static("x-sum");
    answer.headers_mut().insert("trailer", named);
    answer
}

/// Repeats what it is told, in another protocol.
fn chat(mut request: Request<Incoming>) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else {
            return;
        };
        let mut stream = TokioIo::new(upgraded);
        let _ = stream.write_all(b"hello\n").await;
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            if stream.write_all(&piece[..count]).await.is_err() {
                return;
            }
        }
    });
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = HeaderValue::from_static("upgrade");
    answer.headers_mut().insert(CONNECTION, upgrade);
    let chat = HeaderValue::from_static("chat");
    answer.headers_mut().insert(UPGRADE, chat);
    answer
}
