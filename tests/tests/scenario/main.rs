//! The course's seventeen steps, and what else its assignment asks for, against containers and
//! against plain processes, on the host's own ports 80 and 8000 to 8009.
//!
//! The script's waits are those of its text with `ORCH_REAL_TIME=1`; else windows, and the sleeps
//! that wait for them, are short. Tests whose name contains `docker` need an engine.
#![allow(clippy::unwrap_used, reason = "tests panic")]

mod acts;
mod script;
mod sizes;
mod steps;
