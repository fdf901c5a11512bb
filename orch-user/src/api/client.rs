//! The verbs' side of the control socket.

use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time};

use super::{problem::Problem, write::Done};
use crate::{live::Live, view::EventRow};

/// Longest time for one question and its answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Why the controller gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error(
        "no controller answers at {}: start one with `orch run`, or name its socket with --control PATH or -f FILE",
        path.display()
    )]
    NoController {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket is another user's.
    #[error("{} is for root alone: run this as root", path.display())]
    NotAllowed {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It listens but does not answer.
    #[error("the controller at {} did not answer within {}s", path.display(), LIMIT.as_secs())]
    Silent {
        /// The socket's path.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the connection to {} broke", path.display())]
    Broken {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The answer is not what this version understands.
    #[error("{} answered {what} in a way that this version does not understand", path.display())]
    Garbled {
        /// The socket's path.
        path: PathBuf,
        /// What was asked.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The controller refused, and said why.
    #[error("{detail}")]
    Refused {
        /// Its sentence.
        detail: String,
    },
}

/// Asks the controller behind a socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of this socket. Nothing is opened yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Reads what is at `what`.
    pub async fn get<T: DeserializeOwned>(&self, what: &str) -> Result<T, ClientError> {
        let bytes = self
            .limited(self.ask(Method::GET, what, Bytes::new()))
            .await?;
        self.understand(what, &bytes)
    }

    /// Asks for a change; the answer is a sentence.
    pub async fn post(&self, what: &str, body: &impl Serialize) -> Result<String, ClientError> {
        let body = serde_json::to_vec(body).map_err(|source| self.garbled(what, source))?;
        let bytes = self
            .limited(self.ask(Method::POST, what, body.into()))
            .await?;
        let Done { message } = self.understand(what, &bytes)?;
        Ok(message)
    }

    /// Reads text.
    pub async fn text(&self, what: &str) -> Result<String, ClientError> {
        let asked = self.ask(Method::GET, what, Bytes::new());
        let bytes = self.limited(asked).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Follows the events after the one with id `last`.
    pub async fn follow(&self, last: u64) -> Result<Follower<EventRow>, ClientError> {
        let request = Request::get("/v1/events").header("last-event-id", last);
        self.stream("/v1/events", request).await
    }

    /// Looks on: first everything, then what is new.
    pub async fn watch(&self) -> Result<Follower<Live>, ClientError> {
        self.stream("/v1/live", Request::get("/v1/live")).await
    }

    async fn stream<T>(
        &self,
        what: &'static str,
        request: hyper::http::request::Builder,
    ) -> Result<Follower<T>, ClientError> {
        let request = request.header(header::ACCEPT, "text/event-stream");
        let request = request.body(Full::default());
        let response = self.limited(self.send(request)).await?;
        if !response.status().is_success() {
            let body = response.into_body().collect().await;
            let body = body.map_err(|source| self.broken(source))?.to_bytes();
            return Err(refusal(&body));
        }
        Ok(Follower {
            client: self.clone(),
            what,
            body: response.into_body(),
            read: Vec::new(),
            of: PhantomData,
        })
    }

    async fn ask(&self, method: Method, what: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(what)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body));
        let response = self.send(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|source| self.broken(source))?.to_bytes();
        if status.is_success() {
            Ok(body)
        } else {
            Err(refusal(&body))
        }
    }

    async fn send(
        &self,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = request.map_err(|error| ClientError::Refused {
            detail: format!("this cannot be asked: {error}"),
        })?;
        let host = header::HeaderValue::from_static("orch");
        request.headers_mut().insert(header::HOST, host);
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|source| self.unreachable(source))?;
        let connected = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.map_err(|source| self.broken(source))?;
        // Its errors reach the request's side, too.
        tokio::spawn(connection);
        let response = sender.send_request(request).await;
        response.map_err(|source| self.broken(source))
    }

    async fn limited<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let late = |_| {
            Err(ClientError::Silent {
                path: self.path.clone(),
            })
        };
        time::timeout(LIMIT, work).await.unwrap_or_else(late)
    }

    fn understand<T: DeserializeOwned>(&self, what: &str, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|source| self.garbled(what, source))
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        if source.kind() == io::ErrorKind::PermissionDenied {
            ClientError::NotAllowed { path, source }
        } else {
            ClientError::NoController { path, source }
        }
    }

    fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken {
            path: self.path.clone(),
            source,
        }
    }

    fn garbled(&self, what: &str, source: serde_json::Error) -> ClientError {
        ClientError::Garbled {
            path: self.path.clone(),
            what: what.to_owned(),
            source,
        }
    }
}

fn refusal(body: &[u8]) -> ClientError {
    let problem = serde_json::from_slice::<Problem>(body);
    ClientError::Refused {
        detail: problem.map_or_else(
            |_| String::from_utf8_lossy(body).into_owned(),
            |problem| problem.detail,
        ),
    }
}

/// What a stream brings, as it arrives.
#[derive(Debug)]
pub struct Follower<T> {
    client: Client,
    what: &'static str,
    body: Incoming,
    /// What has arrived and is not a whole line yet.
    read: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Follower<T> {
    /// The next one; `None` when the controller has ended. A call that is dropped loses nothing.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.read.drain(..=end).collect();
                // Every event is one line of data; its other lines repeat what the data says.
                if let Some(data) = line.strip_prefix(b"data:") {
                    return self.client.understand(self.what, data).map(Some);
                }
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            match frame {
                Ok(frame) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.read.extend_from_slice(&data);
                }
                // A controller that is killed does not end its answers, wherever it was in one.
                Err(error) => {
                    log::debug!("what was followed broke off: {error}");
                    return Ok(None);
                }
            }
        }
    }
}
