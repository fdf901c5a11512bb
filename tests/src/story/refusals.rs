//! What cannot work says so, with what to do, and leaves nothing.

use std::{fs, net::TcpListener, os::unix::process::CommandExt, process::Command};

use crate::orch::{Kind, Orch, Settings, binary};

/// `orch run` ends with this code and says all of these words, in a few lines; nothing is left.
pub fn refuses(orch: &Orch, code: i32, words: &[&str]) {
    let before = orch.remains();
    let (found, text) = orch.refused();
    assert_eq!(found, code, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert_eq!(text.matches("error:").count(), 1, "one message: {text}");
    assert!(!text.contains("panicked"), "{text}");
    let mut left = orch.remains();
    left.retain(|one| !before.contains(one));
    assert_eq!(left, Vec::<String>::new(), "{text}");
}

/// Another user than root.
pub fn not_root(kind: Kind) {
    let orch = Orch::prepare(Settings::new(kind));
    let own = orch.dir.path().join("orch");
    fs::copy(binary(), &own).unwrap();
    for verb in ["run", "down"] {
        let output = Command::new(&own)
            .args([verb, "-f"])
            .arg(orch.file())
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("root") && text.contains(verb), "{text}");
    }
    assert_eq!(orch.remains(), Vec::<String>::new());
}

/// Another program where the service is to listen.
pub fn port_taken(kind: Kind) {
    let orch = Orch::prepare(Settings::new(kind));
    let _other = TcpListener::bind(("0.0.0.0", orch.listen)).unwrap();
    let port = orch.listen.to_string();
    let pid = format!("pid {}", std::process::id());
    refuses(&orch, 1, &[&port, "acts", &pid, "end it, or change listen"]);
}

/// Another program where a slot is to listen: told, and mended as soon as it goes.
pub fn slot_port_taken(kind: Kind) {
    let mut orch = Orch::prepare(Settings::new(kind));
    let other = TcpListener::bind(("0.0.0.0", orch.start_port)).unwrap();
    orch.launch();
    let event = orch.wait_event(0, "error", &orch.start_port.to_string());
    assert!(
        event.text.contains("start_port") && event.text.contains("stop it"),
        "what to do: {}",
        event.text
    );
    let row = orch.slot(0).unwrap();
    assert!(!row.healthy && row.note.contains("start_port"), "{row:?}");
    drop(other);
    orch.wait_ready(1);
    orch.end(nix::sys::signal::Signal::SIGINT);
    assert_eq!(orch.remains(), Vec::<String>::new());
}

/// A file with many mistakes: all are told, with their places.
pub fn bad_file(kind: Kind) {
    let orch = Orch::prepare(Settings::new(kind));
    let bad = orch
        .text()
        .replace("start_port", "start_prot")
        .replace("drain_limit = \"1s\"", "drain_limit = \"soon\"")
        .replace("min = 1", "min = 11");
    orch.write_file(&bad);
    let words = ["start_prot", "start_port", "drain_limit", "min", ":10: "];
    refuses(&orch, 2, &words);
    fs::remove_file(orch.file()).unwrap();
    refuses(&orch, 2, &["orch.toml"]);
}

/// An interface that does not exist.
pub fn no_interface(kind: Kind) {
    let mut settings = Settings::new(kind);
    settings.dataplane.push_str("interfaces = [\"nowhere7\"]");
    let orch = Orch::prepare(settings);
    refuses(&orch, 1, &["nowhere7", "dataplane.interfaces"]);
}

/// A second controller: with the same socket, with the same pins, and with a slot port of the first. The
/// first goes on.
pub fn two_controllers(kind: Kind) {
    let orch = Orch::start(Settings::new(kind));
    let pid = format!("pid {}", orch.pid());
    refuses(&orch, 1, &["another controller", &pid]);
    let file = orch.text();
    let other = Orch::prepare(Settings::new(kind));
    let pins = |orch: &Orch| orch.pins().display().to_string();
    other.write_file(&other.text().replace(&pins(&other), &pins(&orch)));
    refuses(&other, 1, &["another controller", "pin_dir"]);
    let last = orch.start_port + 9;
    let start_port = |port: u16| format!("start_port = {port}\n");
    let text = other.text();
    other.write_file(&text.replace(&start_port(other.start_port), &start_port(last)));
    let words = ["another controller", &last.to_string(), "change start_port"];
    refuses(&other, 1, &words);
    assert_eq!(orch.text(), file);
    assert_eq!(orch.wait_ready(1).len(), 1);
    assert_eq!(orch.ask("GET", "/api/v1/acts/count", "").status, 200);
}
