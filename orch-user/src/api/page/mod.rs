//! The status page: one HTML document with its script and style, all of it in the binary. Without
//! JavaScript it is two tables and a list, made here; with it, the script draws the same from
//! `/v1/live`. Links are relative, since a gateway may serve the page on another address, and lead below `_orch/`,
//! which a gateway keeps at home.

mod plain;
#[cfg(test)]
mod tests;

use axum::{
    extract::State,
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{control::Control, view::EventRow};

/// Nothing but what this address serves: no inline script, no other host, no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Events that the page shows without JavaScript.
const EVENTS: usize = 20;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = concat!(
    include_str!("chart.js"),
    include_str!("tiles.js"),
    include_str!("live.js")
);
const ICON: &str = include_str!("icon.svg");
/// The shapes of states, drawn once and used by name.
const SYMBOLS: PreEscaped<&str> = PreEscaped(include_str!("symbols.svg"));

/// The page.
pub(super) async fn page(State(control): State<Control>) -> Response {
    let snapshot = control.snapshot.borrow().clone();
    let mut events = control.journal.events_since(0);
    events.drain(..events.len().saturating_sub(EVENTS));
    let plain = plain::tables(&snapshot, &events);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    (headers, document(&plain).into_string()).into_response()
}

fn document(plain: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "orch" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                link rel="icon" href="_orch/page/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="_orch/page/style.css";
                script src="_orch/page/app.js" defer {}
            }
            body {
                (SYMBOLS)
                a.skip href="#services" { "Skip to the services" }
                header.top {
                    h1 {
                        img src="_orch/page/icon.svg" alt="" width="26" height="26";
                        "orch"
                    }
                    span.version { (env!("CARGO_PKG_VERSION")) }
                    p #link .link role="status" {}
                    p #uptime .uptime {}
                }
                main #services tabindex="-1" {
                    div #live hidden {
                        div #sections {}
                        section.events aria-labelledby="events-title" {
                            h2 #events-title { "Events" }
                            ol #events tabindex="0" aria-labelledby="events-title" {}
                        }
                    }
                    div #plain { (plain) }
                }
                p #news .unseen role="status" {}
                footer { (links()) }
            }
        }
    }
}

fn links() -> Markup {
    let links = [
        ("_orch/v1/services", "services"),
        ("_orch/v1/slots", "slots"),
        ("_orch/v1/decisions", "decisions"),
        ("_orch/v1/events", "events"),
        ("metrics", "metrics"),
        ("_orch/v1/openapi.json", "OpenAPI"),
    ];
    html! {
        nav aria-label="Data" {
            @for (to, name) in links {
                a href=(to) { (name) }
            }
        }
        p { "This page only reads. To change something: " code { "orch scale" } ", " code { "orch reset" } "." }
    }
}

/// Its style.
pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

/// Its script.
pub(super) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

/// Its icon.
pub(super) async fn icon() -> Response {
    asset("image/svg+xml", ICON)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Where an event belongs, in words.
fn place(row: &EventRow) -> String {
    match row.slot {
        Some(slot) => format!("{}/{slot}", row.service),
        None if row.service.is_empty() => "orch".to_owned(),
        None => row.service.clone(),
    }
}
