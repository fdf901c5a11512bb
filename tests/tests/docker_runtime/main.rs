//! The runtime of containers against the Docker engine of this host. Makes its own image, and
//! removes it and every container afterwards.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;
mod end;
mod gate;
mod life;
mod trouble;
