//! Programs that somebody else has detached, or whose pins he has removed: attached again; and maps: pinned again.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use aya::maps::{MapData, MapInfo};
use orch_common::{
    layout::{map, program},
    pin,
};

use super::{Dataplane, DataplaneError, attach, is_interface, pin::Pins, signals, sockets::At};

/// Which maps are pinned: by what the kernel calls them, so that they can be found without their pins.
pub(super) struct Maps(Vec<(&'static str, u32)>);

impl Maps {
    pub(super) fn of(pins: &Pins) -> Result<Self, DataplaneError> {
        let id = |name: &'static str| {
            let info = MapInfo::from_pin(pins.map(name)).map_err(DataplaneError::map(name))?;
            Ok((name, info.id()))
        };
        map::ALL
            .into_iter()
            .map(id)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Pins again those that are pinned no longer: whoever comes after this controller would begin with
    /// empty ones, and know of no connection. Says how many they were.
    fn mend(&self, pins: &mut Pins) -> Result<usize, DataplaneError> {
        let gone: Vec<_> = self
            .0
            .iter()
            .filter(|(name, _)| !pins.map(name).exists())
            .collect();
        if !gone.is_empty() {
            pins.restore()?;
        }
        for &&(name, id) in &gone {
            let data = MapData::from_id(id).map_err(DataplaneError::map(name))?;
            let path = pins.map(name);
            data.pin(&path).map_err(DataplaneError::pin(&path))?;
        }
        Ok(gone.len())
    }
}

impl Dataplane {
    /// Pins again what is pinned no longer and attaches what is attached no longer. Gives a sentence for each.
    pub(super) fn mend(&mut self) -> Result<Vec<String>, DataplaneError> {
        let maps = match self.maps.mend(&mut self.pins)? {
            0 => None,
            gone => Some(format!(
                "the pins of {gone} maps were removed by somebody, and are there again"
            )),
        };
        let mut sentences = self.mend_links()?;
        sentences.extend(maps);
        Ok(sentences)
    }

    /// Attaches again what is attached no longer and should be. Gives a sentence for each. What fails is
    /// tried again at the next look: the kernel may not be done with a link whose pin has gone.
    fn mend_links(&mut self) -> Result<Vec<String>, DataplaneError> {
        let (mut sentences, mut failed) = (Vec::new(), None);
        let mut again = Vec::new();
        for name in std::mem::take(&mut self.links) {
            if is_attached(&self.pins.link(&name)) {
                continue;
            }
            match self.attach_again(&name) {
                Ok(true) => sentences.push(format!(
                    "{name} was detached by somebody, and is attached again"
                )),
                Ok(false) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                    again.push(name);
                }
            }
        }
        self.links = self.pins.links()?;
        again.retain(|name| !self.links.contains(name));
        self.links.append(&mut again);
        failed.map_or(Ok(sentences), Err)
    }

    /// Attaches a program with its like, by the name of its pin; whether it is still wanted.
    fn attach_again(&mut self, name: &str) -> Result<bool, DataplaneError> {
        self.pins.restore()?;
        if let Some((index, _)) = attach::parse_link_name(name) {
            return self.attach_to_interface(index);
        }
        let (ebpf, pins) = (&mut self.ebpf, &self.pins);
        match name {
            program::EXIT => attach::exits(ebpf, pins)?,
            program::SIGNAL => signals::attach(ebpf, pins, true)?,
            program::DELIVER => signals::attach(ebpf, pins, false)?,
            program::DIAL => return self.watch_anew(At::Direct),
            program::SENT | program::RECEIVED => return self.watch_anew(At::Port),
            program::CONNECT4
            | program::CONNECT6
            | program::PEER4
            | program::PEER6
            | program::RELEASE => match self.sockets.root() {
                Some(root) => attach::local(ebpf, pins, root)?,
                None => return Ok(false),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn attach_to_interface(&mut self, index: u32) -> Result<bool, DataplaneError> {
        // Without TCX a filter stays where it is when its pin is gone.
        if !attach::has_tcx() || !is_interface(index) {
            return Ok(false);
        }
        let (ebpf, pins) = (&mut self.ebpf, &self.pins);
        let uplink = self.attached.iter().find(|(known, _)| known.index == index);
        let attached = if let Some((interface, role)) = uplink {
            attach::interface(ebpf, pins, interface, *role)
        } else if let Some(way) = self.ways.by(index) {
            attach::veth(ebpf, pins, way, self.sockets.are_balanced())
        } else {
            return Ok(false);
        };
        match attached {
            Ok(()) => Ok(true),
            // It may have gone meanwhile.
            Err(_) if !is_interface(index) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether a pin is there, and its link not detached. What is no link says nothing of where it is.
fn is_attached(path: &Path) -> bool {
    pin::open(path).is_ok_and(|link| !is_detached(&link))
}

/// A link that was detached lives on as long as its pin, and belongs to no interface and no cgroup
/// (`tcx_link_fdinfo` in kernel/bpf/tcx.c, `bpf_cgroup_link_show_fdinfo` in kernel/bpf/cgroup.c).
fn is_detached(link: &OwnedFd) -> bool {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()));
    text.is_ok_and(|text| text.lines().any(says_detached))
}

fn says_detached(line: &str) -> bool {
    let value = line
        .strip_prefix("ifindex:")
        .or(line.strip_prefix("cgroup_id:"));
    let number = value.and_then(|value| value.split_whitespace().next());
    number == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_link_is_told_from_others() {
        assert!(says_detached("ifindex:\t0"));
        assert!(says_detached("ifindex:\t0 ((detached))"));
        assert!(says_detached("cgroup_id:\t0"));
        for line in [
            "ifindex:\t10",
            "cgroup_id:\t1",
            "prog_id:\t0",
            "pos:\t0",
            "",
        ] {
            assert!(!says_detached(line), "{line}");
        }
    }
}
