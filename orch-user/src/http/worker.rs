//! A thread of the gateway: it accepts connections on listening sockets of its own and serves them
//! to their end. Threads share nothing but the table, the cursors and the counts.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    net::TcpStream,
    runtime::Builder,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    connection::{Client, asker},
    proxy_protocol,
    service::Service,
    tls::Certificate,
    wire::Socket,
};

/// Out of descriptors: the next try to accept.
const AGAIN: Duration = Duration::from_millis(20);

/// What all threads know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    closing: AtomicBool,
    control: RwLock<PathBuf>,
    /// Connections of clients, of all services.
    clients: AtomicUsize,
}

impl Shared {
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

    /// Connections that are open.
    pub(super) fn clients(&self) -> usize {
        self.clients.load(SeqCst)
    }
}

/// What a thread is told.
pub(super) enum Order {
    /// To accept here.
    Listen(Socket, TcpListener, Arc<Service>, Option<Arc<Certificate>>),
    /// To accept no more there.
    Close(Socket),
}

/// Starts a thread.
pub(super) fn spawn(
    number: usize,
    shared: Arc<Shared>,
) -> io::Result<mpsc::UnboundedSender<Order>> {
    let (orders, receiver) = mpsc::unbounded_channel();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name(format!("worker {number}"))
        .spawn(move || runtime.block_on(obey(number, shared, receiver)))?;
    Ok(orders)
}

async fn obey(thread: usize, shared: Arc<Shared>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut accepting: BTreeMap<Socket, JoinHandle<()>> = BTreeMap::new();
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
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => {
                        log::error!("cannot accept at {}: {error}", socket.address);
                        continue;
                    }
                };
                let shared = Arc::clone(&shared);
                let accept = accept(listener, service, certificate, shared, thread);
                accepting.insert(socket, tokio::spawn(accept));
            }
        }
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    service: Arc<Service>,
    certificate: Option<Arc<Certificate>>,
    shared: Arc<Shared>,
    thread: usize,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("cannot accept a client of {}: {error}", service.name);
                sleep(AGAIN).await;
                continue;
            }
        };
        let Some(guest) = Guest::admit(&shared, &service) else {
            continue;
        };
        let client = Client {
            shared: Arc::clone(&shared),
            service: Arc::clone(&service),
            thread,
            asker: asker(peer.ip(), certificate.is_some()),
        };
        tokio::spawn(serve(client, stream, peer, certificate.clone(), guest));
    }
}

async fn serve(
    client: Client,
    stream: TcpStream,
    peer: SocketAddr,
    certificate: Option<Arc<Certificate>>,
    _guest: Guest,
) {
    if certificate.is_none() && !client.service.settings().http.proxy_protocol {
        return client.serve(stream, Vec::new()).await;
    }
    boxed_greeting(client, stream, peer, certificate).await;
}

fn boxed_greeting(
    client: Client,
    stream: TcpStream,
    peer: SocketAddr,
    certificate: Option<Arc<Certificate>>,
) -> BoxFuture<'static, ()> {
    Box::pin(greet(client, stream, peer, certificate))
}

/// What comes before HTTP: the PROXY protocol, TLS.
async fn greet(
    mut client: Client,
    mut stream: TcpStream,
    peer: SocketAddr,
    certificate: Option<Arc<Certificate>>,
) {
    let settings = client.service.settings();
    let limit = settings.http.header_timeout;
    let mut early = Vec::new();
    if settings.http.proxy_protocol {
        let told = proxy_protocol::read(&mut stream, &mut early);
        let Ok(Ok(source)) = timeout(limit, told).await else {
            log::debug!("{peer} does not speak the PROXY protocol");
            return;
        };
        if let Some(source) = source {
            client.asker = asker(source.ip(), certificate.is_some());
        }
    }
    let Some(certificate) = certificate else {
        return client.serve(stream, early).await;
    };
    if let Some(stream) = certificate.accept(stream, early, limit).await {
        client.serve(stream, Vec::new()).await;
    }
}

/// A client's place among those that may be there.
struct Guest {
    shared: Arc<Shared>,
    service: Arc<Service>,
}

impl Guest {
    fn admit(shared: &Arc<Shared>, service: &Arc<Service>) -> Option<Self> {
        shared.clients.fetch_add(1, SeqCst);
        let before = service.clients.fetch_add(1, SeqCst);
        let guest = Self {
            shared: Arc::clone(shared),
            service: Arc::clone(service),
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
