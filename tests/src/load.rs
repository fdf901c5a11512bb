//! Steady load, and what became of each request. A request of which anything was sent and that did
//! not get a whole 200 has failed, whatever the reason. A keep-alive connection that is found closed
//! before anything of the next request is sent is opened anew, and that is no failure.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{client::Client, netns::NetNs, wait::until};

/// How clients use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Many requests on one connection.
    KeepAlive,
    /// One connection per request.
    OneShot,
}

/// Clients at work.
#[derive(Debug, Default)]
pub struct Load {
    stop: Arc<AtomicBool>,
    /// Clients that have asked at least once.
    begun: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Report>>,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Report {
    /// Whole answers of 200.
    pub good: u64,
    /// Connections opened.
    pub connections: u64,
    /// All others, a sentence each.
    pub failures: Vec<String>,
    /// The longest that a request took, its connect included.
    pub longest: Duration,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.connections += other.connections;
        self.failures.extend(other.failures);
        self.longest = self.longest.max(other.longest);
    }

    /// Panics if a request failed, or if there was hardly any.
    pub fn assert_flawless(&self, at_least: u64) {
        let first: Vec<_> = self.failures.iter().take(5).collect();
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed: {first:#?}",
            self.failures.len(),
            self.good + self.failures.len() as u64
        );
        assert!(self.good >= at_least, "only {} requests", self.good);
    }
}

impl Load {
    /// No clients.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more client: asks `path` of `address` every `pace`, from the namespace if one is given.
    #[must_use]
    pub fn client(
        mut self,
        netns: Option<&NetNs>,
        address: SocketAddr,
        path: &'static str,
        style: Style,
        pace: Duration,
    ) -> Self {
        let stop = Arc::clone(&self.stop);
        let begun = Arc::clone(&self.begun);
        let inside = netns.map(NetNs::entry);
        let from = if netns.is_some() { "outside" } else { "local" };
        self.clients.push(thread::spawn(move || {
            if let Some(entry) = inside {
                entry.enter();
            }
            let mut user = User {
                address,
                path,
                style,
                from,
                begin: Instant::now(),
                open: None,
                report: Report::default(),
            };
            user.ask();
            begun.fetch_add(1, Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(pace);
                user.ask();
            }
            user.report
        }));
        self
    }

    /// Waits until every client has asked once.
    pub fn wait_begun(&self) {
        until("every client has asked once", || {
            (self.begun.load(Ordering::Relaxed) == self.clients.len()).then_some(())
        });
    }

    /// Ends it and counts.
    pub fn finish(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for client in self.clients {
            report.add(client.join().unwrap());
        }
        report
    }
}

struct User {
    address: SocketAddr,
    path: &'static str,
    style: Style,
    from: &'static str,
    begin: Instant,
    open: Option<Client<TcpStream>>,
    report: Report,
}

impl User {
    fn ask(&mut self) {
        let sent = Instant::now();
        let kept = self.open.take().filter(|client| !client.is_closed());
        let age = if kept.is_some() { "a kept" } else { "a new" };
        let outcome = if let Some(client) = kept {
            Ok(client)
        } else {
            self.report.connections += 1;
            Client::connect(self.address)
        };
        let outcome = outcome.and_then(|mut client| {
            let answer = client.ask("GET", self.path, "")?;
            Ok((client, answer))
        });
        self.report.longest = self.report.longest.max(sent.elapsed());
        match outcome {
            Ok((client, answer)) if answer.status == 200 => {
                self.report.good += 1;
                if self.style == Style::KeepAlive && !answer.closes {
                    self.open = Some(client);
                }
            }
            other => {
                let what = match other {
                    Ok((_, answer)) => format!("{} by {}", answer.status, answer.backend),
                    Err(error) => error.to_string(),
                };
                let (at, took) = (self.begin.elapsed(), sent.elapsed());
                self.report.failures.push(format!(
                    "{} {:?} at {at:?} after {took:?} on {age} connection: {what}",
                    self.from, self.style
                ));
            }
        }
    }
}
