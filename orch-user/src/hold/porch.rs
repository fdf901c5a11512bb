//! Where connections of this host and its containers wait. The kernel leads a socket that connects to
//! a service without a backend to a listener of the controller; once there is one, the controller
//! connects as a socket of the host would have, and joins the two. Such a connection ends with the
//! controller.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use super::{desk::Desk, gates::Gates};
use crate::{config::Listen, dataplane::Bridge, health::probe::Task};

/// Connections of a service that are carried at a time, two descriptors each: the controller has other
/// work for those.
const JOINED: usize = 4096;
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
    rules: watch::Sender<Rules>,
    word: watch::Sender<Word>,
    desk: Desk,
    gates: Gates,
    _accepting: Vec<Task>,
    /// Take places away, once they are free, of which there have become too many.
    fewer: Vec<Task>,
}

impl Porch {
    /// Opens one; `tell` is called for everybody who comes. Fails if no port can be bound.
    pub fn open(rules: Rules, tell: impl Fn() + Clone + Send + 'static) -> io::Result<Self> {
        let (word, heard) = watch::channel(Word::default());
        let room = rules.limit as usize;
        let (rules, terms) = watch::channel(rules);
        let desk = Desk {
            rules: terms,
            heard,
            waiting: Arc::default(),
            room: Arc::new(Semaphore::new(room)),
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
            fewer: Vec::new(),
            desk,
            word,
        })
    }

    /// The terms.
    pub fn rules(&self) -> Rules {
        *self.rules.borrow()
    }

    /// Has those who wait do so on other terms from now on, whoever comes later as well. Where the service
    /// listens stays: it is what they have asked for.
    pub fn revise(&mut self, rules: Rules) {
        let (before, after) = (self.rules().limit as usize, rules.limit as usize);
        let room = Arc::clone(&self.desk.room);
        room.add_permits(after.saturating_sub(before));
        let fewer = before.saturating_sub(after);
        if fewer > 0 {
            let fewer = u32::try_from(fewer).unwrap_or(u32::MAX);
            self.fewer.push(Task(tokio::spawn(async move {
                if let Ok(places) = room.acquire_many_owned(fewer).await {
                    places.forget();
                }
            })));
        }
        self.rules.send_replace(rules);
    }

    /// Containers that come by these bridges, and no others, wait here, too. `tell` is called for each
    /// who does. A bridge that cannot be listened at is left out.
    pub fn follow(&mut self, bridges: &[Bridge], tell: impl Fn() + Clone + Send + 'static) {
        let desk = &self.desk;
        let address = self.rules().listen.address;
        self.gates.follow(bridges, address, |listener| {
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::TcpStream,
        time::{sleep, timeout},
    };

    use super::{super::desk::reset, *};

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

    fn rules(limit: u32) -> Rules {
        Rules {
            listen: Listen {
                address: None,
                port: 1,
            },
            hold: Duration::from_mins(1),
            limit,
        }
    }

    #[tokio::test]
    async fn who_waits_goes_on_waiting_on_other_terms() {
        let mut porch = Porch::open(rules(2), || ()).unwrap();
        let mut clients = Vec::new();
        let here = (Ipv4Addr::LOCALHOST, porch.port);
        for _ in 0..3 {
            clients.push(TcpStream::connect(here).await.unwrap());
        }
        waits(&porch, 2).await;
        porch.revise(rules(3));
        waits(&porch, 3).await;
        porch.revise(rules(1));
        sleep(Duration::from_millis(100)).await;
        assert_eq!(porch.waiting(), 3, "nobody is sent away");
        clients.push(TcpStream::connect(here).await.unwrap());
        let mut left = clients.into_iter();
        for waiting in [2, 1, 1] {
            reset(&left.next().unwrap());
            waits(&porch, waiting).await;
        }
        porch.revise(Rules {
            hold: Duration::ZERO,
            ..rules(1)
        });
        waits(&porch, 0).await;
    }

    #[tokio::test]
    async fn who_has_finished_sending_waits_and_who_has_reset_does_not() {
        let porch = Porch::open(rules(8), || ()).unwrap();
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
