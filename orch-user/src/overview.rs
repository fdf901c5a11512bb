//! A snapshot as tables: what `orch status`, `orch ps` and the status address show.

use indicatif::HumanBytes;

use crate::{
    table::{Side, Table, seconds},
    view::{ServiceRow, SlotRow},
};

/// A row per service.
pub fn services(rows: &[ServiceRow]) -> Table {
    let mut table = Table::new(&[
        ("SERVICE", Side::Left),
        ("LISTEN", Side::Left),
        ("MODE", Side::Left),
        ("DESIRED", Side::Right),
        ("READY", Side::Right),
        ("WINDOW", Side::Right),
        ("ENDS", Side::Right),
        ("REQ/S", Side::Right),
        ("RESP/S", Side::Right),
        ("REQUESTS", Side::Right),
        ("RESPONSES", Side::Right),
    ]);
    for row in rows {
        table.row(vec![
            row.service.clone(),
            row.listen.clone(),
            row.mode.clone(),
            row.desired.to_string(),
            row.ready.to_string(),
            row.window_count.to_string(),
            row.window_ends_in_s.map_or("-".to_owned(), seconds),
            format!("{:.1}", row.request_rate),
            format!("{:.1}", row.response_rate),
            row.requests_total.to_string(),
            row.responses_total.to_string(),
        ]);
    }
    table
}

/// A line per service without copies: what that means, and who waits.
pub fn without_copies(rows: &[ServiceRow]) -> String {
    let mut lines = String::new();
    for row in rows.iter().filter(|row| row.ready == 0) {
        let name = &row.service;
        let line = match (row.waiting, row.desired) {
            _ if row.leaving => {
                format!("{name} is in the file no longer: its copies are about to go\n")
            }
            (_, 0) if row.held => {
                let fate = if row.mode == "http" {
                    "requests wait in vain"
                } else {
                    "connections are refused"
                };
                format!(
                    "{name} has no copies, as set by hand: {fate} until `orch scale {name}=auto`\n"
                )
            }
            (0, 0) => format!("{name} has no copies: the next connection starts one\n"),
            (0, _) => format!("{name} has no copy that is ready\n"),
            (1, _) => format!("{name} has no copy that is ready: 1 connection waits for it\n"),
            (waiting, _) => {
                format!("{name} has no copy that is ready: {waiting} connections wait for it\n")
            }
        };
        lines.push_str(&line);
    }
    lines
}

/// A row per slot; `wide` adds the full identity, the address, the delivery and what is wrong.
pub fn slots(rows: &[SlotRow], wide: bool) -> Table {
    let mut columns = vec![
        ("SERVICE", Side::Left),
        ("SLOT", Side::Right),
        ("PORT", Side::Right),
        ("STATE", Side::Left),
        ("BACKEND", Side::Left),
        ("RUNTIME", Side::Left),
        ("CONNS", Side::Right),
        ("REQUESTS", Side::Right),
        ("RESPONSES", Side::Right),
        ("ERRORS", Side::Right),
        ("AGE", Side::Right),
    ];
    if wide {
        columns.extend([
            ("IN FLIGHT", Side::Right),
            ("IN", Side::Right),
            ("OUT", Side::Right),
            ("CONN ERRORS", Side::Left),
            ("HEALTHY", Side::Left),
            ("ADDRESS", Side::Left),
            ("DELIVERY", Side::Left),
        ]);
    }
    // What is wrong is always worth a column, once something is.
    let noted = wide || rows.iter().any(|row| !row.note.is_empty());
    if noted {
        columns.push(("NOTE", Side::Left));
    }
    let mut table = Table::new(&columns);
    for row in rows {
        table.row(slot_cells(row, wide, noted));
    }
    table
}

fn slot_cells(row: &SlotRow, wide: bool, noted: bool) -> Vec<String> {
    let backend = if wide {
        row.backend.clone()
    } else {
        short(&row.backend)
    };
    let mut cells = vec![
        row.service.clone(),
        numbered(row, row.slot),
        numbered(row, row.port),
        row.state.clone(),
        or_dash(backend),
        or_dash(row.runtime.clone()),
        row.connections.to_string(),
        row.requests.to_string(),
        row.responses.to_string(),
        row.errors.to_string(),
        if row.backend.is_empty() {
            "-".to_owned()
        } else {
            seconds(row.age_s)
        },
    ];
    if wide {
        cells.extend([
            row.in_flight.to_string(),
            HumanBytes(row.bytes_in).to_string(),
            HumanBytes(row.bytes_out).to_string(),
            or_dash(errors(row)),
            healthy(row).to_owned(),
            or_dash(row.address.clone()),
            delivery(row),
        ]);
    }
    if noted {
        cells.push(if wide {
            one_line(&row.note)
        } else {
            clipped(&row.note)
        });
    }
    cells
}

/// Whether it is well. A spare that waits at its gate has not been asked.
fn healthy(row: &SlotRow) -> &'static str {
    if row.healthy {
        "yes"
    } else if row.state == "spare" {
        "-"
    } else {
        "no"
    }
}

/// Connections that failed: `3 refused, 1 reset`.
fn errors(row: &SlotRow) -> String {
    let each = row.connection_errors.iter();
    let each: Vec<_> = each
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    each.join(", ")
}

/// Slot and port: a spare has neither.
fn numbered(row: &SlotRow, number: u16) -> String {
    if row.spare {
        "-".to_owned()
    } else {
        number.to_string()
    }
}

/// How connections get there, and why not directly.
pub(crate) fn delivery(row: &SlotRow) -> String {
    if row.delivery_reason.is_empty() {
        return row.delivery.clone();
    }
    format!("{} ({})", row.delivery, one_line(&row.delivery_reason))
}

/// As many characters of a container's id as `docker ps` shows.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

/// Control characters from a backend's log must not reach the terminal.
fn one_line(text: &str) -> String {
    let plain = |char: char| if char.is_control() { ' ' } else { char };
    text.chars().map(plain).collect()
}

fn clipped(text: &str) -> String {
    const WIDTH: usize = 48;
    let line = one_line(text);
    if line.chars().count() <= WIDTH {
        return line;
    }
    line.chars().take(WIDTH - 3).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_copies_by_hand_are_told_from_a_service_that_sleeps() {
        let mut row = ServiceRow {
            service: "acts".to_owned(),
            ..ServiceRow::default()
        };
        let say = |row: &ServiceRow| without_copies(std::slice::from_ref(row));
        assert!(say(&row).ends_with("the next connection starts one\n"));
        row.held = true;
        let said = say(&row);
        for words in ["by hand", "refused", "`orch scale acts=auto`"] {
            assert!(said.contains(words), "{said}");
        }
        row.mode = "http".to_owned();
        assert!(say(&row).contains("requests wait in vain until"));
        row.leaving = true;
        assert!(say(&row).contains("in the file no longer"));
        row.leaving = false;
        // A number above none that was set by hand is on its way.
        row.desired = 1;
        assert_eq!(say(&row), "acts has no copy that is ready\n");
        row.ready = 1;
        assert_eq!(say(&row), "");
    }
}
