//! Routes under the status path.

/// A resource under the status path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The page.
    Page,
    /// The JSON that the page shows.
    Json,
    /// The configuration in force, without secrets.
    Config,
    /// Prometheus text.
    Metrics,
    /// A path that does not exist.
    Unknown,
    /// Another method than GET or HEAD.
    Refused,
}

impl Route {
    /// The route of a request to `path`, which may have a query; `None` if it is not under `prefix`.
    pub fn of(prefix: &str, method: &[u8], path: &[u8]) -> Option<Route> {
        let path = path.split(|b| matches!(b, b'?' | b'#')).next()?;
        let rest = path.strip_prefix(prefix.as_bytes())?;
        if !matches!(rest.first(), None | Some(b'/')) {
            return None;
        }
        Some(match (method, rest) {
            (b"GET" | b"HEAD", b"" | b"/") => Route::Page,
            (b"GET" | b"HEAD", b"/status.json") => Route::Json,
            (b"GET" | b"HEAD", b"/config.json") => Route::Config,
            (b"GET" | b"HEAD", b"/metrics") => Route::Metrics,
            (b"GET" | b"HEAD", _) => Route::Unknown,
            _ => Route::Refused,
        })
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn what_is_under_the_path_is_ours_and_nothing_else() {
        for (path, route) in [
            ("/_evenkeel", Some(Route::Page)),
            ("/_evenkeel/", Some(Route::Page)),
            ("/_evenkeel?x=/y", Some(Route::Page)),
            ("/_evenkeel/status.json", Some(Route::Json)),
            ("/_evenkeel/status.json?at=1#top", Some(Route::Json)),
            ("/_evenkeel/config.json", Some(Route::Config)),
            ("/_evenkeel/metrics", Some(Route::Metrics)),
            ("/_evenkeel/metrics/", Some(Route::Unknown)),
            ("/_evenkeel//", Some(Route::Unknown)),
            ("/_evenkeel/../secret", Some(Route::Unknown)),
            ("/_evenkeelx", None),
            ("/_evenkeel.json", None),
            ("/_evenkee", None),
            ("/x/_evenkeel", None),
            ("/?/_evenkeel", None),
            ("", None),
        ] {
            assert_eq!(Route::of("/_evenkeel", b"GET", path.as_bytes()), route, "{path}");
            let head = Route::of("/_evenkeel", b"HEAD", path.as_bytes());
            assert_eq!(head, route, "HEAD {path}");
            for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", ""] {
                let other = Route::of("/_evenkeel", method.as_bytes(), path.as_bytes());
                assert_eq!(other, route.map(|_| Route::Refused), "{method} {path}");
            }
        }
    }
}
