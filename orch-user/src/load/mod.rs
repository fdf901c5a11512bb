//! `orch load`: requests at times that a pattern fixes, whatever becomes of them.
//!
//! A generator that waits for an answer before it asks again goes easy on a server that is in
//! trouble, and hides how long others would have waited. This one is an open loop: [`arrivals`](crate::arrivals)
//! says when requests are due, [`engine`] sends them then, and their time counts from when they
//! were due. Data flows one way: plan -> engine -> [`tally`] -> [`report`] -> text, JSON, chart.

pub mod chart;
pub mod engine;
pub mod error;
mod pacer;
pub mod report;
pub mod tally;
pub mod target;
pub mod watch;
pub mod wire;
