//! Routes of the status page, and its contents.

use evenkeel::telemetry::status::{Route, refused};

use super::input::Input;

const PREFIX: &str = "/_evenkeel";

/// Asserts that a response of the status page has its format: JSON, or one metric per line.
pub fn shown(path: &[u8], body: &[u8]) {
    if !path.ends_with(b"/metrics") {
        let json: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        assert!(json.is_object());
        return;
    }
    let text = core::str::from_utf8(body).expect("UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line:?}");
        assert!(series.starts_with("evenkeel_") && !series.contains('\r'), "{line:?}");
        if let Some((_, labels)) = series.split_once('{') {
            closed(labels, line);
        }
    }
}

/// Asserts that labels are closed right before the value and nowhere else.
fn closed(labels: &str, line: &str) {
    let (mut inside, mut escaped, mut ends) = (false, false, 0);
    for c in labels.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            '}' if !inside => ends += 1,
            _ => {}
        }
    }
    assert!(!inside && !escaped && ends == 1 && labels.ends_with('}'), "{line:?}");
}

/// A second implementation of the routing.
fn expected(method: &[u8], path: &[u8]) -> Option<Route> {
    let end = path.iter().position(|byte| b"?#".contains(byte)).unwrap_or(path.len());
    let path = &path[..end];
    if !path.starts_with(PREFIX.as_bytes()) {
        return None;
    }
    let rest = &path[PREFIX.len()..];
    if !rest.is_empty() && rest[0] != b'/' {
        return None;
    }
    if method != b"GET" && method != b"HEAD" {
        return Some(Route::Refused);
    }
    Some(match core::str::from_utf8(rest) {
        Ok("" | "/") => Route::Page,
        Ok("/status.json") => Route::Json,
        Ok("/config.json") => Route::Config,
        Ok("/metrics") => Route::Metrics,
        _ => Route::Unknown,
    })
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let method = input.of(&[&b"GET"[..], b"HEAD", b"POST", b"get", b"", b"GET "]);
    let path = if input.byte() & 1 == 0 { [PREFIX.as_bytes(), input.0].concat() } else { input.0.to_vec() };
    let route = Route::of(PREFIX, method, &path);
    assert_eq!(route, expected(method, &path), "{}", path.escape_ascii());
    // The same bytes as the path of a fault: text on the page, never markup.
    let places = [String::from_utf8_lossy(input.0).into_owned()];
    for route in [Route::Page, Route::Json, Route::Config, Route::Metrics, Route::Unknown, Route::Refused] {
        let answer = refused(route, &places);
        assert!(answer.body.len() < 1000 + 6 * input.0.len());
        match route {
            Route::Page => {
                let page = String::from_utf8(answer.body).expect("UTF-8");
                let (_, list) = page.split_once("<ul><li><code>").expect("a list");
                let (place, _) = list.split_once("</code>").expect("an end");
                assert!(!place.contains('<'), "{place}");
                assert_eq!(place.replace("&lt;", "<").replace("&amp;", "&"), places[0]);
            }
            Route::Json | Route::Config => shown(b"/status.json", &answer.body),
            Route::Metrics => shown(b"/metrics", &answer.body),
            Route::Unknown | Route::Refused => assert!(answer.status >= 400),
        }
    }
}
