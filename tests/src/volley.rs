//! An open-loop client: new connections at a fixed rate, whatever became of the earlier ones, one
//! request on each. Clients that wait for an answer before they ask again go easy on a server that
//! is in trouble, and so hide how many others it would have failed.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::libc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime,
    task::JoinSet,
    time::timeout,
};

use crate::{
    netns::NetNs,
    tcp_info::{ESTABLISHED, Info},
};

/// For connecting and for the answer, together.
const LIMIT: Duration = Duration::from_secs(5);
/// A connect that takes longer has lost its SYN: the first retransmission comes after a second
/// (RFC 6298, 2.1).
const STALL: Duration = Duration::from_millis(900);
/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// A whole answer, soon.
    Good,
    /// The connect failed.
    Refused,
    /// Connected, and ended before the backend's kernel had a byte of the request.
    Undelivered,
    /// As undelivered, but the copy had closed it before the client looked at it: a client that is in
    /// time does not see that.
    Late,
    /// Ended without a whole answer, when the request was delivered.
    Inside,
    /// The request was delivered, and nothing came.
    Unanswered,
    /// As good, but the connect took as long as a lost SYN makes it take.
    Stalled,
    /// The connect was given up.
    Timeout,
    /// A whole answer that is an error of the server's.
    ServerError,
}

/// A connection that is not good.
#[derive(Clone, Debug)]
pub struct Loss {
    /// When it was opened.
    pub begun: Instant,
    /// When its fate was known.
    pub ended: Instant,
    /// What became of it.
    pub fate: Fate,
    /// How, for those who look for the cause.
    pub how: String,
}

/// What became of all of them.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many there were.
    pub connections: u64,
    /// Those that are not good, in the order of their ends.
    pub losses: Vec<Loss>,
    /// The longest time without a whole answer.
    pub gap: Duration,
    /// The longest that the client was behind its schedule: what it sees is late by as much.
    pub lag: Duration,
}

impl Tally {
    /// How many had this fate.
    pub fn of(&self, fate: Fate) -> usize {
        self.losses.iter().filter(|loss| loss.fate == fate).count()
    }

    /// Takes another's connections as well.
    pub fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.losses.extend(other.losses);
        self.lag = self.lag.max(other.lag);
        self.gap = self.gap.max(other.gap);
    }
}

/// A client at work.
#[derive(Debug)]
pub struct Volley {
    stop: Arc<AtomicBool>,
    client: JoinHandle<Tally>,
}

impl Volley {
    /// Begins to open `rate` connections a second, from the namespace if one is given.
    pub fn start(netns: Option<&NetNs>, address: SocketAddr, path: &str, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let inside = netns.map(NetNs::entry);
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let client = thread::spawn(move || {
            if let Some(entry) = inside {
                entry.enter();
            }
            come_first();
            // One thread, since namespaces are a thread's.
            let mut builder = runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            let pace = Duration::from_secs(1) / rate;
            runtime.block_on(fire(address, request.into(), pace, &stopped))
        });
        Self { stop, client }
    }

    /// Opens no more, waits for what is open, and counts.
    pub fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().unwrap()
    }
}

async fn fire(address: SocketAddr, request: Arc<str>, pace: Duration, stop: &AtomicBool) -> Tally {
    let losses = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::new(Mutex::new(Answers::new()));
    let mut tally = Tally::default();
    let mut open = JoinSet::new();
    // Ticks that are missed are made good at once: the rate is what was asked for.
    let mut clock = tokio::time::interval(pace);
    while !stop.load(Ordering::Relaxed) {
        let due = clock.tick().await;
        tally.lag = tally.lag.max(due.elapsed());
        tally.connections += 1;
        let (request, losses) = (Arc::clone(&request), Arc::clone(&losses));
        let answers = Arc::clone(&answers);
        open.spawn(async move {
            let begun = Instant::now();
            let (fate, how) = one(address, &request).await;
            if matches!(fate, Fate::Good | Fate::Stalled) {
                answers.lock().unwrap().another();
            }
            if fate != Fate::Good {
                let ended = Instant::now();
                losses.lock().unwrap().push(Loss {
                    begun,
                    ended,
                    fate,
                    how,
                });
            }
        });
        while open.try_join_next().is_some() {}
    }
    while open.join_next().await.is_some() {}
    tally.losses = std::mem::take(&mut losses.lock().unwrap());
    tally.gap = answers.lock().unwrap().gap;
    tally
}

/// When whole answers came.
struct Answers {
    last: Instant,
    gap: Duration,
}

impl Answers {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            gap: Duration::ZERO,
        }
    }

    fn another(&mut self) {
        self.gap = self.gap.max(self.last.elapsed());
        self.last = Instant::now();
    }
}

/// One connection, from its SYN to its end.
async fn one(address: SocketAddr, request: &str) -> (Fate, String) {
    let begun = Instant::now();
    let mut stream = match timeout(LIMIT, TcpStream::connect(address)).await {
        Err(_) => return (Fate::Timeout, "connect".to_owned()),
        // What the kernel gives up is lost in the same way as what we do.
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
            return (Fate::Timeout, error.to_string());
        }
        // A reset that answers the SYN is "refused"; this one came after the handshake.
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
            return (Fate::Undelivered, error.to_string());
        }
        Ok(Err(error)) => return (Fate::Refused, error.to_string()),
        Ok(Ok(stream)) => stream,
    };
    let connected = begun.elapsed();
    let open = Info::of(&stream);
    let left = LIMIT.saturating_sub(connected);
    let mut answer = Vec::new();
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    let outcome = timeout(left, asked).await;
    let delivered = Info::of(&stream).acked > open.acked;
    let how = format!(
        "{outcome:?} after {:.1?}, connected after {connected:.1?} in state {}, from {:?}",
        begun.elapsed(),
        open.state,
        stream.local_addr().ok()
    );
    let whole = answer.windows(4).any(|four| four == b"\r\n\r\n");
    let fate = match outcome {
        _ if whole && answer.get(9) == Some(&b'5') => Fate::ServerError,
        _ if whole && connected >= STALL => Fate::Stalled,
        _ if whole => Fate::Good,
        Err(_) if delivered => Fate::Unanswered,
        // Nobody acknowledges and nobody refuses: it waits as one that cannot connect does.
        Err(_) => Fate::Timeout,
        Ok(_) if delivered => Fate::Inside,
        Ok(_) if open.state != ESTABLISHED => Fate::Late,
        Ok(_) => Fate::Undelivered,
    };
    (fate, how)
}

/// Has the calling thread run before all that is not real time. A client outside has a processor of
/// its own; one that waits for it here holds connections open and asks nothing, and a copy that is
/// killed meanwhile takes them with it. Without the right to it the thread stays as it is.
fn come_first() {
    let one = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one `sched_param`, which lives on this stack; 0 is this thread.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const one);
    }
}
