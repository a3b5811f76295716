//! The test host is as strict as Envoy: a small plugin makes the same host calls in every callback of both, and each
//! returns the same.

mod order;
mod plugin;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::backend::{self, Backend, Behaviour};
use testbed::envoy::{self, Cluster, Envoy, Filter, Policy};
use testbed::http2::Client;
use testbed::{tempfile, tokio, wait};
use wasmhost::{Headers, Module, Process, Request, Root, Vm};

/// The phases of a call with trailers, of its root, and of a call of the plugin's own.
const PHASES: &str = "RvftacHBThbrldx";
const GRPC: &str = "application/grpc";
const MESSAGE: &[u8] = b"message";
const TRAILERS: [(&str, &str); 1] = [("x-trailer", "1")];
/// The answer of the backend.
const ANSWER: &[u8] = b"\0\0\0\0\0";

/// A request: its character, its path and content type, whether it has trailers, and what follows its headers in the
/// test host.
struct Scenario {
    named: char,
    path: &'static str,
    kind: &'static str,
    trailers: bool,
    rest: fn(&mut Request),
}

/// A gRPC call whose plugin does nothing.
const CALL: Scenario = Scenario { named: '1', path: "/a.B/C", kind: GRPC, trailers: false, rest: served };

/// That call, one with trailers of its own, one that is held until it has ended, one that Envoy has no endpoint for, and
/// four that the plugin answers itself.
const SCENARIOS: [Scenario; 8] = [
    CALL,
    Scenario {
        named: '2',
        trailers: true,
        rest: |request| {
            sent_with_trailers(request);
            respond(request);
        },
        ..CALL
    },
    Scenario { named: plugin::HOLDS, ..CALL },
    Scenario {
        named: '4',
        path: "/none",
        rest: |request| {
            let head =
                [(":status", "200"), ("content-type", GRPC), ("grpc-status", "14"), ("grpc-message", "x")];
            request.property(&["response", "code_details"], "no_healthy_upstream");
            request.response_headers(&head, true);
        },
        ..CALL
    },
    Scenario { named: 'H', rest: answered, ..CALL },
    Scenario {
        named: 'B',
        path: "/",
        kind: "text/plain",
        rest: |request| {
            request.request_body(&framed(), false);
            answered(request);
        },
        ..CALL
    },
    Scenario {
        named: 'T',
        trailers: true,
        rest: |request| {
            sent_with_trailers(request);
            answered(request);
        },
        ..CALL
    },
    Scenario {
        named: 'h',
        rest: |request| {
            sent(request);
            // Envoy sends an answer in place of another one past the filters.
            from_upstream(request);
            request.response_headers(&HEAD, false);
            answered(request);
        },
        ..CALL
    },
];
/// The head of the backend's answer.
const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", GRPC)];

fn framed() -> Vec<u8> {
    [&[0, 0, 0, 0, MESSAGE.len() as u8], MESSAGE].concat()
}

fn sent(request: &mut Request) {
    request.request_body(&framed(), false);
    request.request_body(b"", true);
}

fn sent_with_trailers(request: &mut Request) {
    request.request_body(&framed(), false);
    request.request_trailers(&TRAILERS);
}

fn served(request: &mut Request) {
    sent(request);
    respond(request);
}

fn respond(request: &mut Request) {
    from_upstream(request);
    request.response_headers(&HEAD, false);
    request.response_body(ANSWER, false);
    request.response_trailers(&[("grpc-status", "0")]);
}

/// What is known once an endpoint has answered.
fn from_upstream(request: &mut Request) {
    request.property(&["response", "code_details"], "via_upstream");
    request.property(&["upstream", "address"], "127.0.0.1:80");
}

fn answered(request: &mut Request) {
    assert!(request.deliver_local_response(), "the plugin answers");
}

impl Scenario {
    fn headers(&self) -> [(&str, String); 5] {
        let text = |text: &str| text.to_owned();
        [
            ("content-type", text(self.kind)),
            ("te", text("trailers")),
            (plugin::SCENARIO, self.named.to_string()),
            ("x-several", text("a")),
            ("x-several", text("b")),
        ]
    }

    fn in_the_test_host(&self, vm: &Vm, root: Root) {
        let mut head = Headers::new(&[(":method", "POST"), (":path", self.path), (":authority", "web")]);
        self.headers().iter().for_each(|(name, value)| head.add(name, value.as_bytes()));
        let mut request = vm.request_of(root, head);
        let cluster = if self.path == "/none" { "none" } else { "web" };
        request.property(&["xds", "cluster_name"], cluster);
        request.request_headers(false);
        (self.rest)(&mut request);
        request.finish();
    }

    /// Whatever comes of it: bodies that the plugin has changed are of no use to a client.
    async fn in_envoy(&self, envoy: &Envoy) -> Result<()> {
        let headers = self.headers();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let trailers: &[_] = if self.trailers { &TRAILERS } else { &[] };
        let client = Client::open(envoy.address()).await?;
        let _spoiled = client.unary_with(self.path, &headers, MESSAGE, trailers).await;
        Ok(())
    }
}

/// What calls returned, as characters from `0` on: by scenario, phase, call and argument.
type Results = BTreeMap<String, BTreeSet<char>>;

fn read<'l>(lines: impl Iterator<Item = &'l str>) -> Results {
    let mut results = Results::new();
    for line in lines {
        let Some((_, said)) = line.split_once(plugin::MARK) else { continue };
        if let (Some(what), Some(result)) = (said.get(..4), said.chars().nth(5)) {
            results.entry(what.to_owned()).or_default().insert(result);
        }
    }
    results
}

fn phases(results: &Results) -> BTreeSet<char> {
    results.keys().filter_map(|what| what.chars().nth(1)).collect()
}

/// Every scenario in the test host.
fn in_the_test_host() -> Result<Results> {
    let process = Process::new(1);
    process.add_cluster("web");
    let vm = process.vm(&Module::parse(plugin::text())?)?;
    let root = vm.start_root("evenkeel", "configuration")?;
    vm.tick(root);
    for call in process.calls() {
        process.answer_with(&call, Headers::new(&HEAD), ANSWER);
    }
    SCENARIOS.iter().for_each(|scenario| scenario.in_the_test_host(&vm, root));
    let logs = process.logs();
    Ok(read(logs.iter().map(|line| line.message.as_str())))
}

/// The same in a real Envoy, once it has made each of the `wanted` calls.
async fn in_envoy(wanted: &Results) -> Result<Results> {
    let behaviour = Behaviour::Grpc { status: 0, in_trailers: true };
    let backend = Backend::start(backend::Config { behaviour, ..backend::Config::default() }).await?;
    let file = tempfile::Builder::new().suffix(".wasm").tempfile()?;
    std::fs::write(file.path(), wat::parse_str(plugin::text())?)?;
    let mut web = Cluster::new("web", vec![backend.address()], Policy::RoundRobin);
    web.http2 = true;
    let none = Cluster { prefix: "/none".to_owned(), ..Cluster::new("none", Vec::new(), Policy::RoundRobin) };
    let mut plugin = Filter::wasm(file.path().to_owned(), "configuration");
    // Unlike its name.
    plugin.0["typed_config"]["config"]["root_id"] = "root".into();
    let config = envoy::Config {
        clusters: vec![web, none],
        filters: vec![plugin],
        concurrency: 1,
        ..envoy::Config::default()
    };
    let envoy = Envoy::start(config).await?;
    let seen = wait::until("every call", Duration::from_secs(60), || async {
        for scenario in &SCENARIOS {
            scenario.in_envoy(&envoy).await.ok()?;
        }
        let results = read(envoy.log().lines());
        wanted.keys().all(|what| results.contains_key(what)).then_some(results)
    })
    .await;
    seen.with_context(|| {
        let results = read(envoy.log().lines());
        let missing: Vec<&String> = wanted.keys().filter(|what| !results.contains_key(*what)).collect();
        format!("not called: {missing:?}\n{}", envoy.log_tail(25))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn host_calls_return_in_the_test_host_what_they_return_in_envoy() -> Result<()> {
    let host = in_the_test_host()?;
    assert_eq!(phases(&host), PHASES.chars().collect());
    let envoy = in_envoy(&host).await?;
    // Whether the address is known by then is up to the connection.
    let at_its_own_time = |what: &str| {
        let is = |at: usize| what.get(at..=at).is_some_and(|of| "BT".contains(of));
        let soon_known = what.get(2..).is_some_and(|call| plugin::SOON_KNOWN.contains(&call));
        (is(1) && soon_known) || (is(0) && what.ends_with(plugin::ADDRESS))
    };
    let differ: Vec<String> = envoy
        .iter()
        .filter(|(what, _)| !at_its_own_time(what))
        // The answer of this backend has trailers, which those to calls do not have in the test host.
        .filter(|(what, _)| !["-ag7", "-am7"].contains(&what.as_str()))
        .filter(|(what, results)| host.get(*what) != Some(results))
        .map(|(what, results)| format!("{what}: Envoy {results:?}, test host {:?}", host.get(what)))
        .collect();
    assert!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), envoy.len(), differ.join("\n"));
    Ok(())
}
