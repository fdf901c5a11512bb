//! The functions of the kernel object, as its symbols have them, and which of them each calls. The test
//! `orch-user/tests/object.rs` includes this file: it needs neither root nor a kernel.

use std::collections::{HashMap, HashSet};

use object::{
    File, Object, ObjectSection, ObjectSymbol, RelocationTarget, Section, SectionIndex,
    SectionKind, Symbol, SymbolKind,
};

/// `struct bpf_insn` of include/uapi/linux/bpf.h: opcode, registers (target below, source above),
/// offset, immediate.
pub(crate) type Instruction = [u8; 8];

/// A function.
#[derive(Debug)]
pub(crate) struct Function {
    /// Its path within its crate, or its symbol.
    pub(crate) name: String,
    /// All of it.
    pub(crate) code: Vec<Instruction>,
    /// Whom it calls or hands to a helper, as indexes into all functions.
    pub(crate) calls: Vec<usize>,
}

/// Section, and offset in it, in bytes.
type Place = (SectionIndex, u64);

/// Reads them; nothing if it is no ELF file.
pub(crate) fn of_object(object: &[u8]) -> Option<Vec<Function>> {
    let file = File::parse(object).ok()?;
    let symbols: Vec<_> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
        .filter_map(|symbol| Some((symbol.section_index()?, symbol)))
        .collect();
    let begins = |(section, symbol): &(SectionIndex, Symbol<'_, '_>)| (*section, symbol.address());
    let indexes: HashMap<Place, usize> = symbols.iter().map(begins).zip(0..).collect();
    let named = named(&file)?;
    let function = |(section, symbol): &(SectionIndex, Symbol<'_, '_>)| {
        let bytes = file.section_by_index(*section).ok()?;
        let code = bytes.data_range(symbol.address(), symbol.size()).ok()??;
        let code = code.as_chunks().0.to_vec();
        let calls = callees(&code, (*section, symbol.address()), &named);
        let calls = calls.map(|place| indexes.get(&place).copied());
        Some(Function {
            name: plain(symbol.name().ok()?),
            calls: calls.collect::<Option<_>>()?,
            code,
        })
    };
    symbols.iter().map(function).collect()
}

/// Which code relocated instructions refer to: where the section or function begins.
fn named(file: &File<'_>) -> Option<HashMap<Place, Place>> {
    let code = |section: &Section<'_, '_>| section.kind() == SectionKind::Text;
    let text: HashSet<_> = file
        .sections()
        .filter(code)
        .map(|section| section.index())
        .collect();
    let mut named = HashMap::new();
    for section in file.sections().filter(code) {
        for (at, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else {
                continue;
            };
            let symbol = file.symbol_by_index(index).ok()?;
            if let Some(target) = symbol
                .section_index()
                .filter(|target| text.contains(target))
            {
                named.insert((section.index(), at), (target, symbol.address()));
            }
        }
    }
    Some(named)
}

/// Where the functions begin that this code calls (`BPF_PSEUDO_CALL`) or hands to a helper.
fn callees(
    code: &[Instruction],
    (section, begin): Place,
    named: &HashMap<Place, Place>,
) -> impl Iterator<Item = Place> {
    const CALL: u8 = 0x85;
    const LOAD: u8 = 0x18;
    const OURS: u8 = 1;
    let places = code.iter().zip((begin..).step_by(8));
    places.filter_map(move |(instruction, at)| {
        let [opcode, registers, _, _, immediate @ ..] = *instruction;
        let immediate = i64::from(i32::from_le_bytes(immediate));
        let target = named.get(&(section, at)).copied();
        let (from, bytes) = match opcode {
            // In instructions from the next one; where it is relocated, from the one before its target.
            CALL if registers >> 4 == OURS => {
                (target.unwrap_or((section, at)), 8 * (immediate + 1))
            }
            LOAD => (target?, immediate),
            _ => return None,
        };
        Some((from.0, from.1.wrapping_add_signed(bytes)))
    })
}

/// The path of a function within its crate: `_RNvNtCsfuwRhVe4EPw_4orch6upkeep5visit` is
/// `upkeep::visit`. What is before it changes with the compiler. Other names stay.
fn plain(symbol: &str) -> String {
    let Some((_, mut rest)) = symbol.split_once("_4orch") else {
        return symbol.to_owned();
    };
    let mut path = Vec::new();
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let word = rest[..digits].parse().ok().and_then(|length: usize| {
            // A zero is a closure's number: closures count as the function they are in.
            rest.get(digits..digits + length).filter(|_| length > 0)
        });
        let Some(word) = word else {
            return path.join("::");
        };
        path.push(word);
        rest = &rest[digits + word.len()..];
    }
}
