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
        // Most names are told from all of these by their length alone.
        let (text, field) = match name.len() {
            2 => ("te", Self::Te),
            4 if name
                .as_bytes()
                .first()
                .is_some_and(|byte| byte | 0x20 == b'h') =>
            {
                ("host", Self::Host)
            }
            4 => ("date", Self::Date),
            6 => ("expect", Self::Expect),
            7 => ("upgrade", Self::Upgrade),
            10 if name
                .as_bytes()
                .first()
                .is_some_and(|byte| byte | 0x20 == b'k') =>
            {
                ("keep-alive", Self::KeepAlive)
            }
            10 => ("connection", Self::Connection),
            14 => ("content-length", Self::ContentLength),
            15 => ("x-forwarded-for", Self::ForwardedFor),
            16 => ("proxy-connection", Self::ProxyConnection),
            17 if name
                .as_bytes()
                .first()
                .is_some_and(|byte| byte | 0x20 == b't') =>
            {
                ("transfer-encoding", Self::TransferEncoding)
            }
            17 => ("x-forwarded-proto", Self::ForwardedProto),
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
