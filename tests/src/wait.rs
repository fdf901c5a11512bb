//! Waiting for conditions instead of sleeping.

use std::{
    env,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// How long a condition may take on a loaded machine before the test gives up: 30 seconds, or what
/// `ORCH_PATIENCE` says, in seconds.
pub static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let said = env::var("ORCH_PATIENCE").ok();
    let seconds = said.and_then(|said| said.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
});

/// Waits until `condition` gives a value. Panics with `what` if it never does.
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(*PATIENCE, what, condition)
}

/// The same with a limit of its own, for what is promised in time.
pub fn within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
