//! Affinity keys: cookies, headers and queries of arbitrary bytes, in any number of lines.

use core::time::Duration;
use std::cell::RefCell;

use engine::rng::Rng;
use engine::settings::Upstream;
use engine::time::Time;
use evenkeel::host::{Bytes, Call, CallError, Host, SharedError, StreamHost};
use evenkeel::request::{Issued, affinity_key};

use super::input::{Input, within};

const SOURCES: [&str; 5] = [
    r#""policy":"ip_hash""#,
    r#""policy":"consistent_hash","affinity":{"cookie":"user"}"#,
    r#""policy":"consistent_hash","affinity":{"cookie":{"name":"user","ttl":"1h","secure":true,"same_site":"none"}}"#,
    r#""policy":"consistent_hash","affinity":{"header":"x-user"}"#,
    r#""policy":"consistent_hash","affinity":{"query":"user"}"#,
];

thread_local! {
    static UPSTREAMS: Vec<Upstream> = SOURCES.iter().map(|source| upstream(source)).collect();
}

fn upstream(source: &str) -> Upstream {
    let json =
        format!(r#"{{"upstreams":[{{"cluster":"web",{source},"endpoints":{{"static":["10.0.0.1:80"]}}}}]}}"#);
    config::parse(json.as_bytes()).expect("a configuration").upstreams.remove(0)
}

/// Request headers by name, the client's address, and the response's cookies.
#[derive(Default)]
struct Client {
    headers: Vec<(&'static str, Vec<u8>)>,
    address: Vec<u8>,
    cookies: RefCell<Vec<Vec<u8>>>,
}

impl StreamHost for Client {
    fn now(&self) -> Time {
        Time(0)
    }
    fn request_header(&self, name: &str) -> Option<Bytes> {
        self.request_headers(name).into_iter().next().map(Bytes::from)
    }
    fn request_headers(&self, name: &str) -> Vec<Vec<u8>> {
        self.headers.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.clone()).collect()
    }
    fn set_request_header(&self, _: &str, _: &[u8]) {}
    fn remove_request_header(&self, _: &str) {}
    fn response_header(&self, name: &str) -> Option<Bytes> {
        self.response_headers(name).into_iter().next().map(Bytes::from)
    }
    fn response_headers(&self, _: &str) -> Vec<Vec<u8>> {
        self.cookies.borrow().clone()
    }
    fn response_body_end(&self, _: usize) -> Vec<u8> {
        Vec::new()
    }
    fn add_response_header(&self, name: &str, value: &[u8]) {
        assert_eq!(name, "set-cookie");
        self.cookies.borrow_mut().push(value.into());
    }
    fn remove_response_header(&self, _: &str) {}
    fn response_trailer(&self, _: &str) -> Option<Bytes> {
        None
    }
    fn property(&self, path: &[&str]) -> Option<Bytes> {
        (path == ["source", "address"]).then(|| self.address.as_slice().into())
    }
    fn set_property(&self, _: &[&str], _: &[u8]) {}
    fn respond(&self, _: u32, _: &[(&str, &str)], _: &[u8]) {}
    fn process(&self) -> &dyn Host {
        self
    }
}

impl Host for Client {
    fn now(&self) -> Time {
        Time(0)
    }
    fn shared_get(&self, _: &str) -> Option<(Vec<u8>, u32)> {
        None
    }
    fn shared_set(&self, _: &str, _: &[u8], _: Option<u32>) -> Result<(), SharedError> {
        Err(SharedError::Refused)
    }
    fn call(&self, call: &Call<'_>) -> Result<u32, CallError> {
        assert!(call.timeout > Duration::ZERO);
        Err(CallError::NotSent)
    }
    fn log(&self, _: log::Level, _: &str) {}
}

pub fn run(data: &[u8]) {
    UPSTREAMS.with(|upstreams| sticks(&mut Input(data), upstreams));
}

fn sticks(input: &mut Input<'_>, upstreams: &[Upstream]) {
    let upstream = &upstreams[usize::from(input.byte()) % upstreams.len()];
    let mut client = Client { address: input.piece().to_vec(), ..Client::default() };
    let theirs = input.piece().to_vec();
    while !input.is_empty() {
        let name = input.of(&["cookie", "x-user", ":path", "cookie"]);
        // A line may be longer than a piece: the last one takes the rest.
        let value = if input.byte() & 1 == 0 { input.piece() } else { core::mem::take(&mut input.0) };
        client.headers.push((name, value.to_vec()));
    }
    let bytes: usize = client.headers.iter().map(|(_, value)| value.len()).sum();
    let key = within(bytes + client.address.len(), 8, || affinity_key(upstream, &client));
    assert_eq!(key, affinity_key(upstream, &client), "the same for the same");

    // evenkeel's own cookie is read back as the same key, behind any other cookies of the client.
    let Some(issued) = Issued::fresh(0, upstream, &mut Rng::new(7)) else { return };
    if !theirs.is_empty() {
        client.cookies.borrow_mut().push(theirs.clone());
    }
    issued.give(upstream, &client);
    let given = client.cookies.borrow().clone();
    let Some(ours) = given.get(usize::from(!theirs.is_empty())) else {
        assert!(theirs.trim_ascii_start().starts_with(b"user"), "only an endpoint's own is in its place");
        return;
    };
    let text = core::str::from_utf8(ours).expect("text");
    let (pair, _) = text.split_once(';').expect("attributes");
    assert!(!text.contains(char::is_control) && pair.starts_with("user="), "{text:?}");
    client.headers.insert(0, ("cookie", pair.as_bytes().to_vec()));
    assert_eq!(affinity_key(upstream, &client), Some(issued.key()));
}
