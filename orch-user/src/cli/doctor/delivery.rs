//! How connections can reach containers here, and why not directly.

use std::{collections::BTreeMap, path::Path, time::Duration};

use tokio::time::timeout;

use super::Finding;
use crate::{
    api::client::Client,
    cli::session,
    config::{Config, DataplaneConfig, Delivery, Local},
    delivery::{Choice, Host, Way, choose},
    overview,
    runtime::RuntimeKind,
    view::SlotRow,
};

/// Longest wait for a controller that may not even run.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let choice = choice(&config.dataplane, session::host());
    let mut findings = vec![judge(&config.dataplane, &choice)];
    // Else it has been said why nothing is reached directly.
    if choice.way == Way::Direct {
        findings.extend(fallen_back(&running(&config.control).await));
    }
    findings
}

/// The slots of the controller that runs; none where none answers.
async fn running(control: &Path) -> Vec<SlotRow> {
    let client = Client::new(control);
    let asked = timeout(PATIENCE, client.get("/v1/slots")).await;
    asked.ok().and_then(Result::ok).unwrap_or_default()
}

/// A warning per service some of whose containers could be reached directly on a host like this, and
/// are not, and per reason.
fn fallen_back(rows: &[SlotRow]) -> Vec<Finding> {
    let fallen = |row: &&SlotRow| {
        row.runtime == RuntimeKind::Docker.name() && row.delivery == Way::Port.name()
    };
    let mut groups = BTreeMap::<_, Vec<&SlotRow>>::new();
    for row in rows.iter().filter(fallen) {
        let how = overview::delivery(row);
        groups.entry((&row.service, how)).or_default().push(row);
    }
    let warn = |((service, how), fallen): ((&String, String), Vec<&SlotRow>)| {
        let all = rows.iter().filter(|row| row.service == *service).count();
        let which = if fallen.len() == all {
            service.clone()
        } else {
            let slots = fallen.iter().map(|row| format!("{service}/{}", row.slot));
            slots.collect::<Vec<_>>().join(", ")
        };
        let meaning = format!("the running controller reaches {which} by {how}");
        Finding::warn(
            "delivery",
            meaning,
            "unless its file wants it so, mend this and restart orch: until then it stays so",
        )
    };
    groups.into_iter().map(warn).collect()
}

/// How containers are reached here, by what the file says.
fn choice(dataplane: &DataplaneConfig, host: Host) -> Choice {
    let (delivery, local) = (dataplane.delivery, dataplane.local);
    choose(delivery, local, RuntimeKind::Docker, host)
}

fn judge(dataplane: &DataplaneConfig, choice: &Choice) -> Finding {
    let what = "delivery";
    if choice.way == Way::Direct {
        let meaning = "direct: connections go straight to a container's own address, past its bridge and docker-proxy; processes are reached by port";
        return Finding::ok(what, meaning);
    }
    let reason = &choice.reason;
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
            let finding = judge(&dataplane, &choice(&dataplane, host));
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.meaning.contains(says), "{finding:?}");
        }
    }

    #[test]
    fn what_has_fallen_back_is_told_once_with_its_reason() {
        let row = |service: &str, runtime: &str, delivery: &str, reason: &str| SlotRow {
            service: service.to_owned(),
            runtime: runtime.to_owned(),
            delivery: delivery.to_owned(),
            delivery_reason: reason.to_owned(),
            ..SlotRow::default()
        };
        let odd = row("odd", "docker", "port", "no way into\nits namespace");
        let findings = fallen_back(&[
            row("well", "docker", "direct", ""),
            row("process", "process", "port", "processes run on this host"),
            SlotRow {
                slot: 2,
                ..row("well", "docker", "port", "refused")
            },
            SlotRow {
                slot: 5,
                ..row("well", "docker", "port", "refused")
            },
            odd.clone(),
            odd,
        ]);
        assert!(findings.iter().all(|finding| finding.level == Level::Warn));
        let meanings: Vec<_> = findings.iter().map(|finding| &finding.meaning).collect();
        assert_eq!(
            meanings,
            [
                "the running controller reaches odd by port (no way into its namespace)",
                "the running controller reaches well/2, well/5 by port (refused)",
            ]
        );
        assert_eq!(fallen_back(&[]), []);
    }

    #[tokio::test]
    async fn where_no_controller_answers_nothing_is_said_of_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(&dir.path().join("orch.sock")).await, []);
    }
}
