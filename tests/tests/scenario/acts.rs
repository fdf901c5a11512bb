//! Does every copy have what was posted to one of them?

use std::collections::BTreeSet;

use orch_tests::scenario::{
    client,
    stage::{Kind, Mode},
};

use crate::script::{Clock, Script, local};

/// 100 acts with pictures through port 80; every copy has every one of them.
fn acts(kind: Kind, mode: Mode) {
    let mut script = Script::begin(kind, mode, Clock::SHORT);
    let stage = &script.stage;
    stage.orch(&["scale", "acts=3"]);
    script.settled(3);
    for category in CATEGORIES {
        let body = format!("[{category:?}]");
        let answer = stage.post(false, "/api/v1/categories", body.as_bytes());
        assert_eq!(answer.status, 201);
    }
    let mut images = Vec::new();
    for number in 0..100 {
        let size = match number {
            57 => 8 << 20,
            _ => script.dice.roll(50_000..=300_000),
        };
        let image = picture(number, size);
        let answer = stage.post(number % 2 == 0, "/api/v1/acts", &act(number, &image));
        assert_eq!(answer.status, 201, "act {number}");
        images.push(image);
    }
    for port in 8000..8003 {
        let count = client::get(local(port), "/api/v1/acts/count").unwrap();
        assert_eq!(count.body, b"[100]", "on {port}");
    }
    let mut readers = BTreeSet::new();
    for (number, image) in images.iter().enumerate() {
        // One turn of three copies, from outside and inside alike.
        for _ in 0..3 {
            let answer = if number % 2 == 0 {
                stage.outside(&address(number))
            } else {
                stage.inside(&address(number))
            };
            assert_eq!(answer.status, 200, "act {number}");
            assert_shows(&answer.body, number, image);
            readers.insert(answer.backend);
        }
    }
    assert_eq!(readers, stage.ring());
    script.stage.close();
}

const CATEGORIES: [&str; 4] = ["trees", "water", "books", "neighbours"];

/// Base64 of that many bytes, rounded up to threes, different for every number.
fn picture(number: usize, size: usize) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |at: usize| char::from(DIGITS[(at * (number + 1) + at / 64) % 64]);
    (0..size.div_ceil(3) * 4).map(digit).collect()
}

fn act(number: usize, image: &str) -> Vec<u8> {
    let category = CATEGORIES[number % 4];
    format!(
        "{{\"actId\":{number},\"username\":\"u{number}\",\"caption\":\"act {number}\",\
         \"categoryName\":\"{category}\",\"imgB64\":\"{image}\"}}"
    )
    .into_bytes()
}

/// Where one act alone can be read.
fn address(number: usize) -> String {
    // The newest comes first.
    let place = 25 - number / 4;
    let category = CATEGORIES[number % 4];
    format!("/api/v1/acts?category={category}&start={place}&end={place}")
}

fn assert_shows(body: &[u8], number: usize, image: &str) {
    let text = str::from_utf8(body).unwrap();
    let caption = format!("\"caption\":\"act {number}\"");
    assert!(
        text.contains(&caption),
        "{caption}: {}",
        &text[..text.len().min(200)]
    );
    let quoted = format!("\"imgB64\":\"{image}\"");
    assert!(text.contains(&quoted), "the picture of act {number}");
}

#[test]
fn acts_docker() {
    acts(Kind::Docker, Mode::Tcp);
}

#[test]
fn acts_process() {
    acts(Kind::Process, Mode::Tcp);
}

#[test]
fn acts_http_process() {
    acts(Kind::Process, Mode::HttpKept);
}
