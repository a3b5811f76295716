//! Request paths, for clusters by their exact names.

use crate::discovery::percent;

/// `/clusters?format=json&filter=^name$`, for a GET. Envoy reads the filter as an RE2 expression.
pub fn clusters_path(clusters: &[&str]) -> String {
    format!("/clusters?format=json&filter={}", percent::encode(&expression(clusters)))
}

/// The path for the locality weights of these clusters, by their EDS service names.
///
/// The mask reduces the response to endpoints.
pub fn localities_path(clusters: &[&str]) -> String {
    let expression = percent::encode(&expression(clusters));
    format!(
        "/config_dump?include_eds&mask=dynamic_endpoint_configs,static_endpoint_configs&name_regex={expression}"
    )
}

/// The path for the stats that show what the own policies of these clusters do, by their names in stats.
pub fn policies_path(stat_names: &[&str]) -> String {
    let literal: Vec<String> = stat_names.iter().map(|name| literally(name)).collect();
    let expression = format!(
        r"^cluster\.(?:{})\.lb_(?:subsets_active|subsets_created|recalculate_zone_structures|zone_cluster_too_small)$",
        literal.join("|")
    );
    format!("/stats?filter={}", percent::encode(&expression))
}

/// An expression that matches exactly these names.
fn expression(clusters: &[&str]) -> String {
    let literal: Vec<String> = clusters.iter().map(|cluster| literally(cluster)).collect();
    match &literal[..] {
        [one] => format!("^{one}$"),
        many => format!("^(?:{})$", many.join("|")),
    }
}

fn literally(name: &str) -> String {
    let mut expression = String::new();
    for c in name.chars() {
        // In RE2 a backslash before any ASCII character that is not a letter, digit or underscore means that character;
        // non-ASCII letters need none.
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' {
            expression.push('\\');
        }
        expression.push(c);
    }
    expression
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_name_is_taken_literally() {
        assert_eq!(clusters_path(&["web_1"]), "/clusters?format=json&filter=%5Eweb_1%24");
        assert_eq!(
            clusters_path(&["outbound|80||web.default.svc"]),
            "/clusters?format=json&filter=%5Eoutbound%5C%7C80%5C%7C%5C%7Cweb%5C.default%5C.svc%24"
        );
        assert_eq!(clusters_path(&["ü"]), "/clusters?format=json&filter=%5E%C3%BC%24");
    }

    #[test]
    fn one_question_names_several() {
        assert_eq!(clusters_path(&["a.b", "c"]), "/clusters?format=json&filter=%5E%28%3F%3Aa%5C.b%7Cc%29%24");
        assert_eq!(
            localities_path(&["a"]),
            "/config_dump?include_eds&mask=dynamic_endpoint_configs,static_endpoint_configs&name_regex=%5Ea%24"
        );
    }
}
