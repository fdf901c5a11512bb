//! Before Linux 6.6 there are no links to interfaces: a program is the filter of a clsact qdisc, and
//! stays when the controller ends. A pin of the program says which filter is ours, as the pin of a
//! link does on later kernels, and lies in the same place.

use std::{fs, io, path::Path};

use aya::programs::{
    ProgramInfo, SchedClassifier, TcAttachType,
    links::Link,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle as Parent, TcMessage, TcOption},
};
use nix::net::if_::if_indextoname;
use orch_common::layout::program;

use super::{
    DataplaneError,
    attach::Place,
    links,
    pin::{Pins, remove_pin},
};

/// The mark of a qdisc that was not there before us.
const OWN_QDISC: &str = "qdisc";
/// A program's pin before its filter is in place: at any moment one of the two names it.
const NEXT: &str = "-next";

/// The priority that has its turn first: filters of other kinds may end the packet's way. It holds
/// filters of one kind alone, so it may be refused.
const FIRST: u16 = 1;
/// One that the kernel chooses.
const ANY: u16 = 0;

/// A filter of a qdisc.
struct Filter {
    priority: u16,
    handle: TcHandle,
    /// Its program, if it has one.
    program: Option<u32>,
}

/// Puts our program in the place of the one whose pin this is, without a gap, or beside whatever is
/// there.
pub(super) fn attach(
    tc: &mut SchedClassifier,
    pins: &Pins,
    place: Place<'_>,
    name: &'static str,
    path: &Path,
) -> Result<(), DataplaneError> {
    let failed = |source| DataplaneError::program(name, place.name)(source);
    let mark = mark(pins, place.index);
    if tc::qdisc_add_clsact(place.name).is_ok() && !mark.exists() {
        tc.pin(&mark).map_err(DataplaneError::pin(&mark))?;
    }
    let next = next(path);
    let old = find(place.index, place.kind, &[path, &next]);
    remove_pin(&next)?;
    tc.pin(&next).map_err(DataplaneError::pin(&next))?;
    let attached = if let Some(filter) = old {
        link(place, &filter).and_then(|link| tc.attach_to_link(link))
    } else {
        let mut at = |priority| {
            let options = NlOptions {
                priority,
                ..NlOptions::default()
            };
            let options = TcAttachOptions::Netlink(options);
            tc.attach_with_options(place.name, place.kind, options)
        };
        at(FIRST).or_else(|_| at(ANY))
    };
    let id = attached.map_err(failed)?;
    let failed = |source| DataplaneError::program(name, place.name)(source);
    // Dropping the link would detach the filter.
    std::mem::forget(tc.take_link(id).map_err(failed)?);
    fs::rename(&next, path).map_err(|source| DataplaneError::file(path, source))
}

/// Removes the filter whose program has this pin, and the qdisc if it was ours and is empty now. The
/// pin itself stays.
pub(super) fn detach(pins: &Pins, index: u32, name: &str, path: &Path) {
    // An interface that is gone has taken all of this with it.
    let Ok(device) = if_indextoname(index) else {
        return;
    };
    let device = device.to_string_lossy().into_owned();
    let kind = if [program::EGRESS, program::ENTRY].contains(&name) {
        TcAttachType::Egress
    } else {
        TcAttachType::Ingress
    };
    let place = Place {
        name: &device,
        index,
        kind,
    };
    let Some(filter) = find(index, kind, &[path, &next(path)]) else {
        return;
    };
    if let Err(error) = link(place, &filter).and_then(Link::detach) {
        log::warn!("{name} stays in the clsact qdisc of {device}: {error}");
    }
    let mark = mark(pins, index);
    let empty = [TcAttachType::Ingress, TcAttachType::Egress]
        .into_iter()
        .all(|kind| filters(index, kind).is_empty());
    if mark.exists() && empty {
        if let Err(error) = remove_qdisc(index) {
            log::warn!("the clsact qdisc of {device} stays: {error}");
        }
        let _ = remove_pin(&mark);
    }
}

/// Removes the mark of an interface that is gone, if there is one.
pub(super) fn forget_mark(pins: &Pins, index: u32) -> Result<(), DataplaneError> {
    remove_pin(&mark(pins, index))
}

/// Removes the marks of interfaces that are gone.
pub(super) fn forget_marks(pins: &Pins, exist: &[u32]) -> Result<(), DataplaneError> {
    for name in pins.links()? {
        let index = name
            .strip_prefix(OWN_QDISC)
            .and_then(|index| index.parse().ok());
        if index.is_some_and(|index| !exist.contains(&index)) {
            remove_pin(&pins.link(&name))?;
        }
    }
    Ok(())
}

/// Whether this is the name of such a mark.
pub(super) fn is_mark(name: &str) -> bool {
    name.starts_with(OWN_QDISC)
}

fn mark(pins: &Pins, index: u32) -> std::path::PathBuf {
    pins.link(&format!("{OWN_QDISC}{index}"))
}

fn next(path: &Path) -> std::path::PathBuf {
    let mut next = path.as_os_str().to_owned();
    next.push(NEXT);
    next.into()
}

fn link(
    place: Place<'_>,
    filter: &Filter,
) -> Result<SchedClassifierLink, aya::programs::ProgramError> {
    let Filter {
        priority, handle, ..
    } = *filter;
    SchedClassifierLink::attached(place.name, place.kind, priority, handle, None)
        .map_err(|source| tc::TcError::IoError(source).into())
}

/// The filter whose program has one of these pins.
fn find(index: u32, kind: TcAttachType, paths: &[&Path]) -> Option<Filter> {
    let ids: Vec<u32> = paths
        .iter()
        .filter_map(|path| ProgramInfo::from_pin(path).ok())
        .map(|info| info.id())
        .collect();
    let ours = |filter: &Filter| filter.program.is_some_and(|id| ids.contains(&id));
    filters(index, kind).into_iter().find(ours)
}

/// Every filter, ours and others'; none if there is no such qdisc.
fn filters(index: u32, kind: TcAttachType) -> Vec<Filter> {
    let mut question = TcMessage::with_index(index.cast_signed());
    question.header.parent = Parent {
        major: u16::MAX,
        minor: match kind {
            TcAttachType::Egress => Parent::MIN_EGRESS,
            _ => Parent::MIN_INGRESS,
        },
    };
    let answers = links::dump(RouteNetlinkMessage::GetTrafficFilter(question));
    let answers = answers.unwrap_or_default().into_iter();
    answers
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewTrafficFilter(message) => filter(message),
            _ => None,
        })
        .collect()
}

/// A filter of a dump. One without options stands for all of its priority.
fn filter(message: TcMessage) -> Option<Filter> {
    let handle = message.header.handle;
    let options = message.attributes.into_iter().find_map(|one| match one {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let program = options.into_iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(id),
        _ => None,
    });
    Some(Filter {
        priority: (message.header.info >> 16) as u16,
        handle: TcHandle::new(handle.major, handle.minor),
        program,
    })
}

fn remove_qdisc(index: u32) -> io::Result<()> {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = Parent::CLSACT;
    message.header.handle = Parent {
        major: u16::MAX,
        minor: 0,
    };
    message
        .attributes
        .push(TcAttribute::Kind("clsact".to_owned()));
    links::ask(RouteNetlinkMessage::DelQueueDiscipline(message))
}
