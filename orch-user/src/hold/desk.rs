//! One connection that waits: taken in, kept until there is a backend, joined to it.

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

use super::porch::{Rules, Word};
use crate::config::Listen;

/// Between two tries while a backend is thought to be there.
const RETRY: Duration = Duration::from_millis(100);
/// Between two tries to accept when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest time of a connect on this host.
const CONNECT: Duration = Duration::from_secs(1);

/// What a listener works with.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) rules: watch::Receiver<Rules>,
    pub(super) heard: watch::Receiver<Word>,
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) room: Arc<Semaphore>,
    /// For those who no longer wait.
    pub(super) joined: Arc<Semaphore>,
    /// Whether those who came by this listener are to be cut off.
    pub(super) cut: Option<watch::Receiver<bool>>,
}

impl Desk {
    /// Beyond the limit each listener accepts one more: its queue holds some, and then their own
    /// repetitions have to do.
    pub(super) async fn accept(self, listener: TcpListener, tell: impl Fn()) {
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
        let since = Instant::now();
        let refusals = self.heard.borrow().refusals;
        let target = self.target(client)?;
        loop {
            let word = *self.heard.borrow_and_update();
            let until = since + self.rules.borrow_and_update().hold;
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
                changed = self.rules.changed() => {
                    changed.ok()?;
                    continue;
                }
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

    fn target(&self, client: &TcpStream) -> Option<SocketAddr> {
        let came_to = client.local_addr().ok()?;
        Some(target(
            self.rules.borrow().listen,
            came_to,
            self.cut.is_some(),
        ))
    }
}

/// Where one connects for a client, in its family: where the service listens, or at the address that the
/// client came to. From the loopback, a container would look like the host itself. `stands_in` says that
/// the address is that of a backend which is gone, and none of the service's.
fn target(listen: Listen, came_to: SocketAddr, stands_in: bool) -> SocketAddr {
    if let Some(ip) = listen.address.filter(|ip| !ip.is_unspecified()) {
        return SocketAddr::new(ip, listen.port);
    }
    let ip = match came_to.ip().to_canonical() {
        IpAddr::V4(_) if stands_in => Ipv4Addr::LOCALHOST.into(),
        // An address of a link alone may be that of many.
        IpAddr::V6(ip) if stands_in || ip.is_unicast_link_local() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port)
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
pub(super) fn reset(stream: &TcpStream) {
    // Where that fails it ends with FIN.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_does_not_look_like_the_host() {
        let mut listen = Listen {
            address: None,
            port: 1,
        };
        let all = [
            ("127.0.0.1:9", false, "127.0.0.1:1"),
            ("[::1]:9", false, "[::1]:1"),
            ("172.17.0.1:9", false, "172.17.0.1:1"),
            ("[::ffff:172.17.0.1]:9", false, "172.17.0.1:1"),
            ("172.17.0.2:8080", true, "127.0.0.1:1"),
            ("[fd00::1]:9", false, "[fd00::1]:1"),
            ("[fd00::2]:9", true, "[::1]:1"),
            ("[fe80::1]:9", false, "[::1]:1"),
        ];
        for (came_to, stands_in, expected) in all {
            let found = target(listen, came_to.parse().unwrap(), stands_in);
            assert_eq!(found.to_string(), expected, "{came_to}");
        }
        listen.address = Some(Ipv4Addr::new(10, 0, 0, 1).into());
        let found = target(listen, "10.0.0.1:9".parse().unwrap(), false);
        assert_eq!(found.to_string(), "10.0.0.1:1");
    }
}
