//! What wakes the loop, and when?

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Controller, event::Event, tables::Tables};
use crate::{beat::Beats, health::probe::Task, plan};

/// Two ticks are never closer than this, whatever is due.
const TICK_FLOOR: Duration = Duration::from_millis(10);

impl<T: Tables> Controller<T> {
    /// Has every runtime tell what it notices.
    pub(super) fn watch(&mut self) {
        if let Some(bell) = self.tables.bell() {
            let ring = ring(bell, self.report.clone(), || Event::Kernel);
            self.watchers.push(Task(tokio::spawn(ring)));
        }
        if let Some(bell) = self.tables.hold_bell() {
            let ring = ring(bell, self.report.clone(), || Event::Held);
            self.watchers.push(Task(tokio::spawn(ring)));
        }
        if let Some(bell) = self.tables.link_bell() {
            let ring = ring(bell, self.report.clone(), || Event::Links);
            self.watchers.push(Task(tokio::spawn(ring)));
        }
        if let Some(bell) = self.tables.wait_bell() {
            let ring = ring(bell, self.report.clone(), || Event::Gateway);
            self.watchers.push(Task(tokio::spawn(ring)));
        }
        for runtime in self.runtimes.all() {
            let (sender, mut receiver) = mpsc::channel(64);
            let watch = Arc::clone(runtime).watch(sender);
            self.watchers.push(Task(tokio::spawn(watch)));
            let report = self.report.clone();
            self.watchers.push(Task(tokio::spawn(async move {
                while let Some(event) = receiver.recv().await {
                    if report.send(Event::Runtime(event)).is_err() {
                        return;
                    }
                }
            })));
        }
    }

    pub(super) async fn next_event(&mut self) -> Event {
        let wake = self.next_wake();
        tokio::select! {
            biased;
            Some(signal) = self.signals.recv() => Event::Signal(signal),
            Some(command) = self.door.commands.recv() => Event::Command(command),
            Some(event) = self.events.recv() => event,
            () = sleep_until(wake) => Event::Tick,
        }
    }

    fn next_wake(&self) -> Instant {
        let windows = self
            .services
            .iter()
            .filter_map(|hosted| hosted.policy.scaler().wake(&hosted.config.scale));
        let planned = plan::next_moment(&self.desired(), &self.observed, self.now());
        // The kernel's counts are read at every beat: so late can a window be seen to start, and a
        // drained backend to be drained.
        let beat = self.beats().after(self.started + self.ticked_at);
        let due = windows.chain(planned).min();
        let due = due.map_or(beat, |due| beat.min(self.started + due));
        due.max(self.started + self.ticked_at + TICK_FLOOR)
    }

    pub(super) fn beats(&self) -> Beats {
        Beats::from(self.started)
    }
}

/// Tells the loop whenever the kernel has something to tell, until one of them ends.
#[expect(
    deprecated,
    reason = "the successor is unsafe for descriptors that may close; an owned one does not"
)]
async fn ring(
    bell: OwnedFd,
    report: mpsc::UnboundedSender<Event>,
    event: impl Fn() -> Event + Send,
) {
    let Ok(bell) = AsyncFd::with_interest(bell, Interest::READABLE) else {
        return;
    };
    while let Ok(mut ready) = bell.readable().await {
        ready.clear_ready();
        if report.send(event()).is_err() {
            return;
        }
    }
}
