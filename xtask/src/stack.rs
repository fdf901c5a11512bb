//! How much of the stack each kernel program needs with all that it calls, as Linux 6.1 and 6.12
//! reckon: each function's own bytes in whole pieces of 32, added up along the calls
//! (`check_max_stack_depth`, kernel/bpf/verifier.c). Newer ones can find room for more.

use crate::functions::{Function, Instruction};

/// `MAX_BPF_STACK` of include/linux/filter.h, in bytes.
pub(crate) const ROOM: u64 = 512;
const PIECE: u64 = 32;

/// The frame pointer's number.
const FRAME: u8 = 10;

/// A function, what it needs with what it calls, and the way of calls that needs the most.
#[derive(Debug, Default)]
pub(crate) struct Need {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Names, the caller first, each with its own bytes.
    pub(crate) way: Vec<String>,
}

/// A sentence per function that needs more than there is.
pub(crate) fn beyond(functions: &[Function]) -> Vec<String> {
    (0..functions.len())
        .map(|index| need(functions, index))
        .filter(|need| need.bytes > ROOM)
        .map(|need| {
            let way = need.way.join(" -> ");
            format!(
                "{way} need {} bytes of stack, and there are {ROOM}",
                need.bytes
            )
        })
        .collect()
}

/// What a function needs. There is no recursion in kernel programs.
pub(crate) fn need(functions: &[Function], index: usize) -> Need {
    let Some(function) = functions.get(index) else {
        return Need::default();
    };
    let callees = function.calls.iter().map(|callee| need(functions, *callee));
    let deepest = callees.max_by_key(|callee| callee.bytes);
    let mut need = deepest.unwrap_or_default();
    let own = own(&function.code).max(1).next_multiple_of(PIECE);
    need.bytes += own;
    need.way.insert(0, format!("{} ({own})", function.name));
    need
}

/// How far below the frame pointer a function's code reaches, in bytes. Addresses on the stack are
/// made by copying the frame pointer and adding to the copy.
fn own(code: &[Instruction]) -> u64 {
    const COPY: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let mut copies = [None; 16];
    copies[usize::from(FRAME)] = Some(0_i64);
    let mut lowest = 0;
    for &[opcode, registers, offset @ .., d, e, f, g] in code {
        let offset = i64::from(i16::from_le_bytes(offset));
        let immediate = i64::from(i32::from_le_bytes([d, e, f, g]));
        let (to, from) = (usize::from(registers & 0xf), usize::from(registers >> 4));
        let reached = match opcode {
            COPY => {
                copies[to] = copies[from];
                copies[to]
            }
            ADD => {
                copies[to] = copies[to].map(|base| base + immediate);
                copies[to]
            }
            // Classes: BPF_LDX reads by way of `from`, BPF_ST and BPF_STX write by way of `to`.
            _ if opcode & 7 == 1 => {
                let base = copies[from];
                copies[to] = None;
                base.map(|base| base + offset)
            }
            _ if matches!(opcode & 7, 2 | 3) => copies[to].map(|base| base + offset),
            _ => None,
        };
        lowest = lowest.min(reached.unwrap_or(0));
    }
    lowest.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, code: &[Instruction], calls: &[usize]) -> Function {
        Function {
            name: name.to_owned(),
            code: code.to_vec(),
            calls: calls.to_vec(),
        }
    }

    /// `*(u64 *)(r10 + offset) = r1`
    fn store(offset: i16) -> Instruction {
        let [low, high] = offset.to_le_bytes();
        [0x7b, 0x1a, low, high, 0, 0, 0, 0]
    }

    #[test]
    fn reads_and_writes_and_addresses_reach_down() {
        assert_eq!(own(&[store(-8), store(-40)]), 40);
        // r0 = *(u32 *)(r10 - 12)
        assert_eq!(own(&[[0x61, 0xa0, 0xf4, 0xff, 0, 0, 0, 0]]), 12);
        // r2 = r10; r2 += -48
        let copy = [0xbf, 0xa2, 0, 0, 0, 0, 0, 0];
        let add = [0x07, 2, 0, 0, 0xd0, 0xff, 0xff, 0xff];
        assert_eq!(own(&[copy, add]), 48);
        // The same where r2 is something else.
        assert_eq!(own(&[add]), 0);
    }

    #[test]
    fn the_deepest_way_counts_in_whole_pieces() {
        let functions = [
            function("a", &[store(-320)], &[1, 2]),
            function("b", &[store(-104)], &[2]),
            function("c", &[store(-64)], &[]),
            function("d", &[], &[0]),
        ];
        assert_eq!(need(&functions, 0).bytes, 512);
        assert_eq!(
            beyond(&functions),
            ["d (32) -> a (320) -> b (128) -> c (64) need 544 bytes of stack, and there are 512"]
        );
    }
}
