//! `orch top`: the status page's picture in a terminal.

mod draw;
mod model;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal, Stdout},
    path::PathBuf,
    time::Duration,
};

use ratatui::{
    DefaultTerminal, Terminal,
    backend::CrosstermBackend,
    crossterm::event::{self, Event, KeyEvent},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use self::model::{Model, Onward};
use super::{CliError, Target};
use crate::{
    api::client::{Client, ClientError, Follower},
    live::Live,
};

/// Between two tries to reach a controller that has gone, and between two looks at a log.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the thread that reads keys waits before it looks whether it is still wanted.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Lines of a log that are asked for.
const LOG_LINES: usize = 500;

/// Shows services, slots and events as they change, in the terminal
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch top\n  \
    orch top -f /etc/orch.toml\n\n\
    Keys:\n  \
    up, down     chooses a slot            enter, l  follows its log\n  \
    s, r         sorts by another column, the other way round\n  \
    /            shows only slots that match; esc shows all\n  \
    q, Ctrl-C    ends")]
pub(super) struct Args {
    /// Configuration file; the controller is the one behind its `control` socket
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    socket: super::target::Socket,
}

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    let target = Target {
        file: args.file,
        socket: args.socket,
    };
    let client = target.or(before).client()?;
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(CliError::NoTerminal);
    }
    // Before the screen is taken: that nobody answers is said on the terminal as it is.
    let stream = client.watch().await?;
    // Restores the terminal where anything panics, too.
    let terminal = ratatui::try_init().map_err(CliError::Output)?;
    let ended = watch(terminal, &client, stream).await;
    ratatui::try_restore().map_err(CliError::Output)?;
    ended
}

type Screen = Terminal<CrosstermBackend<Stdout>>;

async fn watch(
    mut terminal: DefaultTerminal,
    client: &Client,
    stream: Follower<Live>,
) -> Result<(), CliError> {
    let mut keys = keys();
    let mut stream = Some(stream);
    let mut model = Model::default();
    let mut again = Instant::now();
    // Whoever ends this gets the terminal back as it was.
    let mut end = signal(SignalKind::terminate()).map_err(CliError::Output)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(CliError::Output)?;
    loop {
        show(&mut terminal, &mut model)?;
        // A log is read again every second; else there is nothing to do by the clock.
        let wait = stream.is_none() || model.followed().is_some();
        tokio::select! {
            _ = end.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            key = keys.recv() => match key {
                Some(Some(key)) => match model.key(key) {
                    Onward::Quit => return Ok(()),
                    Onward::Log => again = Instant::now(),
                    Onward::Stay => {}
                },
                Some(None) => {}
                // Nobody can press a key any more: the terminal is gone.
                None => return Ok(()),
            },
            picture = next(&mut stream) => if let Ok(Some(picture)) = picture {
                model.take(picture);
            } else {
                stream = None;
                model.lost();
                again = Instant::now() + PAUSE;
            },
            () = sleep_until(again), if wait => {
                again = Instant::now() + PAUSE;
                if stream.is_none() {
                    stream = client.watch().await.ok();
                    if stream.is_some() {
                        model.found();
                    }
                }
                read_log(client, &mut model).await;
            }
        }
    }
}

fn show(terminal: &mut Screen, model: &mut Model) -> Result<(), CliError> {
    let drawn = terminal.draw(|frame| draw::draw(frame, model));
    drawn.map(drop).map_err(CliError::Output)
}

/// The next picture; never without a stream.
async fn next(stream: &mut Option<Follower<Live>>) -> Result<Option<Live>, ClientError> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

async fn read_log(client: &Client, model: &mut Model) {
    let Some((service, slot)) = model.followed() else {
        return;
    };
    let what = format!("/v1/slots/{service}/{slot}/log?lines={LOG_LINES}");
    let text = client.text(&what).await;
    model.log(text.unwrap_or_else(|error| format!("({error})")));
}

/// Keys as they are pressed, and nothing for what else makes the screen old, as a new size. Reading
/// them blocks, so a thread of its own does; it ends when nobody wants them any more.
fn keys() -> mpsc::Receiver<Option<KeyEvent>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match event::poll(KEY_WAIT) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(_) => return,
            }
            let said = match event::read() {
                Ok(Event::Key(key)) if key.is_press() => Some(key),
                Ok(_) => None,
                Err(_) => return,
            };
            if sender.blocking_send(said).is_err() {
                return;
            }
        }
    });
    receiver
}
