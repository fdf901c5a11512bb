//! `cna`: a service whose copies do one request at a time, half a second each. What comes meanwhile
//! waits, in the order in which it came. It knows nothing of orch; it is what its scaling is tried on.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{self, ExitCode},
    sync::Arc,
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::get};
use clap::Parser;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{SignalKind, signal},
    sync::{Mutex, Notify},
    time,
};

/// Connections that may wait for `accept`; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// When a stop ends, whatever still waits: below the ten seconds that engines wait.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// Serves requests one at a time.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Port to listen on, on every address; 0 lets the kernel choose.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// How long a request takes, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    work: u64,
}

/// One copy.
struct Copy {
    id: String,
    port: u16,
    work: Duration,
    /// Held by the request that is being done. It goes to those that wait in their order.
    turn: Mutex<()>,
    stop: Notify,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // One thread: the work is waiting.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cna: cannot serve on port {}: {error}", args.port);
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &Args) -> io::Result<()> {
    // Before anything is served: a process with the id 1 dies of no signal that it does not handle.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::from_std(listen(args.port)?)?;
    let local = listener.local_addr()?;
    let copy = Arc::new(Copy {
        id: id(),
        port: local.port(),
        work: Duration::from_millis(args.work),
        turn: Mutex::new(()),
        stop: Notify::new(),
    });
    eprintln!("cna: {}:{} listens on {local}", copy.id, copy.port);
    let router = Router::new()
        .route("/doWork", get(do_work).post(do_work))
        .route("/heartbeat", get(heartbeat))
        .route("/stop", get(stop).post(stop))
        .with_state(Arc::clone(&copy));
    let (stopped, stopping) = tokio::sync::oneshot::channel();
    let until = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = copy.stop.notified() => {}
        }
        // Nobody listening means that the server has ended by itself.
        let _ = stopped.send(());
    };
    let served = axum::serve(listener, router).with_graceful_shutdown(until);
    tokio::select! {
        outcome = served.into_future() => outcome,
        () = async { if stopping.await.is_ok() { time::sleep(STOP_LIMIT).await } } => Ok(()),
    }
}

/// Half a second of work, after that of all who came before.
async fn do_work(State(copy): State<Arc<Copy>>) -> Json<Value> {
    let _turn = copy.turn.lock().await;
    time::sleep(copy.work).await;
    Json(copy.answer("done"))
}

async fn heartbeat(State(copy): State<Arc<Copy>>) -> Json<Value> {
    Json(copy.answer("tick"))
}

/// Answers what is there, and ends.
async fn stop(State(copy): State<Arc<Copy>>) -> Json<Value> {
    copy.stop.notify_one();
    Json(copy.answer("stopping"))
}

impl Copy {
    fn answer(&self, what: &str) -> Value {
        json!({ "answer": what, "id": self.id, "port": self.port })
    }
}

/// The container's id, which an engine gives as host name to the process 1; else the process id.
fn id() -> String {
    let pid = process::id();
    let name = (pid == 1).then(|| fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let name = name.flatten().map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| pid.to_string())
}

/// Listens on every IPv6 and IPv4 address, or on every IPv4 address where IPv6 is off.
fn listen(port: u16) -> io::Result<std::net::TcpListener> {
    let on = |address: SocketAddr| -> io::Result<std::net::TcpListener> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // A replacement listens on the port whose old connections are still in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    match on((Ipv6Addr::UNSPECIFIED, port).into()) {
        // Another listener is no reason to try the other family.
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
            ) =>
        {
            on((Ipv4Addr::UNSPECIFIED, port).into())
        }
        outcome => outcome,
    }
}
