//! What is shown while it runs: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::{task::JoinHandle, time};

use crate::load::{engine::Shared, pattern::Plan};

/// Between two looks at the counts, for a bar and for a line.
const BAR: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(5);
/// Seconds that a rate is taken over, in a bar.
const SPAN: usize = 5;

/// Shows how a run goes, on stderr, until it is finished or dropped.
pub(super) struct Progress {
    task: Option<JoinHandle<()>>,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn start(plan: &Plan, shared: &Shared, quiet: bool) -> Self {
        let (mut task, mut bar) = (None, None);
        if quiet {
            return Self { task, bar };
        }
        let length = plan.length();
        let shared = shared.clone();
        if io::stderr().is_terminal() {
            let shown = ProgressBar::new(length.as_millis() as u64);
            shown.set_style(style());
            bar = Some(shown.clone());
            task = Some(tokio::spawn(keep_bar(shown, shared, length)));
        } else {
            task = Some(tokio::spawn(keep_saying(shared, length)));
        }
        Self { task, bar }
    }

    pub(super) fn finish(self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    let usual = ProgressStyle::default_bar();
    let ours = usual
        .clone()
        .template("{bar:24.green} {prefix}  {wide_msg}");
    ours.unwrap_or(usual).progress_chars("━╸─")
}

/// What is counted at one moment.
#[derive(Clone, Copy, Default)]
struct Seen {
    sent: u64,
    answered: u64,
    lost: u64,
    open: u64,
    held_back: u64,
    p50_ms: f64,
    p99_ms: f64,
    passed: Duration,
}

fn look(shared: &Shared) -> Seen {
    let tally = shared.lock();
    let ms = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1000.0;
    Seen {
        sent: tally.sent,
        answered: tally.answered(),
        lost: tally.lost(),
        open: tally.in_flight(),
        held_back: tally.held_back,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        passed: tally.begin.elapsed(),
    }
}

async fn keep_bar(bar: ProgressBar, shared: Shared, length: Duration) {
    let mut clock = time::interval(BAR);
    let mut past = vec![Seen::default()];
    let span = SPAN * (Duration::from_secs(1).as_millis() / BAR.as_millis()) as usize;
    loop {
        clock.tick().await;
        let now = look(&shared);
        bar.set_position(now.passed.min(length).as_millis() as u64);
        let (passed, whole) = (now.passed.as_secs(), length.as_secs());
        bar.set_prefix(format!("{passed}/{whole} s"));
        bar.set_message(sentence(&past[0], &now));
        if past.len() == span {
            past.remove(0);
        }
        past.push(now);
    }
}

async fn keep_saying(shared: Shared, length: Duration) {
    let mut before = Seen::default();
    let mut clock = time::interval(LINE);
    clock.tick().await;
    loop {
        clock.tick().await;
        let now = look(&shared);
        let (passed, whole) = (now.passed.as_secs(), length.as_secs());
        eprintln!("{passed:>4}/{whole} s  {}", sentence(&before, &now));
        before = now;
    }
}

fn sentence(before: &Seen, now: &Seen) -> String {
    let span = (now.passed.saturating_sub(before.passed))
        .as_secs_f64()
        .max(1e-3);
    let rate = |now: u64, before: u64| (now - before) as f64 / span;
    let held_back = if now.held_back > 0 {
        format!("  {} held back", now.held_back)
    } else {
        String::new()
    };
    format!(
        "{:.1} sent/s  {:.1} answered/s  {} open  {} lost  p50 {:.1} ms  p99 {:.1} ms{held_back}",
        rate(now.sent, before.sent),
        rate(now.answered, before.answered),
        now.open,
        now.lost,
        now.p50_ms,
        now.p99_ms,
    )
}
