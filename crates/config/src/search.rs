//! Searching text with little code: the library's search for a text in another is four kilobytes of every loaded filter.
//! What is searched here is short.

/// What is before and after the first `mark`; `None` without one.
pub fn split_once<'t>(text: &'t str, mark: &str) -> Option<(&'t str, &'t str)> {
    let mut places = text.as_bytes().windows(mark.len().max(1));
    split(text, places.position(|part| part == mark.as_bytes())?, mark)
}

/// What is before and after the last `mark`; `None` without one.
pub fn rsplit_once<'t>(text: &'t str, mark: &str) -> Option<(&'t str, &'t str)> {
    let mut places = text.as_bytes().windows(mark.len().max(1));
    split(text, places.rposition(|part| part == mark.as_bytes())?, mark)
}

fn split<'t>(text: &'t str, at: usize, mark: &str) -> Option<(&'t str, &'t str)> {
    Some((text.get(..at)?, text.get(at + mark.len()..)?))
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn text_is_split_as_the_library_splits_it() {
        for text in ["", ":", "://", "a://b", "a://b://c", "::///", "a:/b", "ü://é", ":://", "a: b: c: "] {
            for mark in ["://", ": ", "b", "ü", "//"] {
                assert_eq!(split_once(text, mark), text.split_once(mark), "{text} {mark}");
                assert_eq!(rsplit_once(text, mark), text.rsplit_once(mark), "{text} {mark}");
            }
        }
    }
}
