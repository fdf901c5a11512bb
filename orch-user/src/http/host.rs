//! Is this a name that a `Host` may have? RFC 9110, 7.2: `uri-host [ ":" port ]`, as RFC 3986, 3.2.2 has
//! them; it may be empty.

/// Characters of a name besides letters and digits: unreserved ones, `%` of encoded ones, delimiters.
const MARKS: &[u8] = b"-._~%!$&'()*+,;=";

/// Whether the value of a `Host` is one.
pub(super) fn is_valid(value: &[u8]) -> bool {
    let Some((name_is_valid, port)) = literal(value).or_else(|| name(value)) else {
        return false;
    };
    let digits = port.strip_prefix(b":");
    let port_is_valid = digits.is_some_and(|all| all.iter().all(u8::is_ascii_digit));
    name_is_valid && (port.is_empty() || port_is_valid)
}

/// Whether an address in brackets is one, and what is behind it.
fn literal(value: &[u8]) -> Option<(bool, &[u8])> {
    let inside = value.strip_prefix(b"[")?;
    let end = inside.iter().position(|byte| *byte == b']')?;
    let address = inside.get(..end)?;
    let fits = |byte: &u8| *byte == b':' || is_named(*byte);
    let is_valid = !address.is_empty() && address.iter().all(fits);
    Some((is_valid, inside.get(end + 1..)?))
}

/// The same of a name, or an address of IPv4.
fn name(value: &[u8]) -> Option<(bool, &[u8])> {
    let end = value.iter().position(|byte| *byte == b':');
    let (name, port) = value.split_at_checked(end.unwrap_or(value.len()))?;
    Some((name.iter().all(|byte| is_named(*byte)), port))
}

fn is_named(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || MARKS.contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_and_without_ports() {
        for good in [
            "",
            "a",
            "a.example:80",
            "a:",
            "10.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "xn--bcher-kva.example",
            "a_b",
            "[fe80::1%eth0]:80",
            "a%20b",
        ] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "x y", "a@b", "x/../..", "a#b", "a?b", "a:b", "a:80:80", "[::1", "[]", "[::1]x", "::1",
            "a\\b", "\"a\"", "a\u{e9}", "<a>", "{a}",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
    }
}
