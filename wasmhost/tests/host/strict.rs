//! Where a laxer host would let a guest, or a test, do what Envoy does not.

use crate::guest::{guest, said};
use wasmhost::{Action, Process, Request, Root, Vm};

fn start(process: &Process, callbacks: &str) -> (Vm, Root) {
    let vm = process.vm(&guest(callbacks)).unwrap();
    let root = vm.start_root("r", "").unwrap();
    (vm, root)
}

/// Logs the contexts that are created, configured and deleted, and refuses what is longer than two bytes.
const CONTEXTS: &str = r#"
    (func (export "proxy_on_context_create") (param i32 i32) (call $say 'create') (call $digit (local.get 0)))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (call $say 'configure') (call $digit (local.get 0)) (i32.lt_u (local.get 1) (i32.const 3)))
    (func (export "proxy_on_delete") (param i32) (call $say 'delete') (call $digit (local.get 0)))"#;

#[test]
fn filters_of_one_name_and_text_share_a_root_that_ends_with_the_last() {
    let process = Process::new(1);
    let (vm, first) = start(&process, CONTEXTS);
    said(&process);
    let second = vm.start_root("r", "").unwrap();
    assert_eq!((first, said(&process)), (second, vec![]));
    assert_ne!(vm.start_root("other", "").unwrap(), first);
    assert_ne!(vm.start_root("r", "{}").unwrap(), first);
    said(&process);
    let mut request = vm.request(second, &[]);
    request.headers_phase();
    assert!(vm.stop_root(first));
    request.finish();
    assert_eq!(said(&process), ["create", "4", "delete", "4"], "the root is there still");
    assert!(vm.stop_root(second));
    assert_eq!(said(&process), ["delete", "1"]);
    assert_ne!(vm.start_root("r", "").unwrap(), first);
}

#[test]
fn a_root_that_was_refused_is_created_once_more() {
    let process = Process::new(1);
    let (vm, _) = start(&process, CONTEXTS);
    for _ in 0..2 {
        said(&process);
        assert!(vm.start_root("r", "too long").is_err());
        assert_eq!(said(&process), ["create", "2", "configure", "2"]);
    }
}

/// Calls `asked` for the request header `call`, with a body.
const CALLER: &str = r#"
    (func (export "proxy_on_context_create") (param i32 i32) (call $say 'create') (call $digit (local.get 0)))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $say 'headers') (call $digit (local.get 0)) (call $digit (local.get 2))
        (if (i32.eqz (call $get (i32.const 0) 'call' (i32.const 0) (i32.const 4))) (then
            (call $digit (call $http_call 'asked'
                '\03\00\00\00\07\00\00\00\04\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00POST\00:path\00/\00:authority\00p\00'
                'body' (i32.const 0) (i32.const 0) (i32.const 2500) (i32.const 8)))))
        (i32.const 0))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (call $say 'body') (call $digit (local.get 0)) (call $digit (local.get 1)) (call $digit (local.get 2))
        (i32.const 0))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (call $say 'answer') (call $digit (local.get 0)))
    (func (export "proxy_on_delete") (param i32) (call $say 'delete') (call $digit (local.get 0)))"#;

#[test]
fn the_root_is_answered_also_where_a_stream_asked() {
    let process = Process::new(1);
    process.add_cluster("asked");
    let (vm, root) = start(&process, CALLER);
    let mut request = vm.request(root, &[("call", "1")]);
    request.headers_phase();
    request.finish();
    said(&process);
    let calls = process.calls();
    assert_eq!(calls.len(), 1, "it outlives the stream");
    process.answer(&calls[0], 200, "");
    assert_eq!(said(&process), ["answer", "1"]);
}

#[test]
fn an_upstream_filter_sees_the_whole_call_and_its_end() {
    let process = Process::new(1);
    process.add_cluster("asked");
    let (vm, root) = start(&process, CALLER);
    let upstream = vm.start_root("r", "upstream").unwrap();
    vm.filter_upstream(upstream, "asked");
    said(&process);
    let mut request = vm.request(root, &[("call", "1")]);
    request.headers_phase();
    let nested = ["create", "4", "headers", "4", "0", "body", "4", "4", "1"];
    assert_eq!(said(&process), [&["create", "3", "headers", "3", "1"][..], &nested, &["0"]].concat());
    request.finish();
    assert!(vm.stop_root(root));
    assert_eq!(said(&process), ["delete", "3", "delete", "1", "delete", "4"], "the call is cancelled");
    assert!(vm.stop_root(upstream));
}

#[test]
fn a_guest_that_asks_for_no_ticks_gets_none() {
    let process = Process::new(1);
    let (vm, root) = start(
        &process,
        r#"(func (export "proxy_on_tick") (param i32)
            (call $say 'tick')
            (drop (call $tick_every (i32.const 0))))"#,
    );
    vm.tick(root);
    vm.tick(root);
    assert_eq!(said(&process), ["tick"]);
}

#[test]
fn what_envoy_does_not_survive_or_ignores_is_recorded() {
    let process = Process::new(1);
    let (vm, root) = start(
        &process,
        r#"(func $twice
            (drop (call $answer (i32.const 503) 'x' 'x' (i32.const 0) (i32.const 0) (i32.const -1)))
            (drop (call $answer (i32.const 500) 'x' 'x' (i32.const 0) (i32.const 0) (i32.const -1))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $add (i32.const 0) 'x-a' 'fine'))
            (drop (call $add (i32.const 0) 'x-a' 'two\0alines'))
            (drop (call $replace (i32.const 0) 'x b' ''))
            (drop (call $replace (i32.const 0) ':path' '/a b'))
            (drop (call $remove (i32.const 0) ':path'))
            (call $twice)
            (i32.const 0))
        (func (export "proxy_on_tick") (param i32) (call $twice))"#,
    );
    let mut request = vm.request(root, &[(":path", "/")]);
    request.headers_phase();
    assert_eq!(request.local_response().map(|response| response.status), Some(503), "the first");
    vm.tick(root);
    let found = vm.out_of_phase();
    let begins = [
        "proxy_add_header_map_value sends \"x-a\"",
        "proxy_replace_header_map_value sends \"x b\"",
        "proxy_replace_header_map_value sends \":path\"",
        "proxy_remove_header_map_value of \":path\"",
        "proxy_send_local_response a second time",
        "proxy_send_local_response of a plugin",
        "proxy_send_local_response of a plugin",
    ];
    assert_eq!(found.len(), begins.len(), "{found:#?}");
    assert!(found.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{found:#?}");
}

#[test]
fn informational_headers_pass_no_plugin() {
    let process = Process::new(1);
    let (vm, root) = start(
        &process,
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $say 'headers') (i32.const 0))"#,
    );
    let mut request = vm.request(root, &[]);
    request.headers_phase();
    for status in ["100", "103", "200"] {
        assert_eq!(request.response_headers(&[(":status", status)], false), Action::Continue);
    }
    assert_eq!(said(&process), ["headers"]);
}

/// A request of a guest that holds those with the header `hold`.
fn request(headers: &[(&str, &str)]) -> Request {
    let process = Process::new(1);
    let (vm, root) = start(
        &process,
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (i32.eqz (call $get (i32.const 0) 'hold' (i32.const 0) (i32.const 4))))"#,
    );
    vm.request(root, headers)
}

#[test]
#[should_panic(expected = "the request has ended")]
fn no_body_follows_the_end_of_a_request() {
    let mut request = request(&[]);
    request.headers_phase();
    request.request_body(b"x", true);
}

#[test]
#[should_panic(expected = "Envoy keeps the rest of a request that is held")]
fn no_body_follows_headers_that_are_held() {
    let mut request = request(&[("hold", "1")]);
    assert_eq!(request.request_headers(false), Action::Pause);
    request.request_body(b"x", true);
}

#[test]
#[should_panic(expected = "a request has one response")]
fn no_response_follows_a_response() {
    let mut request = request(&[]);
    request.headers_phase();
    request.respond(200);
    request.respond(200);
}

#[test]
#[should_panic(expected = "this is no part of a response")]
fn no_trailers_follow_the_end_of_a_response() {
    let mut request = request(&[]);
    request.headers_phase();
    request.respond(200);
    request.response_trailers(&[]);
}

#[test]
#[should_panic(expected = "this is no part of a response")]
fn no_body_comes_before_its_headers() {
    let mut request = request(&[]);
    request.headers_phase();
    request.response_body(b"x", true);
}
