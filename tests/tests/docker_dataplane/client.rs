//! The client in the test's image. `balanced ADDRESS TIMES` connects so many times, asks and prints
//! who answered first and how many did; `loopback PORT` talks to itself.
use std::{
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["balanced", address, times] => {
            let times: usize = times.parse().expect("a number");
            println!("{}", ask(address));
            for _ in 1..times {
                ask(address);
            }
            println!("{times}");
        }
        ["loopback", port] => loopback(port),
        _ => panic!("{words:?}"),
    }
}

fn loopback(port: &str) {
    let address = format!("127.0.0.1:{port}");
    println!("{}", TcpStream::connect(&address).expect_err("nobody listens").kind());
    let listener = TcpListener::bind(&address).expect("bind");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown");
        }
    });
    println!("{}", ask(&address));
    println!("{}", ask(&format!("0.0.0.0:{port}")));
}

/// The body of an answer, on a connection of its own that the client closes.
fn ask(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.write_all(b"GET /api/x HTTP/1.1\r\nHost: x\r\n\r\n").expect("ask");
    let mut answer = Vec::new();
    let mut part = [0; 500];
    loop {
        let length = stream.read(&mut part).expect("read");
        assert_ne!(length, 0, "an answer");
        answer.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let stated = head.split("Content-Length: ").nth(1).expect("a length");
        if body.len().to_string() == stated.lines().next().unwrap_or_default() {
            return body.to_owned();
        }
    }
}
