//! What the kernel says of its own types (BTF): only where a field of a structure is. The format is
//! a header, the types one behind the other, and their names
//! (docs.kernel.org/bpf/btf.html, 2.2 and 3).

use std::{fs, ops::Range};

/// Where the running kernel describes its types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Bytes of a type without what follows it, and of a member of a structure.
const TYPE: usize = 12;
const MEMBER: usize = 12;
/// Kinds of types.
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;

/// Offset of a field in a structure of the running kernel, in bytes. `None` if the kernel does not
/// describe its types, or has no such field.
pub(super) fn offset(structure: &str, field: &str) -> Option<u32> {
    offset_in(&fs::read(VMLINUX).ok()?, structure, field)
}

fn offset_in(btf: &[u8], structure: &str, field: &str) -> Option<u32> {
    let types = section(btf, 8)?;
    let strings = btf.get(section(btf, 16)?)?;
    let named = |at: u32, name: &str| {
        let found = strings.get(at as usize..).unwrap_or_default();
        found.starts_with(name.as_bytes()) && found.get(name.len()) == Some(&0)
    };
    let types = btf.get(types)?;
    let mut at = 0;
    while at < types.len() {
        let info = word(types, at + 4)?;
        let (kind, count) = (info >> 24 & 0x1f, info as usize & 0xffff);
        let members = at + TYPE;
        let next = members + trailing(kind, count);
        if kind == STRUCT && named(word(types, at)?, structure) {
            let mut members = types.get(members..next)?.chunks_exact(MEMBER);
            let member = members.find(|member| word(member, 0).is_some_and(|at| named(at, field)));
            // With bit fields in the structure, the upper byte is a field's width.
            let bits = word(member?, 8)? & 0x00ff_ffff;
            return bits.is_multiple_of(8).then_some(bits / 8);
        }
        at = next;
    }
    None
}

/// The section whose offset and length are at this place of the header.
fn section(btf: &[u8], at: usize) -> Option<Range<usize>> {
    let magic = btf.get(..2)?;
    if u16::from_ne_bytes([magic[0], magic[1]]) != MAGIC {
        return None;
    }
    let header = word(btf, 4)?;
    let start = header.checked_add(word(btf, at)?)? as usize;
    Some(start..start.checked_add(word(btf, at + 4)? as usize)?)
}

/// Bytes that follow a type.
const fn trailing(kind: u32, count: usize) -> usize {
    match kind {
        INT | VAR | DECL_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
        ENUM | FUNC_PROTO => 8 * count,
        _ => 0,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An integer, a structure before the wanted one, and the wanted one.
    fn sample() -> Vec<u8> {
        let names = b"\0task_struct\0pid\0tgid\0task\0u32\0";
        let (task_struct, pid, tgid, task, int) = (1, 13, 17, 22, 27);
        let types: Vec<u32> = [
            vec![int, INT << 24, 4, 32],
            vec![task, STRUCT << 24 | 1, 4, tgid, 1, 0],
            vec![task_struct, STRUCT << 24 | 2, 16, pid, 1, 64, tgid, 1, 96],
        ]
        .concat();
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let header: [u32; 5] = [
            24,
            0,
            types.len() as u32,
            types.len() as u32,
            names.len() as u32,
        ];
        let mut btf = MAGIC.to_ne_bytes().to_vec();
        btf.extend([1, 0]);
        btf.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
        btf.extend(types);
        btf.extend(names);
        btf
    }

    #[test]
    fn a_field_is_found_by_the_whole_name_of_its_structure() {
        let btf = sample();
        assert_eq!(offset_in(&btf, "task_struct", "tgid"), Some(12));
        assert_eq!(offset_in(&btf, "task_struct", "pid"), Some(8));
        assert_eq!(offset_in(&btf, "task", "tgid"), Some(0));
        assert_eq!(offset_in(&btf, "task", "pid"), None);
        assert_eq!(offset_in(&btf, "tas", "tgid"), None);
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let btf = sample();
        for len in 0..btf.len() - 30 {
            assert_eq!(offset_in(&btf[..len], "task_struct", "tgid"), None, "{len}");
        }
        assert_eq!(offset_in(b"no BTF at all, but long enough", "a", "b"), None);
    }

    #[test]
    fn the_running_kernel_is_read() {
        if let Ok(btf) = fs::read(VMLINUX) {
            let tgid = offset_in(&btf, "task_struct", "tgid").unwrap();
            assert_eq!(offset_in(&btf, "task_struct", "pid"), Some(tgid - 4));
        }
    }
}
