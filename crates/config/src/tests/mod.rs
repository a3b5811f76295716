//! Tests of the reader: what is accepted, what is refused and how, and that nothing makes it panic.

mod accepted;
mod builtin_signals;
#[cfg(not(target_family = "wasm"))]
mod hints;
mod lengths;
mod malformed;
mod malformed_upstream;
#[cfg(not(target_family = "wasm"))]
mod places;
mod probes;
#[cfg(not(target_family = "wasm"))]
mod properties;
mod unused;

use super::{Config, Fault, parse};

/// A configuration with every field, as in the documentation.
const COMPLETE: &str = include_str!("complete.json");

fn accepted(json: &str) -> Config {
    parse(json.as_bytes()).unwrap_or_else(|faults| panic!("{json}\n{}", lines(&faults).join("\n")))
}

fn refused(json: impl AsRef<[u8]>) -> Vec<Fault> {
    parse(json.as_ref()).expect_err("a refusal")
}

fn lines(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(Fault::to_string).collect()
}

/// The smallest configuration, with `more` in its only upstream.
fn upstream_with(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(r#"{{"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}}{comma}{more}}}]}}"#)
}

/// The smallest configuration, with `more` beside its upstreams.
fn root_with(more: &str) -> String {
    format!(r#"{{{more},"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}}}}]}}"#)
}
