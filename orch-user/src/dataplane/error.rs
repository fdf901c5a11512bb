//! Why the data plane cannot be used.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use crate::http::KeeperError;
use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};

/// Why the data plane cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The gateway of services in mode http does not do its part.
    #[error("services in mode http are not what they should be")]
    Gateway {
        /// Why.
        #[source]
        source: KeeperError,
    },
    /// A pin or another file cannot be used.
    #[error("cannot use {path}")]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The BPF file system cannot be mounted.
    #[error(
        "cannot mount the BPF file system at {path}: run as root on a kernel with CONFIG_BPF_SYSCALL"
    )]
    Bpffs {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Pins can be kept on a BPF file system alone.
    #[error(
        "{path} is on no BPF file system: set dataplane.pin_dir to a directory below /sys/fs/bpf"
    )]
    NotBpffs {
        /// The directory of the pins.
        path: PathBuf,
    },
    /// Names with a dot are reserved there (`bpf_lookup`, kernel/bpf/inode.c).
    #[error(
        "a BPF file system takes no names with a dot: set dataplane.pin_dir to another than {path}"
    )]
    Dotted {
        /// The directory of the pins.
        path: PathBuf,
    },
    /// Another controller holds the pins.
    #[error(
        "another controller uses {path}: stop it, or set dataplane.pin_dir to another directory"
    )]
    Held {
        /// The directory of the pins.
        path: PathBuf,
    },
    /// Pinned maps do not fit this program.
    #[error(
        "the pinned map {path} has another shape ({found}, expected {expected}): run `orch down` first"
    )]
    Foreign {
        /// The pin.
        path: PathBuf,
        /// Type and sizes of what is there.
        found: String,
        /// Type and sizes of what is needed.
        expected: String,
    },
    /// The kernel refuses the object.
    #[error(
        "the kernel refuses the BPF object: run as root; `orch doctor` says what this kernel lacks"
    )]
    Object {
        /// Why.
        #[source]
        source: Box<EbpfError>,
    },
    /// A container cannot be reached past its bridge.
    #[error("no way into {netns} for {address}: {why}; set dataplane.delivery = \"port\"")]
    NoWay {
        /// The file of its network namespace.
        netns: PathBuf,
        /// Its address.
        address: IpAddr,
        /// What is missing.
        why: &'static str,
    },
    /// Map or program is not in the object: the build is broken.
    #[error("{name} is missing in the BPF object: rebuild it with `cargo xtask build-ebpf`")]
    Missing {
        /// Of map or program.
        name: &'static str,
    },
    /// The kernel refuses a program, or its attachment.
    #[error("the kernel refuses program {name} at {place}")]
    Program {
        /// The program.
        name: &'static str,
        /// Interface, cgroup directory, or `load`.
        place: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A link cannot be used.
    #[error("cannot use the pinned link {path}")]
    Link {
        /// Its pin.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<LinkError>,
    },
    /// Something cannot be pinned.
    #[error("cannot pin {path}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<PinError>,
    },
    /// A map cannot be read or written.
    #[error("cannot use map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// A configured interface does not exist, or is down.
    #[error("no interface {name} is up: dataplane.interfaces names it; up are: {known}")]
    NoInterface {
        /// The interface.
        name: String,
        /// Which are up.
        known: String,
    },
    /// There is no cgroup2 hierarchy.
    #[error(
        "there is no cgroup2 hierarchy in /proc/mounts: mount one (`mount -t cgroup2 none /sys/fs/cgroup`), or set dataplane.local = \"off\""
    )]
    NoCgroup2,
    /// The command program refused a slot.
    #[error("the kernel's table of slots refuses slot {slot} of service {service}")]
    Slot {
        /// Index of the service.
        service: u16,
        /// Number of the slot.
        slot: u16,
    },
}

impl DataplaneError {
    pub(super) fn file(path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::File {
            path: path.into(),
            source: source.into(),
        }
    }

    pub(super) fn pin(path: &Path) -> impl FnOnce(PinError) -> Self {
        let path = path.to_owned();
        move |source| Self::Pin {
            path,
            source: Box::new(source),
        }
    }

    pub(super) fn map(name: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map {
            name,
            source: Box::new(source),
        }
    }

    pub(super) fn program(name: &'static str, place: &str) -> impl FnOnce(ProgramError) -> Self {
        let place = place.to_owned();
        move |source| Self::Program {
            name,
            place,
            source: Box::new(source),
        }
    }
}
