//! A server whose parent holds the listener and whose child takes the connections: what is left when
//! the child is killed is a port that takes connections and never answers. Answers every request
//! with 200. Usage: `prefork --port PORT`; the child has the listener as its standard input.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers, too")]

use std::{
    env,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    process::{Command, Stdio},
    thread,
};

fn main() {
    let mut args = env::args().skip(1);
    let port = args.find(|arg| arg == "--port").and_then(|_| args.next());
    match port {
        Some(port) => hold(port.parse().unwrap()),
        None => take(),
    }
}

/// Holds the listener, whatever becomes of the child.
fn hold(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let shared: OwnedFd = listener.try_clone().unwrap().into();
    let mut child = Command::new(env::current_exe().unwrap());
    let mut child = child.stdin(Stdio::from(shared)).spawn().unwrap();
    child.wait().unwrap();
    loop {
        thread::park();
    }
}

/// Takes connections, and ends with the parent, whose group is killed as a whole.
fn take() {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    for stream in listener.incoming().flatten() {
        thread::spawn(move || answer(stream));
    }
}

/// Answers one request, and closes.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}
