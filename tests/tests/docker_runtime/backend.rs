//! The program in the test's image: answers every request with 200, `GET /exit` by ending with
//! exit code 3. Prints its arguments and its environment's KEY first.
use std::{
    env,
    io::{Read, Write},
    net::TcpListener,
    process,
};

fn main() {
    let listener = TcpListener::bind("0.0.0.0:8080").expect("bind");
    let arguments: Vec<String> = env::args().skip(1).collect();
    println!("out {arguments:?} {:?}", env::var("KEY").ok());
    eprintln!("err");
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut request = [0; 1024];
        let length = stream.read(&mut request).unwrap_or(0);
        if request[..length].starts_with(b"GET /exit") {
            process::exit(3);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
    }
}
