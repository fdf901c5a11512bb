//! What the tests that need root have in common: a running orch,
//! namespaces, frames, load, waiting.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a test that cannot go on panics, with a trace that says where"
)]

pub mod browser;
pub mod client;
pub mod cna;
pub mod engine;
pub mod fixture;
pub mod frame;
pub mod leftovers;
pub mod load;
pub mod measure;
pub mod netns;
pub mod orch;
pub mod outside;
pub mod scenario;
pub mod server;
pub mod story;
pub mod tcp_info;
pub mod terminal;
pub mod timeline;
pub mod volley;
pub mod wait;
