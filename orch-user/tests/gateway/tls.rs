//! TLS and HTTP/2 for clients. The certificates beside this file are the test's own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use orch::config::{Listen, TlsConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use crate::bench::{Copy, Gate, free_port, until};

fn here(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/gateway")
        .join(name)
}

fn within<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// Connects and trusts this certificate alone.
async fn greet(
    address: SocketAddr,
    trusted: &str,
    protocol: &[u8],
) -> Option<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let text = fs::read(here(trusted)).unwrap();
    roots
        .add(CertificateDer::from_pem_slice(&text).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let name = "gate.test".try_into().unwrap();
    connector.connect(name, stream).await.ok()
}

/// Asks so often on one connection of HTTP/2, and gives what came.
async fn ask_h2<S>(stream: S, count: usize) -> Vec<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let connected = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = connected.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..count {
        let mut sender = sender.clone();
        let request = Request::get("http://gate.test/api/head").body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let name = answer.headers()["x-copy"].to_str().unwrap().to_owned();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        answers.push(format!("{name} {}", str::from_utf8(&body).unwrap()));
    }
    answers
}

fn assert_turns(answers: &[String]) {
    let names: String = answers
        .iter()
        .map(|text| text.chars().next().unwrap())
        .collect();
    assert_eq!(names, "ABCABC");
}

#[test]
fn requests_of_http2_come_round_robin() {
    let copies = ["A", "B", "C"].map(Copy::start);
    let gate = Gate::open("", &copies.each_ref());
    let answers = within(async {
        let stream = TcpStream::connect(gate.address).await.unwrap();
        ask_h2(stream, 6).await
    });
    assert_turns(&answers);
    assert!(answers[0].contains("host: gate.test\n"), "{}", answers[0]);
    assert!(answers[0].contains("via: 2 orch\n"), "{}", answers[0]);
    assert_eq!(gate.counts(), (6, 0));
}

/// Has the gateway listen for TLS, with this certificate and key.
fn listen(gate: &mut Gate, certificate: &Path, key: &Path) -> SocketAddr {
    let port = free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    gate.service().http.tls = Some(TlsConfig {
        listen: Listen {
            address: Some(address.ip()),
            port,
        },
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    });
    gate.only(&[0, 1, 2]);
    address
}

/// Requests with and without a body, on one connection that is silent in between for longer than the
/// gateway keeps what it needs to serve it, up to a proper end.
#[test]
fn requests_of_http1_pass_over_tls() {
    let copies = ["A", "B", "C"].map(Copy::start);
    let mut gate = Gate::open("", &copies.each_ref());
    let address = listen(&mut gate, &here("one.pem"), &here("one.key"));
    within(async {
        let mut stream = greet(address, "one.pem", b"http/1.1").await.unwrap();
        for (request, body) in [
            (
                "GET /api/head HTTP/1.1\r\nHost: t\r\n\r\n",
                "via: 1.1 orch\n",
            ),
            (
                "GET /api/head HTTP/1.1\r\nHost: t\r\n\r\n",
                "via: 1.1 orch\n",
            ),
            (
                "POST /api/upload HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi",
                "\r\n2",
            ),
            (
                "GET /api/bytes/300000 HTTP/1.1\r\nHost: t\r\n\r\n",
                "xxx\r\n0\r\n\r\n",
            ),
        ] {
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !String::from_utf8_lossy(&answer).contains(body) {
                assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{request}");
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        let last = b"GET /api/who HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
        stream.write_all(last).await.unwrap();
        let mut rest = String::new();
        // An end without a word would be an error.
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("Connection: close\r\n"), "{rest}");
    });
    assert_eq!(gate.counts(), (5, 0));
}

#[test]
fn a_certificate_is_read_again_when_it_changes() {
    let copies = ["A", "B", "C"].map(Copy::start);
    let mut gate = Gate::open("", &copies.each_ref());
    let (certificate, key) = (gate.dir.path().join("c"), gate.dir.path().join("k"));
    let put = |name: &str| {
        fs::copy(here(&format!("{name}.key")), &key).unwrap();
        fs::copy(here(&format!("{name}.pem")), &certificate).unwrap();
    };
    put("one");
    let address = listen(&mut gate, &certificate, &key);
    let answers = within(async {
        let stream = greet(address, "one.pem", b"h2").await.unwrap();
        ask_h2(stream, 6).await
    });
    assert_turns(&answers);
    assert!(
        answers[0].contains("x-forwarded-proto: https\n"),
        "{}",
        answers[0]
    );
    assert!(within(greet(address, "two.pem", b"http/1.1")).is_none());
    put("two");
    until("the new one is shown", || {
        within(greet(address, "two.pem", b"http/1.1")).map(drop)
    });
    // A broken one leaves the old one in force.
    fs::write(&certificate, "nonsense").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(within(greet(address, "two.pem", b"http/1.1")).is_some());
    // And plain clients are served as before.
    assert_eq!(gate.get("/api/who").status, 200);
}
