//! Where does a request go, and does it count? By its path, exactly.

use crate::config::CountConfig;

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// It goes to a slot; `counted` says whether it counts.
    Forward { counted: bool },
    /// The controller answers: the status page and what it reads.
    Page,
    /// Nobody answers.
    Nothing,
}

/// Below it lies what the status page needs, whatever the routes are.
const HOME: &str = "/_orch/";

/// The rules of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    routes: Vec<String>,
    count: CountConfig,
}

impl Rules {
    pub(super) fn new(routes: &[String], count: &CountConfig) -> Self {
        Self {
            routes: routes.to_vec(),
            count: count.clone(),
        }
    }

    /// What is done with a request for this path, which has no query.
    pub(super) fn route(&self, path: &str) -> Route {
        // A route `/` takes all but the status page and its files, which stay at home.
        if path == "/" {
            return Route::Page;
        }
        if let Some(rest) = path.strip_prefix(HOME) {
            return of_page(rest);
        }
        if self.routes.iter().any(|route| path.starts_with(route)) {
            return Route::Forward {
                counted: self.counts(path),
            };
        }
        path.strip_prefix('/').map_or(Route::Nothing, of_page)
    }

    fn counts(&self, path: &str) -> bool {
        let excluded = |rule: &String| is_below(path, rule.trim_end_matches('/'));
        path.starts_with(&self.count.prefix) && !self.count.exclude.iter().any(excluded)
    }
}

/// The page's files, and the API. Metrics have the status address alone.
fn of_page(path: &str) -> Route {
    if path.starts_with("page/") || path.starts_with("v1/") {
        Route::Page
    } else {
        Route::Nothing
    }
}

/// Whether a path is this one, or lies below it.
fn is_below(path: &str, rule: &str) -> bool {
    let rest = path.strip_prefix(rule);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(routes: &[&str], prefix: &str, exclude: &[&str]) -> Rules {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let routes: Vec<String> = owned(routes);
        let count = CountConfig {
            prefix: prefix.to_owned(),
            exclude: owned(exclude),
        };
        Rules::new(&routes, &count)
    }

    const COUNTED: Route = Route::Forward { counted: true };
    const EXCLUDED: Route = Route::Forward { counted: false };

    #[test]
    fn paths_go_where_the_file_says() {
        let api = rules(&["/api/"], "/api/", &["/api/v1/_health", "/api/v1/_crash/"]);
        for (path, route) in [
            ("/api/v1/acts", COUNTED),
            ("/api/v1/_health", EXCLUDED),
            ("/api/v1/_health/deep", EXCLUDED),
            ("/api/v1/_healthy", COUNTED),
            ("/api/v1/_crash", EXCLUDED),
            ("/", Route::Page),
            ("/page/style.css", Route::Page),
            ("/v1/slots", Route::Page),
            ("/api", Route::Nothing),
            ("/v1", Route::Nothing),
            ("/favicon.ico", Route::Nothing),
        ] {
            assert_eq!(api.route(path), route, "{path}");
        }
    }

    #[test]
    fn the_root_stays_at_home_even_where_all_else_is_forwarded() {
        let all = rules(&["/"], "/", &[]);
        assert_eq!(all.route("/"), Route::Page);
        assert_eq!(all.route("/_orch/page/style.css"), Route::Page);
        assert_eq!(all.route("/_orch/metrics"), Route::Nothing);
        assert_eq!(all.route("/_orch"), COUNTED);
        assert_eq!(all.route("/v1/slots"), COUNTED, "a route covers it");
    }

    #[test]
    fn what_is_forwarded_and_what_counts_are_two_things() {
        let wide = rules(&["/api/", "/static/"], "/api/", &[]);
        assert_eq!(wide.route("/static/a.png"), EXCLUDED);
    }
}
