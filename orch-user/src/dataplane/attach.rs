//! Links: programs on interfaces and on the cgroup2 root, pinned so that they outlive the controller.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, LinkOrder,
        RawTracePoint, SchedClassifier, SockOps, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
    },
    util::KernelVersion,
};
use orch_common::layout::program;

use super::{
    DataplaneError, clsact,
    host::Interface,
    load::{self, classifier, typed},
    pin::{Pins, remove_pin},
    sandbox::Way,
};

/// Which programs an interface gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Balanced: ingress and egress.
    Uplink,
    /// Outsiders are kept off slot ports, no more.
    Guarded,
}

/// Where a program is attached.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The interface's name.
    pub(super) name: &'a str,
    /// Its index.
    pub(super) index: u32,
    /// Which way packets go there.
    pub(super) kind: TcAttachType,
}

/// Attaches an interface's programs, or replaces what an earlier controller left attached.
pub(super) fn interface(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interface: &Interface,
    role: Role,
) -> Result<(), DataplaneError> {
    let inwards = Place {
        name: &interface.name,
        index: interface.index,
        kind: TcAttachType::Ingress,
    };
    let outwards = Place {
        kind: TcAttachType::Egress,
        ..inwards
    };
    match role {
        Role::Uplink => {
            hook(ebpf, pins, inwards, program::INGRESS)?;
            hook(ebpf, pins, outwards, program::EGRESS)
        }
        Role::Guarded => hook(ebpf, pins, inwards, program::GUARD),
    }
}

/// Attaches the program for replies to the host's end of a backend's interface, and where clients of
/// this host are balanced the one that counts what they send; or replaces them.
pub(super) fn veth(
    ebpf: &mut Ebpf,
    pins: &Pins,
    way: &Way,
    local: bool,
) -> Result<(), DataplaneError> {
    let out_of_it = Place {
        name: &way.name,
        index: way.ifindex,
        kind: TcAttachType::Ingress,
    };
    hook(ebpf, pins, out_of_it, program::VETH)?;
    if !local {
        return let_go(pins, &link_name(way.ifindex, program::ENTRY));
    }
    let into_it = Place {
        kind: TcAttachType::Egress,
        ..out_of_it
    };
    hook(ebpf, pins, into_it, program::ENTRY)
}

/// Whether the program for replies is there.
pub(super) fn has_veth(pins: &Pins, ifindex: u32) -> bool {
    pins.link(&link_name(ifindex, program::VETH)).exists()
}

/// Forgets those of an interface that is gone, and that its qdisc was ours.
pub(super) fn forget_veth(pins: &Pins, ifindex: u32) -> Result<(), DataplaneError> {
    let_go(pins, &link_name(ifindex, program::ENTRY))?;
    let_go(pins, &link_name(ifindex, program::VETH))?;
    clsact::forget_mark(pins, ifindex)
}

fn hook(
    ebpf: &mut Ebpf,
    pins: &Pins,
    place: Place<'_>,
    name: &'static str,
) -> Result<(), DataplaneError> {
    let tc = classifier(ebpf, name)?;
    let path = pins.link(&link_name(place.index, name));
    if !has_tcx() {
        return clsact::attach(tc, pins, place, name, &path);
    }
    if path.exists() && replace(tc, &path)? {
        return Ok(());
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let failed = |source| DataplaneError::program(name, place.name)(source);
    let id = tc
        .attach_with_options(place.name, place.kind, order)
        .map_err(failed)?;
    let failed = |source| DataplaneError::program(name, place.name)(source);
    let link = tc.take_link(id).map_err(failed)?;
    pin(link, &path)
}

/// Puts our program in the place of the one that a pinned link holds, without a gap. `false` if
/// the link's interface is gone: then the pin is removed.
fn replace(tc: &mut SchedClassifier, path: &Path) -> Result<bool, DataplaneError> {
    let at = |source: LinkError| DataplaneError::Link {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let link: FdLink = PinnedLink::from_pin(path).map_err(at)?.into();
    let link = SchedClassifierLink::try_from(link).map_err(at)?;
    if let Ok(id) = tc.attach_to_link(link) {
        // The pin holds the link; held here as well, it would outlive its pin.
        drop(tc.take_link(id));
        return Ok(true);
    }
    remove_pin(path)?;
    Ok(false)
}

/// Makes another layout's links of interfaces ours, so that our programs take the place of its
/// programs at once. Left to the removal of their pins they would go on for some time, and take
/// what ours have balanced for an outsider's.
pub(super) fn take_over(pins: &Pins, other: &Pins) -> Result<(), DataplaneError> {
    for name in other.links()? {
        let ours = name.starts_with(LINK_PREFIX) || clsact::is_mark(&name);
        if ours && !pins.link(&name).exists() {
            let old = other.link(&name);
            fs::rename(&old, pins.link(&name))
                .map_err(|source| DataplaneError::file(old, source))?;
        }
    }
    Ok(())
}

/// Attaches the cgroup hooks. An earlier controller's are removed after ours are in place: of two
/// connect hooks the older one acts and the newer one finds nothing to do.
pub(super) fn local(ebpf: &mut Ebpf, pins: &Pins, cgroup: &Path) -> Result<(), DataplaneError> {
    let root = File::open(cgroup).map_err(|source| DataplaneError::file(cgroup, source))?;
    // Links always allow others beside them, and refuse to be told so.
    let mode = CgroupAttachMode::Single;
    let place = cgroup.display().to_string();
    for name in [
        program::CONNECT4,
        program::CONNECT6,
        program::PEER4,
        program::PEER6,
    ] {
        let hook: &mut CgroupSockAddr = typed(ebpf, name)?;
        let id = hook
            .attach(&root, mode)
            .map_err(DataplaneError::program(name, &place))?;
        let link = hook
            .take_link(id)
            .map_err(DataplaneError::program(name, &place))?;
        pin(link, &pins.link(name))?;
    }
    let name = program::RELEASE;
    let hook: &mut CgroupSock = typed(ebpf, name)?;
    let id = hook
        .attach(&root, mode)
        .map_err(DataplaneError::program(name, &place))?;
    let link = hook
        .take_link(id)
        .map_err(DataplaneError::program(name, &place))?;
    pin(link, &pins.link(name))?;
    Ok(())
}

/// Attaches the program that sees every TCP socket below a cgroup connect. An earlier controller's is
/// removed after ours is in place: both together do no harm.
pub(super) fn dials(ebpf: &mut Ebpf, pins: &Pins, cgroup: &Path) -> Result<(), DataplaneError> {
    let root = File::open(cgroup).map_err(|source| DataplaneError::file(cgroup, source))?;
    let place = cgroup.display().to_string();
    let name = program::DIAL;
    let hook: &mut SockOps = typed(ebpf, name)?;
    let id = hook
        .attach(&root, CgroupAttachMode::Single)
        .map_err(DataplaneError::program(name, &place))?;
    let link = hook
        .take_link(id)
        .map_err(DataplaneError::program(name, &place))?;
    pin(link, &pins.link(name))
}

/// Detaches it.
pub(super) fn no_dials(pins: &Pins) -> Result<(), DataplaneError> {
    remove_pin(&pins.link(program::DIAL))
}

/// Attaches the programs that see the packets of every socket below a cgroup. Both of an earlier
/// controller and ours would count twice: its go first.
pub(super) fn sockets(ebpf: &mut Ebpf, pins: &Pins, cgroup: &Path) -> Result<(), DataplaneError> {
    no_sockets(pins)?;
    let root = File::open(cgroup).map_err(|source| DataplaneError::file(cgroup, source))?;
    let mode = CgroupAttachMode::Single;
    let place = cgroup.display().to_string();
    for (name, kind) in [
        (program::SENT, CgroupSkbAttachType::Egress),
        (program::RECEIVED, CgroupSkbAttachType::Ingress),
    ] {
        let hook: &mut CgroupSkb = typed(ebpf, name)?;
        let id = hook
            .attach(&root, kind, mode)
            .map_err(DataplaneError::program(name, &place))?;
        let link = hook
            .take_link(id)
            .map_err(DataplaneError::program(name, &place))?;
        pin(link, &pins.link(name))?;
    }
    Ok(())
}

/// Detaches them.
pub(super) fn no_sockets(pins: &Pins) -> Result<(), DataplaneError> {
    remove_pin(&pins.link(program::SENT))?;
    remove_pin(&pins.link(program::RECEIVED))
}

/// Detaches what is attached below the cgroup root.
pub(super) fn no_local(pins: &Pins) -> Result<(), DataplaneError> {
    for name in [
        program::CONNECT4,
        program::CONNECT6,
        program::PEER4,
        program::PEER6,
        program::RELEASE,
    ] {
        remove_pin(&pins.link(name))?;
    }
    no_dials(pins)?;
    no_sockets(pins)
}

/// Attaches the hook that sees backends end. An earlier controller's is removed after ours is in
/// place: both together do no harm.
pub(super) fn exits(ebpf: &mut Ebpf, pins: &Pins) -> Result<(), DataplaneError> {
    const PLACE: &str = "sched_process_exit";
    let failed = |source| DataplaneError::program(program::EXIT, PLACE)(source);
    let hook: &mut RawTracePoint = typed(ebpf, program::EXIT)?;
    load::once(hook.load()).map_err(failed)?;
    let id = hook.attach(PLACE).map_err(failed)?;
    let failed = |source| DataplaneError::program(program::EXIT, PLACE)(source);
    let link = hook.take_link(id).map_err(failed)?;
    keep(link.into(), &pins.link(program::EXIT))
}

pub(super) fn pin<L>(link: L, path: &Path) -> Result<(), DataplaneError>
where
    FdLink: TryFrom<L, Error = LinkError>,
{
    let link = FdLink::try_from(link).map_err(|source| DataplaneError::Link {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    keep(link, path)
}

/// Pins a link in the place of what was pinned there.
pub(super) fn keep(link: FdLink, path: &Path) -> Result<(), DataplaneError> {
    remove_pin(path)?;
    link.pin(path).map_err(DataplaneError::pin(path))?;
    Ok(())
}

/// Removes the links of interfaces that are gone, and of roles that an interface no longer has.
/// Backends' interfaces stay as long as they `exist`: slots decide on them.
pub(super) fn forget_others(
    pins: &Pins,
    wanted: &[(u32, Role)],
    exist: &[u32],
) -> Result<(), DataplaneError> {
    let of_backends = [program::VETH, program::ENTRY];
    let veths = exist
        .iter()
        .flat_map(|index| of_backends.map(|name| link_name(*index, name)));
    let keep: Vec<String> = wanted
        .iter()
        .flat_map(|&(index, role)| match role {
            Role::Uplink => vec![
                link_name(index, program::INGRESS),
                link_name(index, program::EGRESS),
            ],
            Role::Guarded => vec![link_name(index, program::GUARD)],
        })
        .chain(veths)
        .collect();
    for name in pins.links()? {
        if name.starts_with(LINK_PREFIX) && !keep.contains(&name) {
            let_go(pins, &name)?;
        }
    }
    clsact::forget_marks(pins, exist)
}

/// Removes the filters that stand for links where there are none.
pub(super) fn remove_filters(pins: &Pins) -> Result<(), DataplaneError> {
    for name in pins.links()? {
        if name.starts_with(LINK_PREFIX) {
            let_go(pins, &name)?;
        }
    }
    Ok(())
}

/// Detaches what this pin of an interface's program holds.
fn let_go(pins: &Pins, name: &str) -> Result<(), DataplaneError> {
    let path = pins.link(name);
    if !has_tcx()
        && let Some((index, program)) = parse_link_name(name)
    {
        clsact::detach(pins, index, program, &path);
    }
    remove_pin(&path)
}

/// Interfaces by index: names may hold dots, which the BPF file system reserves, and an interface
/// that comes back under its old name is another one.
const LINK_PREFIX: &str = "if";

fn link_name(index: u32, program: &str) -> String {
    format!("{LINK_PREFIX}{index}-{program}")
}

pub(super) fn parse_link_name(name: &str) -> Option<(u32, &str)> {
    let (index, program) = name.strip_prefix(LINK_PREFIX)?.split_once('-')?;
    Some((index.parse().ok()?, program))
}

/// Whether the kernel has TCX (6.6).
pub fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// Where the cgroup2 hierarchy is mounted.
pub fn cgroup2_root() -> io::Result<Option<std::path::PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    Ok(mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| path.into())
    }))
}
