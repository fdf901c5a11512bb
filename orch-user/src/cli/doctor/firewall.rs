//! Firewall rules that could drop what is balanced. A best effort: rules can say it in many ways.

use std::process::Command;

use super::Finding;
use crate::config::Config;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let what = "firewall";
    let mut rules = String::new();
    for (program, args) in [
        ("nft", &["list", "ruleset"][..]),
        ("iptables-save", &[][..]),
        ("ip6tables-save", &[][..]),
    ] {
        let output = Command::new(program).args(args).output();
        if let Some(output) = output.ok().filter(|output| output.status.success()) {
            rules += &String::from_utf8_lossy(&output.stdout);
        }
    }
    if rules.trim().is_empty() {
        let meaning = "no rules (or no nft and iptables to show them, or not root)";
        return vec![Finding::ok(what, meaning)];
    }
    let findings = judge(&rules, config);
    if findings.is_empty() {
        return vec![Finding::ok(what, "no rule that is known to harm")];
    }
    findings
}

fn judge(rules: &str, config: &Config) -> Vec<Finding> {
    let what = "firewall";
    let mut findings = Vec::new();
    let lower = rules.to_lowercase();
    let drops = |line: &str| line.contains("drop") || line.contains("reject");
    if let Some(line) = lower
        .lines()
        .find(|line| line.contains("invalid") && drops(line))
    {
        let meaning = format!(
            "drops what conntrack calls invalid (`{}`); harmless as long as orch's packets are not: watch for it",
            line.trim()
        );
        let cure = "if connections hang, except the service's port from that rule";
        findings.push(Finding::warn(what, meaning, cure));
    }
    let closed = lower.contains(":input drop") || lower.contains("hook input") && closes(&lower);
    if closed {
        // The packet reaches netfilter with the slot's port already in place.
        for service in &config.services {
            let last = u32::from(service.start_port) + u32::from(service.scale.max) - 1;
            let range = format!("{}-{last}", service.start_port);
            let meaning = format!(
                "incoming packets are dropped by default: outsiders of service {} arrive on slot ports {range}",
                service.name
            );
            let cure = format!(
                "accept tcp dport {range} where port {} is accepted; orch itself keeps outsiders off them",
                service.listen.port
            );
            findings.push(Finding::warn(what, meaning, cure));
        }
    }
    findings
}

/// Whether an nftables input chain drops by default.
fn closes(rules: &str) -> bool {
    rules
        .lines()
        .any(|line| line.contains("hook input") && line.contains("policy drop"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn rules_that_harm_are_seen() {
        let config = Source::Image("a".to_owned()).load().unwrap();
        let count = |rules: &str| judge(rules, &config).len();
        assert_eq!(count(":INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j ACCEPT"), 0);
        assert_eq!(count(":INPUT DROP [0:0]"), 1);
        assert_eq!(count("type filter hook input priority 0; policy drop;"), 1);
        assert_eq!(
            count("type filter hook input priority 0; policy accept;"),
            0
        );
        assert_eq!(count("-A INPUT -m conntrack --ctstate INVALID -j DROP"), 1);
        assert_eq!(count("ct state invalid drop"), 1);
    }
}
