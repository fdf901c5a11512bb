//! What root may do here: in a container it is often without what kernel programs need.

use std::fs;

/// Bits of capabilities(7).
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Names of the capabilities that loading and attaching needs and this process has not.
pub(crate) fn missing() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Where it cannot be told, the kernel will say.
    effective(&status).map(lacking).unwrap_or_default()
}

fn effective(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(set?.trim(), 16).ok()
}

fn lacking(set: u64) -> Vec<&'static str> {
    let has = |bit: u32| set >> bit & 1 == 1;
    // To load, the kernel takes this one for each of the others.
    if has(SYS_ADMIN) {
        return Vec::new();
    }
    let needed = [
        ("CAP_BPF", BPF),
        ("CAP_PERFMON", PERFMON),
        ("CAP_NET_ADMIN", NET_ADMIN),
    ];
    let missing = needed.into_iter().filter(|(_, bit)| !has(*bit));
    missing.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_lacks_is_named() {
        let lacks = |set: &str| {
            let status = format!("Name:\torch\nCapPrm:\t0\nCapEff:\t{set}\nCapBnd:\t0\n");
            lacking(effective(&status).unwrap())
        };
        assert_eq!(lacks("000001ffffffffff"), [""; 0]);
        assert_eq!(lacks("0000000000200000"), [""; 0]);
        assert_eq!(
            lacks("00000000a80425fb"),
            ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"],
            "of a container by default"
        );
        assert_eq!(lacks("0000008000001000"), ["CAP_PERFMON"]);
        assert_eq!(effective(""), None);
    }
}
