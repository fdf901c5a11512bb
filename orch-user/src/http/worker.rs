//! A thread of the gateway: it accepts connections on listening sockets of its own and serves them
//! to their end. Threads share nothing but the table, the cursors and the counts.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{
            AtomicBool, AtomicU32, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Builder,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::{interval, sleep, timeout},
};

use super::{
    bell::Bell,
    connection::{Client, Rest, asker},
    lot::{Lot, Waiting},
    proxy_protocol,
    service::Service,
    socket::Socket,
    tls::Certificate,
    wire,
};

/// Out of descriptors: the next try to accept.
const AGAIN: Duration = Duration::from_millis(20);

/// Between two looks at each connection that is not in the lot.
pub(super) const PULSE: Duration = Duration::from_millis(100);

/// What all threads know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    closing: AtomicBool,
    control: RwLock<PathBuf>,
    /// Copies may be asked from socket to socket.
    relays: AtomicBool,
    /// Connections of clients, of all services.
    clients: AtomicUsize,
    /// How often one of them was silent for long enough to go to a lot.
    parked: AtomicUsize,
    /// Those who read or follow what the controller answers. Others must find room there, too.
    guests: Guests,
    pub(super) bell: Bell,
}

/// Room for so many guests at a time, of all services.
const GUESTS: usize = 16;

#[derive(Debug)]
struct Guests(Arc<Semaphore>);

impl Default for Guests {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(GUESTS)))
    }
}

impl Shared {
    /// Room for one more, while there is some.
    pub(super) fn guest(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.guests.0).try_acquire_owned().ok()
    }

    /// Whether connections end after their next answer: another gateway accepts new ones.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    /// Where the controller answers.
    pub(super) fn control(&self) -> PathBuf {
        let control = self.control.read();
        control.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_control(&self, path: PathBuf) {
        *self.control.write().unwrap_or_else(PoisonError::into_inner) = path;
    }

    /// Whether copies may be asked from socket to socket.
    pub(super) fn relays(&self) -> bool {
        self.relays.load(Relaxed)
    }

    pub(super) fn set_relays(&self, relays: bool) {
        self.relays.store(relays, Relaxed);
    }

    /// How often a client has gone to a lot.
    pub(super) fn parked(&self) -> usize {
        self.parked.load(Relaxed)
    }

    /// Connections that are open.
    pub(super) fn clients(&self) -> usize {
        self.clients.load(SeqCst)
    }
}

/// What a thread is told.
pub(super) enum Order {
    /// To accept here.
    Listen(
        wire::Socket,
        TcpListener,
        Arc<Service>,
        Option<Arc<Certificate>>,
    ),
    /// To accept no more there.
    Close(wire::Socket),
}

/// What the connections of one thread share, so that none needs a timer of its own.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) number: usize,
    /// Rung every `PULSE`.
    pub(super) pulse: Notify,
    /// Connections of clients so far.
    admitted: AtomicU32,
    lot: Arc<Lot>,
    shared: Arc<Shared>,
}

impl Thread {
    /// A number for a connection, never 0: nobody else's but after millions more.
    fn next(&self) -> u32 {
        let count = self.admitted.fetch_add(1, Relaxed);
        (self.number as u32 + 1) << 24 | count & 0xff_ffff
    }
}

/// Starts a thread.
pub(super) fn spawn(
    number: usize,
    shared: Arc<Shared>,
) -> io::Result<mpsc::UnboundedSender<Order>> {
    let (orders, receiver) = mpsc::unbounded_channel();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let this = Arc::new(Thread {
        number,
        pulse: Notify::new(),
        admitted: AtomicU32::new(0),
        lot: Lot::new()?,
        shared,
    });
    thread::Builder::new()
        .name(format!("worker {number}"))
        .spawn(move || runtime.block_on(obey(this, receiver)))?;
    Ok(orders)
}

async fn obey(this: Arc<Thread>, mut orders: mpsc::UnboundedReceiver<Order>) {
    tokio::spawn(attend(Arc::clone(&this)));
    tokio::spawn(beat(Arc::clone(&this)));
    let mut accepting: BTreeMap<wire::Socket, JoinHandle<()>> = BTreeMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Close(socket) => {
                if let Some(task) = accepting.remove(&socket) {
                    task.abort();
                    // Its socket is closed when it has ended.
                    let _ = task.await;
                }
            }
            Order::Listen(socket, listener, service, certificate) => {
                let listener = match watch(listener) {
                    Ok(listener) => listener,
                    Err(error) => {
                        log::error!("cannot accept at {}: {error}", socket.address);
                        continue;
                    }
                };
                let accept = accept(listener, service, certificate, Arc::clone(&this));
                accepting.insert(socket, tokio::spawn(accept));
            }
        }
    }
}

async fn beat(this: Arc<Thread>) {
    let mut pulse = interval(PULSE);
    loop {
        pulse.tick().await;
        this.pulse.notify_waiters();
    }
}

/// Clients of the lot that say something are served again.
async fn attend(this: Arc<Thread>) {
    let lot = Arc::clone(&this.lot);
    let ended = lot.attend(move |waiting| {
        let Waiting {
            stream,
            address,
            guest,
            ..
        } = waiting;
        let client = client(&this, &guest, address, false);
        tokio::spawn(resume(client, Socket::Bare(stream), address, guest));
    });
    if let Err(error) = ended.await {
        log::error!("clients that wait are not heard any more: {error}");
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for types unlike TcpListener"
)]
fn watch(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    AsyncFd::with_interest(listener, Interest::READABLE)
}

/// Takes a connection as it is: the runtime may never have to hear of it.
fn take(listener: &TcpListener) -> io::Result<(Socket, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (stream, peer) = acceptfrom_with(listener, flags)?;
    let peer = peer.map(SocketAddr::try_from).transpose()?;
    let peer = peer.ok_or(io::ErrorKind::NotConnected)?;
    Ok((Socket::Bare(stream.into()), peer))
}

async fn accept(
    listener: AsyncFd<TcpListener>,
    service: Arc<Service>,
    certificate: Option<Arc<Certificate>>,
    this: Arc<Thread>,
) {
    loop {
        let (stream, peer) = match listener.async_io(Interest::READABLE, take).await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("cannot accept a client of {}: {error}", service.name);
                sleep(AGAIN).await;
                continue;
            }
        };
        let Some(guest) = Guest::admit(&this.shared, &service, this.next()) else {
            continue;
        };
        let client = client(&this, &guest, peer.ip(), certificate.is_some());
        if certificate.is_none() && !service.settings().http.proxy_protocol {
            tokio::spawn(resume(client, stream, peer.ip(), guest));
        } else {
            tokio::spawn(greet(client, stream, peer, certificate.clone(), guest));
        }
    }
}

fn client(this: &Arc<Thread>, guest: &Guest, address: IpAddr, secure: bool) -> Client {
    Client {
        shared: Arc::clone(&guest.shared),
        service: Arc::clone(&guest.service),
        thread: Arc::clone(this),
        asker: asker(address, secure),
        number: guest.number,
    }
}

/// Serves a client until it goes, or has been silent for long enough to wait elsewhere.
async fn resume(client: Client, stream: Socket, address: IpAddr, guest: Guest) {
    let thread = Arc::clone(&client.thread);
    let rest = client.serve(stream, Vec::new()).await;
    park(&thread, rest, address, guest);
}

fn park(thread: &Thread, rest: Option<Rest<Socket>>, address: IpAddr, guest: Guest) {
    let Some(Rest { stream, patience }) = rest else {
        return;
    };
    thread.shared.parked.fetch_add(1, Relaxed);
    match stream.into_std() {
        Ok(stream) => thread.lot.park(Waiting {
            stream,
            address,
            guest,
            until: Instant::now() + patience,
        }),
        Err(error) => log::debug!("a client cannot wait: {error}"),
    }
}

/// What comes before HTTP: the PROXY protocol, TLS.
async fn greet(
    mut client: Client,
    mut stream: Socket,
    peer: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    guest: Guest,
) {
    let settings = client.service.settings();
    let limit = settings.http.header_timeout;
    let mut early = Vec::new();
    let mut address = peer.ip();
    if settings.http.proxy_protocol {
        let told = proxy_protocol::read(&mut stream, &mut early);
        let Ok(Ok(source)) = timeout(limit, told).await else {
            log::debug!("{peer} does not speak the PROXY protocol");
            return;
        };
        if let Some(source) = source {
            address = source.ip();
            client.asker = asker(address, certificate.is_some());
        }
    }
    let Some(certificate) = certificate else {
        let thread = Arc::clone(&client.thread);
        let rest = client.serve(stream, early).await;
        return park(&thread, rest, address, guest);
    };
    if let Some(stream) = certificate.accept(stream, early, limit).await {
        client.serve(stream, Vec::new()).await;
    }
}

/// A client's place among those that may be there.
#[derive(Debug)]
pub(super) struct Guest {
    shared: Arc<Shared>,
    service: Arc<Service>,
    number: u32,
}

impl Guest {
    fn admit(shared: &Arc<Shared>, service: &Arc<Service>, number: u32) -> Option<Self> {
        shared.clients.fetch_add(1, SeqCst);
        let before = service.clients.fetch_add(1, SeqCst);
        let guest = Self {
            shared: Arc::clone(shared),
            service: Arc::clone(service),
            number,
        };
        (before < service.settings().http.max_connections).then_some(guest)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.clients.fetch_sub(1, SeqCst);
        self.service.clients.fetch_sub(1, SeqCst);
    }
}
