//! What is the answer to a request, whatever it came over?

use std::path::Path;

use futures_util::future::BoxFuture;
use hyper::{
    HeaderMap, Method, Request, Response, Version,
    body::Incoming,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue},
};

use super::{
    super::{
        backend::Switched,
        body::Body,
        exchange::{self, Outcome},
        forward::Wanted,
        host, page,
        problem::Problem,
        route::Route,
        service::{Flight, Settings},
    },
    Client,
};

/// What a request came over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    H1 { may_switch: bool },
    H2,
}

impl Client {
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        over: Over,
    ) -> (Response<Body>, Option<(Switched, Flight)>) {
        let settings = self.service.settings();
        // Requests of HTTP/2 are tasks of their own, which the connection's look does not reach.
        let looked_at = over != Over::H2;
        match self.try_answer(&settings, request, looked_at).await {
            Ok(Outcome::Answer(answer)) => (answer, None),
            Ok(Outcome::Switched(answer, switched, flight))
                if over == (Over::H1 { may_switch: true }) =>
            {
                (answer, Some((switched, flight)))
            }
            // It was not asked for.
            Ok(Outcome::Switched(..)) => (Problem::Garbled.answer(), None),
            Err(problem) => {
                let mut answer = problem.answer();
                if matches!(
                    problem,
                    Problem::SlowBody | Problem::Bad(_) | Problem::Tunnel
                ) {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(CONNECTION, close);
                }
                (answer, None)
            }
        }
    }

    async fn try_answer(
        &self,
        settings: &Settings,
        request: Request<Incoming>,
        looked_at: bool,
    ) -> Result<Outcome, Problem> {
        check(&request, settings.http.max_headers)?;
        match settings.rules.route(request.uri().path()) {
            Route::Nothing => Err(Problem::NoRoute),
            Route::Page => {
                let guest = self.shared.guest().ok_or(Problem::Guests)?;
                let control = self.shared.control();
                let mut answer = boxed_page(&control, &request).await?;
                answer.body_mut().admit(guest);
                Ok(Outcome::Answer(answer))
            }
            Route::Forward { counted } => {
                let wanted = Wanted {
                    shared: &self.shared,
                    service: &self.service,
                    settings,
                    asker: &self.asker,
                    thread: self.thread.number,
                    connection: self.number,
                    counted,
                    looked_at,
                };
                exchange::forward(&wanted, request).await
            }
        }
    }
}

fn boxed_page<'a>(
    control: &'a Path,
    request: &'a Request<Incoming>,
) -> BoxFuture<'a, Result<Response<Body>, Problem>> {
    Box::pin(page::answer(control, request))
}

/// What the library lets through and RFC 9112 does not.
fn check(request: &Request<Incoming>, max_headers: usize) -> Result<(), Problem> {
    if request.method() == Method::CONNECT {
        return Err(Problem::Tunnel);
    }
    let headers = request.headers();
    // Those of HTTP/2 come past the framing rules.
    // Of a cookie each part may be one (RFC 9113, 8.2.3).
    let parts = count(headers, &COOKIE).saturating_sub(1);
    if headers.len() - parts > max_headers {
        return Err(Problem::Headers);
    }
    if count(headers, &CONTENT_LENGTH) > 1 {
        return Err(Problem::Bad("there is more than one Content-Length"));
    }
    let hosts = count(headers, &HOST);
    let valid = headers
        .get(HOST)
        .is_none_or(|value| host::is_valid(value.as_bytes()));
    match request.version() {
        Version::HTTP_11 if hosts == 0 => Err(Problem::Bad("there is no Host")),
        _ if hosts > 1 => Err(Problem::Bad("there is more than one Host")),
        _ if !valid => Err(Problem::Bad("the Host is no name, and no address")),
        _ => Ok(()),
    }
}

fn count(headers: &HeaderMap, name: &HeaderName) -> usize {
    headers.get_all(name).iter().count()
}
