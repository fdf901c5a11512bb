//! When do requests come? Patterns and traces as arrival times: what `orch load` sends is what
//! `orch sim` simulates. Pure, and without a clock.

mod curve;
pub mod pattern;
pub mod trace;
