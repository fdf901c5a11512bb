//! One copy: answers to good, bad and large requests, and the crashed state.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{fs::File, io::Read};

use support::{Acts, act};

fn started() -> (tempfile::TempDir, Acts) {
    let data = tempfile::tempdir().unwrap();
    let copy = Acts::start(data.path());
    assert_eq!(
        copy.ask("POST", "/api/v1/categories", r#"["help"]"#).status,
        201
    );
    (data, copy)
}

#[test]
fn bad_requests_get_their_status_and_a_reason() {
    let (_data, copy) = started();
    let post_act = |body: &str| ("POST", "/api/v1/acts", body.to_owned());
    let plain = |method, path| (method, path, String::new());
    let cases = [
        (400, post_act("{")),
        (400, post_act(&act("x", "?"))),
        (400, post_act(&act("x", "").replace("ada", " "))),
        (400, post_act(&act("x", "").replace("help", "nowhere"))),
        (
            400,
            ("POST", "/api/v1/categories", r#"["help"]"#.to_owned()),
        ),
        (
            400,
            ("POST", "/api/v1/categories", r#"["a","b"]"#.to_owned()),
        ),
        (400, ("POST", "/api/v1/acts/upvote", "[]".to_owned())),
        (404, ("POST", "/api/v1/acts/upvote", "[99]".to_owned())),
        (400, plain("GET", "/api/v1/acts")),
        (
            400,
            plain("GET", "/api/v1/acts?category=help&start=0&end=1"),
        ),
        (
            400,
            plain("GET", "/api/v1/acts?category=help&start=x&end=1"),
        ),
        (400, plain("GET", "/api/v1/acts?category=help&start=1")),
        (404, plain("GET", "/api/v1/acts?category=nowhere")),
        (404, plain("DELETE", "/api/v1/acts/99")),
        (404, plain("DELETE", "/api/v1/acts/x")),
        (404, plain("DELETE", "/api/v1/categories/nowhere")),
        (404, plain("GET", "/")),
        (405, plain("PUT", "/api/v1/acts")),
        (405, plain("GET", "/api/v1/_crash")),
    ];
    for (status, (method, path, body)) in cases {
        let answer = copy.ask(method, path, &body);
        assert_eq!(
            answer.status, status,
            "{method} {path} {body}: {}",
            answer.body
        );
        assert!(
            answer.body.starts_with(r#"{"error":""#),
            "{method} {path}: {}",
            answer.body
        );
        assert!(answer.header("x-backend").is_some());
    }
}

#[test]
fn an_act_keeps_the_number_that_it_is_given() {
    let (_data, copy) = started();
    let numbered = act("x", "aGk").replace('{', r#"{"actId":7,"timestamp":"01-02-2026:03-04-05","#);
    assert_eq!(copy.ask("POST", "/api/v1/acts", &numbered).status, 201);
    assert_eq!(copy.ask("POST", "/api/v1/acts", &numbered).status, 400);
    let next = copy.ask("POST", "/api/v1/acts", &act("y", ""));
    assert_eq!(next.body, r#"{"actId":8}"#);
    let listed = copy.ask("GET", "/api/v1/categories/help/acts?start=2&end=2", "");
    assert!(
        listed.body.contains("01-02-2026:03-04-05"),
        "{}",
        listed.body
    );
}

#[test]
fn a_large_picture_passes_and_a_larger_one_is_refused() {
    let (_data, copy) = started();
    let picture = "QUJD".repeat(2 << 20);
    let mut client = copy.connect();
    let stored = client
        .ask("POST", "/api/v1/acts", &act("8 MB", &picture))
        .unwrap();
    assert_eq!(stored.status, 201, "{}", stored.body);
    let listed = client.ask("GET", "/api/v1/acts?category=help", "").unwrap();
    assert!(listed.body.contains(&picture));

    let refused = client.ask(
        "POST",
        "/api/v1/acts",
        &act("20 MB", &"QUJD".repeat(5 << 20)),
    );
    assert_eq!(refused.unwrap().status, 413);
    assert_eq!(
        client.ask("GET", "/api/v1/acts/count", "").unwrap().body,
        "[1]"
    );
}

#[test]
fn a_crashed_copy_fails_every_request_and_stays_alive() {
    let (_data, mut copy) = started();
    let mut before = copy.connect();
    assert_eq!(
        before.ask("GET", "/api/v1/_health", "").unwrap().status,
        200
    );
    let crash = copy.ask("POST", "/api/v1/_crash", "");
    assert_eq!((crash.status, crash.body.as_str()), (200, ""));
    let routes = [
        "/api/v1/_health",
        "/api/v1/_crash",
        "/api/v1/acts/count",
        "/",
        "/none",
    ];
    for (method, path) in routes
        .iter()
        .flat_map(|path| [("GET", path), ("POST", path)])
    {
        let answer = copy.ask(method, path, "");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (500, ""),
            "{method} {path}"
        );
        assert!(answer.header("x-backend").is_some());
    }
    let large = act("x", &"QUJD".repeat(2 << 20));
    assert_eq!(
        before.ask("POST", "/api/v1/acts", &large).unwrap().status,
        500
    );
    assert!(copy.is_running());
}

#[test]
fn images_of_any_bytes_come_back() {
    let (_data, copy) = started();
    let mut bytes = [0; 300];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    let text: String = bytes
        .iter()
        .map(|byte| char::from(b'A' + byte % 26))
        .collect();
    assert_eq!(
        copy.ask("POST", "/api/v1/acts", &act("x", &text)).status,
        201
    );
    assert!(
        copy.ask("GET", "/api/v1/acts?category=help", "")
            .body
            .contains(&text)
    );
}
