//! Packet tables: what goes in, the verdict, what comes out byte for byte, through
//! `BPF_PROG_TEST_RUN`. Checksums are right in what is expected, so they are verified too.
#![allow(clippy::unwrap_used, reason = "tests panic")]
#![allow(clippy::too_many_lines, reason = "tables")]

mod belief;
mod connection;
mod direct;
mod edges;
mod flood;
mod foreign;
mod guard;
mod hold;
mod icmp;
mod inside;
mod many;
mod pulse;
mod random;
mod rescue;
mod tally;
mod turns;
mod untouched;
mod ways;
mod world;
