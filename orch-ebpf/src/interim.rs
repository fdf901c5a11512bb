//! The status of a response, behind interim ones (100, 103: RFC 9110, 15.2) in the same segment.

use aya_ebpf::bindings::__sk_buff;
use orch_common::{
    flow::Flow,
    http::{self, HeadEnd, Response},
};

use crate::segment::{self, Segment};

/// Responses that are looked for in one segment.
const RESPONSES: usize = 3;
/// The head of an interim response is searched for its end by pieces of so many bytes,
const HEAD_PIECE: usize = 8;
/// and by no more of them.
const HEAD_PIECES: u32 = 64;
/// The first digit of the response's status, if it passes in this segment; one or two interim responses
/// may be ahead of it.
#[inline(always)]
pub fn final_status(flow: &mut Flow, segment: &Segment, skip: u32) -> Option<u8> {
    let mut skip = skip;
    for _ in 0..RESPONSES {
        let seq = segment.seq.wrapping_add(skip);
        match http::server_head(flow, seq, &segment.head(skip)) {
            Response::Status(class) => return Some(class),
            Response::None => return None,
            Response::Interim => {}
        }
        let from = segment.payload + skip;
        let left = segment.len.saturating_sub(skip);
        skip += orch_head_end(segment.skb, from, left) as u32;
        if skip >= segment.len {
            return None;
        }
    }
    None
}

/// How many bytes a head has of which the packet has `left` from an offset on; all of them if it does
/// not end there, or not soon. Pieces are always whole: lengths that vary cost the verifier much. Checked
/// once by itself (`choice`).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn orch_head_end(skb: *mut __sk_buff, from: u32, left: u32) -> i32 {
    const PIECE: u32 = HEAD_PIECE as u32;
    if left < PIECE {
        // No two heads have room.
        return left as i32;
    }
    let last = left - PIECE;
    let mut end = HeadEnd::default();
    for number in 0..HEAD_PIECES {
        let mut at = number * PIECE;
        if at > last {
            // What has been seen is seen once more.
            at = last;
            end = HeadEnd::default();
        }
        let mut piece = [0_u8; HEAD_PIECE];
        if !segment::load_whole(skb, from + at, &mut piece) {
            break;
        }
        for (place, byte) in (1..).zip(piece) {
            if end.take(byte) {
                return (at + place) as i32;
            }
        }
        if at == last {
            break;
        }
    }
    left as i32
}
