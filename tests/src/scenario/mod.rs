//! A host with a whole orchestrator on it, and clients that check what it does.

pub mod client;
pub mod dice;
pub mod queries;
pub mod ring;
pub mod stage;
