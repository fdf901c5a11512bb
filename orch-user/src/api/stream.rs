//! Events as they happen (server-sent events).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_stream::wrappers::BroadcastStream;

use super::problem::Problem;
use crate::{control::Control, view::EventRow};

/// Most followers at a time, in the whole process.
const FOLLOWERS: usize = 32;
/// A comment is sent this often, so that a follower that went away is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// First what is remembered after event `last`, then what happens. `None` starts with now.
pub(super) fn events(control: &Control, last: Option<u64>) -> Response {
    let Ok(permit) = places().try_acquire_owned() else {
        let detail = format!("{FOLLOWERS} programs follow the events already");
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    };
    // Subscribed before the remembered ones are read, so that none falls between.
    let live = control.journal.follow();
    let past = last.map_or_else(Vec::new, |id| control.journal.events_since(id));
    let events = all(past, live).map(move |row| Ok::<_, Infallible>(message(&row, &permit)));
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

fn places() -> Arc<Semaphore> {
    static PLACES: std::sync::LazyLock<Arc<Semaphore>> =
        std::sync::LazyLock::new(|| Arc::new(Semaphore::new(FOLLOWERS)));
    PLACES.clone()
}

fn all(
    past: Vec<EventRow>,
    live: broadcast::Receiver<EventRow>,
) -> impl Stream<Item = EventRow> + Send {
    let last = past.last().map_or(0, |row| row.id);
    // A follower that is too slow misses events and sees it by the gap between their ids.
    let live = BroadcastStream::new(live).filter_map(async |row| row.ok());
    let live = live.filter(move |row| {
        let new = row.id > last;
        async move { new }
    });
    stream::iter(past).chain(live)
}

/// The permit is held by the stream that makes messages, and so as long as somebody follows.
fn message(row: &EventRow, _permit: &OwnedSemaphorePermit) -> Event {
    let event = Event::default().id(row.id.to_string()).event(&row.kind);
    event.data(serde_json::to_string(row).unwrap_or_default())
}
