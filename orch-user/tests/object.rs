//! The kernel object is committed, so that users need no compiler for it. These tests fail when it
//! was forgotten after a change of its sources.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers, too")]

#[path = "../../xtask/src/digest.rs"]
#[allow(dead_code, reason = "xtask writes with what is not used here")]
mod digest;
#[path = "../../xtask/src/functions.rs"]
mod functions;
#[path = "../../xtask/src/instructions.rs"]
#[allow(dead_code, reason = "xtask writes with what is not used here")]
mod instructions;
#[path = "../../xtask/src/stack.rs"]
mod stack;

use std::{fs, path::Path};

use digest::{OBJECT, RECORD, Record};
use functions::Function;
use instructions::FIGURES;

const HINT: &str = "run `cargo xtask build-ebpf` and commit the files that it writes";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn record() -> Record {
    let text = fs::read_to_string(root().join(RECORD));
    Record::from_text(&text.unwrap_or_else(|error| panic!("{RECORD}: {error}: {HINT}")))
}

fn functions() -> Vec<Function> {
    let object = fs::read(root().join(OBJECT)).unwrap();
    functions::of_object(&object).unwrap()
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

#[test]
fn no_program_has_outgrown_its_figure() {
    let now = instructions::of(&functions());
    assert!(now.contains_key("orch_ingress"), "{now:?}");
    let text = fs::read_to_string(root().join(FIGURES)).unwrap_or_default();
    let outgrown = instructions::outgrown(&instructions::from_text(&text), &now);
    assert!(
        outgrown.is_empty(),
        "{}: shorten it, or accept it by `cargo xtask build-ebpf --record` and commit {FIGURES}",
        outgrown.join(", ")
    );
}

#[test]
fn every_program_finds_room_on_the_stack() {
    let functions = functions();
    let calls = functions.iter().map(|function| function.calls.len());
    assert!(calls.sum::<usize>() > functions.len(), "calls are not seen");
    let beyond = stack::beyond(&functions);
    assert!(beyond.is_empty(), "{}", beyond.join("\n"));
}

#[test]
fn a_program_may_grow_by_a_tenth() {
    let figures = |count| instructions::from_text(&format!("orch_ingress {count}\n"));
    assert!(instructions::outgrown(&figures(1000), &figures(1100)).is_empty());
    assert_eq!(
        instructions::outgrown(&figures(1000), &figures(1101)).len(),
        1
    );
    assert_eq!(
        instructions::outgrown(&figures(1000), &instructions::from_text("new 1\n")).len(),
        1
    );
}

#[test]
fn a_build_keeps_figures() {
    let recorded = instructions::from_text("gone 3\nstays 10\n");
    let now = instructions::from_text("new 5\nstays 10000\n");
    let kept = instructions::kept(&recorded, &now);
    assert_eq!(instructions::to_text(&kept), "new 5\nstays 10\n");
}
