//! The kernel object is committed, so that users need no compiler for it. These tests fail when it
//! was forgotten after a change of its sources.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers, too")]

#[path = "../../xtask/src/digest.rs"]
#[allow(dead_code, reason = "xtask writes with what is not used here")]
mod digest;

use std::{fs, path::Path};

use digest::{OBJECT, RECORD, Record};

const HINT: &str = "run `cargo xtask build-ebpf` and commit the two files that it writes";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn record() -> Record {
    let text = fs::read_to_string(root().join(RECORD));
    Record::from_text(&text.unwrap_or_else(|error| panic!("{RECORD}: {error}: {HINT}")))
}

#[test]
fn the_object_is_made_from_these_sources() {
    let sources = digest::of_sources(root()).unwrap();
    assert_eq!(record().sources, sources, "the object is stale: {HINT}");
}

#[test]
fn the_object_is_the_one_that_was_built() {
    let object = fs::read(root().join(OBJECT));
    let object = object.unwrap_or_else(|error| panic!("{OBJECT}: {error}: {HINT}"));
    assert_eq!(record().object, digest::of_bytes(&object), "{HINT}");
}

#[test]
fn a_record_survives_its_file() {
    let record = Record {
        sources: "a1".to_owned(),
        object: "b2".to_owned(),
        built_with: "rustc 1, bpf-linker 2".to_owned(),
    };
    assert_eq!(Record::from_text(&record.to_text()), record);
}
