//! Which interfaces the programs are attached to, now.

use aya::Ebpf;

use super::{
    DataplaneError,
    attach::{self, Role},
    host::{self, Bridge, Interface},
    pin::Pins,
    tables::Tables,
};
use crate::config::Interfaces;

/// What would be balanced on this host as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prospect {
    /// Interfaces by which outsiders would be balanced.
    pub uplinks: Vec<String>,
    /// Interfaces that are named, and can be no uplinks, with the reason.
    pub never: Vec<(String, &'static str)>,
    /// Interfaces that are named, and not there or not up.
    pub missing: Vec<String>,
    /// All that are up.
    pub known: Vec<String>,
}

impl Prospect {
    /// Looks at the host, and changes nothing. Needs no privileges.
    pub fn of(wanted: &Interfaces) -> Result<Self, DataplaneError> {
        let interfaces = host::look()?.interfaces;
        let names = match wanted {
            Interfaces::Named(names) => names.as_slice(),
            Interfaces::Auto => &[],
        };
        let is_known = |name: &&String| interfaces.iter().any(|known| known.name == **name);
        let uplinks = interfaces
            .iter()
            .filter(|known| host::role(known, wanted) == Some(Role::Uplink));
        let never = interfaces
            .iter()
            .filter(|known| names.contains(&known.name))
            .filter_map(|known| Some((known.name.clone(), host::never(known)?)));
        Ok(Self {
            uplinks: uplinks.map(|known| known.name.clone()).collect(),
            never: never.collect(),
            missing: names
                .iter()
                .filter(|name| !is_known(name))
                .cloned()
                .collect(),
            known: interfaces.iter().map(|known| known.name.clone()).collect(),
        })
    }
}

/// Every named interface must exist when the controller starts; later they may come and go.
pub(super) fn require(wanted: &Interfaces) -> Result<(), DataplaneError> {
    let prospect = Prospect::of(wanted)?;
    if let Some(name) = prospect.missing.first() {
        return Err(DataplaneError::NoInterface {
            name: name.clone(),
            known: prospect.known.join(", "),
        });
    }
    for (name, why) in prospect.never {
        log::warn!("dataplane.interfaces names {name}, which is no uplink: {why}");
    }
    Ok(())
}

/// What a look at the host has come to.
pub(super) struct Synced {
    pub(super) attached: Vec<(Interface, Role)>,
    /// By which containers talk to the host.
    pub(super) bridges: Vec<Bridge>,
    /// One per change.
    pub(super) sentences: Vec<String>,
}

/// Attaches what is new, lets go of what is gone, and writes the host's addresses.
pub(super) fn sync(
    ebpf: &mut Ebpf,
    pins: &Pins,
    tables: &mut Tables,
    wanted: &Interfaces,
    attached: &[(Interface, Role)],
) -> Result<Synced, DataplaneError> {
    let host::Seen {
        interfaces,
        exist,
        addresses,
    } = host::look()?;
    tables.set_addresses(&addresses)?;
    let bridges = host::inner_bridges(&interfaces, wanted);
    let up: Vec<u32> = interfaces.iter().map(|interface| interface.index).collect();
    // One that is down for a moment is not let go: it would come back before our programs.
    let is_down =
        |entry: &&(Interface, Role)| exist.contains(&entry.0.index) && !up.contains(&entry.0.index);
    let down = attached.iter().filter(is_down).cloned();
    let wanted: Vec<(Interface, Role)> = interfaces
        .into_iter()
        .filter_map(|interface| host::role(&interface, wanted).map(|role| (interface, role)))
        .chain(down)
        .collect();
    let same = |a: &(Interface, Role), b: &(Interface, Role)| a.0.index == b.0.index && a.1 == b.1;
    let mut now = Vec::new();
    let mut sentences = Vec::new();
    for entry in wanted {
        let (interface, role) = (&entry.0, entry.1);
        if !attached.iter().any(|known| same(known, &entry)) {
            // An interface may vanish between the look and the attachment: then it is no error.
            if let Err(error) = attach::interface(ebpf, pins, interface, role) {
                if host::look()?.exist.contains(&interface.index) {
                    return Err(error);
                }
                continue;
            }
            sentences.push(format!("{} is {}", interface.name, describe(role)));
        }
        now.push(entry);
    }
    for gone in attached
        .iter()
        .filter(|known| !now.iter().any(|entry| same(known, entry)))
    {
        sentences.push(format!("{} is no longer {}", gone.0.name, describe(gone.1)));
    }
    if !sentences.is_empty() || attached.is_empty() {
        let keep: Vec<(u32, Role)> = now.iter().map(|(i, role)| (i.index, *role)).collect();
        attach::forget_others(pins, &keep, &exist)?;
    }
    Ok(Synced {
        attached: now,
        bridges,
        sentences,
    })
}

const fn describe(role: Role) -> &'static str {
    match role {
        Role::Uplink => "balanced",
        Role::Guarded => "guarded",
    }
}
