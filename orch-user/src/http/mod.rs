//! Mode `http`: the gateway. A process of its own that listens where clients connect, gives every
//! request to the next ready slot, and outlives the controller, so that no request is lost while
//! that restarts. The controller tells it its table over a unix socket and reads its counts back.

mod backend;
mod bell;
mod body;
mod connection;
mod control;
mod descriptors;
mod exchange;
mod forward;
mod framing;
mod guard;
mod headers;
mod host;
mod keeper;
mod lent;
mod listen;
mod lot;
mod page;
mod plain;
mod plane;
mod pool;
mod predecessor;
mod problem;
mod proxy_protocol;
mod repute;
mod route;
mod service;
mod socket;
mod stream;
mod tally;
mod tap;
mod tls;
mod wire;
mod worker;

pub use self::{
    control::{GatewayError, run},
    framing::{Broken, Framer},
    keeper::{Keeper, KeeperError, end, pid, socket_path},
    plane::Plane,
    tally::Counts,
    wire::{Client, Report, ServiceTable, SlotTable, Table, WireError},
};
