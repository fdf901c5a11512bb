//! The empty program: what a run costs when nothing is done. The cheapest path of our own programs
//! still parses, so the yardstick is a classifier of two instructions, in an object assembled here.

use std::time::Duration;

use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun, TestRunOptions},
};

use crate::Result;

/// `r0 = -1` (`TC_ACT_UNSPEC`), `exit` (RFC 9669).
const CODE: [u8; 16] = [
    0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x95, 0, 0, 0, 0, 0, 0, 0,
];
const NAMES: &[u8] = b"\0orch_empty\0classifier\0license\0.symtab\0.strtab\0";
const LICENSE: &[u8] = b"Dual MIT/GPL\0";

/// A loaded classifier that does nothing.
pub(crate) struct Empty(Ebpf);

impl Empty {
    pub(crate) fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(&object())?;
        program(&mut ebpf)?.load()?;
        Ok(Self(ebpf))
    }

    /// The mean time of a run.
    pub(crate) fn time(&mut self, frame: &[u8], repeat: u32) -> Result<Duration> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::new()
        };
        Ok(program(&mut self.0)?.test_run(options)?.duration)
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let found = ebpf.program_mut("orch_empty").ok_or("no program")?;
    Ok(found.try_into()?)
}

/// Where a word lies in `NAMES`.
fn name(word: &str) -> u32 {
    let position = NAMES
        .windows(word.len())
        .position(|window| window == word.as_bytes());
    position.unwrap_or(0) as u32
}

/// Name, type, flags, link, info, entry size, contents.
type Section<'a> = (&'static str, u32, u64, u32, u32, u64, &'a [u8]);

/// A relocatable ELF64 object for BPF: header, contents, section headers.
fn object() -> Vec<u8> {
    const HEADER: usize = 64;
    const FUNCTION: u8 = 0x12;
    const PROGRAM_SECTION: u16 = 1;
    let mut symbols = vec![0; 24];
    symbols.extend(name("orch_empty").to_le_bytes());
    symbols.extend([FUNCTION, 0]);
    symbols.extend(PROGRAM_SECTION.to_le_bytes());
    symbols.extend(0_u64.to_le_bytes());
    symbols.extend((CODE.len() as u64).to_le_bytes());
    // From `elf.h`.
    let sections: [Section; 4] = [
        ("classifier", 1, 6, 0, 0, 0, &CODE),
        ("license", 1, 3, 0, 0, 0, LICENSE),
        (".symtab", 2, 0, 4, 1, 24, &symbols),
        (".strtab", 3, 0, 0, 0, 0, NAMES),
    ];
    let mut contents = Vec::new();
    let mut headers = vec![0; 64];
    for (word, kind, flags, link, info, entry, bytes) in sections {
        headers.extend(name(word).to_le_bytes());
        headers.extend(kind.to_le_bytes());
        headers.extend(flags.to_le_bytes());
        headers.extend(0_u64.to_le_bytes());
        headers.extend(((HEADER + contents.len()) as u64).to_le_bytes());
        headers.extend((bytes.len() as u64).to_le_bytes());
        headers.extend(link.to_le_bytes());
        headers.extend(info.to_le_bytes());
        headers.extend(8_u64.to_le_bytes());
        headers.extend(entry.to_le_bytes());
        contents.extend(bytes);
        contents.resize(contents.len().next_multiple_of(8), 0);
    }
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Relocatable, for BPF.
    out.extend([1, 0, 247, 0, 1, 0, 0, 0]);
    out.extend([0; 16]);
    out.extend(((HEADER + contents.len()) as u64).to_le_bytes());
    out.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 5, 0, 4, 0]);
    out.extend(contents);
    out.extend(headers);
    out
}
