//! The session affinity key: the hash of a header, cookie, query parameter or client address. It is read only where the
//! upstream's policy or its traffic split uses it.
//!
//! Values are bytes and need not be text. An absent or empty value gives no key, and the policy then chooses at random.
//!
//! A client may send its cookies in several lines, and an endpoint sets each of its own in a line. Envoy joins request
//! cookies only over HTTP/2 and HTTP/3, and hands the filter the first line. Reading the others costs a copy of all
//! headers, so they are searched only if the first line does not have the cookie.

use crate::host::{Bytes, StreamHost};
use engine::rng::{Rng, hash};
use engine::settings::{Affinity, Cookie, Policy, SameSite, Upstream};

/// The longest part of a value that is hashed, bytes. Longer values with the same beginning have the same key.
const MAX_KEY: usize = 1024;
/// The longest part of a `cookie` header (all lines together) or of `:path` that is searched, bytes.
const MAX_SEARCH: usize = 16 * 1024;
/// The highest number of lines of one header that are searched.
const MAX_LINES: usize = 256;

/// What a key is taken from.
pub trait KeySource {
    /// A request header's value; the first if there are several.
    fn line(&self, name: &str) -> Option<Bytes>;
    /// Every value of a request header, in order.
    fn lines(&self, name: &str) -> Vec<Vec<u8>>;
    /// The client's address, if it is known.
    fn client(&self) -> Option<Bytes>;
}

impl<T: StreamHost + ?Sized> KeySource for T {
    fn line(&self, name: &str) -> Option<Bytes> {
        self.request_header(name)
    }

    fn lines(&self, name: &str) -> Vec<Vec<u8>> {
        self.request_headers(name)
    }

    fn client(&self) -> Option<Bytes> {
        self.property(&["source", "address"])
    }
}

/// The affinity key of a request to `upstream`; `None` if its policy and its split use none, or the request has none.
pub fn key<S: KeySource + ?Sized>(upstream: &Upstream, from: &S) -> Option<u64> {
    by(sticks_to(upstream)?, from)
}

#[inline(never)]
fn by<S: KeySource + ?Sized>(affinity: &Affinity, from: &S) -> Option<u64> {
    match affinity {
        Affinity::Header(name) => hashed(&from.line(name)?),
        Affinity::Cookie(named) => of_cookie(from, named.name.as_bytes()),
        Affinity::Query(name) => hashed(parameter(&from.line(":path")?, name.as_bytes())?),
        Affinity::SourceIp => hashed(without_port(&from.client()?)),
    }
}

fn sticks_to(upstream: &Upstream) -> Option<&Affinity> {
    match (&upstream.policy, &upstream.affinity) {
        (Policy::IpHash, _) => Some(&Affinity::SourceIp),
        (Policy::ConsistentHash(_), affinity) => affinity.as_ref(),
        (_, affinity) if !upstream.split.is_empty() => affinity.as_ref(),
        _ => None,
    }
}

/// A session cookie for a client that has none.
///
/// Its value is random and says nothing of endpoint, address or time. It is not a secret either: a client that guesses
/// another's cookie is sent to the same endpoint, nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The index of the upstream that the cookie is for.
    pub upstream: usize,
    value: [u8; 32],
}

impl Issued {
    /// A cookie with a random value, if `upstream` uses a cookie that the filter sets.
    pub fn fresh(at: usize, upstream: &Upstream, rng: &mut Rng) -> Option<Issued> {
        let cookie = matches!(sticks_to(upstream)?, Affinity::Cookie(cookie) if cookie.set);
        cookie.then(|| Issued { upstream: at, value: hexadecimal([rng.next_u64(), rng.next_u64()]) })
    }

    /// The affinity key of this cookie, the same that later requests with it have.
    pub fn key(&self) -> u64 {
        hash(&self.value)
    }

    /// Adds `set-cookie` to the response, unless the endpoint has set a cookie of this name itself.
    pub fn give(&self, upstream: &Upstream, host: &dyn StreamHost) {
        let Some(Affinity::Cookie(named)) = sticks_to(upstream) else { return };
        let sets = |line: &[u8]| is_set(line, named.name.as_bytes());
        let theirs = host.response_header("set-cookie");
        if theirs.as_deref().is_some_and(sets)
            || (theirs.is_some() && further(host.response_headers("set-cookie")).any(|line| sets(&line)))
        {
            return;
        }
        host.add_response_header("set-cookie", &set_cookie(named, &self.value));
    }
}

/// The key of the first non-empty cookie of this name, in any line.
fn of_cookie<S: KeySource + ?Sized>(from: &S, name: &[u8]) -> Option<u64> {
    let first = from.line("cookie")?;
    let key = |line: &[u8], left: usize| hashed(cookie(line.get(..left).unwrap_or(line), name)?);
    if let Some(found) = key(&first, MAX_SEARCH) {
        return Some(found);
    }
    let mut left = MAX_SEARCH.saturating_sub(first.len());
    for line in further(from.lines("cookie")) {
        if let Some(found) = key(&line, left) {
            return Some(found);
        }
        left = left.saturating_sub(line.len());
    }
    None
}

/// The lines after the first, up to [`MAX_LINES`] in all.
fn further(lines: Vec<Vec<u8>>) -> impl Iterator<Item = Vec<u8>> {
    lines.into_iter().take(MAX_LINES).skip(1)
}

/// Whether a `set-cookie` line sets the cookie of this name. Only its beginning is compared: attributes follow, no
/// other cookies.
fn is_set(line: &[u8], name: &[u8]) -> bool {
    value_of(line.trim_ascii_start(), name).is_some()
}

fn hexadecimal(words: [u64; 2]) -> [u8; 32] {
    let mut digits = [b'0'; 32];
    for (nth, digit) in (0u32..).zip(&mut digits) {
        let word = words.get(nth as usize / 16).copied().unwrap_or(0);
        let four = (word >> (60 - 4 * (nth % 16)) & 15) as u32;
        *digit = char::from_digit(four, 16).map_or(b'0', |c| c as u8);
    }
    digits
}

/// The value of a `set-cookie` header (RFC 6265, 4.1.1).
fn set_cookie(cookie: &Cookie, value: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(128);
    header.extend_from_slice(cookie.name.as_bytes());
    header.push(b'=');
    header.extend_from_slice(value);
    header.extend_from_slice(b"; Path=");
    header.extend_from_slice(cookie.path.as_bytes());
    if !cookie.ttl.is_zero() {
        header.extend_from_slice(format!("; Max-Age={}", cookie.ttl.as_secs().max(1)).as_bytes());
    }
    if cookie.secure {
        header.extend_from_slice(b"; Secure");
    }
    header.extend_from_slice(b"; HttpOnly");
    header.extend_from_slice(match cookie.same_site {
        Some(SameSite::Strict) => b"; SameSite=Strict",
        Some(SameSite::Lax) => b"; SameSite=Lax",
        Some(SameSite::None) => b"; SameSite=None",
        None => b"",
    });
    header
}

fn hashed(value: &[u8]) -> Option<u64> {
    let value = value.get(..MAX_KEY).unwrap_or(value);
    (!value.is_empty()).then(|| hash(value))
}

fn searched(bytes: &[u8]) -> &[u8] {
    bytes.get(..MAX_SEARCH).unwrap_or(bytes)
}

/// The value of the first non-empty cookie of this name in a line. Lines are joined by commas or semicolons.
fn cookie<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let pairs = searched(line).split(|b| matches!(b, b';' | b','));
    let mut values = pairs.map(<[u8]>::trim_ascii).filter_map(|pair| value_of(pair, name)).map(unquoted);
    values.find(|value| !value.is_empty())
}

/// The value of the first query parameter of this name, without percent-decoding.
fn parameter<'a>(path: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let path = searched(path);
    let query = path.get(path.iter().position(|b| *b == b'?')? + 1..)?;
    let query = query.split(|b| *b == b'#').next()?;
    query.split(|b| *b == b'&').find_map(|pair| value_of(pair, name))
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    pair.strip_prefix(name)?.strip_prefix(b"=")
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value)
}

/// `1.2.3.4:5` and `[::1]:5` without the port; anything else unchanged.
fn without_port(address: &[u8]) -> &[u8] {
    let Some(colon) = address.iter().rposition(|b| *b == b':') else { return address };
    let (ip, port) = address.split_at_checked(colon).unwrap_or((address, b""));
    let is_port = port.len() > 1 && port.iter().skip(1).all(u8::is_ascii_digit);
    if is_port && (ip.ends_with(b"]") || !ip.contains(&b':')) { ip } else { address }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use engine::time::Time;

    /// A host whose request has these headers and this peer address.
    struct Request<'a> {
        headers: &'a [(&'a str, &'a [u8])],
        peer: &'a [u8],
    }

    impl StreamHost for Request<'_> {
        fn now(&self) -> Time {
            Time::ZERO
        }
        fn request_header(&self, name: &str) -> Option<Bytes> {
            self.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into())
        }
        fn request_headers(&self, name: &str) -> Vec<Vec<u8>> {
            self.headers.iter().filter(|(n, _)| *n == name).map(|(_, value)| value.to_vec()).collect()
        }
        fn response_headers(&self, _: &str) -> Vec<Vec<u8>> {
            Vec::new()
        }
        fn response_body_end(&self, _: usize) -> Vec<u8> {
            Vec::new()
        }
        fn set_request_header(&self, _: &str, _: &[u8]) {}
        fn remove_request_header(&self, _: &str) {}
        fn response_header(&self, _: &str) -> Option<Bytes> {
            None
        }
        fn add_response_header(&self, _: &str, _: &[u8]) {}
        fn remove_response_header(&self, _: &str) {}
        fn response_trailer(&self, _: &str) -> Option<Bytes> {
            None
        }
        fn property(&self, path: &[&str]) -> Option<Bytes> {
            (path == ["source", "address"] && !self.peer.is_empty()).then(|| self.peer.into())
        }
        fn set_property(&self, _: &[&str], _: &[u8]) {}
        fn respond(&self, _: u32, _: &[(&str, &str)], _: &[u8]) {}
        fn process(&self) -> &dyn crate::host::Host {
            unreachable!("a key is taken from the request alone")
        }
    }

    fn upstream(policy: &str, affinity: &str) -> Upstream {
        let json = format!(
            r#"{{"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}},"policy":"{policy}"{affinity}}}]}}"#
        );
        config::parse(json.as_bytes()).unwrap().upstreams.remove(0)
    }

    fn of(affinity: &str, headers: &[(&str, &[u8])]) -> Option<u64> {
        let affinity = format!(r#","affinity":{affinity}"#);
        key(&upstream("consistent_hash", &affinity), &Request { headers, peer: b"10.1.1.1:99" })
    }

    #[test]
    fn a_key_is_the_hash_of_the_value_wherever_it_stands() {
        let alice = Some(hash(b"alice"));
        assert_eq!(of(r#"{"header":"x-user"}"#, &[("x-user", b"alice")]), alice);
        for cookies in [
            &b"user=alice"[..],
            b"a=b; user=alice",
            b"xuser=bob;user=\"alice\";user=carol",
            b"a=b,user=alice",
        ] {
            assert_eq!(of(r#"{"cookie":"user"}"#, &[("cookie", cookies)]), alice, "{cookies:?}");
        }
        for path in
            [&b"/?user=alice"[..], b"/a/b?x=1&user=alice&user=bob", b"/?superuser=x&user=alice#user=bob"]
        {
            assert_eq!(of(r#"{"query":"user"}"#, &[(":path", path)]), alice, "{path:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_in_whichever_line() {
        let alice = Some(hash(b"alice"));
        for lines in [
            &[&b"a=b"[..], b"user=alice"][..],
            &[b"a=b; user=", b"c=d", b"e=f; user=alice; user=bob"],
            &[b"user=alice", b"user=bob"],
            &[b"user=; user=alice"],
        ] {
            let headers: Vec<(&str, &[u8])> = lines.iter().map(|line| ("cookie", *line)).collect();
            assert_eq!(of(r#"{"cookie":"user"}"#, &headers), alice, "{lines:?}");
        }
        let many = vec![("cookie", &b"a=b"[..]); 2 * MAX_LINES];
        let late = [&many[..], &[("cookie", &b"user=alice"[..])]].concat();
        assert_eq!(of(r#"{"cookie":"user"}"#, &late), None, "the search is bounded");
        let long = [b"a=".as_slice(), &[b'x'; MAX_SEARCH]].concat();
        assert_eq!(of(r#"{"cookie":"user"}"#, &[("cookie", &long), ("cookie", b"user=alice")]), None);
    }

    #[test]
    fn a_cookie_is_set_by_its_own_line_only() {
        assert!(is_set(b"user=1; Path=/", b"user") && is_set(b" user=", b"user"));
        for line in [&b"a=1; Path=/user=; Expires=Wed, user=1"[..], b"xuser=1", b"user; Path=/", b""] {
            assert!(!is_set(line, b"user"), "{line:?}");
        }
    }

    #[test]
    fn what_is_absent_or_empty_is_no_key() {
        assert_eq!(of(r#"{"header":"x-user"}"#, &[]), None);
        assert_eq!(of(r#"{"header":"x-user"}"#, &[("x-user", b"")]), None);
        assert_eq!(of(r#"{"cookie":"user"}"#, &[("cookie", b"user; user =x; usera=b")]), None);
        for path in [&b"/user=alice"[..], b"/", b"", b"/?", b"/?a#&user=alice"] {
            assert_eq!(of(r#"{"query":"user"}"#, &[(":path", path)]), None, "{path:?}");
        }
    }

    #[test]
    fn the_client_is_its_address_without_the_port() {
        let client = |peer: &[u8]| key(&upstream("ip_hash", ""), &Request { headers: &[], peer });
        assert_eq!(client(b"10.1.1.1:99"), Some(hash(b"10.1.1.1")));
        assert_eq!(client(b"10.1.1.1:100"), client(b"10.1.1.1"));
        assert_eq!(client(b"[2001:db8::1]:99"), Some(hash(b"[2001:db8::1]")));
        assert_eq!(client(b"2001:db8::1"), Some(hash(b"2001:db8::1")), "no port to be taken off");
        assert_eq!(client(b""), None);
        let affinity = r#","affinity":{"source_ip":true}"#;
        let same =
            key(&upstream("consistent_hash", affinity), &Request { headers: &[], peer: b"10.1.1.1:7" });
        assert_eq!(same, client(b"10.1.1.1:99"));
    }

    #[test]
    fn a_policy_that_does_not_hash_asks_for_no_key() {
        let headers: &[(&str, &[u8])] = &[("x-user", b"alice")];
        let upstream = upstream("adaptive", r#","affinity":{"header":"x-user"}"#);
        assert_eq!(key(&upstream, &Request { headers, peer: b"10.1.1.1:99" }), None);
    }

    #[test]
    fn hostile_values_are_cut_not_refused() {
        let long = vec![0xFFu8; 1 << 20];
        assert_eq!(of(r#"{"header":"x-user"}"#, &[("x-user", &long)]), Some(hash(&[0xFF; 1024])));
        assert_eq!(of(r#"{"cookie":"user"}"#, &[("cookie", &long)]), None);
        let late = [&long[..], b"?user=alice"].concat();
        assert_eq!(of(r#"{"query":"user"}"#, &[(":path", &late)]), None, "the search is bounded");
    }
}
