//! The status page while no configuration is usable and nothing is balanced.

use serde::Serialize;

use super::{Answer, Route, metrics};

#[derive(Serialize)]
struct Refused<'a> {
    version: &'static str,
    configuration_refused: &'a [String],
}

/// The response for `route`: the configuration is refused, with the paths of its faults. Values may be secret and are
/// only in the log.
pub fn refused(route: Route, places: &[String]) -> Answer {
    let mut answer = match route {
        Route::Page => {
            // Paths consist of field names, which the configuration's author chose.
            let list: String =
                places.iter().map(|place| format!("<li><code>{}</code>", escaped(place))).collect();
            let body = format!(
                "<!doctype html><title>evenkeel: configuration refused</title><h1>Configuration refused</h1><p>evenkeel \
                 stands aside: requests pass, and nothing is balanced. The log says what is wrong at:<ul>{list}</ul>"
            );
            Answer::data("text/html; charset=utf-8", body.into_bytes())
        }
        Route::Json | Route::Config => {
            let body = Refused { version: env!("CARGO_PKG_VERSION"), configuration_refused: places };
            Answer::data("application/json; charset=utf-8", serde_json::to_vec(&body).unwrap_or_default())
        }
        Route::Metrics => {
            Answer::data(super::METRICS_TYPE, metrics::text_without_configuration().into_bytes())
        }
        Route::Unknown | Route::Refused => return Answer::without_sources(route),
    };
    // The page does not exist, so whatever watches it sees an error.
    if route == Route::Page {
        answer.status = 503;
    }
    answer
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn places_are_shown_and_none_of_them_is_markup() {
        let places = ["$.upstreams[0].<script>alert(1)</script>".to_owned()];
        let page = String::from_utf8(refused(Route::Page, &places).body).unwrap();
        assert!(page.contains("$.upstreams[0].&lt;script>") && !page.contains("<script"), "{page}");
        let json = refused(Route::Json, &places).body;
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["configuration_refused"][0], places[0].as_str());
        assert_eq!(refused(Route::Refused, &places).status, 405);
        assert_eq!(refused(Route::Page, &places).status, 503, "an error to whatever watches the page");
        assert_eq!([Route::Json, Route::Metrics].map(|route| refused(route, &places).status), [200, 200]);
        let metrics = String::from_utf8(refused(Route::Metrics, &places).body).unwrap();
        assert!(metrics.ends_with("evenkeel_configuration_refused 1\n"), "{metrics}");
    }
}
