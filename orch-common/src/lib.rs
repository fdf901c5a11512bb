//! What orch's kernel programs and its controller both have to know: the layout of the BPF maps,
//! and the decisions that either side may make. `no_std`, without dependencies by default.
//!
//! Addresses are 16 bytes in network order, IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2). Ports are
//! `u16` in host order. Nothing here knows the order of bytes on the wire.
#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod address;
pub mod command;
pub mod counter;
pub mod event;
pub mod flow;
#[cfg(feature = "user")]
pub mod heap;
pub mod hold;
pub mod http;
pub mod latency;
pub mod layout;
#[cfg(feature = "user")]
pub mod netns;
#[cfg(feature = "user")]
pub mod pin;
#[cfg(feature = "user")]
mod pod;
pub mod pulse;
pub mod relay;
pub mod select;
pub mod service;
pub mod slot;
pub mod syn;
