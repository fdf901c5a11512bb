//! Whether the gateway of mode http and its copies speak past TCP.

use super::Finding;
use crate::{
    config::{Config, Mode},
    dataplane::{Dataplane, cgroup2_root},
};

const WHAT: &str = "relay";

pub(super) fn examine(config: &Config) -> Option<Finding> {
    let dataplane = &config.dataplane;
    let mut services = config.services.iter();
    services.find(|service| service.mode == Mode::Http)?;
    Some(judge(
        dataplane.relay,
        matches!(cgroup2_root(), Ok(Some(_))),
        Dataplane::exists(&dataplane.pin_dir).then(|| Dataplane::relays(&dataplane.pin_dir)),
    ))
}

/// `on` is what a controller that runs has found out; `None` where none has been here.
fn judge(wanted: bool, cgroup2: bool, on: Option<bool>) -> Finding {
    let meaning = match (wanted, cgroup2, on) {
        (false, ..) => "by TCP: the file says relay = \"off\"",
        (_, false, _) => "by TCP: there is no cgroup2",
        (.., None) => {
            "the first controller with a service in mode http finds out whether this kernel can"
        }
        (.., Some(true)) => {
            "from socket to socket, past TCP: gateway and containers that are reached directly"
        }
        (.., Some(false)) => {
            "by TCP: the controller's log says why, or it has no service in mode http"
        }
    };
    Finding::ok(WHAT, meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_once_a_controller_has_tried() {
        for (wanted, cgroup2, on, says) in [
            (false, true, Some(false), "relay = \"off\""),
            (true, false, Some(false), "no cgroup2"),
            (true, true, None, "finds out"),
            (true, true, Some(true), "from socket to socket"),
            (true, true, Some(false), "log"),
        ] {
            let meaning = judge(wanted, cgroup2, on).meaning;
            assert!(meaning.contains(says), "{meaning}");
        }
    }
}
