//! A copy that does what the path asks for.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
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
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};

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
