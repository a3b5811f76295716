//! Texts of the longest length that is allowed, and of one byte more.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// So many bytes, the first of which is this one.
fn of(length: usize, first: char) -> String {
    format!("{first}{}", "x".repeat(length - first.len_utf8()))
}

fn signal(member: &str) -> String {
    format!(
        r#"{{"prometheus":{{"cluster":"p"}},"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}},
             "signals":[{{{member}}}]}}]}}"#
    )
}

fn hashed(affinity: &str) -> String {
    upstream_with(&format!(r#""policy":"consistent_hash","affinity":{{{affinity}}}"#))
}

/// What a text is, its longest length, and a configuration with such a text of any length.
type Limit = (&'static str, usize, fn(usize) -> String);

const LIMITS: [Limit; 10] = [
    ("cluster", 512, |n| {
        let cluster = of(n, 'c');
        format!(r#"{{"upstreams":[{{"cluster":"{cluster}","endpoints":{{"static":["10.0.0.1:80"]}}}}]}}"#)
    }),
    ("path of the status page", 256, |n| root_with(&format!(r#""status":{{"path":"{}"}}"#, of(n, '/')))),
    ("signal", 64, |n| signal(&format!(r#""name":"{}","query":"q""#, of(n, 's')))),
    ("label", 64, |n| signal(&format!(r#""name":"s","query":"q","address_label":"{}""#, of(n, 'l')))),
    ("query", 8192, |n| signal(&format!(r#""name":"s","query":"{}""#, of(n, 'q')))),
    ("header", 128, |n| hashed(&format!(r#""header":"{}""#, of(n, 'h')))),
    ("parameter", 128, |n| hashed(&format!(r#""query":"{}""#, of(n, 'q')))),
    ("cookie's path", 256, |n| hashed(&format!(r#""cookie":{{"name":"c","path":"{}"}}"#, of(n, '/')))),
    ("probe's path", 1024, |n| {
        upstream_with(&format!(r#""health":{{"probe":{{"path":"{}"}}}}"#, of(n, '/')))
    }),
    ("probe's authority", 255, |n| {
        upstream_with(&format!(r#""health":{{"probe":{{"path":"/","authority":"{}"}}}}"#, of(n, 'a')))
    }),
];

#[test]
fn texts_may_be_as_long_as_is_said_and_no_longer() {
    for (what, longest, with) in LIMITS {
        for length in [2, longest] {
            accepted(&with(length));
        }
        let faults = refused(with(longest + 1));
        assert_eq!(faults.len(), 1, "{what} of {} bytes: {:?}", longest + 1, lines(&faults));
    }
}

#[test]
fn what_bounds_keys_and_zones_has_the_documented_range() {
    let factor = |factor: f64| {
        upstream_with(&format!(
            r#""policy":{{"name":"consistent_hash","load_factor":{factor}}},"affinity":{{"header":"h"}}"#
        ))
    };
    [1.0, 1.25, 100.0].into_iter().for_each(|fits| _ = accepted(&factor(fits)));
    for beyond in [0.0, 0.99, 100.5] {
        assert_eq!(
            refused(factor(beyond)).len(),
            1,
            "{beyond}: no endpoint would be left with room for its keys"
        );
    }
    let zone = accepted(&upstream_with(r#""zone":{"local":"a"}"#)).upstreams.remove(0).zone;
    assert_eq!(zone.map(|zone| zone.spill_over_percent), Some(70.0));
}
