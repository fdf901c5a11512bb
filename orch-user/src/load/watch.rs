//! What the controller did meanwhile: how many copies ran for how long, what was decided, what the
//! kernel counted.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time;

use crate::{
    api::client::{Client, ClientError},
    events::now_s,
    view::{DecisionRow, ServiceRow, SlotRow},
};

/// How often the copies are counted: a start or an end is noticed so much late at the most, on
/// average half as much, and the same for both.
const POLL: Duration = Duration::from_millis(50);
/// The controller reads the kernel's counters four times a second and shows them once a second at
/// the least: counts that stay the same for longer are whole.
const SETTLED: Duration = Duration::from_millis(1300);

/// What the controller did during a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Name of the service.
    pub service: String,
    /// Seconds of all copies together, from the start of a copy's creation to its end.
    pub copy_seconds: f64,
    /// Copies when the run began.
    pub copies_before: u16,
    /// The most copies at one time.
    pub copies_most: u16,
    /// Requests that the kernel counted for this service during the run.
    pub requests: u64,
    /// Responses that it counted, those included that came in the second or two after the run until
    /// the counts stood still.
    pub responses: u64,
    /// What was decided.
    pub decisions: Vec<Decided>,
    /// Copies over time, a point per change: seconds since the run's beginning, and how many.
    pub copies: Vec<(f64, u16)>,
}

/// A decision during the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Seconds since the run's beginning.
    pub at_s: f64,
    /// Copies wanted before.
    pub from: u16,
    /// Copies wanted after.
    pub to: u16,
    /// Why.
    pub reason: String,
}

/// Watches a service from the moment it is made.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    begin: Instant,
    begin_s: f64,
    last: Instant,
    copies: u16,
    before: ServiceRow,
    seen: Watched,
}

impl Watch {
    /// Begins to watch; fails where there is no such service or no controller.
    pub async fn begin(client: Client, service: &str) -> Result<Self, ClientError> {
        let before = row(&client, service).await?;
        let copies = copies(&client, service).await?;
        let begin = Instant::now();
        Ok(Self {
            client,
            begin,
            begin_s: now_s(),
            last: begin,
            copies,
            before,
            seen: Watched {
                service: service.to_owned(),
                copies_before: copies,
                copies_most: copies,
                copies: vec![(0.0, copies)],
                ..Watched::default()
            },
        })
    }

    /// Goes on watching until it is dropped, or the controller is lost.
    pub async fn go_on(&mut self) -> Result<(), ClientError> {
        let mut clock = time::interval(POLL);
        clock.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            let now = copies(&self.client, &self.seen.service).await?;
            self.count();
            if now != self.copies {
                self.copies = now;
                let at_s = (self.last - self.begin).as_secs_f64();
                self.seen.copies.push((at_s, now));
                self.seen.copies_most = self.seen.copies_most.max(now);
            }
        }
    }

    /// Time has passed with as many copies as before.
    fn count(&mut self) {
        let now = Instant::now();
        self.seen.copy_seconds += f64::from(self.copies) * (now - self.last).as_secs_f64();
        self.last = now;
    }

    /// What there was from the beginning to now.
    pub async fn finish(mut self) -> Result<Watched, ClientError> {
        self.count();
        let service = self.seen.service.clone();
        let path = format!("/v1/decisions?service={service}");
        let decisions: Vec<DecisionRow> = self.client.get(&path).await?;
        let during = decisions.into_iter().filter(|row| row.time >= self.begin_s);
        self.seen.decisions = during
            .map(|row| Decided {
                at_s: row.time - self.begin_s,
                from: row.from,
                to: row.to,
                reason: row.reason,
            })
            .collect();
        let mut after = row(&self.client, &service).await?;
        loop {
            time::sleep(SETTLED).await;
            let now = row(&self.client, &service).await?;
            let same = now.requests_total == after.requests_total
                && now.responses_total == after.responses_total;
            after = now;
            if same || self.last.elapsed() > SETTLED * 5 {
                break;
            }
        }
        self.seen.requests = after
            .requests_total
            .saturating_sub(self.before.requests_total);
        self.seen.responses = after
            .responses_total
            .saturating_sub(self.before.responses_total);
        Ok(self.seen)
    }
}

async fn row(client: &Client, service: &str) -> Result<ServiceRow, ClientError> {
    let rows: Vec<ServiceRow> = client.get("/v1/services").await?;
    let names: Vec<_> = rows.iter().map(|row| row.service.clone()).collect();
    let found = rows.into_iter().find(|row| row.service == service);
    found.ok_or_else(|| ClientError::Refused {
        detail: format!(
            "there is no service `{service}`: there is {}",
            names.join(", ")
        ),
    })
}

/// Copies that exist, from the start of their creation to the end of their stop.
async fn copies(client: &Client, service: &str) -> Result<u16, ClientError> {
    let rows: Vec<SlotRow> = client.get("/v1/slots").await?;
    let exists = |row: &&SlotRow| {
        row.service == service && (!row.backend.is_empty() || row.state == "starting")
    };
    Ok(rows.iter().filter(exists).count() as u16)
}
