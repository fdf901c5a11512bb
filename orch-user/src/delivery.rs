//! How connections reach the backends of a service, and why not directly. Pure: what this host can
//! do is an argument.

use crate::{
    config::{Delivery, Local},
    runtime::RuntimeKind,
};

/// How connections reach backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// At the container's own address.
    Direct,
    /// At an address of this host: only the port is rewritten.
    Port,
}

impl Way {
    /// The word for it, in the file, in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Port => "port",
        }
    }
}

/// A way, and why it is not a better one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The way.
    pub way: Way,
    /// Why not directly, for a person; empty for [`Way::Direct`].
    pub reason: String,
}

impl Choice {
    /// By port, because of `reason`.
    pub fn port(reason: impl Into<String>) -> Self {
        Self {
            way: Way::Port,
            reason: reason.into(),
        }
    }
}

/// What of this host decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// There is a cgroup2 hierarchy, to whose hooks slot ports owe their answers.
    pub cgroup2: bool,
}

/// The way for the backends of a runtime.
pub fn choose(wanted: Delivery, local: Local, kind: RuntimeKind, host: Host) -> Choice {
    let reason = if wanted == Delivery::Port {
        "the file says delivery = \"port\""
    } else if kind == RuntimeKind::Process {
        "processes run on this host itself"
    } else if local == Local::Off {
        "local = \"off\": nothing would answer at the slot ports"
    } else if !host.cgroup2 {
        "there is no cgroup2 hierarchy: nothing would answer at the slot ports"
    } else {
        return Choice {
            way: Way::Direct,
            reason: String::new(),
        };
    };
    Choice::port(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABLE: Host = Host { cgroup2: true };

    #[test]
    fn containers_are_reached_directly_wherever_that_can_be() {
        let (auto, direct, port) = (Delivery::Auto, Delivery::Direct, Delivery::Port);
        let (on, off) = (Local::Auto, Local::Off);
        let (docker, process) = (RuntimeKind::Docker, RuntimeKind::Process);
        let bare = Host { cgroup2: false };
        for (wanted, local, kind, host, why_not) in [
            (auto, on, docker, ABLE, ""),
            (direct, on, docker, ABLE, ""),
            (direct, Local::Connect, docker, ABLE, ""),
            (port, on, docker, ABLE, "the file says"),
            (port, on, process, bare, "the file says"),
            (auto, on, process, ABLE, "processes run on this host"),
            (direct, on, process, ABLE, "processes run on this host"),
            (direct, on, docker, bare, "no cgroup2"),
            (auto, off, docker, ABLE, "local = \"off\""),
            (auto, on, docker, bare, "no cgroup2"),
            (auto, off, docker, bare, "local = \"off\""),
        ] {
            let choice = choose(wanted, local, kind, host);
            let case = (wanted, local, kind, host);
            assert_eq!(choice.way == Way::Direct, why_not.is_empty(), "{case:?}");
            assert_eq!(choice.reason.is_empty(), why_not.is_empty(), "{case:?}");
            assert!(choice.reason.contains(why_not), "{case:?}: {choice:?}");
        }
    }
}
