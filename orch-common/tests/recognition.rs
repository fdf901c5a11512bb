//! The recognition of requests and responses, by generated conversations: whole ones count exactly,
//! however they are cut and whatever is sent twice; any bytes at all do no harm.
//!
//! `PROPTEST_CASES=1000000` is how long this runs (256 cases).

use orch_common::{
    flow::{Flow, Side},
    http::{self, Exchange, HEAD_BYTES, Head, Response},
};
use proptest::{collection::vec, prelude::*, sample::select};

/// Payload of one side, at a sequence number.
#[derive(Clone, Debug)]
struct Segment {
    from_client: bool,
    seq: u32,
    payload: Vec<u8>,
}

fn head(payload: &[u8], skip: u32) -> Head {
    let rest = payload.get(skip as usize..).unwrap_or_default();
    let len = rest.len().min(HEAD_BYTES);
    let mut head = Head {
        len: len as u32,
        ..Head::default()
    };
    head.bytes[..len].copy_from_slice(&rest[..len]);
    head
}

/// What the kernel programs make of a segment: `(requests, class of a response)`.
fn take(flow: &mut Flow, segment: &Segment) -> (usize, Option<u8>) {
    let Segment { seq, payload, .. } = segment;
    let len = payload.len() as u32;
    if len == 0 {
        return (0, None);
    }
    let end = seq.wrapping_add(len);
    if segment.from_client {
        let may_begin = http::client_payload(flow, *seq);
        flow.reach(Side::Client, end);
        let begins = may_begin && http::client_head(flow, &head(payload, 0)).is_some();
        return (usize::from(begins), None);
    }
    let wanted = http::server_payload(flow, *seq, len);
    flow.reach(Side::Server, end);
    let Some(skip) = wanted else {
        return (0, None);
    };
    assert!(skip < len, "what is looked at is in the segment");
    match http::server_head(flow, *seq, &head(payload, skip)) {
        Response::Status(class) => (0, Some(class)),
        Response::None | Response::Interim => (0, None),
    }
}

/// One request and its answer.
#[derive(Clone, Debug)]
struct Turn {
    request: Vec<u8>,
    response: Vec<u8>,
    class: u8,
    /// Where request and response are cut, and which piece is sent again.
    cuts: (Vec<usize>, Vec<usize>),
    again: (usize, usize),
}

fn turn() -> impl Strategy<Value = Turn> {
    let methods = [
        "GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE",
    ];
    let words = [
        "GET / HTTP/1.1\r\n",
        "HTTP/1.1 500 X\r\n",
        "x",
        "\0\0",
        "POST ",
        "HTTP/1.",
    ];
    let body = || vec(select(words.to_vec()), 0..6).prop_map(|words| words.concat());
    let cuts = || vec(1_usize..80, 0..6);
    (
        select(methods.to_vec()),
        body(),
        200_u16..600,
        body(),
        (cuts(), cuts()),
        (0_usize..8, 0_usize..8),
    )
        .prop_map(|(method, upload, status, download, cuts, again)| Turn {
            request: format!("{method} /api/x HTTP/1.1\r\nHost: a\r\n\r\n{upload}").into(),
            response: format!("HTTP/1.1 {status} X\r\nServer: a\r\n\r\n{download}").into(),
            class: (status / 100) as u8,
            cuts,
            again,
        })
}

/// Cuts bytes into segments from `seq` on, of which one is sent twice.
fn cut(from_client: bool, bytes: &[u8], cuts: &[usize], again: usize, seq: u32) -> Vec<Segment> {
    let mut places: Vec<usize> = cuts.iter().map(|at| at % bytes.len()).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.dedup();
    let mut segments: Vec<Segment> = places
        .windows(2)
        .map(|ends| Segment {
            from_client,
            seq: seq.wrapping_add(ends[0] as u32),
            payload: bytes[ends[0]..ends[1]].to_vec(),
        })
        .collect();
    if let Some(lost) = segments.get(again).cloned() {
        segments.insert(again + 1, lost);
    }
    segments
}

proptest! {
    #[test]
    fn a_conversation_counts_exactly(
        turns in vec(turn(), 1..6),
        client in any::<u32>(),
        server in any::<u32>(),
    ) {
        let mut flow = Flow { client_next: client, server_next: server, ..Flow::default() };
        let (mut client, mut server) = (client, server);
        for turn in &turns {
            let sent = cut(true, &turn.request, &turn.cuts.0, turn.again.0, client);
            let answered = cut(false, &turn.response, &turn.cuts.1, turn.again.1, server);
            let mut requests = 0;
            for segment in &sent {
                requests += take(&mut flow, segment).0;
            }
            prop_assert_eq!(requests, 1, "{:?}", sent);
            let classes: Vec<u8> = answered.iter().filter_map(|one| take(&mut flow, one).1).collect();
            prop_assert_eq!(classes, [turn.class], "{:?}", answered);
            client = client.wrapping_add(turn.request.len() as u32);
            server = server.wrapping_add(turn.response.len() as u32);
        }
    }

    #[test]
    fn no_more_responses_than_requests_whatever_comes(
        segments in vec(
            (any::<bool>(), any::<u32>(), vec(any::<u8>(), 0..40)).prop_map(
                |(from_client, seq, payload)| Segment { from_client, seq, payload },
            ),
            0..60,
        ),
        words in vec((any::<bool>(), 0_u32..400, select(vec!["GET /", "HTTP/1.1 200 ", "H", "G", "101"])), 0..60),
    ) {
        let mut flow = Flow::default();
        let (mut requests, mut responses) = (0, 0);
        let words = words.into_iter().map(|(from_client, seq, word)| Segment {
            from_client,
            seq,
            payload: word.into(),
        });
        for segment in segments.into_iter().chain(words) {
            let (request, response) = take(&mut flow, &segment);
            requests += request;
            responses += usize::from(response.is_some());
            prop_assert!(responses <= requests);
            prop_assert!(response.is_none_or(|class| class <= 5));
            prop_assert!(flow.method_len <= 8);
            if flow.exchange == Exchange::Tunnel {
                break;
            }
        }
    }
}
