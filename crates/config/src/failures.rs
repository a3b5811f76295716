//! `upstreams[].health.failures`: which responses, and which missing ones, count as an endpoint's failures.

use super::node::{Node, did_you_mean};
use super::tree::Tree;
use crate::suggest::nearest;
use engine::settings::{CODES, Counted, Failures};

const MAX_KINDS: usize = 64;
const ALLOWED: &str = "a status (429), a range (\"500-599\"), a class (\"5xx\"), a gRPC code (\"UNAVAILABLE\"), \"gateway\" or \"local_origin\"";
const PATTERN: &str = "^([1-5]xx|[1-5][0-9][0-9](-[1-5][0-9][0-9])?|[A-Z_]+|gateway|local_origin)$";

#[inline(never)]
pub(super) fn read(node: &Node) -> Option<Failures> {
    let items = node.items(MAX_KINDS, "kinds of failure");
    if matches!(node.tree(), Tree::Array(items) if items.is_empty()) {
        node.refuse("at least one kind of failure", None);
    }
    let listed: Vec<Counted> = items.iter().filter_map(counted).collect();
    (!listed.is_empty()).then(|| Failures::of(listed))
}

fn counted(node: &Node) -> Option<Counted> {
    match node.tree() {
        Tree::Number(_) => {
            let status = node.whole(100..=599).and_then(|status| u16::try_from(status).ok())?;
            Some(Counted::Status(status, status))
        }
        Tree::Text(_) => {
            let text = node.text_like(ALLOWED, Some(PATTERN), &|text| named(text).is_some())?;
            let counted = named(text);
            if counted.is_none() {
                node.refuse(ALLOWED, meant(text).map(did_you_mean));
            }
            counted
        }
        _ => {
            node.mistyped(ALLOWED, None);
            None
        }
    }
}

/// The likely meaning of a misspelt name; compared in lower case.
fn meant(text: &str) -> Option<&'static str> {
    let codes = CODES.iter().skip(1).map(|(name, _)| *name);
    let names: Vec<&str> = codes.chain(["gateway", "local_origin"]).collect();
    let lower: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let found = nearest(text, &lower)?;
    names.into_iter().find(|name| name.eq_ignore_ascii_case(found))
}

fn named(text: &str) -> Option<Counted> {
    let status = |text: &str| {
        let plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|status| plain && (100..=599).contains(status))
    };
    if let Some(class) = text.strip_suffix("xx") {
        let class = class.parse::<u16>().ok().filter(|digit| class.len() == 1 && (1..=5).contains(digit))?;
        return Some(Counted::Status(class * 100, class * 100 + 99));
    }
    match text {
        "gateway" => return Some(Counted::Gateway),
        "local_origin" => return Some(Counted::LocalOrigin),
        _ => {}
    }
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (status(first)?, status(last)?);
        return (first <= last).then_some(Counted::Status(first, last));
    }
    if let Some(status) = status(text) {
        return Some(Counted::Status(status, status));
    }
    let code = CODES.iter().position(|(name, _)| *name == text).filter(|code| *code > 0)?;
    u8::try_from(code).ok().map(Counted::Grpc)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn of(listed: &[&str]) -> Failures {
        Failures::of(listed.iter().map(|text| named(text).unwrap_or_else(|| panic!("{text}"))).collect())
    }

    #[test]
    fn by_default_it_is_what_blames_the_server() {
        let failures = Failures::default();
        assert!((500..=599).all(|status| failures.status(status)));
        assert!(
            [0, 99, 100, 200, 404, 429, 499, 600, u16::MAX].iter().all(|status| !failures.status(*status))
        );
        let codes: Vec<u32> = (0..100).filter(|code| failures.grpc(*code)).collect();
        assert_eq!(codes, [2, 4, 13, 14, 15]);
        assert!(failures.resets() && failures.timeouts());
    }

    #[test]
    fn what_is_listed_counts_and_nothing_else() {
        let failures = of(&["429", "500-502", "1xx"]);
        let statuses: Vec<u16> = (150..=599).filter(|status| failures.status(*status)).collect();
        assert_eq!((statuses.first(), statuses.len()), (Some(&150), 50 + 1 + 3));
        assert!(!failures.resets() && !failures.timeouts());
        assert!(failures.grpc(8) && failures.grpc(13) && !failures.grpc(14));
        let gateway = of(&["gateway"]);
        assert!(gateway.status(502) && gateway.status(504) && !gateway.status(500) && !gateway.status(505));
        assert!(gateway.resets() && gateway.timeouts());
        assert!(gateway.grpc(14) && gateway.grpc(4) && !gateway.grpc(13));
        let named = of(&["5xx", "ABORTED"]);
        assert!(named.grpc(10) && !named.grpc(14), "a code that is named stands for all of them");
        let local = of(&["local_origin"]);
        assert!(local.resets() && local.timeouts() && !local.status(503) && !local.grpc(14));
        assert!(of(&["504"]).timeouts() && !of(&["504"]).resets());
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["429", "500-503", "5xx", "gateway", "local_origin", "DATA_LOSS"] {
            assert_eq!(named(text).unwrap().to_string(), text);
        }
        for text in [
            "", "6xx", "0xx", "xx", "5XX", "50", "5000", "099", "600", "503-500", "500-", "-500", "+50",
            "OK", "ok",
        ] {
            assert_eq!(named(text), None, "{text}");
        }
    }
}
