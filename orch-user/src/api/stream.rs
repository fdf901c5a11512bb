//! What happens, as it happens (server-sent events).

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::sleep,
};
use tokio_stream::wrappers::BroadcastStream;

use super::problem::Problem;
use crate::{
    control::Control,
    live::{Live, Viewer},
    view::EventRow,
};

/// A page that lost its stream asks again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// Between two pictures, however much happens.
const PICTURE_PAUSE: Duration = Duration::from_millis(200);
/// Most followers at a time, in the whole process.
const FOLLOWERS: usize = 32;
/// A comment is sent this often, so that a follower that went away is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A picture of everything now, then what is new whenever something is.
pub(super) fn live(control: &Control, viewer: Viewer) -> Response {
    let Some(permit) = permit() else {
        return too_many();
    };
    let looks = (viewer, control.snapshot.clone(), Turn::First, permit);
    let pictures = stream::unfold(
        looks,
        |(mut viewer, mut snapshot, turn, permit)| async move {
            if turn == Turn::Later {
                sleep(PICTURE_PAUSE).await;
                // Fails once the controller has ended: so does the stream.
                snapshot.changed().await.ok()?;
            }
            snapshot.mark_unchanged();
            let picture = picture(&viewer.look(), turn);
            Some((
                Ok::<_, Infallible>(picture),
                (viewer, snapshot, Turn::Later, permit),
            ))
        },
    );
    Sse::new(pictures)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Later,
}

fn picture(live: &Live, turn: Turn) -> Event {
    let event = match turn {
        Turn::First => Event::default().event("whole").retry(RETRY),
        Turn::Later => Event::default().event("step"),
    };
    event.data(serde_json::to_string(live).unwrap_or_default())
}

/// First what is remembered after event `last`, then what happens. `None` starts with now.
pub(super) fn events(control: &Control, last: Option<u64>) -> Response {
    let Some(permit) = permit() else {
        return too_many();
    };
    // Subscribed before the remembered ones are read, so that none falls between.
    let live = control.journal.follow();
    let past = last.map_or_else(Vec::new, |id| control.journal.events_since(id));
    let events = all(past, live).map(move |row| Ok::<_, Infallible>(message(&row, &permit)));
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

fn permit() -> Option<OwnedSemaphorePermit> {
    static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(FOLLOWERS)));
    PLACES.clone().try_acquire_owned().ok()
}

fn too_many() -> Response {
    let detail = format!("{FOLLOWERS} programs follow already");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
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
