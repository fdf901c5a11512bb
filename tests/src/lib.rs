//! What the tests that need root have in common: namespaces, frames, waiting.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a test that cannot go on panics, with a trace that says where"
)]

pub mod fixture;
pub mod frame;
pub mod netns;
pub mod scenario;
pub mod server;
pub mod wait;
