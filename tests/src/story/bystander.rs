//! A container that has nothing to do with orch: a client as any other.

use std::net::SocketAddr;

use crate::{netns::Entry, orch::docker};

/// It goes when this is dropped.
pub struct Bystander(String);

impl Bystander {
    /// Starts one.
    pub fn start(image: &str) -> Self {
        let started = docker(&["run", "--detach", "--rm", image]);
        Self(started.trim().to_owned())
    }

    fn asks(&self, of: &str) -> String {
        let format = format!("{{{{{of}}}}}");
        let told = docker(&["inspect", "--format", &format, &self.0]);
        told.trim().to_owned()
    }

    /// The way into its network namespace.
    pub fn entry(&self) -> Entry {
        Entry::of(self.asks(".State.Pid").parse().unwrap())
    }

    /// How it reaches a port of the host.
    pub fn to(&self, port: u16) -> SocketAddr {
        let gateway = self.asks("range .NetworkSettings.Networks}}{{.Gateway}}{{end");
        SocketAddr::new(gateway.parse().unwrap(), port)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        docker(&["kill", &self.0]);
    }
}
