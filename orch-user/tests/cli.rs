//! The binary as users and scripts call it: output, exit codes, messages.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers, too")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use orch::{
    api,
    control::{Command as Wish, CommandError, Control},
    events::Journal,
    history::History,
    view::{DecisionRow, ServiceRow, SlotRow, Snapshot},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixListener,
    sync::{mpsc, watch},
};

fn orch(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orch"));
    command
        .args(words)
        .env_remove("ORCH_CONTROL")
        .stdin(Stdio::null());
    command
}

/// Exit code, stdout, stderr.
fn done(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().expect("not ended by a signal");
    (code, text(&output.stdout), text(&output.stderr))
}

fn run(words: &[&str]) -> (i32, String, String) {
    done(&orch(words).output().unwrap())
}

fn file(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("orch.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_example_passes_its_own_check() {
    let dir = TempDir::new().unwrap();
    let (code, example, _) = run(&["check", "--example"]);
    assert_eq!(code, 0);
    let path = file(&dir, &example);
    let (code, said, _) = run(&["check", "-f", path.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(
        said.contains("acts: port 80 over 1 to 10 copies on ports 8000 to 8009"),
        "{said}"
    );
}

#[test]
fn a_bad_file_is_code_2_for_every_verb_that_reads_it() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "[[service]]\nmod = \"tcp\"\nbackend.image = \"a\"\n");
    for verb in ["check", "run", "ps", "down", "doctor"] {
        if verb == "down" && !nix::unistd::geteuid().is_root() {
            continue;
        }
        let (code, said, errors) = run(&[verb, "-f", path.to_str().unwrap()]);
        assert_eq!((code, said.as_str()), (2, ""), "{verb}");
        let line = format!("{}:2: service[0].mod: unknown key", path.display());
        assert!(errors.contains(&line), "{verb}: {errors}");
    }
}

#[test]
fn a_missing_controller_is_code_1_and_names_the_socket() {
    let dir = TempDir::new().unwrap();
    let text = "control = \"/nonexistent/file.sock\"\n[[service]]\nbackend.image = \"a\"\n";
    let path = file(&dir, text);
    let path = path.to_str().unwrap();
    for (words, named) in [
        (vec!["ps"], "/nonexistent/env.sock"),
        (
            vec!["ps", "--control", "/nonexistent/flag.sock"],
            "/nonexistent/flag.sock",
        ),
        (
            vec!["ps", "--control", "/x", "-f", path],
            "/nonexistent/file.sock",
        ),
        (
            vec!["events", "-f", "--file", path],
            "/nonexistent/file.sock",
        ),
        (
            vec!["--control", "/nonexistent/flag.sock", "ps"],
            "/nonexistent/flag.sock",
        ),
        (vec!["ps"], "/nonexistent/env.sock"),
    ] {
        let mut command = orch(&words);
        command.env("ORCH_CONTROL", "/nonexistent/env.sock");
        let (code, _, errors) = done(&command.output().unwrap());
        assert_eq!(code, 1, "{words:?}");
        let begin = format!("error: no controller answers at {named}: ");
        assert!(errors.starts_with(&begin), "{words:?}: {errors}");
    }
}

#[test]
fn usage_is_code_2_and_help_code_0() {
    for words in [&["fly"][..], &["scale", "acts"], &["ps", "-o", "yaml"], &[]] {
        assert_eq!(run(words).0, 2, "{words:?}");
    }
    for words in [&["--help"][..], &["run", "--help"], &["--version"]] {
        assert_eq!(run(words).0, 0, "{words:?}");
    }
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(&["completions", shell]);
        assert_eq!(code, 0, "{shell}");
        assert!(script.contains("doctor"), "{shell}");
    }
}

#[test]
fn output_that_cannot_be_written_is_code_1() {
    for words in [&["--help"][..], &["ps", "--help"], &["check", "--example"]] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let (code, _, errors) = done(&orch(words).stdout(full).output().unwrap());
        assert_eq!(code, 1, "{words:?}");
        assert!(errors.contains("No space left"), "{words:?}: {errors}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut command = orch(&["completions", "zsh"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (code, _, errors) = done(&child.wait_with_output().unwrap());
    assert_eq!((code, errors.as_str()), (0, ""));
}

/// Something that answers like a controller.
struct World {
    control: Control,
    socket: PathBuf,
    _snapshot: watch::Sender<Arc<Snapshot>>,
    _dir: TempDir,
}

fn snapshot() -> Snapshot {
    let slot = SlotRow {
        service: "acts".to_owned(),
        port: 8000,
        state: "backoff".to_owned(),
        note: "exit code 3\nlast words".to_owned(),
        in_flight: 3,
        bytes_out: 5 << 20,
        connection_errors: [("refused".to_owned(), 2), ("reset".to_owned(), 1)].into(),
        ..SlotRow::default()
    };
    let service = ServiceRow {
        service: "acts".to_owned(),
        listen: "80".to_owned(),
        ..ServiceRow::default()
    };
    Snapshot {
        services: vec![service],
        slots: vec![slot],
        ..Snapshot::default()
    }
}

fn world() -> World {
    let (sender, receiver) = watch::channel(Arc::new(snapshot()));
    let (commands, mut asked) = mpsc::channel(4);
    let control = Control {
        snapshot: receiver,
        journal: Journal::default(),
        history: History::default(),
        commands,
        source: None,
    };
    tokio::spawn(async move {
        while let Some(wish) = asked.recv().await {
            let (answer, said) = match wish {
                Wish::Scale {
                    to: Some(to),
                    answer,
                    service,
                } if to > 3 => {
                    let error = CommandError::OutOfRange {
                        service,
                        to,
                        min: 1,
                        max: 3,
                    };
                    (answer, Err(error))
                }
                Wish::Scale { to, answer, .. } => (answer, Ok(format!("told {to:?}"))),
                Wish::Reset { answer, .. } => (answer, Ok("the window is empty".to_owned())),
                other => panic!("{other:?}"),
            };
            answer.send(said).unwrap();
        }
    });
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("orch.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(api::serve_control(listener, api::full(control.clone())));
    World {
        control,
        socket,
        _snapshot: sender,
        _dir: dir,
    }
}

async fn ask(socket: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = orch(words);
    command.env("ORCH_CONTROL", socket);
    done(
        &tokio::process::Command::from(command)
            .output()
            .await
            .unwrap(),
    )
}

#[tokio::test]
async fn rows_are_shown_for_people_and_for_programs() {
    let world = world();
    let (code, table, _) = ask(&world.socket, &["ps"]).await;
    assert_eq!(code, 0);
    assert!(table.contains("acts        0  8000  backoff"), "{table}");
    assert!(table.contains("exit code 3 last words"), "{table}");
    assert!(!table.contains('\x1b'), "no colours in a pipe");
    let (_, wide, _) = ask(&world.socket, &["ps", "-o", "wide"]).await;
    assert!(wide.contains("IN FLIGHT"), "{wide}");
    assert!(
        wide.contains(" 3  0 B  5.00 MiB  2 refused, 1 reset "),
        "{wide}"
    );
    let (_, json, _) = ask(&world.socket, &["ps", "-o", "json"]).await;
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    for key in [
        "service",
        "slot",
        "port",
        "state",
        "backend",
        "runtime",
        "address",
        "healthy",
        "connections",
        "requests",
        "responses",
        "errors",
        "age_s",
    ] {
        assert!(rows[0].get(key).is_some(), "{key}");
    }
    let (_, json, _) = ask(&world.socket, &["status", "-o", "json"]).await;
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    for key in [
        "service",
        "listen",
        "mode",
        "desired",
        "ready",
        "window_count",
        "window_ends_in_s",
        "request_rate",
        "response_rate",
        "requests_total",
        "responses_total",
    ] {
        assert!(rows[0].get(key).is_some(), "{key}");
    }
    assert!(
        ask(&world.socket, &["ps", "-o", "wide"])
            .await
            .1
            .contains("ADDRESS")
    );
    assert!(ask(&world.socket, &["status"]).await.1.contains("WINDOW"));
}

#[tokio::test]
async fn wishes_are_answered() {
    let world = world();
    let said = ask(&world.socket, &["scale", "acts=3"]).await;
    assert_eq!(said, (0, "acts: told Some(3)\n".to_owned(), String::new()));
    let said = ask(&world.socket, &["scale", "acts=auto"]).await;
    assert_eq!(said.1, "acts: told None\n");
    let (code, _, errors) = ask(&world.socket, &["scale", "acts=4"]).await;
    assert_eq!(
        (code, errors.as_str()),
        (1, "error: 4 copies of acts are outside its limits 1..3\n")
    );
    let said = ask(&world.socket, &["reset", "acts"]).await;
    assert_eq!(said.1, "acts: the window is empty\n");
}

#[tokio::test]
async fn decisions_say_why() {
    let world = world();
    world.control.journal.decide(DecisionRow {
        time: 86_400.0,
        service: "acts".to_owned(),
        from: 1,
        to: 4,
        reason: "window of 2m counted 68".to_owned(),
    });
    let (code, said, _) = ask(&world.socket, &["why", "acts"]).await;
    assert_eq!(code, 0);
    assert!(
        said.contains("1970-01-02T00:00:00Z  acts        1   4  window of 2m"),
        "{said}"
    );
    let (code, _, errors) = ask(&world.socket, &["why", "axe"]).await;
    assert_eq!(
        (code, errors.as_str()),
        (1, "error: there is no service axe; there is: acts\n")
    );
}

#[tokio::test]
async fn events_are_followed_until_the_controller_ends() {
    let world = world();
    let record = |kind: &str| {
        let journal = &world.control.journal;
        journal.record("acts", Some(0), kind, "something".to_owned());
    };
    record("started");
    let mut command = orch(&["events", "-f", "-o", "json"]);
    command
        .env("ORCH_CONTROL", &world.socket)
        .stdout(Stdio::piped());
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for kind in ["started", "ready", "exited"] {
        let line = lines.next_line().await.unwrap().unwrap();
        let row: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(row["kind"], kind);
        record(if kind == "started" { "ready" } else { "exited" });
    }
}
