//! What controller and gateway say to each other over a unix socket: a length, then JSON.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::tally::Counts;
use crate::config::{CountConfig, HttpConfig, Listen};

/// Longest message.
const MOST: u32 = 16 << 20;

/// Everything that the gateway has to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Where the controller answers, for the status page.
    pub control: PathBuf,
    /// What is said to copies and by them may go from socket to socket.
    #[serde(default)]
    pub relay: bool,
    /// The services in mode http.
    pub services: Vec<ServiceTable>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTable {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub listen: Listen,
    /// Nobody may connect any more: it only drains.
    pub closed: bool,
    /// Routes and limits.
    pub http: HttpConfig,
    /// Which requests count.
    pub count: CountConfig,
    /// Ready slots in the order of their turns.
    pub ring: Vec<u16>,
    /// All slots, those that drain included.
    pub slots: Vec<SlotTable>,
}

impl ServiceTable {
    /// A service that has nothing, and listens nowhere.
    pub(super) fn empty(name: &str, http: &HttpConfig) -> Self {
        Self {
            name: name.to_owned(),
            listen: Listen {
                address: None,
                port: 0,
            },
            closed: true,
            http: http.clone(),
            count: CountConfig {
                prefix: "/".to_owned(),
                exclude: Vec::new(),
            },
            ring: Vec::new(),
            slots: Vec::new(),
        }
    }
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTable {
    /// Its number.
    pub slot: u16,
    /// Where its backend listens.
    pub address: SocketAddr,
    /// Raised with every new backend.
    pub generation: u32,
    /// It is a container that is reached at its own address: nobody is between who reads otherwise
    /// than a server (docker-proxy splices, and a splice does not see what was put into a socket).
    #[serde(default)]
    pub direct: bool,
    /// Raised whenever a probe has shown that it was passed by wrongly.
    #[serde(default)]
    pub pardons: u32,
}

/// What a gateway is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Who are you?
    Hello,
    /// Be like this.
    Set(Table),
    /// Go on from these counts.
    Seed(Report),
    /// What have you counted?
    Read,
    /// From now on send a byte whenever a request begins to wait, or a copy refuses.
    Watch,
    /// Stop to listen and hand the listening sockets over; finish what is open, then end. They
    /// follow as descriptors, in the order of the answer.
    Yield,
    /// End now.
    End,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Who it is.
    Hello(Greeting),
    /// Done.
    Done,
    /// Not done.
    Failed(String),
    /// Counts.
    Counts(Report),
    /// Whose sockets follow.
    Sockets(Vec<Socket>),
}

/// Who a gateway is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Which program: another one is replaced.
    pub version: String,
    /// Its pid.
    pub pid: u32,
    /// What it goes by.
    pub table: Table,
}

/// A listening socket: what for, and of which thread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Socket {
    pub(super) service: String,
    pub(super) address: SocketAddr,
    /// IPv4 as well as IPv6.
    pub(super) both: bool,
    pub(super) tls: bool,
    pub(super) thread: usize,
}

/// Counts of all slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By service.
    pub services: Vec<ServiceReport>,
}

/// Counts of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// Picks so far.
    pub cursor: u64,
    /// Requests that wait for a copy.
    pub waiting: u64,
    /// By slot.
    pub slots: Vec<SlotReport>,
}

/// Counts of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// Its number.
    pub slot: u16,
    /// Generation of its backend.
    pub generation: u32,
    /// Requests in flight at that backend.
    pub live: u64,
    /// Whether the backend refused a connection since the last report.
    pub refused: bool,
    /// Why requests pass it by: the number of an `EventKind`; 0 if they do not.
    #[serde(default)]
    pub passed_by: u32,
    /// How many pardons it has heard of.
    #[serde(default)]
    pub pardons: u32,
    /// Since the slot came into the table.
    pub counts: Counts,
}

impl Report {
    /// A slot's counts.
    pub fn slot(&self, service: &str, slot: u16) -> Option<&SlotReport> {
        let service = self.services.iter().find(|one| one.name == service)?;
        service.slots.iter().find(|one| one.slot == slot)
    }
}

/// Why the two do not understand each other.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection broke.
    #[error("the connection between controller and gateway broke")]
    Io(#[from] io::Error),
    /// The message is too long.
    #[error("a message of {0} bytes between controller and gateway is too long")]
    TooLong(u32),
    /// The message is of another version.
    #[error("a message between controller and gateway cannot be read")]
    Garbled(#[from] serde_json::Error),
    /// The other side did not do it.
    #[error("the gateway refused: {0}")]
    Refused(String),
    /// It is not the answer to what was asked.
    #[error("the gateway's answer does not fit the question")]
    Unexpected,
}

pub(super) fn send(mut to: &UnixStream, message: &impl Serialize) -> Result<(), WireError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let len = u32::try_from(bytes.len() - 4).map_err(|_| WireError::TooLong(u32::MAX))?;
    if len > MOST {
        return Err(WireError::TooLong(len));
    }
    if let Some(head) = bytes.first_chunk_mut() {
        *head = len.to_le_bytes();
    }
    Ok(to.write_all(&bytes)?)
}

pub(super) fn receive<T: DeserializeOwned>(mut from: &UnixStream) -> Result<T, WireError> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > MOST {
        return Err(WireError::TooLong(len));
    }
    let mut bytes = vec![0; len as usize];
    from.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The controller's end of the socket.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the gateway behind a socket. Each answer may take `limit`.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self, WireError> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self { stream })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn ask(&self, what: &Ask) -> Result<Answer, WireError> {
        send(&self.stream, what)?;
        match receive(&self.stream)? {
            Answer::Failed(why) => Err(WireError::Refused(why)),
            answer => Ok(answer),
        }
    }

    fn done(&self, what: &Ask) -> Result<(), WireError> {
        match self.ask(what)? {
            Answer::Done => Ok(()),
            _ => Err(WireError::Unexpected),
        }
    }

    /// Who it is.
    pub fn hello(&self) -> Result<Greeting, WireError> {
        match self.ask(&Ask::Hello)? {
            Answer::Hello(greeting) => Ok(greeting),
            _ => Err(WireError::Unexpected),
        }
    }

    /// Has it be like this. When it has answered, no request begins at a slot outside the ring.
    pub fn set(&self, table: &Table) -> Result<(), WireError> {
        self.done(&Ask::Set(table.clone()))
    }

    /// Has a new one go on from the counts of one that died.
    pub fn seed(&self, report: &Report) -> Result<(), WireError> {
        self.done(&Ask::Seed(report.clone()))
    }

    /// What it has counted.
    pub fn read(&self) -> Result<Report, WireError> {
        match self.ask(&Ask::Read)? {
            Answer::Counts(report) => Ok(report),
            _ => Err(WireError::Unexpected),
        }
    }

    /// Has it send a byte over the stream whenever a request begins to wait for a copy, or a copy
    /// refuses. Its end is the gateway's.
    pub fn watch(self) -> Result<UnixStream, WireError> {
        self.done(&Ask::Watch)?;
        self.stream.set_read_timeout(None)?;
        Ok(self.stream)
    }

    /// Ends it.
    pub fn end(&self) -> Result<(), WireError> {
        self.done(&Ask::End)
    }
}
