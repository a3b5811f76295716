//! The question: one cluster, by its exact name.

use crate::percent;

/// `/clusters?format=json&filter=^name$`, for a GET. Envoy takes the filter for an RE2 expression.
pub fn request_path(cluster: &str) -> String {
    let mut expression = String::from("^");
    for c in cluster.chars() {
        // RE2 takes a backslash before any ASCII character that is no letter, digit or underscore for the character
        // itself; letters of other scripts stand for themselves.
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' {
            expression.push('\\');
        }
        expression.push(c);
    }
    expression.push('$');
    format!("/clusters?format=json&filter={}", percent::encode(&expression))
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_name_is_taken_literally() {
        assert_eq!(request_path("web_1"), "/clusters?format=json&filter=%5Eweb_1%24");
        assert_eq!(
            request_path("outbound|80||web.default.svc"),
            "/clusters?format=json&filter=%5Eoutbound%5C%7C80%5C%7C%5C%7Cweb%5C.default%5C.svc%24"
        );
        assert_eq!(request_path("ü"), "/clusters?format=json&filter=%5E%C3%BC%24");
    }
}
