//! Waiting for a moment, more exactly than the milliseconds of the runtime's own timers.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Instant,
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A timer of the kernel, which wakes the runtime as a socket would.
#[derive(Debug)]
pub(super) struct Pacer(AsyncFd<Timer>);

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Pacer {
    /// A timer that is not set.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        #[allow(
            deprecated,
            reason = "the new name is unsafe, for types that give away or replace their descriptor"
        )]
        let ready = AsyncFd::with_interest(Timer(timer), Interest::READABLE);
        Ok(Self(ready?))
    }

    /// Waits until then; returns at once if that is over.
    pub(super) async fn until(&self, moment: Instant) -> io::Result<()> {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let once = Expiration::OneShot(TimeSpec::from_duration(left));
            let timer = &self.0.get_ref().0;
            timer.set(once, TimerSetTimeFlags::empty())?;
            let mut ready = self.0.readable().await?;
            // Setting a timer takes back that it has fired; the loop looks at the clock in any case.
            let _ = timer.wait();
            ready.clear_ready();
        }
    }
}
