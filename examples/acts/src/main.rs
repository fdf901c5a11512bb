//! `acts`: a notice board of good acts with pictures, as a service of many equal copies that share
//! one `SQLite` database. It knows nothing of orch; it is what orch runs in its demo and its tests.

mod app;
mod body;
mod error;
mod identity;
mod listen;
mod routes;
mod serve;
mod store;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use tokio::{net::TcpListener, runtime, signal::unix};

use crate::{app::App, error::StartError, identity::Identity, store::Store};

/// Queries that run at the same time in one copy. Each holds a thread and a connection.
const QUERIES: usize = 4;

/// Serves a notice board of acts with pictures.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Port to listen on, on every address; 0 lets the kernel choose.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// Directory of the database, which all copies share.
    #[arg(long, default_value = "/data")]
    data: PathBuf,
}

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<(), StartError> {
    let store = Store::create(&args.data)?;
    // One thread for the connections: more of the machine is used by running more copies.
    runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(QUERIES)
        .build()
        .map_err(StartError::Runtime)?
        .block_on(run(args.port, store))
}

async fn run(port: u16, store: Store) -> Result<(), StartError> {
    // Before anything is served: a process with the id 1 dies of no signal that it does not handle.
    let mut terminate = unix::signal(unix::SignalKind::terminate()).map_err(StartError::Runtime)?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt()).map_err(StartError::Runtime)?;
    let listener = TcpListener::from_std(listen::on_every_address(port)?)
        .map_err(|source| StartError::Listen { port, source })?;
    let local = listener
        .local_addr()
        .map_err(|source| StartError::Listen { port, source })?;
    let app = Arc::new(App::new(Identity::find(local.port()), store));
    eprintln!("acts: {} listens on {local}", app.identity.backend());
    serve::until(listener, app, async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await;
    Ok(())
}
