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

/// Every named interface must exist when the controller starts; later they may come and go.
pub(super) fn require(wanted: &Interfaces) -> Result<(), DataplaneError> {
    let Interfaces::Named(names) = wanted else {
        return Ok(());
    };
    let interfaces = host::look()?.interfaces;
    let missing = names
        .iter()
        .find(|name| interfaces.iter().all(|known| known.name != **name));
    let Some(name) = missing else {
        let found = interfaces
            .iter()
            .filter(|known| names.contains(&known.name));
        for (name, why) in found.filter_map(|known| Some((&known.name, host::never(known)?))) {
            log::warn!("dataplane.interfaces names {name}, which is no uplink: {why}");
        }
        return Ok(());
    };
    let known: Vec<&str> = interfaces.iter().map(|known| known.name.as_str()).collect();
    Err(DataplaneError::NoInterface {
        name: name.clone(),
        known: known.join(", "),
    })
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
