//! The `orch` binary.
fn main() {}
