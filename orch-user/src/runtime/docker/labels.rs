//! The labels of our containers: how they are found, and adopted by the next controller.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::{delivery::Way, runtime::Order};

const SERVICE: &str = "orch.service";
const SLOT: &str = "orch.slot";
/// In the place of a slot's number. Labels cannot change, so it says what it was made for.
const SPARE: &str = "spare";
/// The slot's port on the host.
const PORT: &str = "orch.port";
/// The port inside the container.
const INNER_PORT: &str = "orch.inner_port";
const SPEC: &str = "orch.spec";
const INSTANCE: &str = "orch.instance";
/// Absent from containers of versions that knew delivery `port` alone.
const DELIVERY: &str = "orch.delivery";

/// What the labels of a container say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) service: String,
    pub(super) slot: Option<u16>,
    port: u16,
    inner_port: u16,
    pub(super) spec: String,
    pub(super) direct: bool,
}

impl Labels {
    pub(super) fn of_order(order: &Order) -> Self {
        Self {
            service: order.service.clone(),
            slot: order.slot,
            port: order.slot_port,
            inner_port: order.backend.port,
            spec: order.spec.clone(),
            direct: order.direct,
        }
    }

    /// As the engine wants them.
    pub(super) fn to_map(&self, instance: &str) -> HashMap<String, String> {
        let slot = self
            .slot
            .map_or_else(|| SPARE.to_owned(), |slot| slot.to_string());
        let way = if self.direct { Way::Direct } else { Way::Port };
        let labels = [
            (DELIVERY, way.name().to_owned()),
            (SERVICE, self.service.clone()),
            (SLOT, slot),
            (PORT, self.port.to_string()),
            (INNER_PORT, self.inner_port.to_string()),
            (SPEC, self.spec.clone()),
            (INSTANCE, instance.to_owned()),
        ];
        labels
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// `None` if one is missing or makes no sense.
    pub(super) fn parse(labels: &HashMap<String, String>) -> Option<Self> {
        let number = |name| labels.get(name)?.parse().ok();
        Some(Self {
            service: labels.get(SERVICE)?.clone(),
            slot: match labels.get(SLOT)?.as_str() {
                SPARE => None,
                slot => Some(slot.parse().ok()?),
            },
            port: number(PORT)?,
            inner_port: number(INNER_PORT)?,
            spec: labels.get(SPEC)?.clone(),
            direct: labels
                .get(DELIVERY)
                .is_some_and(|way| way == Way::Direct.name()),
        })
    }

    /// Where the container listens, seen from the host.
    pub(super) fn address(&self, own: Option<IpAddr>) -> SocketAddr {
        match own {
            Some(address) => (address, self.inner_port).into(),
            None => (Ipv4Addr::LOCALHOST, self.port).into(),
        }
    }
}

/// The filter for the containers of an instance.
pub(super) fn selector(instance: &str) -> String {
    format!("{INSTANCE}={instance}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels {
            service: "web".to_owned(),
            slot: Some(3),
            port: 8003,
            inner_port: 80,
            spec: "abc".to_owned(),
            direct: true,
        }
    }

    #[test]
    fn there_and_back() {
        let map = labels().to_map("/pins");
        assert_eq!(Labels::parse(&map), Some(labels()));
        assert_eq!(map[INSTANCE], "/pins");
        for name in [SERVICE, SLOT, PORT, INNER_PORT, SPEC] {
            let mut map = map.clone();
            map.remove(name);
            assert_eq!(Labels::parse(&map), None, "without {name}");
        }
        let mut map = map;
        map.remove(DELIVERY);
        assert!(
            !Labels::parse(&map).unwrap().direct,
            "of an earlier version"
        );
        map.insert(SLOT.to_owned(), "x".to_owned());
        assert_eq!(Labels::parse(&map), None);
    }

    #[test]
    fn a_spare_says_so() {
        let spare = Labels {
            slot: None,
            ..labels()
        };
        let map = spare.to_map("/pins");
        assert_eq!(map[SLOT], "spare");
        assert_eq!(Labels::parse(&map), Some(spare));
    }

    #[test]
    fn its_own_address_or_the_slot_port() {
        let own = "172.17.0.2".parse().ok();
        assert_eq!(labels().address(own).to_string(), "172.17.0.2:80");
        assert_eq!(labels().address(None).to_string(), "127.0.0.1:8003");
    }
}
