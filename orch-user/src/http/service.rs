//! A service as the threads of the gateway see it: who is ready, whose turn it is, and how many
//! requests each slot has in flight.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    backend::Link,
    forward::Connection,
    plain,
    pool::Pool,
    repute::{Repute, Verdict},
    route::Rules,
    tally::{Counts, Tally},
    wire::{ServiceTable, SlotReport, SlotTable},
};
use crate::config::HttpConfig;

/// How long a connection to a copy may lie unused before it is closed.
const LINK_AGE: Duration = Duration::from_secs(15);

/// A backend in its slot.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u16,
    pub(super) address: SocketAddr,
    pub(super) generation: u32,
    /// What is said to it and by it may go from socket to socket.
    pub(super) direct: bool,
    pub(super) tally: Arc<Tally>,
    repute: Repute,
    pardons: AtomicU32,
    /// Out of the ring: no request begins here any more, and no connection is kept.
    leaving: AtomicBool,
    /// Refused a connection since that was last told.
    refused: AtomicBool,
    live: AtomicUsize,
    /// Connections that wait for a request: those that the library speaks on, and the others.
    pub(super) links: Pool<Link>,
    pub(super) plain: Pool<plain::Link>,
}

/// An answer's head, as far as it says something of the copy.
pub(super) struct Heard {
    pub(super) taken: Duration,
    /// 5xx.
    pub(super) error: bool,
    /// The number of the client's connection.
    pub(super) connection: u32,
}

/// A request on its way through a slot; it counts as in flight until this is dropped.
#[derive(Debug)]
pub(super) struct Flight(pub(super) Arc<Slot>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, SeqCst);
    }
}

impl Slot {
    /// Begins a request here; `None` where the slot has left the ring. Either this sees that it
    /// leaves, or whoever took it out sees the request in flight.
    fn enter(self: &Arc<Self>) -> Option<Flight> {
        self.live.fetch_add(1, SeqCst);
        let flight = Flight(Arc::clone(self));
        (!self.leaving.load(SeqCst)).then_some(flight)
    }

    fn is(&self, table: &SlotTable) -> bool {
        (self.address, self.generation, self.direct)
            == (table.address, table.generation, table.direct)
    }

    fn leave(&self) {
        self.leaving.store(true, SeqCst);
        self.links.clear();
        self.plain.clear();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(SeqCst)
    }

    /// Notes that it refused a connection; whether that is news.
    pub(super) fn refuses(&self) -> bool {
        !self.refused.swap(true, Relaxed)
    }

    /// Keeps a connection for the next request, unless the slot leaves.
    pub(super) fn keep_link<L: Connection>(&self, thread: usize, link: Box<L>) {
        L::pool(self).keep(thread, link, || self.is_leaving());
    }

    /// Closes connections that were not needed for long.
    fn tidy(&self, now: Instant) {
        self.links.tidy(now, LINK_AGE);
        self.plain.tidy(now, LINK_AGE);
    }
}

/// What changes when slots come and go.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) ready: Vec<Arc<Slot>>,
    known: BTreeMap<u16, Arc<Slot>>,
}

/// What changes when the file is read again.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) rules: Rules,
    pub(super) http: HttpConfig,
}

/// A service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    settings: RwLock<Arc<Settings>>,
    pub(super) ring: watch::Sender<Arc<Ring>>,
    cursor: AtomicU64,
    begun: Instant,
    /// One comparison of slots at a time.
    judging: Mutex<()>,
    /// Requests that wait for a slot.
    pub(super) waiting: AtomicUsize,
    /// Connections of clients.
    pub(super) clients: AtomicUsize,
    /// The gateway ends: nobody waits any more.
    over: AtomicBool,
    tallies: Mutex<BTreeMap<u16, Arc<Tally>>>,
    threads: usize,
}

impl Service {
    pub(super) fn new(table: &ServiceTable, threads: usize) -> Self {
        let (ring, _) = watch::channel(Arc::default());
        Self {
            name: table.name.clone(),
            settings: RwLock::new(Arc::new(settings(table))),
            ring,
            cursor: AtomicU64::new(0),
            begun: Instant::now(),
            judging: Mutex::default(),
            waiting: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            tallies: Mutex::default(),
            threads,
        }
    }

    /// Goes on with the counts of an earlier gateway. Called before any table.
    pub(super) fn seed(&self, cursor: u64, slots: &[SlotReport]) {
        self.cursor.store(cursor, Relaxed);
        let seeds = slots
            .iter()
            .map(|slot| (slot.slot, Arc::new(Tally::from(&slot.counts))));
        locked(&self.tallies).extend(seeds);
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        let settings = self.settings.read();
        Arc::clone(&settings.unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a new table. When this returns, no request begins at a slot that left the ring.
    pub(super) fn set(&self, table: &ServiceTable) {
        let settings = Arc::new(settings(table));
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
        let before = Arc::clone(&self.ring.borrow());
        let mut known = BTreeMap::new();
        for slot in &table.slots {
            let same = before.known.get(&slot.slot).filter(|old| old.is(slot));
            if same.is_some_and(|old| old.pardons.swap(slot.pardons, Relaxed) != slot.pardons) {
                same.inspect(|old| old.repute.pardon(self.now()));
            }
            let slot = same.cloned().unwrap_or_else(|| {
                Arc::new(Slot {
                    number: slot.slot,
                    address: slot.address,
                    generation: slot.generation,
                    direct: slot.direct,
                    tally: self.tally(slot.slot),
                    repute: Repute::default(),
                    pardons: slot.pardons.into(),
                    leaving: AtomicBool::new(false),
                    refused: AtomicBool::new(false),
                    live: AtomicUsize::new(0),
                    links: Pool::new(self.threads),
                    plain: Pool::new(self.threads),
                })
            });
            known.insert(slot.number, slot);
        }
        let numbers = table.ring.iter();
        let ready: Vec<_> = numbers
            .filter_map(|slot| known.get(slot).cloned())
            .collect();
        for slot in &ready {
            slot.leaving.store(false, SeqCst);
        }
        let ring = Arc::new(Ring { ready, known });
        self.ring.send_replace(Arc::clone(&ring));
        let old = before.known.values();
        let stays = |slot: &Arc<Slot>| ring.ready.iter().any(|ready| Arc::ptr_eq(ready, slot));
        for slot in old.chain(ring.known.values()).filter(|slot| !stays(slot)) {
            slot.leave();
        }
        let numbers: Vec<u16> = table.slots.iter().map(|slot| slot.slot).collect();
        locked(&self.tallies).retain(|slot, _| numbers.contains(slot));
    }

    pub(super) fn cursor(&self) -> u64 {
        self.cursor.load(Relaxed)
    }

    /// Requests that wait for a slot.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed) as u64
    }

    /// Sends away whoever waits for a slot.
    pub(super) fn end(&self) {
        self.over.store(true, SeqCst);
        self.ring.send_modify(|_| {});
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    fn tally(&self, slot: u16) -> Arc<Tally> {
        let mut tallies = locked(&self.tallies);
        let new = || Arc::new(Tally::from(&Counts::default()));
        Arc::clone(tallies.entry(slot).or_insert_with(new))
    }

    fn now(&self) -> u64 {
        self.since_begin(Instant::now())
    }

    fn since_begin(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.begun).as_nanos() as u64
    }

    /// A slot is given a request. Says whether it is passed by from now on.
    pub(super) fn asks(&self, slot: &Arc<Slot>, at: Instant) -> bool {
        let now = self.since_begin(at);
        self.weigh(slot, slot.repute.asked(now), now)
    }

    /// A slot has answered, `taken` after it was asked, a client whose connection has this number.
    /// Says whether it is passed by from now on.
    pub(super) fn hears(&self, slot: &Arc<Slot>, at: Instant, heard: &Heard) -> bool {
        let now = self.since_begin(at + heard.taken);
        let taken = heard.taken.as_nanos() as u64;
        let verdict = slot
            .repute
            .answered(now, taken, heard.error, heard.connection);
        self.weigh(slot, verdict, now)
    }

    fn weigh(&self, slot: &Arc<Slot>, verdict: Verdict, now: u64) -> bool {
        let Verdict::Odd(kind) = verdict else {
            return false;
        };
        let _one = locked(&self.judging);
        let ring = Arc::clone(&self.ring.borrow());
        let peers = ring.ready.iter().filter(|other| !Arc::ptr_eq(other, slot));
        slot.repute.judge(peers.map(|peer| &peer.repute), kind, now)
    }

    /// Whose turn it is, but for those that were tried. Takes one turn, and another only where a slot
    /// leaves at this very moment. One that is suspected is the last resort.
    pub(super) fn pick(&self, tried: &[Arc<Slot>]) -> Option<Flight> {
        let ring = Arc::clone(&self.ring.borrow());
        let fresh = |slot: &&Arc<Slot>| !tried.iter().any(|other| Arc::ptr_eq(other, slot));
        let count = ring.ready.len();
        if count == 0 {
            return None;
        }
        let turn = self.cursor.fetch_add(1, Relaxed) as usize % count;
        let (before, from) = ring.ready.split_at_checked(turn)?;
        let mut slots = from.iter().chain(before).filter(fresh);
        let good = slots.clone().filter(|slot| slot.repute.is_good());
        let mut good = good.filter_map(Slot::enter);
        good.next().or_else(|| slots.find_map(Slot::enter))
    }

    /// Whether a copy beside this one can be asked.
    pub(super) fn has_another(&self, than: &Arc<Slot>) -> bool {
        let ring = self.ring.borrow();
        ring.ready.iter().any(|slot| !Arc::ptr_eq(slot, than))
    }

    /// What every slot has counted, and how many requests it has in flight.
    pub(super) fn report(&self) -> Vec<SlotReport> {
        let ring = Arc::clone(&self.ring.borrow());
        let slots = ring.known.values().map(|slot| SlotReport {
            slot: slot.number,
            generation: slot.generation,
            live: slot.live.load(SeqCst) as u64,
            refused: slot.refused.swap(false, Relaxed),
            passed_by: slot.repute.why(),
            pardons: slot.pardons.load(Relaxed),
            counts: slot.tally.read(),
        });
        slots.collect()
    }

    /// Closes connections to copies that were not needed for long.
    pub(super) fn tidy(&self) {
        let ring = Arc::clone(&self.ring.borrow());
        let now = Instant::now();
        for slot in ring.known.values() {
            slot.tidy(now);
        }
    }
}

fn settings(table: &ServiceTable) -> Settings {
    Settings {
        rules: Rules::new(&table.http.routes, &table.count),
        http: table.http.clone(),
    }
}

/// What a panic has left behind is as good as before: every change is one step.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
