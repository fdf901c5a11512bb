//! Interfaces, and settings of the TCP stack.

use std::fs;

use super::Finding;
use crate::{
    config::{Config, Interfaces},
    dataplane::Prospect,
};

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![interfaces(&config.dataplane.interfaces)];
    findings.extend(time_wait());
    findings.extend(conntrack());
    findings
}

fn interfaces(wanted: &Interfaces) -> Finding {
    const WHAT: &str = "interfaces";
    const CURE: &str = "set dataplane.interfaces; `ip link` lists what there is";
    let prospect = match Prospect::of(wanted) {
        Ok(prospect) => prospect,
        Err(error) => {
            let meaning = format!("not known, since the kernel does not tell them: {error}");
            return Finding::warn(WHAT, meaning, "try again as root");
        }
    };
    if let [_, ..] = prospect.missing.as_slice() {
        let meaning = format!(
            "{} not there, or not up: the controller does not start",
            prospect.missing.join(", ")
        );
        return Finding::fail(WHAT, meaning, CURE);
    }
    if let Some((name, why)) = prospect.never.first() {
        let meaning = format!("{name} is named, which is no uplink: {why}");
        return Finding::warn(WHAT, meaning, CURE);
    }
    if prospect.uplinks.is_empty() {
        let meaning = "\"auto\" finds no uplink: nobody outside this host is balanced";
        return Finding::warn(WHAT, meaning, CURE);
    }
    let names = prospect.uplinks.join(", ");
    Finding::ok(
        WHAT,
        match wanted {
            Interfaces::Auto => format!("\"auto\" takes {names}: outsiders come from there"),
            Interfaces::Named(_) => format!("{names}: all there"),
        },
    )
}

/// Clients on this host that open many short connections to a container's own address run out of
/// ports, since 2 reuses ports early only for loopback addresses.
fn time_wait() -> Option<Finding> {
    let value = number("/proc/sys/net/ipv4/tcp_tw_reuse")?;
    let what = "tw_reuse";
    Some(match value {
        0 => Finding::warn(
            what,
            "0: a local client that opens thousands of short connections runs out of ports",
            "sysctl -w net.ipv4.tcp_tw_reuse=2",
        ),
        value => Finding::ok(
            what,
            format!("{value}: closed local connections give ports back early"),
        ),
    })
}

fn conntrack() -> Option<Finding> {
    let base = "/proc/sys/net/netfilter/nf_conntrack_";
    let count = number(&format!("{base}count"))?;
    let max = number(&format!("{base}max"))?;
    let meaning = format!("{count} of {max} entries are used");
    Some(if count * 10 > max * 8 {
        let meaning = meaning + ": once it is full, new connections are dropped";
        let cure = format!("sysctl -w net.netfilter.nf_conntrack_max={}", max * 4);
        Finding::warn("conntrack", meaning, cure)
    } else {
        Finding::ok("conntrack", meaning)
    })
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn an_interface_that_cannot_be_balanced_is_told() {
        let named = |name: &str| interfaces(&Interfaces::Named(vec![name.to_owned()]));
        let loopback = named("lo");
        assert_eq!(loopback.level, Level::Warn, "{loopback:?}");
        assert!(loopback.meaning.starts_with("lo is named"), "{loopback:?}");
        let missing = named("nosuch0");
        assert_eq!(missing.level, Level::Fail, "{missing:?}");
        assert!(
            missing.meaning.starts_with("nosuch0 not there"),
            "{missing:?}"
        );
    }
}
