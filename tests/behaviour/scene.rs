//! What scenarios have in common: endpoints, requests to them, and how they end.

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

/// A configuration with this many endpoints, more fields of the upstream, and more fields at the root.
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

/// Loads a configuration into a new thread.
pub fn single<W: World>(world: &mut W, json: &str) -> Plugin {
    let thread = world.thread();
    load(world, thread, json)
}

/// Loads a configuration that must be accepted.
pub fn load<W: World>(world: &mut W, thread: crate::world::Thread, json: &str) -> Plugin {
    world.configure(thread, "evenkeel", json).unwrap_or_else(|lines| panic!("refused:\n{}", lines.join("\n")))
}

/// The end of a request.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    pub headers: Option<Vec<(&'static str, Vec<u8>)>>,
    pub details: Option<&'static str>,
    pub trailers: Option<Vec<(&'static str, Vec<u8>)>>,
    /// The host that answered, if that is not the named endpoint; empty for none.
    pub served_by: Option<String>,
    pub attempts: Option<u64>,
    /// The response breaks off after its headers, for the reason in `details`.
    pub cut: bool,
    /// The last part of the body.
    pub last: Option<Vec<u8>>,
}

impl Ending {
    /// A response of the endpoint.
    pub fn status(status: &str) -> Ending {
        let headers = Some(vec![(":status", status.as_bytes().to_vec())]);
        Ending { headers, details: Some("via_upstream"), ..Ending::default() }
    }

    /// A local reply of Envoy.
    pub fn local(status: &str, details: &'static str) -> Ending {
        Ending { details: Some(details), ..Ending::status(status) }
    }

    /// A gRPC response with headers only.
    pub fn grpc_headers(status: &str) -> Ending {
        let mut ending = Ending::status("200");
        let more = [("content-type", b"application/grpc".to_vec()), ("grpc-status", status.into())];
        ending.headers.as_mut().expect("headers").extend(more);
        ending
    }

    /// A gRPC response with its status in trailers.
    pub fn grpc_trailers(status: &str) -> Ending {
        let mut ending = Ending::status("200");
        ending.headers.as_mut().expect("headers").push(("content-type", b"application/grpc+proto".to_vec()));
        ending.trailers = Some(vec![("grpc-status", status.into())]);
        ending
    }

    /// A gRPC-Web response with its status at the end of its body.
    pub fn grpc_web(status: &str) -> Ending {
        let mut ending = Ending::status("200");
        ending
            .headers
            .as_mut()
            .expect("headers")
            .push(("content-type", b"application/grpc-web+proto".to_vec()));
        ending.last = Some(web_trailers(status));
        ending
    }

    /// A response that broke off after its headers.
    pub fn cut(details: &'static str) -> Ending {
        Ending { details: Some(details), cut: true, ..Ending::status("200") }
    }

    /// A gRPC response that broke off after its headers.
    pub fn grpc_cut(details: &'static str) -> Ending {
        Ending { details: Some(details), cut: true, ..Ending::grpc_trailers("0") }
    }

    pub fn good() -> Ending {
        Ending::status("200")
    }

    /// The client cancels before any response.
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

/// A gRPC call to cluster `web`, past its last message.
pub fn begin_call<W: World>(world: &mut W, plugin: Plugin) -> W::Stream {
    let mut call =
        world.stream(plugin, &[(":method", b"POST"), (":path", b"/a.B/C"), (":authority", b"web")]);
    call.property(&["xds", "cluster_name"], b"web");
    assert!(call.request_headers_of(false), "the call goes on");
    call.request_body(true);
    call
}

/// The frame at the end of a gRPC-Web body.
pub fn web_trailers(status: &str) -> Vec<u8> {
    let trailers = format!("grpc-status:{status}\r\ngrpc-message:x\r\n");
    [&[0x80, 0, 0, 0, trailers.len() as u8][..], trailers.as_bytes()].concat()
}

/// The endpoints in the steering header, best first; empty without the header.
pub fn candidates(stream: &impl Stream) -> Vec<String> {
    let values = stream.request_values(HEADER);
    assert!(values.len() <= 1, "one steering header at most: {values:?}");
    let text =
        values.first().map(|value| String::from_utf8(value.clone()).expect("text")).unwrap_or_default();
    text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The first endpoint in the steering header; empty without the header.
pub fn target(stream: &impl Stream) -> String {
    candidates(stream).into_iter().next().unwrap_or_default()
}

/// The response, if `ending` has one.
pub fn respond(stream: &mut impl Stream, ending: &Ending) {
    let named = target(stream);
    let served_by = ending.served_by.as_ref().unwrap_or(&named);
    if !served_by.is_empty() {
        stream.property(&["upstream", "address"], served_by.as_bytes());
    }
    if let Some(attempts) = ending.attempts {
        stream.property(&["upstream", "request_attempt_count"], &attempts.to_le_bytes());
    }
    // Envoy knows how a response broke off only once it has.
    let at_the_end = ending.cut && ending.headers.is_some();
    if let Some(details) = ending.details {
        let so_far = if at_the_end { "via_upstream" } else { details };
        stream.property(&["response", "code_details"], so_far.as_bytes());
    }
    if let Some(headers) = &ending.headers {
        stream.response_headers(&borrowed(headers));
    }
    if let Some(details) = ending.details {
        stream.property(&["response", "code_details"], details.as_bytes());
    }
    match &ending.trailers {
        _ if ending.cut => {}
        Some(trailers) => stream.response_trailers(&borrowed(trailers)),
        None if ending.headers.is_some() => {
            stream.response_part(ending.last.as_deref().unwrap_or(b"part"), true);
        }
        None => {}
    }
}

/// A whole request of 10 ms; `ending` returns its end by endpoint. Returns that endpoint.
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

/// Successful requests, one after the other; returns how many each endpoint gets.
pub fn picks<W: World>(world: &mut W, plugin: Plugin, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(serve(world, plugin, |_| Ending::good())).or_default() += 1;
    }
    counts
}

/// How many of `requests` successful ones `endpoint` gets.
pub fn picks_of<W: World>(world: &mut W, plugin: Plugin, endpoint: &str, requests: usize) -> usize {
    picks(world, plugin, requests).get(endpoint).copied().unwrap_or(0)
}

/// Twenty successful requests per second to each of these plugins, which tick meanwhile; returns how many each endpoint
/// gets.
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

/// Serves successful requests until `endpoint` has had one that ends as given.
pub fn give<W: World>(world: &mut W, plugin: Plugin, endpoint: &str, ending: &Ending) {
    for _ in 0..1000 {
        let got = serve(world, plugin, |to| if to == endpoint { ending.clone() } else { Ending::good() });
        if got == endpoint {
            return;
        }
    }
    panic!("{endpoint} is not given a request");
}

/// Lets time pass in steps of 50 ms, at each of which these plugins tick.
pub fn pass<W: World>(world: &mut W, plugins: &[Plugin], time: Duration) {
    pass_with(world, plugins, time, |_| ());
}

/// The same, with an action after each step.
pub fn pass_with<W: World>(world: &mut W, plugins: &[Plugin], time: Duration, mut each: impl FnMut(&mut W)) {
    for _ in 0..time.as_millis() / 50 {
        world.advance(ms(50));
        plugins.iter().for_each(|plugin| world.tick(*plugin));
        each(world);
    }
}

/// Lets time pass for a request that waits. A worker that waits ticks at least twice a second: a time without any is no
/// endpoint's.
pub fn wait<W: World>(world: &mut W, plugin: Plugin, time: Duration) {
    pass(world, &[plugin], time);
    world.advance(ms((time.as_millis() % 50) as u64));
}
