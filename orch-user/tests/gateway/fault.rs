//! Whose fault is it, and who pays? A request that ends copies, clients that send broken bodies or take
//! nothing, and guests that would leave no room for others.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::bench::{Copy, Gate, until};

/// A copy that takes a request's head and ends, unless it is asked for `/api/warm`, and how often it has.
fn ender() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            thread::spawn(move || ends(stream, &count));
        }
    });
    (address, taken)
}

fn ends(stream: TcpStream, count: &AtomicUsize) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut line) = (String::new(), String::new());
        while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
            head.push_str(&line);
            line.clear();
        }
        if !head.starts_with("GET /api/warm") {
            count.fetch_add(usize::from(!head.is_empty()), SeqCst);
            return;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(answer).unwrap();
    }
}

/// By new connections to copies, and by those that have served before.
#[test]
fn a_request_that_ends_its_copies_is_given_to_no_more_than_two() {
    let copies = ["A", "B", "C"].map(Copy::start);
    let other = "Proxy-Connection: keep-alive\r\n";
    for (warm, more) in [(0, ""), (0, other), (6, ""), (6, other)] {
        let mut gate = Gate::open("", &copies.each_ref());
        let enders = [ender(), ender(), ender()];
        for (slot, (address, _)) in gate.service().slots.iter_mut().zip(&enders) {
            slot.address = *address;
            slot.generation += 1;
        }
        gate.only(&[0, 1, 2]);
        let mut talk = gate.connect();
        for _ in 0..warm {
            talk.say(&format!("GET /api/warm HTTP/1.1\r\nHost: t\r\n{more}\r\n"));
            assert_eq!(talk.answer("GET").status, 200);
        }
        talk.say(&format!("GET /api/end HTTP/1.1\r\nHost: t\r\n{more}\r\n"));
        let answer = talk.answer("GET");
        assert_eq!(answer.status, 502);
        assert!(answer.text().contains("closed"), "{}", answer.text());
        let taken: usize = enders.iter().map(|(_, taken)| taken.load(SeqCst)).sum();
        assert_eq!(taken, 2, "{more:?}, {warm}");
    }
}

#[test]
fn a_broken_body_is_its_clients_fault() {
    let copy = Copy::start("A");
    let gate = Gate::open("", &[&copy]);
    for chunk in [
        "x\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n",
        "0\r\nA b: c\r\n\r\n",
        "-1\r\n",
        "3 \r\nabc\r\n",
    ] {
        let mut talk = gate.connect();
        talk.say("POST /api/upload HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
        talk.say(chunk);
        assert_eq!(talk.answer("POST").status, 400, "{chunk:?}");
        assert!(talk.is_closed(), "{chunk:?}");
    }
    assert_eq!(gate.get("/api/who").status, 200);
}

#[test]
fn a_host_that_is_none_is_refused() {
    let copy = Copy::start("A");
    let gate = Gate::open("", &[&copy]);
    for host in ["x y", "x/../..", "a@b", "a:b", "[::1"] {
        let mut talk = gate.connect();
        talk.say(&format!("GET /api/who HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(talk.answer("GET").status, 400, "{host}");
    }
    let mut talk = gate.connect();
    talk.say("GET /api/head HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
    assert!(talk.answer("GET").text().contains("host: [::1]:80\n"));
    assert_eq!(copy.connections(), 1);
}

#[test]
fn old_clients_change_no_protocol() {
    let copy = Copy::start("A");
    let gate = Gate::open("", &[&copy]);
    let mut talk = gate.connect();
    talk.say("GET /api/head HTTP/1.0\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
    let answer = talk.answer("GET");
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains("upgrade"), "{}", answer.text());
}

/// A copy that answers a head with 413 and closes, with the body unread.
#[test]
fn an_early_refusal_is_heard() {
    let copy = Copy::start("A");
    let mut gate = Gate::open("", &[&copy]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    gate.service().slots[0].address = listener.local_addr().unwrap();
    gate.service().slots[0].generation += 1;
    gate.only(&[0]);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 512]);
            let refusal =
                "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(refusal.as_bytes()).unwrap();
        }
    });
    let body = vec![b'x'; 3 << 20];
    for turn in 0..20 {
        let mut talk = gate.connect();
        talk.say(&format!(
            "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        talk.try_say(&body);
        let answer = talk.try_answer("POST").map(|answer| answer.status);
        assert_eq!(answer, Some(413), "turn {turn}");
    }
}

/// A controller that says yes to everything.
#[derive(Clone, Default)]
struct Controller {
    /// What it was asked.
    asked: Arc<Mutex<Vec<String>>>,
    /// Those that follow something.
    followers: Arc<Mutex<Vec<UnixStream>>>,
}

fn controller(socket: &Path) -> Controller {
    let listener = UnixListener::bind(socket).unwrap();
    let controller = Controller::default();
    let own = controller.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
            let follows = head.contains("/v1/live");
            own.asked.lock().unwrap().push(head.to_ascii_lowercase());
            let length = if follows { 1000 } else { 2 };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nok");
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            if follows {
                own.followers.lock().unwrap().push(reader.into_inner());
            }
        }
    });
    controller
}

#[test]
fn guests_of_the_page_are_known_as_such_and_leave_room() {
    let copy = Copy::start("A");
    let gate = Gate::open("", &[&copy]);
    let controller = controller(&gate.table.control);
    assert_eq!(gate.get("/_orch/v1/slots").text(), "ok");
    let head = controller.asked.lock().unwrap()[0].clone();
    // By which the controller tells them from root.
    assert!(head.contains("\r\nvia: 1.1 orch\r\n"), "{head}");
    let mut followers = Vec::new();
    let refused = until("there is no more room", || {
        let mut talk = gate.connect();
        talk.say("GET /v1/live HTTP/1.1\r\nHost: t\r\n\r\n");
        let answer = talk.line();
        if answer.contains("503") {
            return Some(followers.len());
        }
        followers.push(talk);
        None
    });
    assert_eq!(refused, 16);
    drop(followers);
    controller.followers.lock().unwrap().clear();
    until("there is room again", || {
        (gate.get("/").status == 200).then_some(())
    });
    let mut talk = gate.connect();
    talk.say("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    let answer = talk.answer("POST");
    assert_eq!(
        (answer.status, answer.field("allow")),
        (405, Some("GET, HEAD"))
    );
}

fn within<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(work)
}

async fn h2(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connected = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = connected.unwrap();
    tokio::spawn(connection);
    sender
}

async fn get(
    sender: &SendRequest<Empty<Bytes>>,
    path: &str,
    fields: usize,
) -> hyper::Response<Incoming> {
    let mut request = Request::get(format!("http://gate.test{path}"));
    for number in 0..fields {
        request = request.header(format!("x-{number}"), "1");
    }
    let request = request.body(Empty::new()).unwrap();
    sender.clone().send_request(request).await.unwrap()
}

#[test]
fn streams_have_as_many_fields_as_lines() {
    let copy = Copy::start("A");
    let gate = Gate::open("max_headers = 8", &[&copy]);
    within(async {
        let sender = h2(gate.address).await;
        assert_eq!(get(&sender, "/api/who", 8).await.status(), StatusCode::OK);
        let many = get(&sender, "/api/who", 9).await.status();
        assert_eq!(many, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    });
}

#[test]
fn a_cookie_in_parts_is_one_to_a_copy() {
    let copy = Copy::start("A");
    let gate = Gate::open("max_headers = 8", &[&copy]);
    within(async {
        let sender = h2(gate.address).await;
        let mut request = Request::get("http://gate.test/api/head");
        for number in 0..20 {
            request = request.header("cookie", format!("c{number}=1"));
        }
        let request = request.body(Empty::new()).unwrap();
        let answer = sender.clone().send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let lines = answer.into_body().collect().await.unwrap().to_bytes();
        let lines = str::from_utf8(&lines).unwrap();
        assert!(lines.contains("cookie: c0=1; c1=1; c2=1; "), "{lines}");
    });
}

#[test]
fn a_stream_whose_client_takes_nothing_gives_its_copy_back() {
    let copy = Copy::start("A");
    let gate = Gate::open("body_timeout = \"500ms\"", &[&copy]);
    within(async {
        let sender = h2(gate.address).await;
        // More than the windows of a stream hold, of which nothing is read.
        let mut stuck = get(&sender, "/api/bytes/50000000", 0).await.into_body();
        assert_eq!(gate.live(), 1);
        let begun = std::time::Instant::now();
        while gate.live() > 0 {
            assert!(begun.elapsed() < crate::bench::PATIENCE);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            // Other streams of the connection are well.
            assert_eq!(get(&sender, "/api/who", 0).await.status(), StatusCode::OK);
        }
        let end = loop {
            match stuck.frame().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        };
        assert!(end.is_some_and(|end| end.is_err()), "it is not whole");
    });
}
