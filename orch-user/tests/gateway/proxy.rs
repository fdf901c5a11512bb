//! What a person expects of a reverse proxy.

use std::{fs, io::Write, thread, time::Duration};

use crate::bench::{Copy, Gate, until};

fn three() -> [Copy; 3] {
    ["A", "B", "C"].map(Copy::start)
}

#[test]
fn requests_come_round_robin_over_connections_and_keep_alive() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    let mut kept = gate.connect();
    let mut names = String::new();
    for at in 0..30 {
        let answer = if at % 3 == 0 {
            gate.get("/api/who")
        } else {
            kept.get("/api/who")
        };
        assert_eq!(answer.status, 200);
        names += answer.text();
    }
    assert_eq!(names, "ABC".repeat(10));
    assert_eq!(gate.counts(), (30, 0));
}

#[test]
fn pipelined_requests_come_round_robin_in_their_order() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    let mut talk = gate.connect();
    talk.say(&"GET /api/who HTTP/1.1\r\nHost: t\r\n\r\n".repeat(9));
    let names: String = (0..9)
        .map(|_| talk.answer("GET").text().to_owned())
        .collect();
    assert_eq!(names, "ABCABCABC");
}

#[test]
fn requests_of_many_threads_are_shared_out_exactly() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut talk = gate.connect();
                for _ in 0..100 {
                    assert_eq!(talk.get("/api/who").status, 200);
                }
            });
        }
    });
    let report = gate.client.read().unwrap();
    let counts = report.services[0]
        .slots
        .iter()
        .map(|slot| slot.counts.requests);
    assert_eq!(counts.collect::<Vec<_>>(), [200; 3]);
}

#[test]
fn only_routes_are_forwarded_and_only_what_counts_is_counted() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    for path in ["/other", "/api", "/favicon.ico"] {
        let answer = gate.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(
            answer.field("content-type"),
            Some("application/problem+json")
        );
    }
    let home = gate.get("/");
    assert_eq!(home.status, 503, "nobody answers for the controller");
    assert_eq!(home.field("x-copy"), None);
    assert!(home.text().contains("controller"), "{}", home.text());
    assert_eq!(gate.get("/api/_health").status, 200);
    assert_eq!(gate.get("/api/_health?deep=1").status, 200);
    assert_eq!(gate.get("/api/_healthy").status, 200);
    let mut post = gate.connect();
    post.say("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(post.answer("POST").status, 405);
    assert_eq!(gate.counts(), (1, 2));
}

#[test]
fn status_codes_pass_and_are_counted_by_class() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    for status in [200, 204, 302, 304, 404, 418, 500, 503] {
        let answer = gate.get(&format!("/api/status/{status}"));
        assert_eq!(answer.status, status);
    }
    let report = gate.client.read().unwrap();
    let mut sum = [0; 6];
    for slot in &report.services[0].slots {
        for (sum, part) in sum.iter_mut().zip(slot.counts.responses) {
            *sum += part;
        }
    }
    assert_eq!(sum, [0, 0, 2, 2, 2, 2]);
}

#[test]
fn copies_are_told_who_asks() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    let mut talk = gate.connect();
    talk.say(
        "GET /api/head?a=b HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, X-Mine\r\n\
         X-Mine: 1\r\nX-Forwarded-For: 9.9.9.9\r\nTE: trailers\r\nCookie: a=b\r\n\r\n",
    );
    let answer = talk.answer("GET");
    let text = answer.text();
    assert!(text.starts_with("GET /api/head?a=b\n"), "{text}");
    for line in [
        "host: shop.example",
        "x-forwarded-for: 9.9.9.9, 127.0.0.1",
        "x-forwarded-proto: http",
        "via: 1.1 orch",
        "cookie: a=b",
        "te: trailers",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}: {text}");
    }
    assert!(!text.contains("x-mine"), "{text}");
    talk.say("GET http://other.example/api/head HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = talk.answer("GET");
    let text = answer.text();
    assert!(text.contains("host: other.example\n"), "{text}");
    assert!(!text.contains("shop.example"), "{text}");
}

#[test]
fn old_clients_get_what_they_understand() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    let mut talk = gate.connect();
    talk.say("GET /api/bytes/100000 HTTP/1.0\r\n\r\n");
    let answer = talk.answer("GET");
    assert!(answer.head.starts_with("HTTP/1.0 200"), "{}", answer.head);
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(answer.body.len(), 100_000);
    let mut kept = gate.connect();
    for _ in 0..2 {
        kept.say("GET /api/who HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(kept.answer("GET").status, 200);
    }
}

#[test]
fn head_has_the_head_alone() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    let mut talk = gate.connect();
    for _ in 0..3 {
        talk.say("HEAD /api/who HTTP/1.1\r\nHost: t\r\n\r\n");
        let answer = talk.answer("HEAD");
        assert_eq!(answer.field("content-length"), Some("1"));
    }
    assert_eq!(talk.get("/api/who").text().len(), 1);
}

#[test]
fn a_body_is_waited_for_where_the_client_waits_to_be_asked() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    let mut talk = gate.connect();
    talk.say(
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    assert_eq!(talk.answer("POST").status, 100);
    talk.say("12345");
    assert_eq!(talk.answer("POST").text(), "5");
}

#[test]
fn trailers_pass_both_ways() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    let mut talk = gate.connect();
    talk.say(
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nTrailer: x-check\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-check: 9\r\n\r\n",
    );
    let answer = talk.answer("POST");
    assert_eq!(answer.text(), "3 {\"x-check\": \"9\"}");
    talk.say("GET /api/trailers HTTP/1.1\r\nHost: t\r\nTE: trailers\r\n\r\n");
    while !talk.line().is_empty() {}
    let lines: Vec<String> = (0..5).map(|_| talk.line()).collect();
    assert_eq!(lines, ["4", "body", "0", "x-sum: 7", ""]);
}

#[test]
fn another_protocol_is_carried_through() {
    let copies = three();
    let mut gate = Gate::open("", &copies.each_ref());
    let mut talk = gate.connect();
    talk.say("GET /api/chat HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    let answer = talk.answer("GET");
    assert_eq!(answer.status, 101);
    assert_eq!(answer.field("upgrade"), Some("chat"));
    assert_eq!(talk.take(6), b"hello\n");
    talk.say("GET is no request here\n");
    assert_eq!(talk.take(23), b"GET is no request here\n");
    assert_eq!(gate.live(), 1);
    gate.only(&[1, 2]);
    talk.say("still there");
    assert_eq!(talk.take(11), b"still there");
    drop(talk);
    until("the conversation is over", || {
        (gate.live() == 0).then_some(())
    });
    let mut refused = gate.connect();
    refused.say("GET /api/who HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(refused.answer("GET").status, 200);
    assert_eq!(refused.get("/api/who").status, 200);
}

fn resident(pid: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// 1 GB with `ORCH_BYTES=1000000000`.
#[test]
fn bodies_pass_without_being_kept() {
    let size = std::env::var("ORCH_BYTES").map_or(100_000_000, |text| text.parse().unwrap());
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    assert_eq!(gate.get("/api/who").status, 200);
    let before = resident(gate.child.id(), "VmHWM");
    let mut talk = gate.connect();
    talk.say(&format!(
        "GET /api/bytes/{size} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    ));
    while !talk.line().is_empty() {}
    let mut total = 0;
    loop {
        let line = talk.line();
        let piece = usize::from_str_radix(&line, 16).unwrap();
        if piece == 0 {
            break;
        }
        total += talk.take(piece).len();
        assert_eq!(talk.line(), "");
    }
    assert_eq!(total, size);
    let mut talk = gate.connect();
    let upload = 8 << 20;
    talk.say(&format!(
        "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: {upload}\r\n\r\n"
    ));
    talk.stream.write_all(&vec![b'u'; upload]).unwrap();
    assert_eq!(talk.answer("POST").text(), upload.to_string());
    let grown = resident(gate.child.id(), "VmHWM") - before;
    assert!(grown < 8 << 10, "{grown} KiB more than before");
}

#[test]
fn connections_to_copies_are_used_again() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    let mut talk = gate.connect();
    for _ in 0..30 {
        talk.get("/api/who");
    }
    for copy in &copies {
        assert_eq!(copy.connections(), 1);
    }
    // One that the copy closes is not.
    for _ in 0..3 {
        assert_eq!(talk.get("/api/close").status, 200);
    }
    for _ in 0..3 {
        assert_eq!(talk.get("/api/who").status, 200);
    }
    for copy in &copies {
        assert_eq!(copy.connections(), 2);
    }
}

#[test]
fn the_proxy_before_us_says_who_asks() {
    let copies = three();
    let gate = Gate::open("proxy_protocol = true", &copies.each_ref());
    let mut talk = gate.connect();
    talk.say("PROXY TCP4 192.0.2.7 10.0.0.1 4000 80\r\nGET /api/head HTTP/1.1\r\nHost: t\r\n\r\n");
    let answer = talk.answer("GET");
    assert!(answer.text().contains("x-forwarded-for: 192.0.2.7\n"));
    let mut without = gate.connect();
    without.say("GET /api/head HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(without.is_closed());
}

#[test]
fn an_idle_connection_wakes_up_again() {
    let copies = three();
    let gate = Gate::open("", &copies.each_ref());
    let mut talk = gate.connect();
    // Beyond the time after which it gives up its buffers, in one piece and in two.
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(2300));
        assert_eq!(talk.get("/api/who").status, 200);
        talk.say("GET /api/who HT");
        thread::sleep(Duration::from_millis(2300));
        talk.say("TP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(talk.answer("GET").status, 200);
    }
}
