//! TLS for clients: a certificate from files, read again when they change.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use tokio::time::timeout;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

use super::{service::locked, socket::Socket, stream::Early};
use crate::config::TlsConfig;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// A file is not PEM, or has not what it should have.
    #[error("{} has no certificate or key in PEM: {source}", path.display())]
    Pem {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    /// A file is PEM or text, and has no certificate.
    #[error("{} has no certificate in PEM", path.display())]
    None { path: PathBuf },
    /// Certificate and key do not fit.
    #[error("{} cannot be used with its key: {source}", path.display())]
    Unfit {
        path: PathBuf,
        source: rustls::Error,
    },
}

/// A certificate that follows its files.
#[derive(Debug)]
pub(super) struct Certificate {
    config: TlsConfig,
    server: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Stamp>,
}

/// When the two files were last changed.
type Stamp = [Option<SystemTime>; 2];

impl Certificate {
    pub(super) fn load(config: &TlsConfig) -> Result<Self, CertificateError> {
        let seen = stamp(config);
        Ok(Self {
            server: RwLock::new(Arc::new(read(config)?)),
            seen: Mutex::new(seen),
            config: config.clone(),
        })
    }

    /// Whether it is the one that is asked for.
    pub(super) fn is(&self, config: &TlsConfig) -> bool {
        self.config == *config
    }

    /// Reads the files again if they have changed. A bad certificate leaves the old one in force.
    pub(super) fn follow(&self) {
        let now = stamp(&self.config);
        let before = std::mem::replace(&mut *locked(&self.seen), now);
        if before == now {
            return;
        }
        match read(&self.config) {
            Ok(server) => {
                let mut held = self.server.write().unwrap_or_else(PoisonError::into_inner);
                *held = Arc::new(server);
                log::info!("{} was read again", self.config.certificate.display());
            }
            Err(error) => log::error!("the old certificate stays: {error}"),
        }
    }

    fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Greets a client.
    pub(super) async fn accept(
        &self,
        stream: Socket,
        early: Vec<u8>,
        limit: Duration,
    ) -> Option<TlsStream<Early<Socket>>> {
        let acceptor = TlsAcceptor::from(self.server());
        match timeout(limit, acceptor.accept(Early { stream, early })).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                log::debug!("a client's TLS fails: {error}");
                None
            }
            Err(_) => None,
        }
    }
}

fn stamp(config: &TlsConfig) -> Stamp {
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    [changed(&config.certificate), changed(&config.key)]
}

fn read(config: &TlsConfig) -> Result<ServerConfig, CertificateError> {
    let text = |path: &Path| {
        fs::read(path).map_err(|source| CertificateError::File {
            path: path.to_owned(),
            source,
        })
    };
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Pem { path, source }
    };
    let chain = CertificateDer::pem_slice_iter(&text(&config.certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem(&config.certificate))?;
    if chain.is_empty() {
        let path = config.certificate.clone();
        return Err(CertificateError::None { path });
    }
    let key = PrivateKeyDer::from_pem_slice(&text(&config.key)?).map_err(pem(&config.key))?;
    let unfit = |source| CertificateError::Unfit {
        path: config.certificate.clone(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut server = builder
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unfit)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}
