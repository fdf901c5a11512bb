//! Connections to a copy that wait for their next request.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use super::{service::locked, tap::Way};

/// A connection that can wait.
pub(super) trait Kept {
    fn way(&self) -> Way;

    /// When it last ended a request.
    fn used_at(&self) -> Instant;
}

/// Those of one copy, by thread and way: threads share none. Boxed, since a connection is large, and
/// handed on many times.
#[derive(Debug)]
pub(super) struct Pool<L>(Vec<[Mutex<Vec<Box<L>>>; Way::COUNT]>);

impl<L: Kept> Pool<L> {
    pub(super) fn new(threads: usize) -> Self {
        let none = || [(); Way::COUNT].map(|()| Mutex::new(Vec::new()));
        Self((0..threads).map(|_| none()).collect())
    }

    /// The one that was used last.
    pub(super) fn take(&self, thread: usize, way: Way) -> Option<Box<L>> {
        let links = self.0.get(thread)?.get(way as usize)?;
        locked(links).pop()
    }

    /// Keeps one, unless by now nobody is to take it any more.
    pub(super) fn keep(&self, thread: usize, link: Box<L>, is_over: impl Fn() -> bool) {
        let ways = self.0.get(thread);
        let Some(links) = ways.and_then(|ways| ways.get(link.way() as usize)) else {
            return;
        };
        let mut links = locked(links);
        if !is_over() {
            links.push(link);
        }
    }

    pub(super) fn clear(&self) {
        for links in self.0.iter().flatten() {
            locked(links).clear();
        }
    }

    /// Closes those that were not needed for so long.
    pub(super) fn tidy(&self, now: Instant, age: Duration) {
        for links in self.0.iter().flatten() {
            locked(links).retain(|link| now.duration_since(link.used_at()) < age);
        }
    }
}
