//! The volume that all copies share.

use crate::{
    client,
    orch::{Kind, Orch, Settings},
};

/// What one copy stores, every other serves, and so does the one that comes after it.
pub fn what_one_stores_every_other_serves(kind: Kind) {
    let orch = Orch::start(Settings::new(kind).copies(3));
    let at = |slot, method, path, body| {
        let answer = client::once(orch.slot_address(slot), method, path, body).unwrap();
        (answer.status, answer.body)
    };
    let act = concat!(
        r#"{"username":"u","timestamp":"01-02-2026:03-04-05","caption":"c","#,
        r#""categoryName":"kind","imgB64":"QUJD"}"#
    );
    assert_eq!(at(0, "POST", "/api/v1/categories", r#"["kind"]"#).0, 201);
    assert_eq!(at(1, "POST", "/api/v1/acts", act).0, 201);
    let (status, first) = at(2, "GET", "/api/v1/acts?category=kind", "");
    assert_eq!(status, 200);
    assert!(first.contains("QUJD"), "{first}");
    let old = orch.slot(2).unwrap().backend;
    at(2, "POST", "/api/v1/_crash", "");
    orch.until("another copy", || {
        orch.slot(2)
            .filter(|row| row.backend != old && row.state == "ready")
    });
    assert_eq!(at(2, "GET", "/api/v1/acts?category=kind", ""), (200, first));
}
