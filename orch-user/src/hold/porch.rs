//! Where connections of this host and its containers wait. The kernel leads a socket that connects to
//! a service without a backend to a listener of the controller; once there is one, the controller
//! connects as a socket of the host would have, and joins the two. Such a connection ends with the
//! controller.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use orch_common::hold::LET_GO;
use socket2::SockRef;
use tokio::{
    io::{Interest, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};

use super::gates::Gates;
use crate::{config::Listen, dataplane::Bridge, health::probe::Task};

/// Between two tries while a backend is thought to be there.
const RETRY: Duration = Duration::from_millis(100);
/// Between two tries to accept when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections of a service that are carried at a time, two descriptors each: the controller has other
/// work for those.
const JOINED: usize = 4096;
/// Longest time of a connect on this host.
const CONNECT: Duration = Duration::from_secs(1);

/// What those who wait are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// There is a backend.
    pub ready: bool,
    /// How often one has come: whoever hears of another tries again at once.
    pub times: u64,
    /// How often all were sent away.
    pub refusals: u64,
}

/// On which terms one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Where the service listens.
    pub listen: Listen,
    /// How long one may wait.
    pub hold: Duration,
    /// How many may.
    pub limit: u32,
}

/// The listeners of a service. They go when this is dropped; who waits is sent away then.
#[derive(Debug)]
pub struct Porch {
    /// Their port, on both families' loopback.
    pub port: u16,
    /// The terms.
    pub rules: Rules,
    word: watch::Sender<Word>,
    desk: Desk,
    gates: Gates,
    _accepting: Vec<Task>,
}

impl Porch {
    /// Opens one; `tell` is called for everybody who comes. Fails if no port can be bound.
    pub fn open(rules: Rules, tell: impl Fn() + Clone + Send + 'static) -> io::Result<Self> {
        let (word, heard) = watch::channel(Word::default());
        let desk = Desk {
            rules,
            heard,
            waiting: Arc::default(),
            room: Arc::new(Semaphore::new(rules.limit as usize)),
            joined: Arc::new(Semaphore::new(JOINED)),
            cut: None,
        };
        let (port, listeners) = listen()?;
        let accepting = listeners.into_iter().map(|listener| {
            let desk = desk.clone();
            Task(tokio::spawn(desk.accept(listener, tell.clone())))
        });
        Ok(Self {
            port,
            rules,
            gates: Gates::default(),
            _accepting: accepting.collect(),
            desk,
            word,
        })
    }

    /// Containers that come by these bridges, and no others, wait here, too. `tell` is called for each
    /// who does. A bridge that cannot be listened at is left out.
    pub fn follow(&mut self, bridges: &[Bridge], tell: impl Fn() + Clone + Send + 'static) {
        let desk = &self.desk;
        self.gates
            .follow(bridges, self.rules.listen.address, |listener| {
                Task(tokio::spawn(desk.clone().accept(listener, tell.clone())))
            });
    }

    /// The port where they come, if there is such a bridge.
    pub fn bridge_port(&self) -> Option<u16> {
        self.gates.port()
    }

    /// Those who come to another listener wait here, too, until the task is dropped. Each of them has a
    /// receiver of `cut`, and is cut off once it says so.
    pub(super) fn also(
        &self,
        listener: TcpListener,
        cut: watch::Receiver<bool>,
        tell: impl Fn() + Send + 'static,
    ) -> Task {
        let desk = Desk {
            cut: Some(cut),
            ..self.desk.clone()
        };
        Task(tokio::spawn(desk.accept(listener, tell)))
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.desk.waiting.load(Ordering::Relaxed)
    }

    /// There is a backend: all try.
    pub fn ready(&self) {
        self.word.send_modify(|word| {
            word.ready = true;
            word.times += 1;
        });
    }

    /// There is a backend: all try, if they do not already.
    pub fn serve(&self) {
        self.word.send_if_modified(|word| {
            let news = !std::mem::replace(&mut word.ready, true);
            word.times += u64::from(news);
            news
        });
    }

    /// There is none any more.
    pub fn not_ready(&self) {
        self.word
            .send_if_modified(|word| std::mem::take(&mut word.ready));
    }

    /// Sends all away that wait.
    pub fn refuse(&self) {
        if self.waiting() > 0 {
            self.word.send_modify(|word| word.refusals += 1);
        }
    }
}

/// A free port, on both families where there are two.
fn listen() -> io::Result<(u16, Vec<TcpListener>)> {
    let bind = |ip: IpAddr, port| {
        let listener = std::net::TcpListener::bind((ip, port))?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    let mut tries = 0;
    loop {
        let four = bind(Ipv4Addr::LOCALHOST.into(), 0)?;
        let port = four.local_addr()?.port();
        match bind(Ipv6Addr::LOCALHOST.into(), port) {
            Ok(six) => return Ok((port, vec![four, six])),
            // Somebody has it on the other family: another one, then.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < 16 => tries += 1,
            // A host without IPv6.
            Err(_) => return Ok((port, vec![four])),
        }
    }
}

/// What a listener works with.
#[derive(Clone, Debug)]
struct Desk {
    rules: Rules,
    heard: watch::Receiver<Word>,
    waiting: Arc<AtomicUsize>,
    room: Arc<Semaphore>,
    /// For those who no longer wait.
    joined: Arc<Semaphore>,
    /// Whether those who came by this listener are to be cut off.
    cut: Option<watch::Receiver<bool>>,
}

impl Desk {
    /// Beyond the limit each listener accepts one more: its queue holds some, and then their own
    /// repetitions have to do.
    async fn accept(self, listener: TcpListener, tell: impl Fn()) {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&self.room).acquire_owned().await else {
                return;
            };
            let guest = Guest::new(&self.waiting);
            let mut desk = self.clone();
            desk.heard.mark_unchanged();
            tell();
            tokio::spawn(async move {
                let backend = desk.wait(&client).await;
                drop((guest, place));
                let joined = Arc::clone(&desk.joined).try_acquire_owned();
                match (backend, joined) {
                    (Some(backend), Ok(_joined)) => desk.join(client, backend).await,
                    _ => reset(&client),
                }
            });
        }
    }

    /// Connects as soon as there is a backend. `None` if it is not to be, or the client has gone.
    async fn wait(&mut self, client: &TcpStream) -> Option<TcpStream> {
        let until = Instant::now() + self.rules.hold;
        let refusals = self.heard.borrow().refusals;
        let target = self.target(client)?;
        loop {
            let word = *self.heard.borrow_and_update();
            if word.refusals != refusals {
                return None;
            }
            if word.ready
                && let Ok(Ok(backend)) = timeout(CONNECT, connect(target)).await
            {
                return Some(backend);
            }
            let again = if word.ready {
                until.min(Instant::now() + RETRY)
            } else {
                until
            };
            tokio::select! {
                changed = self.heard.changed() => changed.ok()?,
                () = sleep_until(again) => {}
                () = left(client) => return None,
            }
            if Instant::now() >= until {
                return None;
            }
        }
    }

    /// Carries bytes both ways until both ends have finished. One that breaks off breaks the other off.
    async fn join(mut self, mut client: TcpStream, mut backend: TcpStream) {
        // Only latency is at stake.
        let _ = client.set_nodelay(true);
        let cut = async {
            let Some(cut) = &mut self.cut else {
                return std::future::pending().await;
            };
            // Where nobody can say so any more, it was said.
            let _ = cut.wait_for(|cut| *cut).await;
        };
        let whole = tokio::select! {
            carried = copy_bidirectional(&mut client, &mut backend) => carried.is_ok(),
            () = cut => false,
        };
        if !whole {
            reset(&client);
            reset(&backend);
        }
    }

    /// Where the service listens, in the client's family.
    fn target(&self, client: &TcpStream) -> Option<SocketAddr> {
        let loopback = match client.peer_addr().ok()?.ip().to_canonical() {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let ip = match self.rules.listen.address {
            Some(ip) if !ip.is_unspecified() => ip,
            _ => loopback,
        };
        Some(SocketAddr::new(ip, self.rules.listen.port))
    }
}

/// Counts one who waits.
struct Guest(Arc<AtomicUsize>);

impl Guest {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends once the client has reset its connection. One that has only finished sending, be it nothing,
/// may wait for the answer; it looks the same as one that has closed.
async fn left(client: &TcpStream) {
    // Where it cannot be asked for, the client is gone as well.
    let _ = client.ready(Interest::ERROR).await;
}

/// Connects to the service as any client of this host, with the mark by which the kernel knows who
/// must not wait here again.
async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    SockRef::from(&socket).set_mark(LET_GO)?;
    socket.set_nodelay(true)?;
    socket.connect(target).await
}

/// Has the connection end with RST when it is dropped.
fn reset(stream: &TcpStream) {
    // Where that fails it ends with FIN.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, time::sleep};

    use super::*;

    /// Waits until as many wait.
    async fn waits(porch: &Porch, count: usize) {
        let found = timeout(Duration::from_secs(10), async {
            while porch.waiting() != count {
                sleep(Duration::from_millis(5)).await;
            }
        });
        let found = found.await;
        assert!(found.is_ok(), "{} wait, not {count}", porch.waiting());
    }

    #[tokio::test]
    async fn who_has_finished_sending_waits_and_who_has_reset_does_not() {
        let rules = Rules {
            listen: Listen {
                address: None,
                port: 1,
            },
            hold: Duration::from_mins(1),
            limit: 8,
        };
        let porch = Porch::open(rules, || ()).unwrap();
        let mut clients = Vec::new();
        for said in ["", "GET / HTTP/1.1\r\n\r\n"] {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, porch.port))
                .await
                .unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            clients.push(client);
        }
        waits(&porch, 2).await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!(porch.waiting(), 2);
        for (left, client) in [1, 0].into_iter().zip(clients) {
            reset(&client);
            drop(client);
            waits(&porch, left).await;
        }
    }
}
