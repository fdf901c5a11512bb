//! Who may do what. The control socket is root's by its mode; over TCP there is a token for what
//! changes state, and a look at the `Host` that keeps web pages of other sites out.

use std::{
    fmt, fs, io,
    net::IpAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use super::problem::Problem;

/// Fewest bytes of a token: 16 random ones in hexadecimal have twice as many.
const TOKEN_BYTES: usize = 16;

/// What whoever asks has to show for a guarded request.
#[derive(Clone, Debug)]
pub enum Access {
    /// Nothing: only root can connect.
    Root,
    /// There is no way.
    ReadOnly,
    /// This token.
    Token(Token),
}

/// A secret that is never shown.
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error(
        "the token file {} is open to others than its owner (mode {mode:03o}): chmod 600 {}",
        path.display(), path.display()
    )]
    Open {
        /// Its path.
        path: PathBuf,
        /// The bits of its mode.
        mode: u32,
    },
    /// It belongs to neither root nor the user of the controller.
    #[error("the token file {} belongs to user {owner}: chown root {}", path.display(), path.display())]
    Owner {
        /// Its path.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// What it holds is no token.
    #[error(
        "the token file {} must hold one line of at least {TOKEN_BYTES} printable characters without \
         spaces: openssl rand -hex 32 > {}",
        path.display(), path.display()
    )]
    Weak {
        /// Its path.
        path: PathBuf,
    },
}

impl Token {
    /// Reads a token file: one line, readable by its owner alone.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let read = |source| TokenError::Read {
            path: path.to_owned(),
            source,
        };
        let file = fs::File::open(path).map_err(read)?;
        let meta = file.metadata().map_err(read)?;
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(TokenError::Open { path, mode });
        }
        let owner = meta.uid();
        if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
            let path = path.to_owned();
            return Err(TokenError::Owner { path, owner });
        }
        let text = io::read_to_string(file).map_err(read)?;
        let token = text.trim_end_matches(['\n', '\r']);
        let fits = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !fits || token.len() < TOKEN_BYTES {
            let path = path.to_owned();
            return Err(TokenError::Weak { path });
        }
        Ok(Self(token.as_bytes().into()))
    }

    /// Whether this is it; takes as long for a wrong one as for the right one.
    fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

/// Lets guarded requests through, or says what is missing.
pub(super) async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    match judge(&access, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) if problem.status == StatusCode::UNAUTHORIZED.as_u16() => {
            let scheme = HeaderValue::from_static("Bearer realm=\"orch\"");
            let mut response = problem.into_response();
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

fn judge(access: &Access, headers: &HeaderMap) -> Result<(), Problem> {
    let forbidden = |text: &str| Problem::new(StatusCode::FORBIDDEN, text);
    match access {
        // What a proxy passes on is not root's, whoever runs the proxy.
        Access::Root if FORWARDED.iter().any(|name| headers.contains_key(name)) => Err(forbidden(
            "this was forwarded by a proxy: ask on the control socket itself",
        )),
        Access::Root => Ok(()),
        Access::ReadOnly => Err(forbidden(
            "the status address only reads: ask on the control socket, or set token_file",
        )),
        Access::Token(token) => {
            let shown = headers.get(header::AUTHORIZATION).and_then(bearer);
            if shown.is_some_and(|shown| token.is(shown)) {
                return Ok(());
            }
            let text = "this needs the token: Authorization: Bearer TOKEN";
            Err(Problem::new(StatusCode::UNAUTHORIZED, text))
        }
    }
}

/// Header fields that proxies add.
const FORWARDED: [HeaderName; 3] = [
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-forwarded-for"),
];

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Refuses what a browser was led to: a name of another site that its owner has pointed to this
/// host's loopback address (DNS rebinding). An address cannot be pointed elsewhere, and names
/// without a dot are nobody's on the internet.
pub(super) async fn known_host(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11 {
        let text = "a request of HTTP/1.1 has one Host field (RFC 9112, 3.2)";
        return Problem::new(StatusCode::BAD_REQUEST, text).into_response();
    }
    let named = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let named = named.or_else(|| request.uri().authority().map(|one| one.as_str().as_bytes()));
    // HTTP/1.0 needs no Host; browsers do not speak it.
    let known = named.is_none_or(|host| str::from_utf8(host).is_ok_and(is_known));
    if known {
        return next.run(request).await;
    }
    let text = "this loopback address is asked by its number or as localhost";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

fn is_known(host: &str) -> bool {
    let Some(uri) = host.parse::<Uri>().ok() else {
        return false;
    };
    let Some(name) = uri.host() else {
        return false;
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>().is_ok();
    address || !name.contains(['.', ':']) || name.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_no_other_site_can_have() {
        for host in [
            "127.0.0.1:9180",
            "localhost",
            "localhost:1",
            "[::1]:9180",
            "10.0.0.7",
            "x",
            "orch.localhost:9180",
        ] {
            assert!(is_known(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9180",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "a b",
        ] {
            assert!(!is_known(host), "{host}");
        }
    }

    #[test]
    fn a_token_is_one_line_that_only_its_owner_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let write = |text: &str, mode: u32| {
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Token::read(&path)
        };
        let token = write("0123456789abcdef\n", 0o600).unwrap();
        assert!(token.is(b"0123456789abcdef"));
        assert!(
            !token.is(b"0123456789abcdeF") && !token.is(b"") && !token.is(b"0123456789abcdef0")
        );
        assert_eq!(format!("{token:?}"), "Token", "never in a log");
        let open = write("0123456789abcdef\n", 0o640).unwrap_err();
        assert!(matches!(open, TokenError::Open { mode: 0o640, .. }));
        for weak in [
            "",
            "short\n",
            "0123456789 abcdef\n",
            "0123456789abcdef\nx\n",
        ] {
            let error = write(weak, 0o600).unwrap_err();
            assert!(matches!(error, TokenError::Weak { .. }), "{weak:?}");
        }
        let error = Token::read(&dir.path().join("none")).unwrap_err();
        assert!(matches!(error, TokenError::Read { .. }));
    }

    #[test]
    fn who_may_do_what() {
        let none = HeaderMap::new();
        let status = |access: &Access, headers: &HeaderMap| {
            judge(access, headers).map_err(|problem| problem.status)
        };
        assert_eq!(status(&Access::Root, &none), Ok(()));
        assert_eq!(status(&Access::ReadOnly, &none), Err(403));
        let mut forwarded = HeaderMap::new();
        forwarded.insert(header::VIA, HeaderValue::from_static("1.1 orch"));
        assert_eq!(status(&Access::Root, &forwarded), Err(403));
        let token = Access::Token(Token(b"0123456789abcdef".as_slice().into()));
        assert_eq!(status(&token, &none), Err(401));
        for (value, right) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("Bearer 0123456789abcdeg", false),
            ("Basic 0123456789abcdef", false),
            ("Bearer", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(status(&token, &headers).is_ok(), right, "{value}");
        }
    }
}
