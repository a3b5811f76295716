//! What scenarios have in common: a fleet, requests to it, and how they end.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::world::{Plugin, Stream, World};

/// The steering header, unless a scenario configures another.
pub const HEADER: &str = "x-evenkeel-endpoint";

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The address of an endpoint.
pub fn address(endpoint: usize) -> String {
    format!("10.{}.{}.{}:8080", endpoint / 62_500, endpoint / 250 % 250, endpoint % 250 + 1)
}

/// A configuration: so many endpoints, more fields of the upstream, more fields beside the upstreams.
pub fn config(endpoints: usize, upstream: &str, root: &str) -> String {
    let list: Vec<String> = (0..endpoints).map(|i| format!("{:?}", address(i))).collect();
    let comma = |more: &str| if more.is_empty() { "" } else { "," };
    format!(
        r#"{{{root}{}"upstreams":[{{"cluster":"web","endpoints":{{"static":[{}]}}{}{upstream}}}]}}"#,
        comma(root),
        list.join(","),
        comma(upstream)
    )
}

/// A world with one thread and one plugin.
pub fn single<W: World>(world: &mut W, json: &str) -> Plugin {
    let thread = world.thread();
    load(world, thread, json)
}

/// Loads a configuration that must be accepted.
pub fn load<W: World>(world: &mut W, thread: crate::world::Thread, json: &str) -> Plugin {
    world.configure(thread, "evenkeel", json).unwrap_or_else(|lines| panic!("refused:\n{}", lines.join("\n")))
}

/// How a request ends.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    pub headers: Option<Vec<(&'static str, Vec<u8>)>>,
    pub details: Option<&'static str>,
    pub trailers: Option<Vec<(&'static str, Vec<u8>)>>,
    /// The host that answered, where that is not the endpoint named; empty for none.
    pub served_by: Option<String>,
    pub attempts: Option<u64>,
    /// The response breaks off after its headers, for the reason in `details`.
    pub cut: bool,
}

impl Ending {
    /// An answer of the endpoint's.
    pub fn status(status: &str) -> Ending {
        let headers = Some(vec![(":status", status.as_bytes().to_vec())]);
        Ending { headers, details: Some("via_upstream"), ..Ending::default() }
    }

    /// An answer of Envoy's own.
    pub fn local(status: &str, details: &'static str) -> Ending {
        Ending { details: Some(details), ..Ending::status(status) }
    }

    /// gRPC with nothing but headers.
    pub fn grpc_headers(status: &str) -> Ending {
        let mut ending = Ending::status("200");
        let more = [("content-type", b"application/grpc".to_vec()), ("grpc-status", status.into())];
        ending.headers.as_mut().expect("headers").extend(more);
        ending
    }

    /// gRPC with its status in trailers.
    pub fn grpc_trailers(status: &str) -> Ending {
        let mut ending = Ending::status("200");
        ending.headers.as_mut().expect("headers").push(("content-type", b"application/grpc+proto".to_vec()));
        ending.trailers = Some(vec![("grpc-status", status.into())]);
        ending
    }

    /// A response that broke off after its headers.
    pub fn cut(details: &'static str) -> Ending {
        Ending { details: Some(details), cut: true, ..Ending::status("200") }
    }

    /// The same of a call.
    pub fn grpc_cut(details: &'static str) -> Ending {
        Ending { details: Some(details), cut: true, ..Ending::grpc_trailers("0") }
    }

    pub fn good() -> Ending {
        Ending::status("200")
    }

    /// The client goes away before there is any answer.
    pub fn cancelled() -> Ending {
        Ending::default()
    }
}

fn borrowed<'a>(headers: &'a [(&'static str, Vec<u8>)]) -> Vec<(&'a str, &'a [u8])> {
    headers.iter().map(|(name, value)| (*name, value.as_slice())).collect()
}

/// A request to cluster `web`, past its headers.
pub fn begin<W: World>(world: &mut W, plugin: Plugin) -> W::Stream {
    let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/"), (":authority", b"web")]);
    stream.property(&["xds", "cluster_name"], b"web");
    assert!(stream.request_headers(), "the request goes on");
    stream
}

/// The endpoints that the steering header names, best first; none without the header.
pub fn candidates(stream: &impl Stream) -> Vec<String> {
    let values = stream.request_values(HEADER);
    assert!(values.len() <= 1, "one steering header at most: {values:?}");
    let text =
        values.first().map(|value| String::from_utf8(value.clone()).expect("text")).unwrap_or_default();
    text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Which endpoint gets the request.
pub fn target(stream: &impl Stream) -> String {
    candidates(stream).into_iter().next().unwrap_or_default()
}

/// The response, as far as `ending` has one.
pub fn respond(stream: &mut impl Stream, ending: &Ending) {
    let named = target(stream);
    let served_by = ending.served_by.as_ref().unwrap_or(&named);
    if !served_by.is_empty() {
        stream.property(&["upstream", "address"], served_by.as_bytes());
    }
    if let Some(attempts) = ending.attempts {
        stream.property(&["upstream", "request_attempt_count"], &attempts.to_le_bytes());
    }
    if let Some(details) = ending.details {
        stream.property(&["response", "code_details"], details.as_bytes());
    }
    if let Some(headers) = &ending.headers {
        stream.response_headers(&borrowed(headers));
    }
    match &ending.trailers {
        _ if ending.cut => {}
        Some(trailers) => stream.response_trailers(&borrowed(trailers)),
        None if ending.headers.is_some() => stream.response_body(true),
        None => {}
    }
}

/// One request from beginning to end, 10 ms long; `ending` decides by which endpoint got it. Returns that endpoint.
pub fn serve<W: World>(world: &mut W, plugin: Plugin, ending: impl FnOnce(&str) -> Ending) -> String {
    let mut stream = begin(world, plugin);
    let named = target(&stream);
    let ending = ending(&named);
    world.advance(ms(10));
    respond(&mut stream, &ending);
    stream.log();
    stream.done();
    named
}

/// Good requests, one after the other: how many each endpoint gets.
pub fn picks<W: World>(world: &mut W, plugin: Plugin, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(serve(world, plugin, |_| Ending::good())).or_default() += 1;
    }
    counts
}

/// How many of so many good requests `endpoint` gets.
pub fn picks_of<W: World>(world: &mut W, plugin: Plugin, endpoint: &str, requests: usize) -> usize {
    picks(world, plugin, requests).get(endpoint).copied().unwrap_or(0)
}

/// Twenty good requests a second to each of these plugins, which tick meanwhile: how many each endpoint gets.
pub fn traffic<W: World>(world: &mut W, plugins: &[Plugin], seconds: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..20 * seconds {
        world.advance(ms(40));
        for plugin in plugins {
            world.tick(*plugin);
            *counts.entry(serve(world, *plugin, |_| Ending::good())).or_default() += 1;
        }
    }
    counts
}

/// Serves good requests until `endpoint` has been given one that ends as told.
pub fn give<W: World>(world: &mut W, plugin: Plugin, endpoint: &str, ending: &Ending) {
    for _ in 0..1000 {
        let got = serve(world, plugin, |to| if to == endpoint { ending.clone() } else { Ending::good() });
        if got == endpoint {
            return;
        }
    }
    panic!("{endpoint} is not given a request");
}

/// Lets time pass in steps of 50 ms, ticking these plugins at each.
pub fn pass<W: World>(world: &mut W, plugins: &[Plugin], time: Duration) {
    pass_with(world, plugins, time, |_| ());
}

/// The same, with something to do after each step.
pub fn pass_with<W: World>(world: &mut W, plugins: &[Plugin], time: Duration, mut each: impl FnMut(&mut W)) {
    for _ in 0..time.as_millis() / 50 {
        world.advance(ms(50));
        plugins.iter().for_each(|plugin| world.tick(*plugin));
        each(world);
    }
}
