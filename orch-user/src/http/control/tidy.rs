//! What does the gateway look after every second, whatever it is told?

use std::{thread, time::Duration};

use super::{super::service::locked, Gateway};

/// Between two looks at certificates and unused connections.
const TIDY: Duration = Duration::from_secs(1);
/// Clients gone to rest, for which the heap is walked.
const WORTH_IT: usize = 64;

/// Sees when clients have fallen silent. What they had on the heap lies between what stays there, and
/// the allocator would keep it as it was when most of them were busy.
#[derive(Default)]
struct Rest {
    seen: usize,
    trimmed: usize,
}

impl Rest {
    /// Whether enough clients have gone to rest since this was last so, and none lately.
    fn begins(&mut self, parked: usize) -> bool {
        let quiet = std::mem::replace(&mut self.seen, parked) == parked;
        let begins = quiet && parked.wrapping_sub(self.trimmed) >= WORTH_IT;
        if begins {
            self.trimmed = parked;
        }
        begins
    }
}

impl Gateway {
    /// Looks again and again, for as long as the process lives.
    pub(super) fn keep_tidy(&self) -> ! {
        let mut rest = Rest::default();
        loop {
            thread::sleep(TIDY);
            self.tidy();
            if rest.begins(self.shared.parked()) {
                orch_common::heap::trim();
            }
        }
    }

    fn tidy(&self) {
        let (services, certificates) = {
            let state = locked(&self.state);
            let services: Vec<_> = state.services.values().cloned().collect();
            let certificates: Vec<_> = state.certificates.values().cloned().collect();
            (services, certificates)
        };
        for service in services {
            service.tidy();
        }
        for certificate in certificates {
            certificate.follow();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_begins_once_when_clients_have_fallen_silent() {
        let mut rest = Rest::default();
        assert!(!rest.begins(0));
        assert!(!rest.begins(WORTH_IT), "they still go");
        assert!(rest.begins(WORTH_IT));
        assert!(!rest.begins(WORTH_IT), "it was done");
        assert!(!rest.begins(WORTH_IT + 1));
        assert!(!rest.begins(WORTH_IT + 1), "one is not worth it");
    }
}
