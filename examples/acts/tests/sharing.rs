//! Copies that share a data directory: what one stores, the others serve.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeSet, fs, path::Path, thread};

use support::{Acts, act};

#[test]
fn what_one_copy_stores_every_other_serves_at_once() {
    let data = tempfile::tempdir().unwrap();
    let (one, other) = (Acts::start(data.path()), Acts::start(data.path()));
    assert_eq!(one.ask("GET", "/api/v1/categories", "").body, "{}");
    assert_eq!(
        one.ask("POST", "/api/v1/categories", r#"["help"]"#).status,
        201
    );
    let stored = one.ask("POST", "/api/v1/acts", &act("carried a bag", "aGVsbG8="));
    assert_eq!(
        (stored.status, stored.body.as_str()),
        (201, r#"{"actId":1}"#)
    );

    assert_eq!(
        other.ask("GET", "/api/v1/categories", "").body,
        r#"{"help":1}"#
    );
    assert_eq!(other.ask("GET", "/api/v1/acts/count", "").body, "[1]");
    assert_eq!(other.ask("POST", "/api/v1/acts/upvote", "[1]").status, 200);
    for path in [
        "/api/v1/acts?category=help",
        "/api/v1/categories/help/acts?start=1&end=5",
    ] {
        let listed = other.ask("GET", path, "");
        assert_eq!(listed.status, 200);
        for part in [
            r#""upvotes":1"#,
            r#""imgB64":"aGVsbG8=""#,
            r#""username":"ada""#,
        ] {
            assert!(listed.body.contains(part), "{part} in {}", listed.body);
        }
    }

    assert_eq!(other.ask("DELETE", "/api/v1/acts/1", "").status, 200);
    assert_eq!(one.ask("GET", "/api/v1/acts?category=help", "").status, 204);
    assert_eq!(one.ask("DELETE", "/api/v1/categories/help", "").status, 200);
    assert_eq!(
        other.ask("GET", "/api/v1/acts?category=help", "").status,
        404
    );
}

#[test]
fn many_copies_start_on_an_empty_directory_and_write_together() {
    let data = tempfile::tempdir().unwrap();
    let copies: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| Acts::start(data.path())))
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    assert_eq!(
        copies[0]
            .ask("POST", "/api/v1/categories", r#"["help"]"#)
            .status,
        201
    );
    thread::scope(|scope| {
        for copy in &copies {
            scope.spawn(|| {
                let mut client = copy.connect();
                for _ in 0..20 {
                    let answer = client
                        .ask("POST", "/api/v1/acts", &act("x", "aGVsbG8="))
                        .unwrap();
                    assert_eq!(answer.status, 201, "{}", answer.body);
                }
            });
        }
    });
    assert_eq!(copies[5].ask("GET", "/api/v1/acts/count", "").body, "[120]");
}

#[test]
fn every_answer_names_its_copy() {
    let data = tempfile::tempdir().unwrap();
    let copies = [Acts::start(data.path()), Acts::start(data.path())];
    let names: BTreeSet<_> = copies
        .iter()
        .map(|copy| {
            let answer = copy.ask("GET", "/api/v1/whoami", "");
            let name = answer.header("x-backend").unwrap().to_owned();
            let (id, port) = name.split_once(':').unwrap();
            assert_eq!(answer.body, format!(r#"{{"id":"{id}","port":{port}}}"#));
            assert_eq!(port, copy.port.to_string());
            name
        })
        .collect();
    assert_eq!(names.len(), 2);
}

#[test]
fn health_tells_that_the_database_is_gone_and_back() {
    let data = tempfile::tempdir().unwrap();
    let copy = Acts::start(data.path());
    let health = || copy.ask("GET", "/api/v1/_health", "");
    assert_eq!((health().status, health().body.as_str()), (200, ""));

    let (file, aside) = (data.path().join("acts.db"), data.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!((health().status, health().body.as_str()), (500, ""));
    assert_eq!(copy.ask("GET", "/api/v1/acts/count", "").status, 500);
    fs::remove_dir(&file).unwrap();
    assert_eq!(health().status, 500, "a missing database is not made anew");
    assert!(!Path::new(&file).exists());
    fs::rename(&aside, &file).unwrap();
    assert_eq!(health().status, 200);
}
