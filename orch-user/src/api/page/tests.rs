//! The page as it is sent.

use super::*;
use crate::view::{Outlook, ServiceRow, SlotRow, Snapshot};

const HOSTILE: &str = "<script>alert(1)</script>\"'&";

#[test]
fn what_others_have_written_is_text() {
    let snapshot = Snapshot {
        services: vec![ServiceRow {
            service: HOSTILE.to_owned(),
            listen: HOSTILE.to_owned(),
            ..ServiceRow::default()
        }],
        outlooks: vec![Outlook::default()],
        slots: vec![SlotRow {
            service: HOSTILE.to_owned(),
            backend: "<b>".to_owned(),
            note: HOSTILE.to_owned(),
            ..SlotRow::default()
        }],
        ..Snapshot::default()
    };
    let event = EventRow {
        id: 1,
        time: 0.0,
        service: HOSTILE.to_owned(),
        slot: Some(0),
        kind: "exited".to_owned(),
        text: HOSTILE.to_owned(),
    };
    let text = document(&plain::tables(&snapshot, &[event])).into_string();
    assert!(!text.contains("<script>alert") && !text.contains("<b>"));
    assert!(text.matches("&lt;script&gt;").count() >= 5);
    assert!(text.contains("1970-01-01 00:00:00Z"));
}

/// The policy would stop them, and the page would lack something.
#[test]
fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
    let text = document(&html! {}).into_string();
    for word in [" style=", " onclick", "javascript:", "http://", "https://"] {
        assert!(
            !text.replace("http://www.w3.org/", "").contains(word),
            "{word}"
        );
    }
    for word in [
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "http",
    ] {
        let script = SCRIPT.replace("http://www.w3.org/", "");
        assert!(
            !script.contains(word),
            "{word}: what is shown is set as text"
        );
    }
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    // An absolute path would miss a page behind a gateway's prefix.
    assert!(!text.contains("=\"/") && !SCRIPT.contains("\"/v1"));
}
