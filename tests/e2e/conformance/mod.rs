//! The test host is as strict as Envoy: a small plugin makes the same host calls in every callback of both, and each
//! returns the same.

mod plugin;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::backend::{self, Backend, Behaviour};
use testbed::envoy::{self, Cluster, Envoy, Filter, Policy};
use testbed::http2::Client;
use testbed::{tempfile, tokio, wait};
use wasmhost::{Headers, Module, Process};

/// The phases of a call with trailers, of its root, and of a call of the plugin's own.
const PHASES: &str = "RvftacHBhbrldx";

/// What calls returned, as letters from `a` for 0: by phase, call and argument.
type Statuses = BTreeMap<String, BTreeSet<char>>;

fn read<'l>(lines: impl Iterator<Item = &'l str>) -> Statuses {
    let mut statuses = Statuses::new();
    for line in lines {
        let Some((_, said)) = line.split_once(plugin::MARK) else { continue };
        if let (Some(what), Some(status)) = (said.get(..3), said.chars().nth(4)) {
            statuses.entry(what.to_owned()).or_default().insert(status);
        }
    }
    statuses
}

fn phases(statuses: &Statuses) -> BTreeSet<char> {
    statuses.keys().filter_map(|what| what.chars().next()).collect()
}

/// A gRPC call through the test host.
fn in_the_test_host() -> Result<Statuses> {
    let process = Process::new(1);
    process.add_cluster("web");
    let vm = process.vm(&Module::parse(plugin::text())?)?;
    let root = vm.start_root("evenkeel", "configuration")?;
    vm.tick(root);
    for call in process.calls() {
        let head = Headers::new(&[(":status", "200"), ("content-type", "application/grpc")]);
        process.answer_with(&call, head, "body");
    }
    let head = [
        (":method", "POST"),
        (":path", "/a.B/C"),
        (":authority", "web"),
        ("content-type", "application/grpc"),
    ];
    let mut request = vm.request(root, &head);
    request.request_headers(false);
    request.request_body(b"message", false);
    request.request_body(b"", true);
    request.response_headers(&[(":status", "200"), ("content-type", "application/grpc")], false);
    request.response_body(b"message", false);
    request.response_trailers(&[("grpc-status", "0")]);
    request.finish();
    let logs = process.logs();
    Ok(read(logs.iter().map(|line| line.message.as_str())))
}

/// The same in a real Envoy, once it has made each of the `wanted` calls.
async fn in_envoy(wanted: &Statuses) -> Result<Statuses> {
    let behaviour = Behaviour::Grpc { status: 0, in_trailers: true };
    let backend = Backend::start(backend::Config { behaviour, ..backend::Config::default() }).await?;
    let file = tempfile::Builder::new().suffix(".wasm").tempfile()?;
    std::fs::write(file.path(), wat::parse_str(plugin::text())?)?;
    let mut web = Cluster::new("web", vec![backend.address()], Policy::RoundRobin);
    web.http2 = true;
    let config = envoy::Config {
        clusters: vec![web],
        filters: vec![Filter::wasm(file.path().to_owned(), "configuration")],
        concurrency: 1,
        ..envoy::Config::default()
    };
    let envoy = Envoy::start(config).await?;
    wait::until("every call", Duration::from_secs(60), || async {
        let called = Client::open(envoy.address()).await.ok()?.unary("/a.B/C", b"message").await;
        called.ok()?;
        let statuses = read(envoy.log().lines());
        wanted.keys().all(|what| statuses.contains_key(what)).then_some(statuses)
    })
    .await
    .with_context(|| envoy.log_tail(25))
}

#[tokio::test(flavor = "multi_thread")]
async fn host_calls_return_in_the_test_host_what_they_return_in_envoy() -> Result<()> {
    let host = in_the_test_host()?;
    let envoy = in_envoy(&host).await?;
    assert_eq!(phases(&host), PHASES.chars().collect());
    let differ: Vec<String> = envoy
        .iter()
        // The answer of this backend has trailers, which those to calls do not have in the test host.
        .filter(|(what, _)| !["ag7", "am7"].contains(&what.as_str()))
        .filter(|(what, statuses)| host.get(*what) != Some(statuses))
        .map(|(what, statuses)| format!("{what}: Envoy {statuses:?}, test host {:?}", host.get(what)))
        .collect();
    assert!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), envoy.len(), differ.join("\n"));
    Ok(())
}
