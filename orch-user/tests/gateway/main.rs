//! The gateway of mode http on loopback, against copies that the tests make: no kernel programs, no
//! root.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers, too")]

mod answers;
mod bench;
mod fault;
mod hostile;
mod loss;
mod proxy;
mod repute;
mod tally;
mod tls;
