//! One request: its connection, its answer, and what it means that there is none.

use std::{
    error::Error,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Response,
    body::{Bytes, Incoming},
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt, net::TcpStream, time};

use super::{
    engine::Shared,
    tally::{Fate, Loss},
    target::Target,
};

/// How long a server may take to close a connection that has served its request. The side that
/// closes first keeps the port for a minute, so the client leaves that to the server.
const LINGER: Duration = Duration::from_secs(1);

type Sender = SendRequest<Full<Bytes>>;

/// The way to a target, for all requests of a run.
#[derive(Debug)]
pub struct Wire {
    target: Target,
    /// One at the least.
    addresses: Vec<SocketAddr>,
    /// Which of them has taken a connection; none yet if there is no such one.
    proven: AtomicUsize,
    /// Whether connections are used again.
    keep_alive: bool,
    /// Open connections without a request on them.
    idle: Mutex<Vec<Sender>>,
}

impl Wire {
    /// Connects to the first of the addresses that takes a connection, and stays with it.
    pub fn new(target: Target, addresses: Vec<SocketAddr>, keep_alive: bool) -> Self {
        Self {
            target: if keep_alive { target } else { target.closing() },
            addresses,
            proven: AtomicUsize::new(usize::MAX),
            keep_alive,
            idle: Mutex::default(),
        }
    }

    /// Asks once.
    pub(super) async fn ask(self: &Arc<Self>, shared: &Shared) -> Fate {
        match self.exchange(shared).await {
            Ok(status) => Fate::Answered(status),
            Err(wrong) => wrong.fate(),
        }
    }

    async fn exchange(self: &Arc<Self>, shared: &Shared) -> Result<u16, Wrong> {
        let mut request = self.target.request();
        while let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    shared.lock().connected += 1;
                    let status = drain(response).await?;
                    self.keep(sender);
                    return Ok(status);
                }
                // The server has closed it: nothing was sent on it, so nothing is lost yet.
                Err(mut error) => {
                    let Some(unsent) = error.take_message() else {
                        shared.lock().connected += 1;
                        return Err(error.into_error().into());
                    };
                    request = unsent;
                }
            }
        }
        let stream = self.connect().await?;
        {
            let mut tally = shared.lock();
            tally.connections += 1;
            tally.connected += 1;
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        if self.keep_alive {
            // Its errors reach the request's side, too.
            tokio::spawn(connection);
            let status = drain(sender.send_request(request).await?).await?;
            self.keep(sender);
            return Ok(status);
        }
        let mut connection = connection;
        let asked = async { drain(sender.send_request(request).await?).await };
        let status = drive(asked, &mut connection).await?;
        tokio::spawn(see_off(connection));
        Ok(status)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        if let Some(address) = self.addresses.get(self.proven.load(Ordering::Relaxed)) {
            return open(*address).await;
        }
        let mut refused = io::Error::from(ErrorKind::AddrNotAvailable);
        for (at, address) in self.addresses.iter().enumerate() {
            match open(*address).await {
                Ok(stream) => {
                    self.proven.store(at, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    /// Lets the next request have the connection, once it can take one.
    fn keep(self: &Arc<Self>, mut sender: Sender) {
        let wire = Arc::clone(self);
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                let mut idle = wire.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.push(sender);
            }
        });
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Runs a connection beside what is asked on it, in one task. Where the task is given up, the
/// connection is closed with it.
async fn drive<T>(
    asked: impl Future<Output = T>,
    connection: &mut Connection<TokioIo<TcpStream>, Full<Bytes>>,
) -> T {
    let mut asked = pin!(asked);
    let driver = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx));
    tokio::select! {
        biased;
        outcome = &mut asked => return outcome,
        // Its errors reach the request's side, too.
        _ = driver => {}
    }
    asked.await
}

/// Reads the whole answer.
async fn drain(response: Response<Incoming>) -> Result<u16, Wrong> {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(status)
}

async fn see_off(connection: Connection<TokioIo<TcpStream>, Full<Bytes>>) {
    let mut stream = connection.into_parts().io.into_inner();
    let mut rest = [0; 512];
    let closed = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    // Whatever comes of it, the connection ends here.
    let _ = time::timeout(LINGER, closed).await;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Wrong {
    fn fate(&self) -> Fate {
        let (loss, text) = match self {
            Self::Io(error) => (loss_of(error.kind()), error.to_string()),
            Self::Http(error) => match io_error(error) {
                Some(cause) => (loss_of(cause.kind()), cause.to_string()),
                None if error.is_parse() => {
                    (Loss::Other, format!("the answer is no HTTP/1: {error}"))
                }
                None if error.is_incomplete_message()
                    || error.is_closed()
                    || error.is_canceled() =>
                {
                    let text = "the connection ended before the whole answer was there";
                    (Loss::Reset, text.to_owned())
                }
                None => (Loss::Other, error.to_string()),
            },
        };
        Fate::Lost(loss, text)
    }
}

fn loss_of(kind: ErrorKind) -> Loss {
    match kind {
        ErrorKind::ConnectionRefused => Loss::Refused,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected
        | ErrorKind::UnexpectedEof => Loss::Reset,
        ErrorKind::TimedOut => Loss::TimedOut,
        _ => Loss::Other,
    }
}

fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}
