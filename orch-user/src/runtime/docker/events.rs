//! What the engine tells by itself. Its stream of events may die without a word, so it is renewed
//! from where it was, and a ping runs beside it.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use bollard::{Docker, errors::Error, models::EventMessage, query_parameters::EventsOptions};
use futures_util::StreamExt;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{BackendId, RuntimeEvent, RuntimeKind, labels, within};

/// Between two pings while all is well, and the time for an answer.
const PING_PAUSE: Duration = Duration::from_secs(2);
const PING_LIMIT: Duration = Duration::from_secs(5);
/// A stream that says nothing for so long is opened anew.
const RENEW_AFTER: Duration = Duration::from_secs(30);
/// Pauses between two pings while the engine is gone: doubled, up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Names of events, as the engine has them.
const DIED: &str = "die";
const OUT_OF_MEMORY: &str = "oom";
/// The exit code of what SIGKILL has ended: 128 and its number (bash(1), "EXIT STATUS").
const KILLED: &str = " 137";

/// Sends events until the receiver is dropped.
pub(super) async fn watch(docker: &Docker, instance: &str, events: &mpsc::Sender<RuntimeEvent>) {
    tokio::select! {
        () = follow_always(docker, instance, events) => {}
        () = events.closed() => {}
    }
}

async fn follow_always(docker: &Docker, instance: &str, events: &mpsc::Sender<RuntimeEvent>) {
    let runtime = RuntimeKind::Docker;
    let mut place = Place::now();
    loop {
        let why = tokio::select! {
            why = follow(docker, instance, &mut place, events) => why,
            why = until_silent(docker) => why,
        };
        // A failed send means that the receiver is gone: `watch` ends then.
        let why = why.to_string();
        let _ = events.send(RuntimeEvent::Lost { runtime, why }).await;
        until_back(docker).await;
        let _ = events.send(RuntimeEvent::Back { runtime }).await;
    }
}

/// Forwards events until the stream breaks.
async fn follow(
    docker: &Docker,
    instance: &str,
    place: &mut Place,
    events: &mpsc::Sender<RuntimeEvent>,
) -> Error {
    let mut memory = Memory::default();
    loop {
        let mut stream = Box::pin(docker.events(Some(options(instance, *place))));
        while let Ok(item) = timeout(RENEW_AFTER, stream.next()).await {
            match item {
                Some(Ok(message)) => {
                    place.pass(&message);
                    if let Some(event) = memory.hear(message) {
                        let _ = events.send(event).await;
                    }
                }
                Some(Err(error)) => return error,
                None => {
                    return Error::DockerStreamError {
                        error: "the stream of events ended".to_owned(),
                    };
                }
            }
        }
    }
}

/// Returns when the engine does not answer.
async fn until_silent(docker: &Docker) -> Error {
    loop {
        sleep(PING_PAUSE).await;
        if let Err(error) = within(PING_LIMIT, docker.ping()).await {
            return error;
        }
    }
}

async fn until_back(docker: &Docker) {
    let mut pause = FIRST_PAUSE;
    while within(PING_LIMIT, docker.ping()).await.is_err() {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn options(instance: &str, place: Place) -> EventsOptions {
    let filters = [
        ("type", vec!["container".to_owned()]),
        ("event", vec![DIED.to_owned(), OUT_OF_MEMORY.to_owned()]),
        ("label", vec![labels::selector(instance)]),
    ];
    let filters = filters.map(|(name, values)| (name.to_owned(), values));
    EventsOptions {
        since: Some(place.text()),
        until: None,
        filters: Some(filters.into()),
    }
}

/// Containers of which a process has been killed for their limit of memory: the engine tells that by
/// itself, just before such a one ends if it was its first process.
#[derive(Debug, Default)]
struct Memory(BTreeSet<String>);

impl Memory {
    /// What a message means to the controller.
    fn hear(&mut self, message: EventMessage) -> Option<RuntimeEvent> {
        let actor = message.actor?;
        let id = actor.id?;
        if message.action.as_deref() == Some(OUT_OF_MEMORY) {
            self.0.insert(id);
            return None;
        }
        let code = actor
            .attributes
            .and_then(|mut attributes| attributes.remove("exitCode"));
        let how = code.map_or_else(|| "gone".to_owned(), |code| format!("exit code {code}"));
        // What is killed otherwise later has another reason, but for who is killed at once.
        let how = match (self.0.remove(&id), how.ends_with(KILLED)) {
            (true, true) => format!("{how}, out of memory"),
            _ => how,
        };
        let id = BackendId(id);
        Some(RuntimeEvent::Exited { id, how })
    }
}

/// How far the stream was read: the first nanosecond that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u128);

impl Place {
    fn now() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self(now.unwrap_or_default().as_nanos())
    }

    fn pass(&mut self, message: &EventMessage) {
        if let Some(Ok(time)) = message.time_nano.map(u128::try_from) {
            self.0 = self.0.max(time + 1);
        }
    }

    /// Seconds with nine decimals, as the engine reads them.
    fn text(self) -> String {
        format!("{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn message(code: Option<&str>) -> EventMessage {
        let attributes = code.map(|code| [("exitCode".to_owned(), code.to_owned())].into());
        EventMessage {
            time_nano: Some(5_000_000_007),
            actor: Some(EventActor {
                id: Some("c1".to_owned()),
                attributes,
            }),
            ..EventMessage::default()
        }
    }

    #[test]
    fn how_a_container_ended() {
        for (code, expected) in [(Some("137"), "exit code 137"), (None, "gone")] {
            let event = Memory::default().hear(message(code));
            let id = BackendId("c1".to_owned());
            let how = expected.to_owned();
            assert_eq!(event, Some(RuntimeEvent::Exited { id, how }));
        }
    }

    #[test]
    fn a_container_out_of_memory_ended_for_that() {
        let mut memory = Memory::default();
        let mut ends = |code: &str| match memory.hear(message(Some(code))) {
            Some(RuntimeEvent::Exited { how, .. }) => how,
            other => panic!("{other:?}"),
        };
        assert_eq!(ends("137"), "exit code 137");
        let mut memory = Memory::default();
        for (code, expected) in [
            ("137", "exit code 137, out of memory"),
            ("1", "exit code 1"),
        ] {
            let oom = EventMessage {
                action: Some(OUT_OF_MEMORY.to_owned()),
                ..message(None)
            };
            assert_eq!(memory.hear(oom), None);
            let id = BackendId("c1".to_owned());
            let how = expected.to_owned();
            let event = memory.hear(message(Some(code)));
            assert_eq!(event, Some(RuntimeEvent::Exited { id, how }));
        }
    }

    #[test]
    fn the_place_in_the_stream_moves_on() {
        let mut place = Place(3);
        assert_eq!(place.text(), "0.000000003");
        place.pass(&message(None));
        assert_eq!(place.text(), "5.000000008");
        place.pass(&EventMessage::default());
        assert_eq!(place.text(), "5.000000008");
    }
}
