//! Counters: one list whose index, metric label and word in the log are the same thing.

/// What became of a packet or a connect call, and why.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A SYN was given to a slot.
    NewFlow = 0,
    /// A segment of a known flow went to its backend.
    Hit = 1,
    /// A reply went back to its client.
    Reply = 2,
    /// A SYN came again and kept its slot.
    SynAgain = 3,
    /// A SYN replaced a flow that was closed, dead or of an earlier connection.
    Reopened = 4,
    /// Not a SYN and no flow: left to the kernel, which answers RST.
    NoFlow = 5,
    /// The service has no ready slot: left to the kernel, which answers RST.
    NoBackend = 6,
    /// The flow's backend is gone: left to the kernel, which answers RST.
    DeadBackend = 7,
    /// An IP fragment of a service: left to the kernel.
    Fragment = 8,
    /// A header that is cut off or contradicts itself: left to the kernel.
    Malformed = 9,
    /// A reply that does not fit the flow of its addresses: left untouched.
    Stale = 10,
    /// An outsider's SYN to a slot port: dropped.
    SlotGuard = 11,
    /// A SYN that would collide with a connection past the balancer on every slot: dropped.
    Collision = 12,
    /// The flow could not be stored: dropped.
    TableFull = 13,
    /// A local connection was given to a slot.
    LocalConnect = 14,
    /// A local connection found no ready slot: left to the kernel, which refuses it.
    LocalNoBackend = 15,
    /// A flow was freed by the sweep while it still counted as open.
    Expired = 16,
    /// A SYN came again because its backend was silent, and was given to another slot.
    Moved = 17,
    /// The backend is reached only by another family of addresses than the client's: the SYN was
    /// left to the kernel, which answers RST.
    NoFamily = 18,
    /// A container's connection to a backend on another network: left to the kernel.
    Elsewhere = 19,
    /// A local connection to a slot's port was given to its backend.
    LocalSlot = 20,
    /// A pick passed by a slot whose backend is dead or whose interface is gone.
    PassedBy = 21,
    /// A backend refused a SYN, which was given to another slot: the client noticed nothing.
    Rescued = 22,
    /// A backend's first process ended, and picks passed its slot by from then on.
    Exited = 23,
    /// A backend's first process was told to end, and picks passed its slot by from then on.
    Signalled = 24,
    /// A slot stopped answering while its peers went on, and picks passed it by from then on.
    Silent = 25,
    /// A slot answered with server errors while its peers did not, and picks passed it by from then
    /// on.
    Failing = 26,
    /// An ICMP error about a balanced connection went to its backend.
    Icmp = 27,
    /// A SYN for a service without a backend was handed to the controller, which has it arrive again
    /// once there is one.
    Held = 28,
    /// A SYN that is held came again: dropped.
    HeldAgain = 29,
    /// A SYN could not be held, the ring buffer being full or the SYN too long: dropped. Its client
    /// sends it again.
    HoldFull = 30,
    /// A SYN was not held, its service or its source having had too many: dropped. Its client sends
    /// it again.
    HoldFlood = 31,
    /// A held SYN arrived again.
    Resumed = 32,
    /// A local connection to a service without a backend was led to the controller, which waits for
    /// one.
    LocalHeld = 33,
    /// A half-open flow was forgotten, since many newer ones came.
    Evicted = 34,
    /// A reply is larger than its way to the client begins with: it went to the host's own routing,
    /// which tells the backend by ICMP.
    TooLarge = 35,
    /// An open flow was forgotten because the table was full: its client gets RST, if it goes on.
    Lost = 36,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = 37;

    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::NewFlow,
        Self::Hit,
        Self::Reply,
        Self::SynAgain,
        Self::Reopened,
        Self::NoFlow,
        Self::NoBackend,
        Self::DeadBackend,
        Self::Fragment,
        Self::Malformed,
        Self::Stale,
        Self::SlotGuard,
        Self::Collision,
        Self::TableFull,
        Self::LocalConnect,
        Self::LocalNoBackend,
        Self::Expired,
        Self::Moved,
        Self::NoFamily,
        Self::Elsewhere,
        Self::LocalSlot,
        Self::PassedBy,
        Self::Rescued,
        Self::Exited,
        Self::Signalled,
        Self::Silent,
        Self::Failing,
        Self::Icmp,
        Self::Held,
        Self::HeldAgain,
        Self::HoldFull,
        Self::HoldFlood,
        Self::Resumed,
        Self::LocalHeld,
        Self::Evicted,
        Self::TooLarge,
        Self::Lost,
    ];

    /// The metric label and the word in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NewFlow => "new_flow",
            Self::Hit => "hit",
            Self::Reply => "reply",
            Self::SynAgain => "syn_again",
            Self::Reopened => "reopened",
            Self::NoFlow => "no_flow",
            Self::NoBackend => "no_backend",
            Self::DeadBackend => "dead_backend",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
            Self::Stale => "stale",
            Self::SlotGuard => "slot_guard",
            Self::Collision => "collision",
            Self::TableFull => "table_full",
            Self::LocalConnect => "local_connect",
            Self::LocalNoBackend => "local_no_backend",
            Self::Expired => "expired",
            Self::Moved => "moved",
            Self::NoFamily => "no_family",
            Self::Elsewhere => "elsewhere",
            Self::LocalSlot => "local_slot",
            Self::PassedBy => "passed_by",
            Self::Rescued => "rescued",
            Self::Exited => "exited",
            Self::Signalled => "signalled",
            Self::Silent => "silent",
            Self::Failing => "failing",
            Self::Icmp => "icmp",
            Self::Held => "held",
            Self::HeldAgain => "held_again",
            Self::HoldFull => "hold_full",
            Self::HoldFlood => "hold_flood",
            Self::Resumed => "resumed",
            Self::LocalHeld => "local_held",
            Self::Evicted => "evicted",
            Self::TooLarge => "too_large",
            Self::Lost => "lost",
        }
    }

    /// Whether the packet or connection came to nothing.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        matches!(
            self,
            Self::NoFlow
                | Self::NoBackend
                | Self::DeadBackend
                | Self::Fragment
                | Self::Malformed
                | Self::SlotGuard
                | Self::Collision
                | Self::TableFull
                | Self::LocalNoBackend
                | Self::NoFamily
                | Self::Elsewhere
                | Self::HoldFull
                | Self::HoldFlood
                | Self::Lost
        )
    }
}

/// How a connection to a slot failed, or was ended while its request waited for a response.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The backend answered the SYN with RST. The client may have noticed nothing: see
    /// [`Reason::Rescued`].
    Refused = 0,
    /// The SYN had no answer when its client sent it again.
    Timeout = 1,
    /// The backend reset the connection before its response to a request began.
    Reset = 2,
    /// The backend ended the connection, with FIN, before its response to a request began.
    Closed = 3,
    /// The client ended the connection, with RST or by closing its socket, while it waited for the
    /// response to a request.
    Aborted = 4,
    /// The backend was replaced or removed while the connection was open: its client gets RST.
    Gone = 5,
}

impl Failure {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Refused,
        Self::Timeout,
        Self::Reset,
        Self::Closed,
        Self::Aborted,
        Self::Gone,
    ];

    /// The metric label and the key in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Aborted => "aborted",
            Self::Gone => "gone",
        }
    }
}

/// Bytes of payload that balanced connections of a slot have carried, each once however often it was
/// sent. Kept per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From clients to the backend.
    pub received: u64,
    /// From the backend to clients.
    pub sent: u64,
}

impl core::ops::AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// What a slot has been asked and has answered. Kept per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounters {
    /// Requests that count.
    pub requests: u64,
    /// Requests that do not count: outside the prefix, or excluded.
    pub excluded: u64,
    /// Responses to requests that count, by the first digit of their status; 0 for any other.
    pub responses: [u64; 6],
    /// Connections that failed, by the number of a [`Failure`].
    pub failures: [u64; Failure::COUNT],
}

impl core::ops::AddAssign for SlotCounters {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.excluded += other.excluded;
        for (sum, part) in self.responses.iter_mut().zip(other.responses) {
            *sum += part;
        }
        for (sum, part) in self.failures.iter_mut().zip(other.failures) {
            *sum += part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_its_numbers() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at);
        }
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::COUNT);
        for (at, failure) in Failure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, at);
        }
    }
}
