//! Which header fields does a proxy look at?

/// A field that is more to a proxy than a line to hand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Connection,
    ContentLength,
    Date,
    Expect,
    ForwardedFor,
    ForwardedProto,
    Host,
    KeepAlive,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
    /// Any other.
    Line,
}

impl Field {
    pub(super) fn of(name: &str) -> Self {
        // Most names are told from all of these by their length and first letter.
        let first = name.as_bytes().first().map_or(0, |byte| byte | 0x20);
        let (text, field) = match (name.len(), first) {
            (2, b't') => ("te", Self::Te),
            (4, b'd') => ("date", Self::Date),
            (4, b'h') => ("host", Self::Host),
            (6, b'e') => ("expect", Self::Expect),
            (7, b'u') => ("upgrade", Self::Upgrade),
            (10, b'c') => ("connection", Self::Connection),
            (10, b'k') => ("keep-alive", Self::KeepAlive),
            (14, b'c') => ("content-length", Self::ContentLength),
            (15, b'x') => ("x-forwarded-for", Self::ForwardedFor),
            (16, b'p') => ("proxy-connection", Self::ProxyConnection),
            (17, b't') => ("transfer-encoding", Self::TransferEncoding),
            (17, b'x') => ("x-forwarded-proto", Self::ForwardedProto),
            _ => return Self::Line,
        };
        if name.eq_ignore_ascii_case(text) {
            field
        } else {
            Self::Line
        }
    }
}

/// Writes a header line.
pub(super) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (name, field) in [
            ("Connection", Field::Connection),
            ("CONTENT-LENGTH", Field::ContentLength),
            ("date", Field::Date),
            ("Expect", Field::Expect),
            ("X-Forwarded-For", Field::ForwardedFor),
            ("x-forwarded-PROTO", Field::ForwardedProto),
            ("hOST", Field::Host),
            ("Keep-Alive", Field::KeepAlive),
            ("Proxy-Connection", Field::ProxyConnection),
            ("TE", Field::Te),
            ("Transfer-Encoding", Field::TransferEncoding),
            ("Upgrade", Field::Upgrade),
            ("Accept", Field::Line),
            ("Hose", Field::Line),
            ("Transfer-Encodinh", Field::Line),
            ("", Field::Line),
        ] {
            assert_eq!(Field::of(name), field, "{name}");
        }
    }
}
