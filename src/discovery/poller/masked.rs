//! Removes secrets from error texts: a server or proxy that repeats the token it was sent would put it into the log and
//! on the status page.

use crate::discovery::percent;

/// The shortest value that counts as a secret, bytes; shorter ones would match inside words.
const MIN_BYTES: usize = 4;
/// The replacement for a secret.
const MASK: &str = "(not shown)";

/// `error` without the values of `headers` and `parameters`, whole or after a scheme such as `Bearer`: as they are, as a log
/// shows them, and as they stand in a path. If the error is cut inside a value, that value's beginning is removed, too.
pub(super) fn masked(error: &str, headers: &[(String, String)], parameters: &[(String, String)]) -> String {
    let mut text = error.to_owned();
    let values = headers.iter().chain(parameters).map(|(_, value)| value.as_str());
    let parts = values.flat_map(|value| [Some(value), value.split_whitespace().last()]).flatten();
    let secrets =
        parts.flat_map(|part| [part.to_owned(), part.escape_debug().to_string(), percent::encode(part)]);
    for secret in secrets.filter(|secret| secret.len() >= MIN_BYTES) {
        text = text.replace(&secret, MASK);
        let whole = text.trim_end_matches('…');
        let mut beginnings = secret.char_indices().map(|(at, _)| secret.get(..at).unwrap_or_default());
        let cut = beginnings.rfind(|part| part.len() >= MIN_BYTES && whole.ends_with(part));
        if let Some(kept) = cut.and_then(|part| whole.strip_suffix(part)) {
            text = format!("{kept}{MASK}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn secrets_in_errors_are_masked() {
        let headers = [
            ("authorization".to_owned(), "Bearer s3cr3t-token".to_owned()),
            ("x".to_owned(), "a".to_owned()),
        ];
        for (error, shown) in [
            (
                "HTTP status 401: bad token s3cr3t-token, a pity",
                "HTTP status 401: bad token (not shown), a pity",
            ),
            ("got Bearer s3cr3t-token", "got (not shown)"),
            ("s3cr3t-tokens3cr3t-token", "(not shown)(not shown)"),
            ("cut at s3cr3t-tok", "cut at (not shown)"),
            ("cut at Bearer s3cr…", "cut at (not shown)"),
            ("no more than s3c", "no more than s3c"),
            ("", ""),
        ] {
            assert_eq!(masked(error, &headers, &[]), shown);
            assert_eq!(masked(error, &[], &headers), shown);
        }
        assert_eq!(masked("é…", &[("h".to_owned(), "ééé".to_owned())], &[]), "é…");
    }

    #[test]
    fn secrets_are_masked_as_a_log_and_a_path_show_them() {
        for secret in [r#"pa'ss"w0rd"#, r"back\slash", "a b&c=d", "s3cr3t"] {
            let parameters = [("token".to_owned(), secret.to_owned())];
            for shown in
                [secret.to_owned(), config::printable::printable(secret, 200), percent::encode(secret)]
            {
                let error = masked(&format!("got {shown}, a pity"), &[], &parameters);
                assert_eq!(error, "got (not shown), a pity", "{secret}");
            }
        }
    }
}
