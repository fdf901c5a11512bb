//! How connections can reach containers here, and why not directly.

use super::Finding;
use crate::{
    cli::session,
    config::{Config, DataplaneConfig, Delivery, Local},
    delivery::{Host, Way, choose},
    runtime::RuntimeKind,
};

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    vec![judge(&config.dataplane, session::host())]
}

fn judge(dataplane: &DataplaneConfig, host: Host) -> Finding {
    let what = "delivery";
    let choice = choose(
        dataplane.delivery,
        dataplane.local,
        RuntimeKind::Docker,
        host,
    );
    if choice.way == Way::Direct {
        let meaning = "direct: connections go straight to a container's own address, past its bridge and docker-proxy; processes are reached by port";
        return Finding::ok(what, meaning);
    }
    let reason = choice.reason;
    if dataplane.delivery == Delivery::Direct {
        let meaning = format!("the file demands direct, which cannot be: {reason}");
        return Finding::fail(what, meaning, "write delivery = \"auto\" in [dataplane]");
    }
    let meaning = format!("port, not direct: {reason}");
    if dataplane.delivery == Delivery::Port {
        return Finding::ok(what, meaning);
    }
    let cure = if dataplane.local == Local::Off {
        "write local = \"auto\" in [dataplane]"
    } else {
        "mount -t cgroup2 none /sys/fs/cgroup"
    };
    Finding::warn(what, meaning, cure)
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};
    use crate::config::Source;

    #[test]
    fn the_way_is_judged_by_what_the_file_wants() {
        let able = Host { cgroup2: true };
        let bare = Host { cgroup2: false };
        for (delivery, host, level, says) in [
            (Delivery::Auto, able, Level::Ok, "direct: "),
            (Delivery::Direct, able, Level::Ok, "direct: "),
            (
                Delivery::Port,
                able,
                Level::Ok,
                "port, not direct: the file",
            ),
            (
                Delivery::Auto,
                bare,
                Level::Warn,
                "port, not direct: there is no cgroup2",
            ),
            (
                Delivery::Direct,
                bare,
                Level::Fail,
                "cannot be: there is no",
            ),
        ] {
            let config = Source::Image("acts:demo".to_owned()).load().unwrap();
            let dataplane = DataplaneConfig {
                delivery,
                ..config.dataplane
            };
            let finding = judge(&dataplane, host);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.meaning.contains(says), "{finding:?}");
        }
    }
}
