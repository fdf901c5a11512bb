//! What must hold with every runtime: each function is a test.

pub mod blow;
pub mod bystander;
pub mod clients;
pub mod drill;
pub mod gateway;
pub mod hold;
pub mod lifetime;
pub mod refusals;
pub mod reload;
pub mod replace;
pub mod scale;
pub mod spare;
pub mod top;
pub mod trouble;
pub mod volume;
