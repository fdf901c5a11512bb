//! The picture of `orch top`, from top to bottom: services with their charts, slots, events or a log,
//! and the keys.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    symbols,
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState},
};

use super::model::{Model, Sort};
use crate::{
    cli::print,
    live::{LiveService, LiveSlot},
    table::seconds,
};

/// Lines of a service, where there is room: two of text, three of chart.
const SERVICE_LINES: u16 = 5;
/// Lines of the table of slots that show none: its title and its head.
const SLOT_HEAD: u16 = 2;
/// Polls that are shown of a slot.
const POLLS: usize = 20;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame, model: &mut Model) {
    let height = frame.area().height;
    let services = model.live.services.len() as u16;
    let services = services * lines_of_each(services, height / 2);
    let slots = model.slots().len() as u16 + SLOT_HEAD;
    let [head, top, middle, bottom, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(services.min(height / 2)),
        Constraint::Length(slots.min(height / 2).max(4)),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(model), head);
    draw_services(frame, model, top);
    draw_slots(frame, model, middle);
    match model.log_text() {
        Some(text) => draw_log(frame, model, text, bottom),
        None => draw_events(frame, model, bottom),
    }
    frame.render_widget(footer(model), keys);
}

fn header(model: &Model) -> Line<'static> {
    let mut spans = vec![
        Span::from(" orch ").bold().reversed(),
        Span::from(format!(" {}  ", model.live.version)).dim(),
    ];
    if model.connected {
        let up = seconds(model.live.uptime_s);
        spans.push(Span::from("● live").green());
        spans.push(Span::from(format!("  up {up}")).dim());
    } else {
        spans.push(Span::from("◇ no answer, trying again").red().bold());
    }
    Line::from(spans)
}

/// As many lines for each of some services as there is room for, and one at the least.
fn lines_of_each(services: u16, room: u16) -> u16 {
    (room / services.max(1)).clamp(1, SERVICE_LINES)
}

/// Services that there is no room for are counted.
fn draw_services(frame: &mut Frame, model: &Model, area: Rect) {
    let services = &model.live.services;
    let each = usize::from(lines_of_each(services.len() as u16, area.height));
    let rows = area.rows().collect::<Vec<_>>();
    let (shown, last) = match rows.split_last() {
        Some((last, shown)) if services.len() > rows.len() => (shown, Some(*last)),
        _ => (rows.as_slice(), None),
    };
    for (service, lines) in services.iter().zip(shown.chunks_exact(each)) {
        draw_service(frame, model, service, lines);
    }
    if let Some(last) = last {
        let more = services.len() - shown.len();
        let services = if more == 1 { "service" } else { "services" };
        let text = format!(" and {more} {services} more: `orch status`, or a taller terminal");
        frame.render_widget(Line::from(text).dim(), last);
    }
}

fn draw_service(frame: &mut Frame, model: &Model, service: &LiveService, lines: &[Rect]) {
    if let Some(first) = lines.first() {
        frame.render_widget(service_line(service), *first);
    }
    if let Some(second) = lines.get(1) {
        frame.render_widget(Line::from(format!(" {}", service.outlook)).dim(), *second);
    }
    if let Some(begin) = lines.get(2) {
        let chart = Rect {
            height: lines.len() as u16 - 2,
            ..*begin
        };
        draw_chart(frame, model, service, chart);
    }
}

fn service_line(service: &LiveService) -> Line<'static> {
    let row = &service.row;
    let newest = service.samples.last();
    let errors = newest.map_or(0.0, |sample| sample.errors);
    let mut spans = vec![
        Span::from(format!(" {} ", print::plain(&row.service))).bold(),
        Span::from(format!("{} {}  ", row.listen, row.mode)).dim(),
        Span::from(format!("{} of {} copies  ", row.ready, row.desired)),
        Span::from(format!("{:.1} req/s  ", row.request_rate)),
        Span::from(format!("{:.1} resp/s  ", row.response_rate)),
    ];
    let text = format!("{errors:.1} errors/s");
    spans.push(if errors > 0.0 {
        Span::from(text).red().bold()
    } else {
        Span::from(text).dim()
    });
    Line::from(spans)
}

fn draw_chart(frame: &mut Frame, model: &Model, service: &LiveService, area: Rect) {
    let Some(samples) = model.samples.get(&service.row.service) else {
        return;
    };
    let [scale, area] =
        Layout::horizontal([Constraint::Length(8), Constraint::Min(10)]).areas(area);
    let width = usize::from(area.width);
    let seen: Vec<u64> = samples
        .iter()
        .skip(samples.len().saturating_sub(width))
        .map(|sample| (sample.requests * 10.0) as u64)
        .collect();
    let most = seen.iter().copied().max().unwrap_or(0);
    let label = format!("{:>6.1} ", most as f64 / 10.0);
    frame.render_widget(Line::from(label).dim(), scale);
    let chart = Sparkline::default()
        .data(&seen)
        .max(most.max(1))
        .bar_set(symbols::bar::NINE_LEVELS)
        .style(Style::new().fg(Color::Cyan));
    frame.render_widget(chart, area);
}

fn draw_slots(frame: &mut Frame, model: &Model, area: Rect) {
    const COLUMNS: [(&str, u16); 12] = [
        ("SERVICE", 12),
        ("SLOT", 6),
        ("PORT", 6),
        ("STATE", 11),
        ("BACKEND", 13),
        ("POLLS", POLLS as u16),
        ("REQ/S", 7),
        ("P50", 8),
        ("P99", 8),
        ("CONNS", 6),
        ("ERRORS", 7),
        ("AGE", 7),
    ];
    let head = COLUMNS.map(|(name, _)| {
        let sorted = model.sort != Sort::Slot && model.sort.name() == name;
        let arrow = if model.reverse { "▲" } else { "▼" };
        Cell::from(if sorted {
            format!("{name}{arrow}")
        } else {
            name.to_owned()
        })
    });
    let widths = COLUMNS.map(|(_, width)| Constraint::Length(width));
    let slots = model.slots();
    let table = Table::new(slots.iter().map(|slot| slot_row(slot)), widths)
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::DIM)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().borders(Borders::TOP).title(title(model, area)));
    let mut state = TableState::new().with_selected(model.cursor());
    frame.render_stateful_widget(table, area, &mut state);
}

fn title(model: &Model, area: Rect) -> String {
    let all = model.slots().len();
    let seen = usize::from(area.height.saturating_sub(SLOT_HEAD));
    let of = if seen < all {
        format!(", {seen} of {all} (↑↓ for the others)")
    } else {
        String::new()
    };
    if model.filter.is_empty() {
        format!(" slots{of} ")
    } else {
        format!(" slots with \"{}\"{of} ", model.filter)
    }
}

fn slot_row(slot: &LiveSlot) -> Row<'static> {
    let row = &slot.row;
    let number = |number: u16| {
        if row.spare {
            "-".to_owned()
        } else {
            number.to_string()
        }
    };
    let time = |value: Option<f64>| {
        value.map_or("-".to_owned(), |value| {
            let ms = value * 1000.0;
            if ms < 10.0 {
                format!("{ms:.1}ms")
            } else if ms < 1000.0 {
                format!("{ms:.0}ms")
            } else {
                format!("{value:.1}s")
            }
        })
    };
    let (mark, colour) = state_look(&row.state);
    Row::new([
        Cell::from(print::plain(&row.service)),
        Cell::from(number(row.slot)),
        Cell::from(number(row.port)),
        Cell::from(format!("{mark} {}", row.state)).style(Style::new().fg(colour)),
        Cell::from(row.backend.chars().take(12).collect::<String>()),
        Cell::from(polls(&slot.polls)),
        Cell::from(format!("{:.1}", slot.request_rate)),
        Cell::from(time(slot.p50_s)),
        Cell::from(time(slot.p99_s)),
        Cell::from(row.connections.to_string()),
        Cell::from(row.errors.to_string()),
        Cell::from(if row.backend.is_empty() {
            "-".to_owned()
        } else {
            seconds(row.age_s)
        }),
    ])
}

/// A sign and a colour for a state: either is enough.
fn state_look(state: &str) -> (&'static str, Color) {
    match state {
        "ready" => ("●", Color::Green),
        "spare" => ("○", Color::Green),
        "failed" => ("✖", Color::Red),
        "backoff" => ("‖", Color::Red),
        _ => ("◌", Color::Yellow),
    }
}

fn polls(polls: &str) -> Line<'static> {
    let skipped = polls.len().saturating_sub(POLLS);
    let dot = |mark: char| match mark {
        '+' => Span::from("·").green(),
        '!' => Span::from("x").red().bold(),
        _ => Span::from("-").yellow(),
    };
    Line::from(polls.chars().skip(skipped).map(dot).collect::<Vec<_>>())
}

fn draw_events(frame: &mut Frame, model: &Model, area: Rect) {
    let room = usize::from(area.height.saturating_sub(1));
    let rows = model.events.iter().rev().take(room).map(|row| {
        let place = match row.slot {
            Some(slot) => format!("{}/{slot}", row.service),
            None if row.service.is_empty() => "orch".to_owned(),
            None => row.service.clone(),
        };
        let colour = match row.kind.as_str() {
            "unhealthy" | "exited" | "lost" | "error" | "backoff" => Color::Red,
            "scaled" | "reset" | "reloaded" => Color::Magenta,
            _ => Color::Reset,
        };
        Line::from(vec![
            Span::from(format!(" {}  ", print::time(row.time))).dim(),
            Span::from(format!("{:<10} ", print::plain(&place))),
            Span::from(format!("{:<10} ", row.kind)).fg(colour),
            Span::from(print::plain(&row.text)),
        ])
    });
    let block = Block::new().borders(Borders::TOP).title(" events ");
    frame.render_widget(Paragraph::new(rows.collect::<Vec<_>>()).block(block), area);
}

/// The end of a log: its last lines, as many as there is room for.
fn draw_log(frame: &mut Frame, model: &Model, text: &str, area: Rect) {
    let room = usize::from(area.height.saturating_sub(1));
    let lines: Vec<_> = text.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(room));
    let rows: Vec<_> = last
        .map(|line| Line::from(format!(" {}", print::plain(line))))
        .collect();
    let of = model
        .followed()
        .map(|(service, slot)| format!(" log of {service}/{slot} "));
    let block = Block::new()
        .borders(Borders::TOP)
        .title(of.unwrap_or_default());
    frame.render_widget(Paragraph::new(rows).block(block), area);
}

fn footer(model: &Model) -> Line<'static> {
    if model.typing {
        return Line::from(format!(
            " /{}_   enter keeps it, esc shows all",
            model.filter
        ))
        .bold();
    }
    let keys = if model.followed().is_some() {
        " esc back   ↑↓ another slot, enter follows it   q back   Ctrl-C ends"
    } else {
        " ↑↓ choose   enter log   s sort   r reverse   / filter   q quit"
    };
    Line::from(keys).dim()
}
