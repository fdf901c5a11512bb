//! The load: wrk, in the client's namespace, for a few seconds.

use std::{process::Stdio, time::Duration};

use orch_tests::netns::NetNs;

use crate::{Result, cpu, leftovers::Child, topology::Topology};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Small requests on connections that stay open.
    Requests,
    /// One connection per request.
    Connections,
    /// A megabyte per answer.
    Bulk,
}

/// What one run of wrk says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Requests, or connections, per second; for bulk, bits.
    pub(crate) rate: f64,
    /// The median, in microseconds.
    pub(crate) p50: f64,
    /// The 99th of 100, in microseconds.
    pub(crate) p99: f64,
    /// Connections that failed, timed out, or were answered otherwise than with 200.
    pub(crate) errors: u64,
    /// SYNs sent again, by clients and proxies. Each cost its connection a second in which nothing
    /// was measured: if there are many, the conditions were not what they should be.
    pub(crate) repeated: u64,
    /// CPU time of everybody who took part, in microseconds per answer.
    pub(crate) cpu: f64,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Requests, Self::Connections, Self::Bulk];

    const fn clients(self) -> usize {
        match self {
            Self::Requests | Self::Connections => 32,
            Self::Bulk => 4,
        }
    }

    /// Runs it once against this address.
    pub(crate) fn run(
        self,
        netns: &NetNs,
        topology: &Topology,
        address: &str,
        seconds: u64,
        threads: usize,
    ) -> Result<Sample> {
        let path = if self == Self::Bulk { "big" } else { "ok" };
        let mut command = netns.command("wrk");
        command
            .args(["--latency", "-t", &threads.to_string()])
            .args(["-c", &self.clients().to_string()])
            .args(["-d", &format!("{seconds}s")])
            .arg(format!("http://{address}/{path}"))
            .stdout(Stdio::piped());
        if self == Self::Connections {
            command.args(["-H", "Connection: close"]);
        }
        let patience = Duration::from_secs(seconds + 15);
        let (before, used) = (repeated(topology)?, cpu::of_measurement(topology)?);
        let text = Child::start(&mut command)?.output(patience)?;
        let used = cpu::of_measurement(topology)? - used;
        let sample = parse(&text, self).ok_or_else(|| format!("wrk says: {text}"))?;
        Ok(Sample {
            repeated: repeated(topology)? - before,
            cpu: used * 1e6 / answers(&text).ok_or("wrk counts no requests")?,
            ..sample
        })
    }
}

fn parse(text: &str, kind: Kind) -> Option<Sample> {
    let word = |start: &str| {
        let line = text
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with(start))?;
        line[start.len()..].split_whitespace().next()
    };
    let rate = match kind {
        Kind::Bulk => 8.0 * quantity(word("Transfer/sec:")?)?,
        _ => word("Requests/sec:")?.parse().ok()?,
    };
    Some(Sample {
        rate,
        p50: quantity(word("50%")?)?,
        p99: quantity(word("99%")?)?,
        errors: errors(text),
        ..Sample::default()
    })
}

/// How many answers there were: `30021 requests in 2.00s, 4.12MB read`.
fn answers(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains(" requests in "))?;
    let count: f64 = line.split_whitespace().next()?.parse().ok()?;
    (count > 0.0).then_some(count)
}

/// A number with its unit: bytes, or microseconds.
fn quantity(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 8] = [
        ("us", 1.0),
        ("ms", 1e3),
        ("GB", 1_073_741_824.0),
        ("MB", 1_048_576.0),
        ("KB", 1024.0),
        ("B", 1.0),
        ("m", 6e7),
        ("s", 1e6),
    ];
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

/// All errors that wrk lists: `Socket errors: connect 0, read 1, ...`, `Non-2xx or 3xx responses: 2`.
fn errors(text: &str) -> u64 {
    text.lines()
        .filter(|line| line.contains("Socket errors:") || line.contains("Non-2xx"))
        .flat_map(|line| line.split([' ', ',']))
        .filter_map(|word| word.parse::<u64>().ok())
        .sum()
}

/// `TcpExtTCPSynRetrans` of client and host so far. The file has a line of names above each line of
/// numbers.
fn repeated(topology: &Topology) -> Result<u64> {
    let of = |netns: &NetNs| -> Result<u64> {
        let text = netns.within(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))?;
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, numbers) = (lines.next(), lines.next());
        let mut pairs = names
            .into_iter()
            .flat_map(str::split_whitespace)
            .zip(numbers.into_iter().flat_map(str::split_whitespace));
        let found = pairs.find(|(name, _)| *name == "TCPSynRetrans");
        Ok(found.ok_or("no TCPSynRetrans")?.1.parse()?)
    };
    Ok(of(&topology.client)? + of(&topology.host)?)
}
