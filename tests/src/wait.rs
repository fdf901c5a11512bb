//! Waiting for conditions instead of sleeping.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a condition may take on a loaded machine before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value. Panics with `what` if it never does.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
