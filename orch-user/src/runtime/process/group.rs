//! A process group: its leader's end is noticed through a pidfd, and no member outlives the leader,
//! as in a container.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal, test_kill_process_group, waitid,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

/// How long killed members of a group may take to disappear.
const MEMBER_LIMIT: Duration = Duration::from_secs(2);

/// A process group whose leader lived when this was made.
#[derive(Debug)]
pub(super) struct Group {
    leader: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// Whether the leader's pid still belongs to it: nothing is signalled once it does not.
    owned: Mutex<bool>,
    ended: watch::Sender<bool>,
}

impl Group {
    /// Must be called inside a tokio runtime.
    pub(super) fn open(pid: i32) -> io::Result<Self> {
        let leader = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            leader,
            pidfd: open_pidfd(leader)?,
            owned: Mutex::new(true),
            ended: watch::Sender::new(false),
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.leader.as_raw_nonzero().get()
    }

    /// Asks every member to end. A stopped process acts on it only when it continues.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        if *owned {
            // Fails only where nobody is left.
            let _ = kill_process_group(self.leader, signal);
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until leader and members are gone and `until_end` has seen it.
    pub(super) async fn ended(&self) {
        // The sender lives as long as `self`.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Waits for the leader's end, ends what is left of the group, and says how the leader ended.
    /// To be called once.
    pub(super) async fn until_end(&self) -> String {
        if let Err(error) = self.pidfd.readable().await {
            // The tokio runtime is shutting down: the process lives on, and must.
            log::debug!("process {} is not followed any more: {error}", self.pid());
            std::future::pending::<()>().await;
        }
        // Before reaping, while the pid cannot be given to anybody else.
        self.kill();
        let how = self.reap();
        bury(self.pid()).await;
        self.ended.send_replace(true);
        how
    }

    fn reap(&self) -> String {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        *owned = false;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        // An adopted process is not our child: whoever is its parent knows how it ended.
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "gone".to_owned(),
            },
            Ok(None) | Err(_) => "gone".to_owned(),
        }
    }
}

#[allow(
    deprecated,
    reason = "its successor is unsafe for the sake of types that close their descriptor early; \
              an `OwnedFd` does not"
)]
fn open_pidfd(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// Kills what is left of a group whose leader is dead, and waits until it is gone. As long as the
/// group has members, its number is given to nobody else.
pub(super) async fn bury(leader: i32) {
    let Some(group) = Pid::from_raw(leader) else {
        return;
    };
    if test_kill_process_group(group).is_err() {
        return;
    }
    let _ = kill_process_group(group, Signal::KILL);
    let all_gone = async {
        for member in super::proc::members(leader) {
            if let Some(Ok(pidfd)) = Pid::from_raw(member).map(open_pidfd) {
                let _ = pidfd.readable().await;
            }
        }
    };
    if tokio::time::timeout(MEMBER_LIMIT, all_gone).await.is_err() {
        log::warn!("process group {leader} still has members after SIGKILL");
    }
}

/// Ends a group that no record names, if its leader is still the one that was meant.
pub(super) async fn end(pid: i32, is_meant: impl FnOnce() -> bool) {
    // First the descriptor, then the check: the signal goes to what was checked.
    let Some(Ok(leader)) = Pid::from_raw(pid).map(open_pidfd) else {
        return;
    };
    if is_meant() && pidfd_send_signal(leader.get_ref(), Signal::KILL).is_ok() {
        bury(pid).await;
    }
}

/// Ends a child that nobody follows yet.
pub(super) fn kill_child(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    }
}
