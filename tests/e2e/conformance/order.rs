//! The order of callbacks is the same in the test host and in Envoy: of a call that a stream makes to a cluster with an
//! upstream filter, and of two filters of one name and text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::backend::{self, Backend};
use testbed::envoy::{self, Cluster, Envoy, Filter, Policy};
use testbed::{http, tempfile, tokio, wait};
use wasmhost::{Module, Process};

use super::plugin::headers;

/// A log line of the plugin begins so; the callback, the kind of its context and whether it is the end follow.
const MARK: &str = "order:";
/// The kinds of contexts: root, root among upstream filters, and a stream of either.
const KINDS: [char; 4] = ['R', 'V', 'S', 'U'];
/// The configuration of the filters of the chain, and of the upstream filter.
const TEXTS: [&str; 2] = ["downstream", "upstream"];
/// The callbacks of streams, and whether they have a number of headers or bytes, and say whether they are the end.
const CALLBACKS: [(char, &str, [bool; 2]); 8] = [
    ('B', "proxy_on_request_body", [true, true]),
    ('T', "proxy_on_request_trailers", [true, false]),
    ('h', "proxy_on_response_headers", [true, true]),
    ('b', "proxy_on_response_body", [true, true]),
    ('r', "proxy_on_response_trailers", [true, false]),
    ('l', "proxy_on_log", [false, false]),
    ('d', "proxy_on_done", [false, false]),
    ('x', "proxy_on_delete", [false, false]),
];

/// A plugin that logs its callbacks. Its first stream calls the cluster `asked`, in its first callback.
fn plugin() -> String {
    let map = headers(&[(":method", "POST"), (":path", "/"), (":authority", "asked")]);
    let data: String = map.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let [root, upstream, stream, attempt] = KINDS.map(|kind| kind as u32);
    let mut text = format!(
        r#"(module
(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
(memory (export "memory") 2)
(data (i32.const 64) "{MARK}...")
(data (i32.const 96) "asked")
(data (i32.const 128) "{data}")
(global $heap (mut i32) (i32.const 65536))
(global $follows (mut i32) (i32.const 0))
(global $asked (mut i32) (i32.const 0))
(func (export "_initialize"))
(func (export "proxy_abi_version_0_2_1"))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (global.get $heap)
  (global.set $heap (i32.add (global.get $heap) (local.get $size))))
;; The kinds of contexts are from 1024 on.
(func $kind (param $id i32) (result i32) (i32.load8_u offset=1024 (local.get $id)))
(func $say (param $letter i32) (param $id i32) (param $end i32)
  (i32.store8 (i32.const 70) (local.get $letter))
  (i32.store8 (i32.const 71) (call $kind (local.get $id)))
  (i32.store8 (i32.const 72) (i32.add (i32.const 48) (local.get $end)))
  (drop (call $log (i32.const 2) (i32.const 64) (i32.const 9))))
(func (export "proxy_on_context_create") (param $id i32) (param $parent i32)
  (i32.store8 offset=1024 (local.get $id)
    (select
      (select (i32.const {attempt}) (i32.const {stream}) (i32.eq (local.get $parent) (global.get $follows)))
      (i32.const {root})
      (local.get $parent)))
  (if (local.get $parent) (then (call $say (i32.const 99) (local.get $id) (i32.const 0)))))
(func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
(func (export "proxy_on_configure") (param $id i32) (param $size i32) (result i32)
  (drop (call $buffer (i32.const 7) (i32.const 0) (i32.const 1) (i32.const 80) (i32.const 84)))
  (if (i32.eq (i32.load8_u (i32.load (i32.const 80))) (i32.const 117))
    (then
      (global.set $follows (local.get $id))
      (i32.store8 offset=1024 (local.get $id) (i32.const {upstream}))))
  (call $say (i32.const 102) (local.get $id) (i32.const 0))
  (i32.const 1))
(func (export "proxy_on_http_call_response") (param $id i32) (param i32 i32 i32 i32)
  (call $say (i32.const 97) (local.get $id) (i32.const 0)))
(func (export "proxy_on_request_headers") (param $id i32) (param $count i32) (param $end i32) (result i32)
  (call $say (i32.const 72) (local.get $id) (local.get $end))
  (if (i32.and (i32.eq (call $kind (local.get $id)) (i32.const {stream})) (i32.eqz (global.get $asked)))
    (then
      (global.set $asked (i32.const 1))
      (call $say (i32.const 40) (local.get $id) (i32.const 0))
      (call $say (i32.const 41) (local.get $id)
        (call $call (i32.const 96) (i32.const 5) (i32.const 128) (i32.const {size}) (i32.const 96) (i32.const 5)
          (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 88)))))
  (i32.const 0))
"#,
        size = map.len(),
    );
    for (letter, name, [counts, ends]) in CALLBACKS {
        let parameters = "i32 ".repeat(1 + usize::from(counts) + usize::from(ends));
        let end = if ends { "(local.get 2)" } else { "(i32.const 0)" };
        let (signature, result) = match letter {
            'l' | 'x' => ("", ""),
            'd' => ("(result i32)", "(i32.const 1)"),
            _ => ("(result i32)", "(i32.const 0)"),
        };
        writeln!(
            text,
            r#"(func (export "{name}") (param {parameters}) {signature}
  (call $say (i32.const {}) (local.get 0) {end}) {result})"#,
            letter as u32
        )
        .expect("a string takes all");
    }
    text + ")"
}

/// What the plugin has said in one thread.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    /// Configurations, by the kind of their roots.
    configured: BTreeMap<char, usize>,
    /// During the call, its ends included.
    nested: Vec<String>,
    /// What the stream of the upstream filter, and the caller, were told afterwards.
    afterwards: Vec<String>,
}

impl Said {
    /// `None` before the caller has been answered, and the upstream filter's stream has ended.
    fn of(lines: &[&str]) -> Option<Said> {
        let place = |begin: &str| lines.iter().position(|line| line.starts_with(begin));
        let (from, to) = (place("(")?, place(")")?);
        let is_of_the_call = |line: &str| line.starts_with('a') || line.chars().nth(1) == Some('U');
        // In how many parts a body comes is up to the connection.
        let afterwards = lines.get(to + 1..)?.iter().filter(|line| is_of_the_call(line) && **line != "bU0");
        let afterwards: Vec<String> = afterwards.map(|line| (*line).to_owned()).collect();
        let mut configured = BTreeMap::new();
        for line in lines.iter().filter(|line| line.starts_with('f')) {
            *configured.entry(line.chars().nth(1)?).or_default() += 1;
        }
        let ended = ["a", "x"].iter().all(|end| afterwards.iter().any(|line| line.starts_with(end)));
        let nested = lines.get(from..=to)?.iter().map(|line| (*line).to_owned()).collect();
        ended.then_some(Said { configured, nested, afterwards })
    }

    /// What the thread of the call says in Envoy's log.
    fn in_log(log: &str) -> Option<Said> {
        let mut threads: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in log.lines() {
            if let (Some(thread), Some((_, said))) = (line.split("][").nth(1), line.split_once(MARK)) {
                threads.entry(thread).or_default().push(said.get(..3)?);
            }
        }
        threads.values().find_map(|lines| Said::of(lines))
    }
}

fn in_the_test_host() -> Result<Said> {
    let process = Process::new(1);
    process.add_cluster("asked");
    let vm = process.vm(&Module::parse(plugin())?)?;
    let upstream = vm.start_root("evenkeel", TEXTS[1])?;
    vm.filter_upstream(upstream, "asked");
    // Two filters of the chain.
    let roots = [vm.start_root("evenkeel", TEXTS[0])?, vm.start_root("evenkeel", TEXTS[0])?];
    let mut streams = roots.map(|root| vm.request(root, &[(":path", "/")]));
    streams.iter_mut().for_each(|stream| _ = stream.headers_phase());
    let call = process.calls().pop().context("a call")?;
    streams.iter_mut().rev().for_each(|stream| _ = stream.respond(200));
    streams.iter_mut().for_each(wasmhost::Request::finish);
    // The caller's stream has ended; it is the root that is answered.
    process.answer(&call, 200, "body");
    let logs = process.logs();
    let lines: Vec<&str> = logs.iter().filter_map(|line| line.message.strip_prefix(MARK)).collect();
    Said::of(&lines).with_context(|| format!("{lines:?}"))
}

async fn in_envoy() -> Result<Said> {
    let backend = Backend::start(backend::Config::default()).await?;
    let file = tempfile::Builder::new().suffix(".wasm").tempfile()?;
    std::fs::write(file.path(), wat::parse_str(plugin())?)?;
    let filter = |text: &str| Filter::wasm(file.path().to_owned(), text);
    let web = Cluster::new("web", vec![backend.address()], Policy::RoundRobin);
    let mut asked = Cluster::new("asked", vec![backend.address()], Policy::RoundRobin);
    asked.prefix = "/none-of-the-requests".to_owned();
    asked.upstream_filters = vec![filter(TEXTS[1])];
    let config = envoy::Config {
        clusters: vec![web, asked],
        filters: vec![filter(TEXTS[0]), filter(TEXTS[0])],
        concurrency: 1,
        ..envoy::Config::default()
    };
    let envoy = Envoy::start(config).await?;
    wait::until("the answer to the call", Duration::from_secs(60), || async {
        let _any = http::get(envoy.address(), "/").await.ok()?;
        Said::in_log(&envoy.log())
    })
    .await
    .with_context(|| envoy.log_tail(40))
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_come_in_the_test_host_in_the_order_of_envoy() -> Result<()> {
    let host = in_the_test_host()?;
    assert_eq!(
        host.configured,
        BTreeMap::from([('R', 1), ('V', 1)]),
        "two filters of one text have one root"
    );
    assert_eq!(in_envoy().await?, host);
    Ok(())
}
