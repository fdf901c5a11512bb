//! Whose turn is a request, and what is done where a copy does not answer? The same for every way of
//! speaking to copies.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    headers::Asker,
    pool::{Kept, Pool},
    problem::Problem,
    service::{Flight, Heard, Service, Settings, Slot},
    tap::{Failure, Way},
    worker::Shared,
};

/// So often a copy may take a request and end without a byte of an answer: it may be what ends them, and
/// the second time is the one retry of RFC 9110, 9.2.2.
const LOSERS: u32 = 2;
/// Where every copy refuses, they are tried again so often.
const AGAIN: Duration = Duration::from_millis(50);
/// Where one has lost the request, and there is no other: it may have ended, and whoever connects for it
/// not know yet.
const SETTLED: Duration = Duration::from_millis(500);

/// A request as it came.
pub(super) struct Wanted<'a> {
    pub(super) shared: &'a Shared,
    pub(super) service: &'a Arc<Service>,
    pub(super) settings: &'a Settings,
    pub(super) asker: &'a Asker,
    pub(super) thread: usize,
    /// The number of the client's connection.
    pub(super) connection: u32,
    pub(super) counted: bool,
    /// Somebody looks at the request every `PULSE`, so that it needs no timer.
    pub(super) looked_at: bool,
}

/// A connection to a copy, by which one request after the other goes.
pub(super) trait Connection: Kept + Sized {
    /// Those of a slot that wait.
    fn pool(slot: &Slot) -> &Pool<Self>;

    /// A new one. Boxed, since it is handed on many times.
    fn connect(
        to: &Slot,
        way: Way,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Box<Self>, Failure>>;

    /// Whether a connection that has waited is still good: its end may have come meanwhile. To be
    /// `sure` costs a call; otherwise one that has served a moment ago is taken to be.
    fn is_alive(&mut self, sure: bool, now: Instant) -> bool;
}

/// A request that copies can be asked.
pub(super) trait Question {
    type Link: Connection;
    type Answer;

    /// Whether it ends with its head, and nothing but an answer follows.
    fn is_bare(&self) -> bool;

    /// Whether it may be sent a second time: nothing of its body is gone, and either the copy cannot
    /// have begun with it, or to do it twice is the same as once.
    fn may_repeat(&self, failure: Failure) -> bool;

    /// What its client has done wrong while it was sent.
    fn fault(&self) -> Option<Problem>;

    /// Whether it follows an answer so closely that the runtime may not have heard yet what has come
    /// by the connection of that one since.
    fn is_hasty(&self) -> bool;

    /// Sends it, and waits for the head of the answer.
    fn ask(
        &mut self,
        wanted: &Wanted<'_>,
        link: &mut Self::Link,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;

    /// The status of an answer.
    fn status(answer: &Self::Answer) -> u16;
}

/// What a copy has answered, where, and by which connection the rest comes.
pub(super) struct Answered<Q: Question> {
    pub(super) answer: Q::Answer,
    pub(super) link: Box<Q::Link>,
    pub(super) flight: Flight,
}

/// Gives a request to the slot whose turn it is, or to another where that one fails it.
pub(super) async fn forward<Q: Question>(
    wanted: &Wanted<'_>,
    question: &mut Q,
) -> Result<Answered<Q>, Problem> {
    let begun = Instant::now();
    let mut tried: Vec<Arc<Slot>> = Vec::new();
    let mut seen = Seen::default();
    // When this attempt began.
    let mut at = begun;
    loop {
        let Some(flight) = wanted.service.pick(&tried) else {
            let pause = (!tried.is_empty()).then_some(if seen.lost > 0 { SETTLED } else { AGAIN });
            boxed_wait(wanted, begun, pause).await?;
            tried.clear();
            at = Instant::now();
            continue;
        };
        if wanted.service.asks(&flight.0, at) {
            wanted.shared.bell.ring();
        }
        let failure = match attempt(wanted, question, &flight, at, &mut seen).await {
            Ok((answer, link)) => {
                hear(wanted, &flight.0, Q::status(&answer), at, begun);
                return Ok(Answered {
                    answer,
                    link,
                    flight,
                });
            }
            Err(failure) => failure,
        };
        if let Some(problem) = question.fault() {
            return Err(problem);
        }
        if failure == Failure::Refused && flight.0.refuses() {
            wanted.shared.bell.ring();
        }
        if seen.lost >= LOSERS {
            return Err(Problem::Closed);
        }
        if !question.may_repeat(failure) {
            return Err(match failure {
                Failure::Refused => Problem::Refused,
                Failure::Unanswered | Failure::Cut => Problem::Closed,
                Failure::Garbled => Problem::Garbled,
                Failure::Silent => Problem::Silent,
            });
        }
        tried.push(Arc::clone(&flight.0));
        at = Instant::now();
    }
}

/// Notes what the head of an answer says of its copy, which was asked at `at`.
fn hear(wanted: &Wanted<'_>, slot: &Arc<Slot>, status: u16, at: Instant, begun: Instant) {
    let heard = Heard {
        taken: at.elapsed(),
        error: status / 100 == 5,
        connection: wanted.connection,
    };
    if wanted.counted {
        slot.tally.answer(status, at - begun + heard.taken);
    }
    if wanted.service.hears(slot, at, &heard) {
        wanted.shared.bell.ring();
    }
}

/// Boxed, since most requests need no place for it.
fn boxed_wait<'a>(
    wanted: &'a Wanted<'_>,
    begun: Instant,
    pause: Option<Duration>,
) -> BoxFuture<'a, Result<(), Problem>> {
    Box::pin(wait(wanted, begun, pause))
}

/// Waits for another slot, or, where there are some that failed, for so long until they are tried again.
async fn wait(wanted: &Wanted<'_>, begun: Instant, pause: Option<Duration>) -> Result<(), Problem> {
    let (service, http) = (wanted.service, &wanted.settings.http);
    let before = service.waiting.fetch_add(1, Relaxed);
    let waiting = Waiting(service);
    if before == 0 && pause.is_none() {
        wanted.shared.bell.ring();
    }
    if before >= http.waiting {
        return Err(Problem::Crowded);
    }
    let mut ring = service.ring.subscribe();
    let deadline = begun + http.wait;
    if Instant::now() >= deadline {
        return Err(if pause.is_some() {
            Problem::Refused
        } else {
            Problem::NoCopy
        });
    }
    if let Some(pause) = pause {
        // A change of the ring, or the next try.
        let _ = timeout(pause, ring.changed()).await;
        return Ok(());
    }
    let some = ring.wait_for(|ring| !ring.ready.is_empty() || service.is_over());
    let found = timeout_at(deadline, some).await;
    drop(waiting);
    match found {
        Ok(_) if !service.is_over() => Ok(()),
        _ => Err(Problem::NoCopy),
    }
}

struct Waiting<'a>(&'a Service);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// Asks one copy, now: by connections that wait, then by a new one.
async fn attempt<Q: Question>(
    wanted: &Wanted<'_>,
    question: &mut Q,
    flight: &Flight,
    at: Instant,
    seen: &mut Seen,
) -> Result<(Q::Answer, Box<Q::Link>), Failure> {
    let slot = &flight.0;
    // What may be sent only once goes by no connection that has ended in this moment.
    let sure = question.is_hasty() || !question.may_repeat(Failure::Unanswered);
    let way = if slot.direct && question.is_bare() && wanted.shared.relays() {
        Way::Relay
    } else {
        Way::Tcp
    };
    while let Some(mut link) = Q::Link::pool(slot).take(wanted.thread, way) {
        // One has ended: so may have the others, of another copy, too.
        if !link.is_alive(sure || seen.lost > 0, at) {
            continue;
        }
        count(wanted, slot, seen);
        match question.ask(wanted, &mut link).await {
            Ok(answer) => return Ok((answer, link)),
            // The copy may have closed it for lying idle, before it saw the request. Another copy, or a
            // new connection tells.
            Err(Failure::Unanswered) if question.may_repeat(Failure::Unanswered) => {
                seen.lost += 1;
                if seen.lost >= LOSERS || wanted.service.has_another(slot) {
                    return Err(Failure::Unanswered);
                }
                break;
            }
            Err(failure) => return Err(failure),
        }
    }
    let limit = wanted.settings.http.connect_timeout;
    let mut link = Q::Link::connect(slot, way, limit).await?;
    count(wanted, slot, seen);
    match question.ask(wanted, &mut link).await {
        Ok(answer) => Ok((answer, link)),
        Err(failure) => {
            if failure == Failure::Unanswered {
                seen.lost += 1;
            }
            Err(failure)
        }
    }
}

/// What has become of a request so far.
#[derive(Debug, Default)]
struct Seen {
    /// It is counted.
    counted: bool,
    /// How often a copy took it, and ended without a byte of an answer.
    lost: u32,
}

/// Counts the request once, for the first copy that it is sent to.
fn count(wanted: &Wanted<'_>, slot: &Slot, seen: &mut Seen) {
    if !std::mem::replace(&mut seen.counted, true) {
        slot.tally.request(wanted.counted);
    }
}
