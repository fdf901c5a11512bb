//! Where clients wait that say nothing: as descriptors in an epoll of their thread's, without task,
//! timer or buffer. It costs two calls to go there and two to come back, which happens only to those
//! that were silent for a while.

use std::{
    io,
    net::{IpAddr, TcpStream},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::interval,
};

use super::{service::locked, worker::Guest};

/// Between two looks at who has waited too long.
const ROUND: Duration = Duration::from_secs(1);
/// Clients that are woken at once.
const BATCH: usize = 256;
/// It is only asked what is ready.
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// A client that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) stream: TcpStream,
    /// Whose address it is, which may be told by another proxy.
    pub(super) address: IpAddr,
    pub(super) guest: Guest,
    /// When it has waited too long.
    pub(super) until: Instant,
}

/// The clients of one thread that wait.
#[derive(Debug)]
pub(super) struct Lot {
    epoll: OwnedFd,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    all: Vec<Option<Waiting>>,
    free: Vec<u32>,
}

impl Places {
    fn put(&mut self, waiting: Waiting) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() as u32 - 1
        });
        if let Some(free) = self.all.get_mut(place as usize) {
            *free = Some(waiting);
        }
        place
    }

    fn take(&mut self, place: u32) -> Option<Waiting> {
        let waiting = self.all.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(waiting)
    }

    fn late(&self, now: Instant) -> Vec<u32> {
        let all = (0..).zip(&self.all);
        all.filter(|(_, place)| place.as_ref().is_some_and(|one| one.until <= now))
            .map(|(place, _)| place)
            .collect()
    }
}

impl Lot {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            places: Mutex::default(),
        }))
    }

    /// Has a client wait. One that cannot is gone.
    pub(super) fn park(&self, waiting: Waiting) {
        // Nobody takes it out before it is in: that is done by this thread.
        let mut places = locked(&self.places);
        let place = places.put(waiting);
        let added = places.all.get(place as usize).and_then(Option::as_ref);
        let added = added.map(|one| {
            let data = EventData::new_u64(place.into());
            let flags = EventFlags::IN | EventFlags::RDHUP;
            epoll::add(&self.epoll, &one.stream, data, flags)
        });
        if let Some(Err(error)) = added {
            log::debug!("a client cannot wait: {error}");
            places.take(place);
        }
    }

    /// Gives back whoever says something, and lets go who has waited too long. Never ends.
    pub(super) async fn attend(self: Arc<Self>, welcome: impl Fn(Waiting)) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types unlike OwnedFd"
        )]
        let epoll = AsyncFd::with_interest(self.epoll.try_clone()?, Interest::READABLE)?;
        let mut round = interval(ROUND);
        loop {
            tokio::select! {
                ready = epoll.readable() => {
                    let mut ready = ready?;
                    let (all, found) = self.ready()?;
                    if all {
                        ready.clear_ready();
                    }
                    found.into_iter().for_each(&welcome);
                }
                _ = round.tick() => {
                    drop(self.late());
                }
            }
        }
    }

    /// Takes out who says something, and whether these are all.
    fn ready(&self) -> io::Result<(bool, Vec<Waiting>)> {
        let mut events: Vec<Event> = Vec::with_capacity(BATCH);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&AT_ONCE))?;
        let mut places = locked(&self.places);
        let found = events.iter().filter_map(|event| {
            let place = event.data;
            let waiting = places.take(place.u64() as u32)?;
            // The descriptor lives on, elsewhere.
            epoll::delete(&self.epoll, &waiting.stream).ok()?;
            Some(waiting)
        });
        Ok((events.len() < BATCH, found.collect()))
    }

    fn late(&self) -> Vec<Waiting> {
        let mut places = locked(&self.places);
        let late = places.late(Instant::now());
        let late = late.into_iter();
        late.filter_map(|place| places.take(place)).collect()
    }
}
