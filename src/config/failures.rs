//! `upstreams[].health.failures`: which answers, and which missing ones, count against an endpoint.

use super::nearest::nearest;
use super::node::{Node, did_you_mean};
use super::tree::Tree;

const MOST: usize = 64;
const ALLOWED: &str = "a status (429), a range (\"500-599\"), a class (\"5xx\"), a gRPC code (\"UNAVAILABLE\"), \"gateway\" or \"local_origin\"";
const PATTERN: &str = "^([1-5]xx|[1-5][0-9][0-9](-[1-5][0-9][0-9])?|[A-Z_]+|gateway|local_origin)$";

/// gRPC's codes (<https://grpc.io/docs/guides/status-codes/>), each with the HTTP status that Envoy's outlier detection takes it
/// for.
const CODES: &[(&str, u16)] = &[
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];
const UNIMPLEMENTED: usize = 12;

/// One entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Answers with a status from here to there.
    Status(u16, u16),
    /// Calls that end with this gRPC code.
    Grpc(u8),
    /// 502 to 504, resets, refused connections, time-outs.
    Gateway,
    /// Resets, refused connections, time-outs.
    LocalOrigin,
}

/// What counts as a failure of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    listed: Vec<Counted>,
    /// A bit for each status from 100 on.
    statuses: [u64; 8],
    /// A bit for each gRPC code.
    codes: u32,
    resets: bool,
    timeouts: bool,
}

impl Default for Failures {
    fn default() -> Failures {
        Failures::of(vec![Counted::Status(500, 599)])
    }
}

impl Failures {
    /// Nothing does.
    pub const NONE: Failures =
        Failures { listed: Vec::new(), statuses: [0; 8], codes: 0, resets: false, timeouts: false };

    /// What `listed` comes to. Envoy answers 503 in the place of an endpoint that resets or refuses, and 504 in the place of
    /// one that takes too long: whoever lists these means those. Without any gRPC code, calls count by the status that Envoy
    /// takes their code for; only a method that an endpoint does not have says nothing of its health.
    pub fn of(listed: Vec<Counted>) -> Failures {
        let mut failures = Failures::NONE;
        for counted in &listed {
            match *counted {
                Counted::Status(first, last) => (first..=last).for_each(|status| failures.add(status)),
                Counted::Grpc(code) => failures.codes |= bit(code.into()),
                Counted::Gateway => (502..=504).for_each(|status| failures.add(status)),
                Counted::LocalOrigin => (failures.resets, failures.timeouts) = (true, true),
            }
        }
        if !listed.iter().any(|counted| matches!(counted, Counted::Grpc(_))) {
            for (code, (_, status)) in (0..).zip(CODES) {
                if code != UNIMPLEMENTED && failures.status(*status) {
                    failures.codes |= bit(code as u32);
                }
            }
        }
        failures.resets |= failures.status(503);
        failures.timeouts |= failures.status(504);
        Failures { listed, ..failures }
    }

    fn add(&mut self, status: u16) {
        let at = usize::from(status.saturating_sub(100));
        if let Some(word) = self.statuses.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// As it was listed.
    pub fn listed(&self) -> &[Counted] {
        &self.listed
    }

    /// Whether an answer with this status does.
    pub fn status(&self, status: u16) -> bool {
        let Some(at) = status.checked_sub(100).map(usize::from) else { return false };
        self.statuses.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Whether a call that ends with this gRPC code does.
    pub fn grpc(&self, code: u32) -> bool {
        self.codes & bit(code) != 0
    }

    /// Whether a reset or a refused connection does.
    pub fn resets(&self) -> bool {
        self.resets
    }

    /// Whether a time-out does.
    pub fn timeouts(&self) -> bool {
        self.timeouts
    }
}

fn bit(code: u32) -> u32 {
    1u32.checked_shl(code).unwrap_or(0)
}

pub(super) fn read(node: &Node) -> Option<Failures> {
    let items = node.items(MOST, "kinds of failure");
    if matches!(node.tree(), Tree::Array(items) if items.is_empty()) {
        node.refuse("one kind of failure at least", None);
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
            let text = node.text_like(ALLOWED, Some(PATTERN))?;
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

/// The name that a misspelt one was meant to be: names are compared in lower case.
fn meant(text: &str) -> Option<&'static str> {
    let names = || CODES.iter().skip(1).map(|(name, _)| *name).chain(["gateway", "local_origin"]);
    let lower: Vec<String> = names().map(str::to_lowercase).collect();
    let found = nearest(text, lower.iter().map(String::as_str))?;
    names().find(|name| name.eq_ignore_ascii_case(found))
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

impl core::fmt::Display for Counted {
    /// As it stands in a configuration.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Counted::Status(first, last) if first == last => write!(f, "{first}"),
            Counted::Status(first, last) if first % 100 == 0 && last == first + 99 => {
                write!(f, "{}xx", first / 100)
            }
            Counted::Status(first, last) => write!(f, "{first}-{last}"),
            Counted::Grpc(code) => f.write_str(CODES.get(usize::from(code)).map_or("", |(name, _)| *name)),
            Counted::Gateway => f.write_str("gateway"),
            Counted::LocalOrigin => f.write_str("local_origin"),
        }
    }
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
