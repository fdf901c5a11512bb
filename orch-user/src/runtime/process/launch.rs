//! Starting a process: checks, the text of its command and environment, the spawn itself.

use std::{
    collections::BTreeMap,
    env, fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::{AccessFlags, access};
use socket2::{Domain, Socket, Type};

use super::{in_file, log::Log};
use crate::{
    config::{BackendConfig, Volume},
    listeners,
    runtime::{Order, RuntimeError},
};

/// Whether the program of a service exists and can be executed.
pub(super) fn check_program(service: &str, backend: &BackendConfig) -> Result<(), RuntimeError> {
    let program = backend.command.first().map_or("", String::as_str);
    executable(program).map_err(|source| RuntimeError::Spawn {
        program: program.to_owned(),
        service: service.to_owned(),
        source,
    })
}

fn executable(program: &str) -> io::Result<()> {
    if program.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "backend.command is empty",
        ));
    }
    if program.contains('/') {
        return executable_file(Path::new(program));
    }
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "not in PATH"));
    for dir in env::split_paths(&env::var_os("PATH").unwrap_or_default()) {
        match executable_file(&dir.join(program)) {
            Ok(()) => return Ok(()),
            // A file that may not be executed says more than the directories without one.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => result = Err(error),
            Err(_) => {}
        }
    }
    result
}

fn executable_file(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(access(path, AccessFlags::X_OK)?)
}

/// Whether the slot port can be bound, on IPv4 and, where the host has it, on IPv6.
pub(super) fn port_free(order: &Order) -> Result<(), RuntimeError> {
    let port = order.slot_port;
    let addresses = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ];
    let taken = addresses
        .into_iter()
        .any(|address| bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse));
    if taken {
        let service = order.service.clone();
        let holder = listeners::holder_of(port);
        return Err(RuntimeError::PortTaken {
            port,
            service,
            holder,
        });
    }
    Ok(())
}

/// As a server would bind: past connections in TIME-WAIT, not past another listener.
fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

/// Starts the program as the leader of a process group of its own. Gives its pid.
pub(super) fn spawn(order: &Order, state_dir: &Path, log: &Log) -> Result<i32, RuntimeError> {
    let text = Text::of(order, state_dir)?;
    let failed = |source| RuntimeError::Spawn {
        program: text.command.join(" "),
        service: order.service.clone(),
        source,
    };
    let (program, arguments) = text
        .command
        .split_first()
        .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let child = Command::new(program)
        .args(arguments)
        .envs(&text.env)
        .stdin(Stdio::null())
        .stdout(log.file.try_clone().map_err(failed)?)
        .stderr(log.file.try_clone().map_err(failed)?)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    // The pid stays valid: the child is reaped through its pidfd, by nobody else.
    i32::try_from(child.id()).map_err(|_| failed(io::ErrorKind::InvalidData.into()))
}

/// Command and environment with everything replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
}

impl Text {
    /// Makes the directories of the volumes, too.
    pub(super) fn of(order: &Order, state_dir: &Path) -> Result<Self, RuntimeError> {
        let port = order.slot_port.to_string();
        let mut replaced = vec![("{port}".to_owned(), port.clone())];
        let mut env = BTreeMap::from([
            ("PORT".to_owned(), port),
            ("ORCH_SERVICE".to_owned(), order.service.clone()),
        ]);
        env.extend(
            order
                .slot
                .map(|slot| ("ORCH_SLOT".to_owned(), slot.to_string())),
        );
        for volume in &order.backend.volumes {
            let dir = volume_dir(state_dir, volume);
            fs::create_dir_all(&dir).map_err(in_file(&dir))?;
            let dir = dir.to_string_lossy().into_owned();
            env.insert(volume_variable(volume), dir.clone());
            replaced.push((format!("{{volume:{}}}", volume.source), dir));
        }
        let replace = |text: &String| {
            let start = text.clone();
            replaced
                .iter()
                .fold(start, |text, (from, to)| text.replace(from, to))
        };
        let own = &order.backend.env;
        env.extend(
            own.iter()
                .map(|(name, value)| (name.clone(), replace(value))),
        );
        let command = order.backend.command.iter().map(replace).collect();
        Ok(Self { command, env })
    }
}

/// A directory of the host is used as it is; a name lives below the state directory.
fn volume_dir(state_dir: &Path, volume: &Volume) -> PathBuf {
    let source = Path::new(&volume.source);
    if source.is_absolute() {
        return source.to_owned();
    }
    let name = volume.source.replace('/', "_");
    let name = if name.starts_with('.') {
        name.replacen('.', "_", 1)
    } else {
        name
    };
    state_dir.join("volumes").join(name)
}

fn volume_variable(volume: &Volume) -> String {
    let name = volume.source.chars().map(|c| match c.to_ascii_uppercase() {
        c @ ('A'..='Z' | '0'..='9') => c,
        _ => '_',
    });
    format!("ORCH_VOLUME_{}", name.collect::<String>())
}
