//! What the page shows where no script runs.

use maud::{Markup, html};

use super::place;
use crate::{
    live::sentence,
    table::seconds,
    view::{EventRow, Outlook, ServiceRow, SlotRow, Snapshot},
};

pub(super) fn tables(snapshot: &Snapshot, events: &[EventRow]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Services" {
            (services(snapshot))
        }
        div.scroll tabindex="0" role="region" aria-label="Slots" {
            (slots(&snapshot.slots))
        }
        h2 { "Events" }
        ol.plain-events reversed {
            @for row in events.iter().rev() {
                li {
                    time { (clock(row.time)) } " "
                    strong { (place(row)) } " "
                    span { (row.kind) } " "
                    (row.text)
                }
            }
        }
    }
}

fn services(snapshot: &Snapshot) -> Markup {
    html! {
        table {
            caption { "Services" }
            thead {
                tr {
                    @for name in ["Service", "Listens at", "Mode", "Copies", "Requests/s", "Responses/s", "Next decision"] {
                        th scope="col" { (name) }
                    }
                }
            }
            tbody {
                @for (row, next) in snapshot.prospects() { (service(row, &next)) }
            }
        }
    }
}

fn service(row: &ServiceRow, next: &Outlook) -> Markup {
    html! {
        tr {
            th scope="row" { (row.service) }
            td { (row.listen) }
            td { (row.mode) }
            td.number { (row.ready) " of " (row.desired) }
            td.number { (format!("{:.1}", row.request_rate)) }
            td.number { (format!("{:.1}", row.response_rate)) }
            td { (sentence(row, next)) }
        }
    }
}

fn slots(rows: &[SlotRow]) -> Markup {
    html! {
        table {
            caption { "Slots" }
            thead {
                tr {
                    @for name in ["Service", "Slot", "Port", "State", "Backend", "Connections", "Requests", "Errors", "Age", "Note"] {
                        th scope="col" { (name) }
                    }
                }
            }
            tbody {
                @for row in rows { (slot(row)) }
            }
        }
    }
}

fn slot(row: &SlotRow) -> Markup {
    let number = |number: u16| {
        if row.spare {
            "–".to_owned()
        } else {
            number.to_string()
        }
    };
    html! {
        tr {
            th scope="row" { (row.service) }
            td.number { (number(row.slot)) }
            td.number { (number(row.port)) }
            td { (row.state) }
            td { code { (row.backend.chars().take(12).collect::<String>()) } }
            td.number { (row.connections) }
            td.number { (row.requests) }
            td.number { (row.errors) }
            td.number { @if !row.backend.is_empty() { (seconds(row.age_s)) } }
            td { (row.note) }
        }
    }
}

/// Seconds since 1970 as `2026-01-31 12:00:00Z`.
fn clock(time: f64) -> String {
    let since = std::time::Duration::try_from_secs_f64(time).unwrap_or_default();
    let time = std::time::UNIX_EPOCH.checked_add(since);
    let time = time.unwrap_or(std::time::UNIX_EPOCH);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.replace('T', " ")
}
