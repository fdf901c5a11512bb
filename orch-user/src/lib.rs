//! The controller of orch. `main.rs` is the binary; everything else is here, so that tests can use
//! it. Modules in reading order: what the user wrote, what is wanted and seen, what is decided,
//! and the edges where it meets the world.
#![forbid(unsafe_code)]

pub mod api;
pub mod arrivals;
pub mod beat;
mod capabilities;
pub mod chart;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod delivery;
pub mod descriptors;
pub mod events;
pub mod health;
pub mod history;
pub mod hold;
pub mod http;
pub mod kept;
pub mod listeners;
pub mod live;
pub mod load;
pub mod metrics;
pub mod overview;
pub mod plan;
pub mod ports;
pub mod reconcile;
pub mod runtime;
pub mod scale;
pub mod sim;
pub mod state;
pub mod table;
pub mod view;
