//! What would a policy have done? A simulator that lets the controller's own policies decide.

pub mod dist;
pub mod driver;
pub mod engine;
pub mod outcome;
pub mod plot;
pub mod study;
pub mod synthetic;
#[cfg(test)]
mod tests;
pub mod world;
