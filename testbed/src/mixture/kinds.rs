//! The kinds of requests, and the end that each must have.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderValue;
use rand::RngExt;
use rand::rngs::StdRng;

use super::client::End;

/// A kind of request.
pub(super) struct Kind {
    pub name: &'static str,
    /// The relative frequency.
    pub often: u32,
    /// Draws a request of this kind; the argument is the path of the status page, if there is one.
    pub ask: fn(&mut StdRng, Option<&str>) -> Ask,
}

/// A request.
pub(super) struct Ask {
    pub http2: bool,
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, HeaderValue)>,
    pub body: Sent,
    /// The client cancels if there is no response by then.
    pub leaves: Option<Duration>,
    /// Whether it asks for an upgrade, after which bytes are echoed.
    pub upgrade: bool,
    pub expected: Expected,
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sent {
    Nothing,
    Bytes(usize),
    WithTrailers,
    /// This many parts, some milliseconds apart.
    Slowly(u32),
    /// A gRPC message.
    Message,
}

/// The end that a request must have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Expected {
    Status(u16),
    /// One of two statuses.
    Either(u16, u16),
    /// 200, and this `grpc-status` in headers or trailers.
    Call(u32),
    /// The client cancels, or there is a response in time.
    Left,
}

impl Expected {
    pub fn allows(self, end: &End) -> bool {
        match (self, end) {
            (Expected::Left, _) => true,
            (Expected::Status(status), End::Whole { status: got, .. }) => status == *got,
            (Expected::Either(one, other), End::Whole { status: got, .. }) => [one, other].contains(got),
            (Expected::Call(code), End::Whole { status: 200, grpc_status }) => Some(code) == *grpc_status,
            _ => false,
        }
    }
}

fn get(random: &mut StdRng, path: &str, status: u16) -> Ask {
    Ask {
        http2: random.random(),
        method: Method::GET,
        path: path.to_owned(),
        headers: spice(random),
        body: Sent::Nothing,
        leaves: None,
        upgrade: false,
        expected: Expected::Status(status),
    }
}

fn post(random: &mut StdRng, path: &str, body: Sent) -> Ask {
    Ask { method: Method::POST, body, ..get(random, path, 200) }
}

fn call(random: &mut StdRng, path: &str, code: u32) -> Ask {
    let mut headers = spice(random);
    headers.push(("content-type", HeaderValue::from_static("application/grpc")));
    headers.push(("te", HeaderValue::from_static("trailers")));
    if random.random_ratio(1, 3) {
        headers.push(("grpc-timeout", one_of(random, &["20S", "99999999H", "soon", "30000m", ""])));
    }
    Ask { http2: true, headers, expected: Expected::Call(code), ..post(random, path, Sent::Message) }
}

fn one_of(random: &mut StdRng, texts: &[&'static str]) -> HeaderValue {
    HeaderValue::from_static(texts[random.random_range(0..texts.len())])
}

/// Headers that a client may send with any request.
fn spice(random: &mut StdRng) -> Vec<(&'static str, HeaderValue)> {
    let bytes = |bytes: &[u8]| HeaderValue::from_bytes(bytes).unwrap_or(HeaderValue::from_static(""));
    match random.random_range(0..14) {
        0 => vec![("x-evenkeel-endpoint", HeaderValue::from_static("127.0.0.1:1"))],
        1 => vec![("x-evenkeel-endpoint", bytes(b"\xff\xfe")), ("x-evenkeel-endpoint", bytes(b"::1"))],
        2 => {
            let session = format!("a=\"b\"; session={}", random.random_range(0..200));
            vec![("cookie", bytes(session.as_bytes())), ("cookie", bytes(b"\xff; =;;session"))]
        }
        3 => vec![("x-evenkeel-debug", HeaderValue::from_static("a secret of the tests"))],
        4 => vec![(
            "traceparent",
            one_of(random, &["00-", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]),
        )],
        5 => vec![("x-long", bytes(&vec![b'l'; random.random_range(0..8_000)]))],
        6 => vec![("x-forwarded-for", bytes(b"1.2.3.4, \xff, [::1]:7"))],
        _ => Vec::new(),
    }
}

/// gRPC codes: success, those that count as failures, others, and an undefined one.
const CODES: [u32; 8] = [0, 0, 14, 4, 2, 13, 5, 99];
const STATUSES: [u16; 9] = [200, 204, 301, 304, 404, 429, 500, 502, 503];

fn drawn<T: Copy>(random: &mut StdRng, of: &[T]) -> T {
    of[random.random_range(0..of.len())]
}

/// Time that an impatient client waits.
fn patience(random: &mut StdRng) -> Option<Duration> {
    Some(Duration::from_millis(random.random_range(1..40)))
}

pub(super) const KINDS: &[Kind] = &[
    Kind { name: "get", often: 34, ask: |r, _| get(r, "/", 200) },
    Kind { name: "head", often: 4, ask: |r, _| Ask { method: Method::HEAD, ..get(r, "/", 200) } },
    Kind { name: "options", often: 2, ask: |r, _| Ask { method: Method::OPTIONS, ..get(r, "/", 200) } },
    Kind {
        name: "long query",
        often: 2,
        ask: |r, _| get(r, &format!("/?{}user=%ff", "a=b&".repeat(1_000)), 200),
    },
    Kind {
        name: "post",
        often: 8,
        ask: |r, _| {
            let size = r.random_range(0..30_000);
            post(r, "/", Sent::Bytes(size))
        },
    },
    Kind { name: "post with trailers", often: 3, ask: |r, _| post(r, "/", Sent::WithTrailers) },
    Kind { name: "slow upload", often: 2, ask: |r, _| post(r, "/", Sent::Slowly(3)) },
    Kind {
        name: "expect: 100-continue",
        often: 2,
        ask: |r, _| {
            let mut ask = post(r, "/", Sent::Bytes(100));
            ask.headers.push(("expect", HeaderValue::from_static("100-continue")));
            ask
        },
    },
    Kind {
        name: "status",
        often: 6,
        ask: |r, _| {
            let status = drawn(r, &STATUSES);
            get(r, &format!("/say/fail:{status}"), status)
        },
    },
    Kind {
        name: "reset",
        often: 1,
        ask: |r, _| Ask { expected: Expected::Either(502, 503), ..get(r, "/say/reset", 0) },
    },
    Kind {
        name: "download",
        often: 2,
        ask: |r, _| {
            let size = r.random_range(0..200_000);
            get(r, &format!("/bytes/{size}"), 200)
        },
    },
    Kind { name: "endless events", often: 1, ask: |r, _| leaving(get(r, "/events", 200)) },
    Kind {
        name: "client leaves",
        often: 3,
        ask: |r, _| Ask { leaves: patience(r), expected: Expected::Left, ..get(r, "/say/black-hole", 0) },
    },
    Kind {
        name: "client leaves its upload",
        often: 1,
        ask: |r, _| Ask { leaves: patience(r), expected: Expected::Left, ..post(r, "/", Sent::Slowly(50)) },
    },
    Kind {
        name: "call that fails at once",
        often: 4,
        ask: |r, _| {
            let code = drawn(r, &CODES);
            call(r, &format!("/chat/say/grpc:{code}"), code)
        },
    },
    Kind {
        name: "call",
        often: 12,
        ask: |r, _| {
            let code = drawn(r, &CODES);
            call(r, &format!("/chat/say/grpc-trailers:{code}"), code)
        },
    },
    Kind { name: "call in both directions", often: 3, ask: |r, _| call(r, "/chat", 0) },
    Kind {
        name: "gRPC-Web",
        often: 3,
        ask: |r, _| {
            let code = drawn(r, &CODES);
            let mut ask = post(r, &format!("/say/grpc-web:{code}"), Sent::Message);
            ask.headers.push(("content-type", HeaderValue::from_static("application/grpc-web+proto")));
            ask
        },
    },
    Kind {
        name: "call whose client leaves",
        often: 1,
        ask: |r, _| Ask {
            leaves: patience(r),
            expected: Expected::Left,
            ..call(r, "/chat/say/black-hole", 0)
        },
    },
    Kind { name: "websocket", often: 2, ask: |r, _| Ask { http2: false, upgrade: true, ..get(r, "/", 101) } },
    Kind {
        name: "status page",
        often: 1,
        ask: |r, status| match status {
            Some(path) => {
                let (below, expected) =
                    drawn(r, &[("", 200), ("/status.json", 200), ("/metrics", 200), ("/none", 404)]);
                get(r, &format!("{path}{below}"), expected)
            }
            None => get(r, "/", 200),
        },
    },
];

/// The client reads for a while, then cancels.
fn leaving(ask: Ask) -> Ask {
    Ask { leaves: Some(Duration::from_millis(60)), expected: Expected::Left, ..ask }
}

/// A body of `size` bytes.
pub(super) fn bytes(size: usize) -> Bytes {
    static ZEROS: [u8; 32_768] = [0; 32_768];
    Bytes::from_static(&ZEROS[..size.min(ZEROS.len())])
}
