//! Text from elsewhere, made safe for log lines and pages.

/// At most `most` characters of `text`, with everything escaped that could break or disguise a line.
pub fn printable(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).flat_map(char::escape_debug).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn plain_text_stays_and_long_text_is_cut() {
        assert_eq!(printable("Zürich", 6), "Zürich");
        assert_eq!(printable("Zürich", 5), "Züric…");
        assert_eq!(printable("", 0), "");
    }

    #[test]
    fn what_could_break_or_disguise_a_line_is_escaped() {
        assert_eq!(printable("a\nb\u{1b}[31m\u{202e}\"", 60), "a\\nb\\u{1b}[31m\\u{202e}\\\"");
    }
}
