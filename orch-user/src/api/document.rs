//! The description of the API in `OpenAPI` 3.1, made from the handlers and types themselves.

use std::sync::LazyLock;

use axum::http::header;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{guarded, open};
use crate::control::Control;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "orch",
        description = "What a running controller shows and does. Reading is open to whoever reaches \
            the status address; what changes state, and the log of a slot, needs the control socket, \
            or over TCP the bearer token of the file that `token_file` names. Errors are problem \
            documents (RFC 9457).",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    modifiers(&Token)
)]
struct Head;

/// The scheme that guarded operations name.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("token", scheme);
    }
}

/// The document as JSON.
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let router: OpenApiRouter<Control> = OpenApiRouter::with_openapi(Head::openapi());
        let (_, document) = router.merge(open()).merge(guarded()).split_for_parts();
        document.to_pretty_json().unwrap_or_default()
    });
    &TEXT
}

/// This document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "read",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn serve() -> ([(header::HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, "application/json")], document())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_operation_is_described_and_guarded_ones_say_so() {
        let document: Value = serde_json::from_str(document()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        let guarded = ["/scale", "/reset", "/stop", "/reload", "/log"];
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().unwrap() {
                let summary = operation["summary"].as_str();
                assert!(summary.is_some_and(|text| !text.is_empty()), "{path}");
                assert!(operation["responses"]["200"].is_object(), "{path}");
                let closed = guarded.iter().any(|end| path.ends_with(end));
                assert_eq!(operation["security"].is_array(), closed, "{path}");
                assert_eq!(method == "post", closed && !path.ends_with("/log"));
            }
        }
        assert_eq!(paths.len(), 12);
        let row = &document["components"]["schemas"]["SlotRow"]["properties"];
        assert_eq!(row["age_s"]["type"], "number");
    }
}
