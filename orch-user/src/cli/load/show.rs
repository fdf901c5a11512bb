//! The report as a table.

use crate::{
    cli::print::{Colour, paint},
    load::{
        report::{Quantiles, Report},
        watch::Watched,
    },
    table::{Side, Table},
};

/// Kinds of errors that are shown; the JSON has more.
const ERRORS: usize = 5;

/// The text.
pub(super) fn report(report: &Report) -> String {
    let mut text = format!(
        "{}: {} for {:.1} s{}\n\n",
        report.url,
        report.pattern,
        report.elapsed_s,
        if report.stopped {
            ", stopped early"
        } else {
            ""
        },
    );
    text.push_str(&counts(report));
    text.push('\n');
    text.push_str(&times(report));
    let mut errors: Vec<_> = report.errors.iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    if !errors.is_empty() {
        text.push('\n');
    }
    for (error, count) in errors.into_iter().take(ERRORS) {
        let line = format!("{count:>9} x {error}");
        text.push_str(&(paint(Colour::Red, &line) + "\n"));
    }
    if let Some(watched) = &report.controller {
        text.push('\n');
        text.push_str(&controller(watched));
    }
    text.push_str(&warnings(report));
    text
}

fn counts(report: &Report) -> String {
    let mut table = Table::new(&[
        ("", Side::Left),
        ("REQUESTS", Side::Right),
        ("PER SECOND", Side::Right),
        ("SHARE", Side::Right),
    ]);
    let mut row = |name: String, count: u64| {
        let rate = count as f64 / report.elapsed_s.max(1e-9);
        let share = 100.0 * count as f64 / (report.sent.max(1)) as f64;
        table.row(vec![
            name,
            count.to_string(),
            format!("{rate:.1}"),
            format!("{share:.1} %"),
        ]);
    };
    row("sent".to_owned(), report.sent);
    row("answered".to_owned(), report.answered);
    for (class, count) in &report.classes {
        row(format!("  {class}"), *count);
    }
    row("lost".to_owned(), report.lost);
    for (cause, count) in report.lost_by.iter().filter(|(_, count)| **count > 0) {
        row(format!("  {}", cause.replace('_', " ")), *count);
    }
    let colour = |column: &str, cell: &str| match (column, cell.trim_end()) {
        ("", "  2xx" | "  3xx") => paint(Colour::Green, cell),
        ("", "  4xx") => paint(Colour::Yellow, cell),
        ("", "  5xx") => paint(Colour::Red, cell),
        ("", "lost") if report.lost > 0 => paint(Colour::Red, cell),
        _ => cell.to_owned(),
    };
    table.render(colour)
}

fn times(report: &Report) -> String {
    let names = ["p50", "p90", "p99", "p99.9", "MAX", "MEAN"];
    let mut columns = vec![("TIMES IN MS", Side::Left)];
    columns.extend(names.map(|name| (name, Side::Right)));
    let mut table = Table::new(&columns);
    let mut row = |name: &str, times: &Quantiles| {
        let Quantiles {
            p50,
            p90,
            p99,
            p999,
            max,
            mean,
            ..
        } = *times;
        let cells = [p50, p90, p99, p999, max, mean].map(digits);
        table.row([vec![name.to_owned()], cells.into()].concat());
    };
    row("answer, from when it was due", &report.latency_ms);
    row("lateness of this client", &report.lateness_ms);
    table.render(|_, cell| cell.to_owned())
}

/// Three digits where there are so many.
fn digits(ms: f64) -> String {
    match ms {
        0.0 => "0".to_owned(),
        ..10.0 => format!("{ms:.2}"),
        10.0..100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

fn controller(watched: &Watched) -> String {
    let mut text = format!(
        "{}: {:.1} copy-seconds, {} to {} copies; the kernel counted {} requests and {} responses\n",
        watched.service,
        watched.copy_seconds,
        watched.copies_before,
        watched.copies_most,
        watched.requests,
        watched.responses,
    );
    for decided in &watched.decisions {
        let line = format!(
            "  {:>6.1} s  {} -> {}  {}\n",
            decided.at_s, decided.from, decided.to, decided.reason
        );
        text.push_str(&line);
    }
    text
}

fn warnings(report: &Report) -> String {
    let mut text = String::new();
    let mut warn = |line: String| {
        text.push('\n');
        text.push_str(&(paint(Colour::Yellow, &line) + "\n"));
    };
    if report.behind {
        warn(format!(
            "This client fell behind its schedule: it sent {:.1} % of the requests more than 10 ms late, the worst \
             by {} ms. The times above contain that: ask for less, or keep connections with -k.",
            report.late_share * 100.0,
            digits(report.lateness_ms.max),
        ));
    }
    if report.held_back > 0 {
        warn(format!(
            "{} requests were due and not sent, since the limit of requests in flight was reached: see --limit.",
            report.held_back
        ));
    }
    text
}
