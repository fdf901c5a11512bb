//! The router behind a real socket, asked by the real client.

use std::{path::PathBuf, sync::Arc};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    sync::{mpsc, watch},
};

use super::{client::*, *};
use crate::{
    control::{Command, CommandError},
    events::Journal,
    history::History,
    view::{DecisionRow, ServiceRow, SlotRow, Snapshot},
};

struct World {
    control: Control,
    commands: mpsc::Receiver<Command>,
    client: Client,
    snapshot: watch::Sender<Arc<Snapshot>>,
    dir: TempDir,
}

fn world() -> World {
    let service = ServiceRow {
        service: "acts".to_owned(),
        desired: 2,
        ..ServiceRow::default()
    };
    let snapshot = Snapshot {
        services: vec![service],
        slots: vec![SlotRow::default()],
        ..Snapshot::default()
    };
    let (sender, receiver) = watch::channel(Arc::new(snapshot));
    let (commands, asked) = mpsc::channel(4);
    let control = Control {
        snapshot: receiver,
        journal: Journal::default(),
        history: History::default(),
        commands,
        source: None,
    };
    let dir = TempDir::new().unwrap();
    let path: PathBuf = dir.path().join("orch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(serve_control(listener, full(control.clone())));
    World {
        control,
        commands: asked,
        client: Client::new(&path),
        snapshot: sender,
        dir,
    }
}

#[tokio::test]
async fn rows_arrive() {
    let world = world();
    let services: Vec<ServiceRow> = world.client.get("/v1/services").await.unwrap();
    assert_eq!(services, world.control.snapshot.borrow().services);
    let slots: Vec<SlotRow> = world.client.get("/v1/slots").await.unwrap();
    assert_eq!(slots.len(), 1);
}

#[tokio::test]
async fn decisions_are_of_one_service_or_of_all() {
    let world = world();
    world.control.journal.decide(DecisionRow {
        time: 1.0,
        service: "acts".to_owned(),
        from: 1,
        to: 2,
        reason: "because".to_owned(),
    });
    let get = |what| world.client.get::<Vec<DecisionRow>>(what);
    assert_eq!(get("/v1/decisions").await.unwrap().len(), 1);
    assert_eq!(get("/v1/decisions?service=acts").await.unwrap().len(), 1);
    let error = get("/v1/decisions?service=axe").await.unwrap_err();
    assert_eq!(error.to_string(), "there is no service axe; there is: acts");
}

#[tokio::test]
async fn events_are_followed_from_where_one_was() {
    let world = world();
    for kind in ["started", "ready"] {
        let journal = &world.control.journal;
        journal.record("acts", Some(0), kind, "line\nbreak".to_owned());
    }
    let mut follower = world.client.follow(1).await.unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap().kind, "ready");
    world
        .control
        .journal
        .record("", None, "reloaded", String::new());
    let event = follower.next().await.unwrap().unwrap();
    assert_eq!((event.id, event.kind.as_str()), (3, "reloaded"));
}

#[tokio::test]
async fn changes_reach_the_owner_and_its_answer_comes_back() {
    let mut world = world();
    tokio::spawn(async move {
        while let Some(command) = world.commands.recv().await {
            match command {
                Command::Scale {
                    to: Some(9),
                    answer,
                    service,
                } => {
                    let error = CommandError::OutOfRange {
                        service,
                        to: 9,
                        min: 1,
                        max: 3,
                    };
                    answer.send(Err(error)).unwrap();
                }
                Command::Scale { to, answer, .. } => {
                    answer.send(Ok(format!("to {to:?}"))).unwrap();
                }
                Command::Reset { service, answer } => answer.send(Ok(service)).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    });
    let post = |what: &'static str, body: &'static str| {
        let client = world.client.clone();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        async move {
            client
                .post(what, &body)
                .await
                .map_err(|error| error.to_string())
        }
    };
    let scale = "/v1/services/acts/scale";
    assert_eq!(
        post(scale, r#"{"replicas":3}"#).await.unwrap(),
        "to Some(3)"
    );
    assert_eq!(
        post(scale, r#"{"replicas":"auto"}"#).await.unwrap(),
        "to None"
    );
    assert_eq!(
        post(scale, r#"{"replicas":3.0}"#).await.unwrap(),
        "to Some(3)"
    );
    let refused = post(scale, r#"{"replicas":2.5}"#).await.unwrap_err();
    assert!(refused.starts_with("the body must be"), "{refused}");
    let refused = post(scale, r#"{"replicas":9}"#).await.unwrap_err();
    assert_eq!(refused, "9 copies of acts are outside its limits 1..3");
    let refused = post(scale, r#"{"replicas":"many"}"#).await.unwrap_err();
    assert!(refused.starts_with("the body must be"), "{refused}");
    assert_eq!(post("/v1/services/acts/reset", "{}").await.unwrap(), "acts");
}

/// Serves on a loopback address and asks there, a raw request each.
async fn ask(router: axum::Router, head: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve_status(listener, router));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    server.abort();
    answer
}

#[tokio::test]
async fn the_status_address_only_reads() {
    let world = world();
    let ask = async |line: &str| {
        let head = format!("{line} HTTP/1.1\r\nhost: x");
        ask(read_only(world.control.clone()), &head).await
    };
    for refused in [
        "POST /v1/services/acts/reset",
        "POST /v1/reload",
        "GET /v1/slots/acts/0/log",
    ] {
        let answer = ask(refused).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{refused}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    let wrong = ask("POST /v1/slots").await;
    assert!(wrong.starts_with("HTTP/1.1 405"), "{wrong}");
    assert!(wrong.contains("allow: GET,HEAD"), "{wrong}");
    assert!(wrong.contains("application/problem+json"), "{wrong}");
    let missing = ask("GET /v1/nothing").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    assert!(missing.contains("application/problem+json"), "{missing}");
    assert!(ask("GET /metrics").await.contains("orch_build_info{"));
    let page = ask("GET /").await;
    assert!(page.contains("<td>") && page.contains("acts"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'"));
    assert!(ask("GET /v1/events").await.contains("\r\n\r\n[]"));
    assert!(ask("GET /v1/live").await.contains("\"services\":[{"));
}

#[tokio::test]
async fn a_page_that_was_led_here_by_a_name_is_turned_away() {
    let world = world();
    for (host, status) in [
        ("evil.example:9180", 421),
        ("localhost", 200),
        ("[::1]:1", 200),
    ] {
        let head = format!("GET /v1/slots HTTP/1.1\r\nhost: {host}");
        let answer = ask(read_only(world.control.clone()), &head).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(!answer.contains("access-control-allow-origin"));
    }
    for hosts in ["accept: */*", "host: localhost\r\nhost: evil.example"] {
        let head = format!("GET /v1/slots HTTP/1.1\r\n{hosts}");
        let answer = ask(read_only(world.control.clone()), &head).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("one Host field"), "{answer}");
    }
}

#[tokio::test]
async fn with_the_token_changes_may_be_asked_for_over_tcp() {
    let mut world = world();
    tokio::spawn(async move {
        while let Some(Command::Reset { service, answer }) = world.commands.recv().await {
            answer.send(Ok(service)).unwrap();
        }
    });
    let file = world.dir.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let token = access::Token::read(&file).unwrap();
    for (line, status) in [
        ("authorization: Bearer 0123456789abcdef", "200"),
        ("authorization: Bearer 0123456789abcdeX", "401"),
        ("accept: */*", "401"),
    ] {
        let access = access::Access::Token(token.clone());
        let head = format!(
            "POST /v1/services/acts/reset HTTP/1.1\r\nhost: localhost\r\n{line}\r\ncontent-length: 0"
        );
        let answer = ask(router(world.control.clone(), access), &head).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        let scheme = answer.contains("www-authenticate: Bearer");
        assert_eq!(scheme, status == "401", "{answer}");
    }
}

#[tokio::test]
async fn whoever_looks_on_gets_everything_and_then_what_is_new() {
    let world = world();
    world
        .control
        .journal
        .record("acts", None, "ready", String::new());
    let mut watcher = world.client.watch().await.unwrap();
    let first = watcher.next().await.unwrap().unwrap();
    assert_eq!((first.services.len(), first.events.len()), (1, 1));
    world
        .control
        .journal
        .record("acts", Some(0), "exited", String::new());
    let snapshot = Snapshot::default();
    world.snapshot.send_replace(Arc::new(snapshot));
    let second = watcher.next().await.unwrap().unwrap();
    assert_eq!((second.services.len(), second.events.len()), (0, 1));
    assert_eq!(second.events[0].kind, "exited");
    drop(world.snapshot);
    assert!(watcher.next().await.unwrap().is_none(), "the end is seen");
}

#[tokio::test]
async fn who_is_slow_is_cut_off() {
    let world = world();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = read_only(world.control.clone());
    let limit = std::time::Duration::from_millis(50);
    tokio::spawn(serve::serve_tcp(listener, router, limit));
    let whole = "GET /v1/slots HTTP/1.1\r\nhost: x\r\n\r\n";
    for (sent, answered) in [("", false), ("GET /", false), (whole, true)] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // Ends only because the other side ends it.
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.starts_with("HTTP/1.1 200"), answered, "{sent:?}");
    }
}

#[tokio::test]
async fn the_silent_keep_nobody_out() {
    let world = world();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_status(listener, read_only(world.control.clone())));
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut last = TcpStream::connect(address).await.unwrap();
    last.write_all(b"GET /v1/slots HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    last.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // The oldest was told, before its time for a request was over.
    let mut rest = Vec::new();
    assert_eq!(silent[0].read_to_end(&mut rest).await.unwrap(), 0);
    let newest = silent[299].try_read(&mut answer);
    assert_eq!(newest.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn nobody_there_is_said_with_the_path() {
    let client = Client::new("/nonexistent/orch.sock".as_ref());
    let error = client.get::<Vec<SlotRow>>("/v1/slots").await.unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/orch.sock"),
        "{error}"
    );
}
