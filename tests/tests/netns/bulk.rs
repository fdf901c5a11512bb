//! Bulk transfer in both directions: whole, and one request.

use std::{
    hash::{DefaultHasher, Hasher},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use orch_common::counter::Reason;

use super::{VIP, VIP6, World, connect};

const BYTES: usize = 100_000_000;
const CHUNK: usize = 250_000;

/// A chunk of a body that is full of what looks like requests and responses.
fn chunk(number: usize) -> Vec<u8> {
    let line = format!("GET /api/{number} HTTP/1.1\r\n\r\nHTTP/1.1 500 {number}\r\n\r\n");
    let mut chunk = line.repeat(CHUNK / line.len() + 1).into_bytes();
    chunk.truncate(CHUNK);
    chunk
}

/// Writes a body and gives its hash.
fn send(stream: &mut TcpStream) -> u64 {
    let mut hash = DefaultHasher::new();
    for number in 0..BYTES / CHUNK {
        let chunk = chunk(number);
        hash.write(&chunk);
        stream.write_all(&chunk).unwrap();
    }
    hash.finish()
}

/// Reads head and body and gives the body's hash.
fn receive(stream: &TcpStream) -> u64 {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0);
    }
    let mut hash = DefaultHasher::new();
    let mut chunk = vec![0; CHUNK];
    for _ in 0..BYTES / CHUNK {
        reader.read_exact(&mut chunk).unwrap();
        hash.write(&chunk);
    }
    hash.finish()
}

fn exchange(address: &str) {
    let mut stream = connect(address);
    write!(
        stream,
        "POST /api/bulk HTTP/1.1\r\nContent-Length: {BYTES}\r\n\r\n"
    )
    .unwrap();
    let sent = send(&mut stream);
    assert_eq!(receive(&stream), sent);
}

#[test]
fn a_hundred_megabytes_go_both_ways_and_count_as_one_request() {
    let mut world = World::new("bulk");
    let listener = world
        .host
        .within(|| TcpListener::bind("[::]:8003").unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let received = receive(&stream);
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").unwrap();
                assert_eq!(send(&mut stream), received);
            });
        }
    });
    world.slot_of(0, 8000, 3);
    world.plane().set_ring(0, &[3]).unwrap();
    world.outside.within(|| exchange(VIP));
    let segments = world.reason(Reason::Reply);
    assert!(
        segments < (BYTES / 1500) as u64 / 2,
        "no GSO: {segments} segments"
    );
    world.outside.within(|| exchange(VIP6));
    world.host.within(|| exchange("127.0.0.1:80"));
    world.drained();
    let counters = world.read().slots[3].counters;
    assert_eq!(counters.requests, 3);
    assert_eq!(counters.responses, [0, 0, 3, 0, 0, 0]);
}
