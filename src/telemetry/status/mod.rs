//! The status page: HTML for people, JSON for tools, text for Prometheus.
//!
//! A report in, text out: nothing here calls a host, and no other request comes here. The page's script inserts all
//! values as text, so names from elsewhere never become part of the HTML.

pub mod guard;
mod metrics;
mod names;
mod refused;
mod report;
mod route;

use config::Config;

pub use names::costs_seconds;
pub use refused::refused;
pub use report::{Report, Sources, reason};
pub use route::Route;

/// The response to a request for the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u32,
    /// Response headers.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body.
    pub body: Vec<u8>,
}

/// The page, with its style and its script.
const PAGE: &str = include_str!("page.html");
/// The page loads nothing from elsewhere; only its own script and style run, identified by their hashes.
const PAGE_POLICY: &str = concat!(
    "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; ",
    "script-src 'sha256-pVPEid414vLmULk406KWoKk7m+DtGxS9wL3soGMEUeA='; style-src 'sha256-pXV3g53RCBZzGX4B4yZaxFGy7FIaFDrvo3uwSZ6vsTg='"
);
/// Responses other than the page load nothing at all.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// The content type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Answer {
    #[inline(never)]
    fn new(status: u32, content_type: &'static str, policy: &'static str, body: Vec<u8>) -> Answer {
        let headers = vec![
            ("content-type", content_type),
            ("content-security-policy", policy),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ];
        Answer { status, headers, body }
    }

    /// The response for `route`; `sources` is called only if it is needed.
    #[inline(never)]
    pub fn to<'a>(route: Route, config: &Config, sources: impl FnOnce() -> Sources<'a>) -> Answer {
        const JSON: &str = "application/json; charset=utf-8";
        match route {
            Route::Page => {
                Answer::new(200, "text/html; charset=utf-8", PAGE_POLICY, PAGE.as_bytes().to_vec())
            }
            Route::Json => {
                let body = serde_json::to_vec(&Report::of(&sources())).unwrap_or_default();
                Answer::new(200, JSON, DATA_POLICY, body)
            }
            Route::Config => {
                let config = config::effective(config);
                Answer::new(200, JSON, DATA_POLICY, serde_json::to_vec(&config).unwrap_or_default())
            }
            Route::Metrics => {
                let body = metrics::text(&Report::of(&sources())).into_bytes();
                Answer::new(200, METRICS_TYPE, DATA_POLICY, body)
            }
            Route::Unknown | Route::Refused => Answer::without_sources(route),
        }
    }

    /// A response whose policy lets it load nothing.
    #[inline(never)]
    fn data(content_type: &'static str, body: Vec<u8>) -> Answer {
        Answer::new(200, content_type, DATA_POLICY, body)
    }

    /// The response to requests that no report is needed for.
    #[inline(never)]
    fn without_sources(route: Route) -> Answer {
        const TEXT: &str = "text/plain; charset=utf-8";
        if route != Route::Refused {
            return Answer::new(404, TEXT, DATA_POLICY, b"not found\n".to_vec());
        }
        let mut answer = Answer::new(405, TEXT, DATA_POLICY, b"only GET and HEAD\n".to_vec());
        answer.headers.push(("allow", "GET, HEAD"));
        answer
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// The value of this response header, which must occur once.
    fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
        let mut values = answer.headers.iter().filter(|(of, _)| *of == name);
        let value = values.next().map_or("", |(_, value)| value);
        assert_eq!(values.next(), None, "{name} twice");
        value
    }

    #[test]
    fn nothing_is_stored_guessed_or_loaded_from_elsewhere() {
        let json = br#"{"upstreams":[{"cluster":"web","endpoints":{"static":["10.0.0.1:80"]}}]}"#;
        let config = config::parse(json).unwrap();
        let page = Answer::to(Route::Page, &config, || unreachable!("a page without figures"));
        let effective = Answer::to(Route::Config, &config, || unreachable!("no figures either"));
        let places = ["$.mod".to_owned()];
        let of_refused = [Route::Page, Route::Json, Route::Metrics].map(|route| refused(route, &places));
        let others = [Route::Unknown, Route::Refused].map(Answer::without_sources);
        for answer in [&page, &effective].into_iter().chain(&of_refused).chain(&others) {
            assert_eq!(header(answer, "cache-control"), "no-store");
            assert_eq!(header(answer, "x-content-type-options"), "nosniff");
            assert_eq!(header(answer, "referrer-policy"), "no-referrer");
            let policy = header(answer, "content-security-policy");
            assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
            assert_eq!(policy.contains("script-src"), answer == &page, "only the page has a script");
            assert_eq!(header(answer, "allow"), if answer.status == 405 { "GET, HEAD" } else { "" });
        }
        assert!(header(&page, "content-type").starts_with("text/html"));
    }
}
