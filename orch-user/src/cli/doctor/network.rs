//! Interfaces, and settings of the TCP stack.

use std::{collections::BTreeSet, fs, path::Path};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

use super::Finding;
use crate::config::{Config, Interfaces};

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![interfaces(&config.dataplane.interfaces)];
    findings.extend(time_wait());
    findings.extend(conntrack());
    findings
}

fn interfaces(wanted: &Interfaces) -> Finding {
    match wanted {
        Interfaces::Auto => {
            let uplinks = uplinks();
            if uplinks.is_empty() {
                let meaning = "\"auto\" finds no uplink: nobody outside this host is balanced";
                return Finding::warn("interfaces", meaning, "set dataplane.interfaces");
            }
            let names: Vec<_> = uplinks.into_iter().collect();
            let meaning = format!(
                "\"auto\" takes {}: outsiders come from there",
                names.join(", ")
            );
            Finding::ok("interfaces", meaning)
        }
        Interfaces::Named(names) => {
            let exists = |name: &&String| !Path::new("/sys/class/net").join(name).exists();
            let missing: Vec<_> = names.iter().filter(exists).cloned().collect();
            if missing.is_empty() {
                return Finding::ok("interfaces", format!("{}: all there", names.join(", ")));
            }
            let meaning = format!(
                "{} not there: its clients are not balanced",
                missing.join(", ")
            );
            Finding::fail("interfaces", meaning, "`ip link` lists what there is")
        }
    }
}

/// Interfaces with an address that are neither loopback, nor a bridge, nor part of one.
fn uplinks() -> BTreeSet<String> {
    let Ok(addresses) = getifaddrs() else {
        return BTreeSet::new();
    };
    addresses
        .filter(|one| !one.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter(|one| {
            let address = one.address.as_ref();
            address.is_some_and(|address| {
                address.as_sockaddr_in().is_some() || address.as_sockaddr_in6().is_some()
            })
        })
        .map(|one| one.interface_name)
        .filter(|name| {
            let class = Path::new("/sys/class/net").join(name);
            !class.join("bridge").exists() && !class.join("brport").exists()
        })
        .collect()
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
