//! Requests and responses, recognised by the first bytes of TCP segments.
//!
//! A request begins where a segment begins with a method (RFC 9110, 9.1), which may come in pieces,
//! while no request is in flight, at a sequence number not seen before. A response is a segment
//! that begins with `HTTP/1.`, or with the first part of it, while one is; interim responses (1xx
//! but 101) are passed over. What this cannot see: several requests in one segment, HTTP/2, TLS.

use crate::flow::{Flow, mark};

/// Where the exchange of request and response on a connection stands.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// No request is in flight.
    #[default]
    Idle = 0,
    /// A request has begun and no response has.
    Requested = 1,
    /// A response has begun, but its status has not passed yet.
    Status = 2,
    /// The connection has become something else (101 Switching Protocols).
    Tunnel = 3,
    /// A request has begun, but its target has not passed yet.
    Method = 4,
}

/// The first bytes of a segment's payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// The bytes, zero-filled.
    pub bytes: [u8; HEAD_BYTES],
    /// How many of them are payload.
    pub len: u32,
}

/// Bytes of a segment that the recognition looks at: `HTTP/1.1 200`.
pub const HEAD_BYTES: usize = 12;

/// Offset of the status in a response (RFC 9112, 4).
pub const STATUS_OFFSET: u32 = 9;

const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"PATCH ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
];

/// The first eight bytes of `bytes` as a little-endian number.
const fn word(bytes: &[u8]) -> u64 {
    let mut out = 0;
    let mut at = 0;
    while at < bytes.len() && at < 8 {
        out |= (bytes[at] as u64) << (8 * at);
        at += 1;
    }
    out
}

const fn mask(len: u32) -> u64 {
    if len >= 8 {
        u64::MAX
    } else {
        (1 << (8 * len)) - 1
    }
}

/// What the first bytes of a request line are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// No method.
    No,
    /// The first part of one.
    Part,
    /// A method of so many bytes, the space behind it included.
    Whole(u32),
}

/// Recognises a method in `len` bytes, of which at most eight count.
#[inline(always)]
fn method(found: u64, len: u32) -> Method {
    let seen = mask(len);
    let mut at = 0;
    while at < METHODS.len() {
        let (expected, whole) = (word(METHODS[at]), METHODS[at].len() as u32);
        if (found ^ expected) & mask(whole) & seen == 0 {
            return if len >= whole {
                Method::Whole(whole)
            } else {
                Method::Part
            };
        }
        at += 1;
    }
    Method::No
}

/// Whether a segment with this beginning starts a response.
#[must_use]
#[inline(always)]
pub fn is_response(head: &Head) -> bool {
    let compared = mask(7) & mask(head.len);
    head.len > 0 && (word(&head.bytes) ^ word(b"HTTP/1.")) & compared == 0
}

/// Whether `seq` is at or after `next`, in the arithmetic of sequence numbers (RFC 9293, 3.4).
#[must_use]
#[inline(always)]
pub const fn is_new(seq: u32, next: u32) -> bool {
    seq.wrapping_sub(next) as i32 >= 0
}

/// Whether a payload of the client at `seq` may begin a request, or go on with its method. That its
/// bytes have been seen is noted by the caller, who shares the flow with others.
///
/// A segment that comes before those ahead of it cannot: where they are missing is remembered.
#[must_use]
#[inline(always)]
pub fn client_payload(flow: &mut Flow, seq: u32) -> bool {
    if !matches!(flow.exchange, Exchange::Idle | Exchange::Method) {
        return false;
    }
    if flow.is(mark::HOLE) && seq == flow.response_seq {
        flow.set(mark::HOLE, false);
        return true;
    }
    if seq != flow.client_next && is_new(seq, flow.client_next) && !flow.is(mark::HOLE) {
        flow.set(mark::HOLE, true);
        flow.response_seq = flow.client_next;
    }
    seq == flow.client_next
}

/// Takes the first bytes of a payload that [`client_payload`] let through. If the target of a
/// request begins in it, gives the target's offset: then the request has begun.
#[inline(always)]
pub fn client_head(flow: &mut Flow, head: &Head) -> Option<u32> {
    if matches!(flow.exchange, Exchange::Method) {
        let known = u32::from(flow.method_len);
        let new = if known < 8 {
            word(&head.bytes) << (8 * known)
        } else {
            0
        };
        let found = flow.method | new;
        match method(found, known + head.len) {
            // It was no request; this segment may be one.
            Method::No => {}
            recognised => return collect(flow, found, known, head.len, recognised),
        }
    }
    let found = word(&head.bytes);
    collect(flow, found, 0, head.len, method(found, head.len))
}

/// Keeps what has come of a method until its target comes.
#[inline(always)]
fn collect(flow: &mut Flow, found: u64, known: u32, new: u32, recognised: Method) -> Option<u32> {
    let len = known + new;
    match recognised {
        Method::No => flow.exchange = Exchange::Idle,
        Method::Whole(whole) if len > whole => {
            flow.exchange = Exchange::Requested;
            return Some(whole - known);
        }
        Method::Whole(whole) => keep(flow, found, whole),
        Method::Part => keep(flow, found, len),
    }
    None
}

#[inline(always)]
fn keep(flow: &mut Flow, found: u64, len: u32) {
    flow.exchange = Exchange::Method;
    flow.method = found & mask(len);
    flow.method_len = len as u8;
}

/// Where in a backend's payload at `seq` the recognition has to look: the offset of a response's
/// beginning or of its status. `None` if nowhere. That its bytes have been seen is noted by the caller.
#[must_use]
#[inline(always)]
pub fn server_payload(flow: &Flow, seq: u32, len: u32) -> Option<u32> {
    match flow.exchange {
        Exchange::Requested if is_new(seq, flow.server_next) => Some(0),
        Exchange::Status => {
            let at = flow
                .response_seq
                .wrapping_add(STATUS_OFFSET)
                .wrapping_sub(seq);
            (at < len).then_some(at)
        }
        _ => None,
    }
}

/// What a backend's segment turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// No final status yet.
    None,
    /// The status of an interim response (1xx but 101): another response follows.
    Interim,
    /// A response whose status has this first digit, `1..=5`; 0 for anything else.
    Status(u8),
}

/// Takes the bytes that [`server_payload`] asked for.
#[inline(always)]
pub fn server_head(flow: &mut Flow, seq: u32, head: &Head) -> Response {
    if matches!(flow.exchange, Exchange::Status) {
        return status(flow, [head.bytes[0], head.bytes[1], head.bytes[2]]);
    }
    if !is_response(head) {
        return Response::None;
    }
    flow.response_seq = seq;
    flow.exchange = Exchange::Status;
    if head.len <= STATUS_OFFSET {
        return Response::None;
    }
    status(flow, [head.bytes[9], head.bytes[10], head.bytes[11]])
}

#[inline(always)]
fn status(flow: &mut Flow, digits: [u8; 3]) -> Response {
    let class = digits[0].wrapping_sub(b'0');
    if digits == *b"101" {
        flow.exchange = Exchange::Tunnel;
        return Response::Status(1);
    }
    if class == 1 {
        flow.exchange = Exchange::Requested;
        return Response::Interim;
    }
    flow.exchange = Exchange::Idle;
    flow.set(mark::HOLE, false);
    Response::Status(if class <= 5 { class } else { 0 })
}

/// Looks for the end of a head, an empty line (RFC 9112, 2.1), in bytes that come one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEnd(u32);

impl HeadEnd {
    /// Takes the next byte, and says whether the head ends with it.
    #[inline(always)]
    pub const fn take(&mut self, byte: u8) -> bool {
        self.0 = self.0 << 8 | byte as u32;
        self.0 == u32::from_be_bytes(*b"\r\n\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Side;

    fn head(bytes: &[u8]) -> Head {
        let mut head = Head {
            bytes: [0; HEAD_BYTES],
            len: bytes.len().min(HEAD_BYTES) as u32,
        };
        head.bytes[..head.len as usize].copy_from_slice(&bytes[..head.len as usize]);
        head
    }

    /// Requests and response classes that a conversation of segments shows.
    fn count(segments: &[(bool, u32, &[u8])]) -> (usize, Vec<u8>) {
        let first = |side| segments.iter().find(|s| s.0 == side).map_or(0, |s| s.1);
        let mut flow = Flow {
            client_next: first(C),
            server_next: first(S),
            ..Flow::default()
        };
        let (mut requests, mut responses) = (0, Vec::new());
        for &(from_client, seq, payload) in segments {
            let len = payload.len() as u32;
            if from_client {
                let may_begin = client_payload(&mut flow, seq);
                flow.reach(Side::Client, seq.wrapping_add(len));
                if may_begin && client_head(&mut flow, &head(payload)).is_some() {
                    requests += 1;
                }
            } else {
                let wanted = server_payload(&flow, seq, len);
                flow.reach(Side::Server, seq.wrapping_add(len));
                let Some(mut at) = wanted.map(|at| at as usize) else {
                    continue;
                };
                loop {
                    let begin = seq.wrapping_add(at as u32);
                    match server_head(&mut flow, begin, &head(&payload[at..])) {
                        Response::Status(class) => responses.push(class),
                        Response::Interim => {
                            let mut end = HeadEnd::default();
                            let len = payload[at..].iter().position(|byte| end.take(*byte));
                            at += len.map_or(payload.len() - at, |len| len + 1);
                            if at < payload.len() {
                                continue;
                            }
                        }
                        Response::None => {}
                    }
                    break;
                }
            }
        }
        (requests, responses)
    }

    const C: bool = true;
    const S: bool = false;

    #[test]
    fn every_method_is_recognised_however_it_is_cut() {
        for method_word in METHODS {
            let mut request = method_word.to_vec();
            request.extend_from_slice(b"/ HTTP/1.1\r\n");
            for cut in 1..request.len() {
                let mut flow = Flow::default();
                let (first, second) = request.split_at(cut);
                let targets = [first, second].map(|part| client_head(&mut flow, &head(part)));
                let target = method_word.len();
                let expected = if cut > target {
                    [Some(target as u32), None]
                } else {
                    [None, Some((target - cut) as u32)]
                };
                assert_eq!(targets[0], expected[0], "{request:?} cut at {cut}");
                if cut <= target {
                    assert_eq!(targets[1], expected[1], "{request:?} cut at {cut}");
                }
            }
        }
        for other in [
            &b"PRI * HTTP/2.0"[..],
            b"\x16\x03\x01",
            b"get / ",
            b"GETX / ",
        ] {
            let mut flow = Flow::default();
            assert_eq!(client_head(&mut flow, &head(other)), None, "{other:?}");
            assert_eq!(flow.exchange, Exchange::Idle);
        }
    }

    #[test]
    fn what_only_looked_like_a_method_is_forgotten() {
        let (requests, _) = count(&[(C, 0, b"GE"), (C, 2, b"LB"), (C, 4, b"GET / HTTP/1.1\r\n")]);
        assert_eq!(requests, 1);
    }

    #[test]
    fn keep_alive_counts_each_exchange() {
        let (requests, responses) = count(&[
            (C, 0, b"GET /a HTTP/1.1\r\n\r\n"),
            (S, 0, b"HTTP/1.1 200 OK\r\n\r\n"),
            (C, 19, b"POST /b HTTP/1.1\r\n\r\n"),
            (C, 39, b"GET in a body"),
            (S, 19, b"HTTP/1.1 503 No\r\n\r\n"),
        ]);
        assert_eq!((requests, responses), (2, vec![2, 5]));
    }

    #[test]
    fn retransmissions_count_once() {
        let (requests, responses) = count(&[
            (C, 0, b"GET /a HTTP/1.1\r\n\r\n"),
            (C, 0, b"GET /a HTTP/1.1\r\n\r\n"),
            (S, 0, b"HTTP/1.1 200 OK\r\n\r\n"),
            (C, 0, b"GET /a HTTP/1.1\r\n\r\n"),
            (C, 19, b"GET /b HTTP/1.1\r\n\r\n"),
            (S, 0, b"HTTP/1.1 200 OK\r\n\r\n"),
            (S, 19, b"HTTP/1.1 404 No\r\n\r\n"),
        ]);
        assert_eq!((requests, responses), (2, vec![2, 4]));
    }

    #[test]
    fn split_lines_and_interim_responses_count_once() {
        let request: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
        let response: &[u8] = b"HTTP/1.1 404 Not Found\r\n\r\n";
        let bytes = |side, text: &'static [u8]| {
            (0..text.len()).map(move |at| (side, at as u32, &text[at..=at]))
        };
        let slow: Vec<_> = bytes(C, request).chain(bytes(S, response)).collect();
        assert_eq!(count(&slow), (1, vec![4]));
        let (requests, responses) = count(&[
            (C, 0, b"POST / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n"),
            (S, 0, b"HTTP/1.1 100 Continue\r\n\r\n"),
            (C, 41, b"GET is what the body says"),
            (S, 25, b"HTTP/1.1 201 Created\r\n\r\n"),
        ]);
        assert_eq!((requests, responses), (1, vec![2]));
    }

    #[test]
    fn a_final_response_may_follow_an_interim_one_in_the_same_segment() {
        let (requests, responses) = count(&[
            (C, 0, b"GET / HTTP/1.1\r\n\r\n"),
            (
                S,
                0,
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n",
            ),
            (C, 18, b"GET / HTTP/1.1\r\n\r\n"),
            (S, 66, b"HTTP/1.1 200 OK\r\n\r\n"),
        ]);
        assert_eq!((requests, responses), (2, vec![4, 2]));
    }

    #[test]
    fn a_request_whose_first_segment_comes_late_counts_once() {
        let (requests, responses) = count(&[
            (C, 0, b"GET / HTTP/1.1\r\n\r\n"),
            (S, 0, b"HTTP/1.1 200 OK\r\n\r\n"),
            (C, 38, b"GET is in its body"),
            (C, 56, b"and more of it"),
            (C, 18, b"POST / HTTP/1.1\r\n\r\n"),
            (C, 18, b"POST / HTTP/1.1\r\n\r\n"),
            (S, 19, b"HTTP/1.1 500 No\r\n\r\n"),
            (C, 70, b"GET / HTTP/1.1\r\n\r\n"),
            (S, 38, b"HTTP/1.1 404 No\r\n\r\n"),
        ]);
        assert_eq!((requests, responses), (3, vec![2, 5, 4]));
    }

    #[test]
    fn an_upgraded_connection_is_no_longer_counted() {
        let (requests, responses) = count(&[
            (C, 0, b"GET /socket HTTP/1.1\r\n\r\n"),
            (S, 0, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
            (C, 24, b"GET / HTTP/1.1\r\n\r\n"),
            (S, 36, b"HTTP/1.1 200 OK\r\n\r\n"),
        ]);
        assert_eq!((requests, responses), (1, vec![1]));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let (requests, responses) = count(&[
            (C, u32::MAX - 5, b"GET / HTTP/1.1\r\n\r\n"),
            (S, u32::MAX - 2, b"HTTP/1.1 200 OK\r\n\r\n"),
            (C, 12, b"GET / HTTP/1.1\r\n\r\n"),
            (S, 16, b"HTTP/1.1 200 OK\r\n\r\n"),
        ]);
        assert_eq!((requests, responses), (2, vec![2, 2]));
    }
}
