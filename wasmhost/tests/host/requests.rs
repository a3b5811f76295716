//! Header maps, bodies, properties and local responses.

use crate::guest::{guest, said};
use wasmhost::{Action, Process};

#[test]
fn headers_can_be_read_added_replaced_and_removed_in_their_phase() {
    let module = guest(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $digit (call $get (i32.const 0) 'X-In' (i32.const 0) (i32.const 4)))
            (call $say_result)
            (call $digit (call $get (i32.const 0) 'absent' (i32.const 0) (i32.const 4)))
            (call $say_result)
            (call $digit (call $remove (i32.const 0) 'x-spoofed'))
            (call $digit (call $remove (i32.const 0) 'absent'))
            (call $digit (call $replace (i32.const 0) 'x-in' 'after'))
            (call $digit (call $add (i32.const 0) 'x-more' 'a'))
            (call $digit (call $add (i32.const 0) 'x-more' 'b'))
            (i32.const 0))"#,
    );
    let process = Process::new(1);
    let vm = process.vm(&module).unwrap();
    let root = vm.start_root("r", "").unwrap();
    let mut request = vm.request(root, &[("x-in", "before"), ("x-spoofed", "1"), ("x-spoofed", "2")]);
    assert_eq!(request.headers_phase(), Action::Continue);
    assert_eq!(said(&process), ["0", "before", "1", "", "0", "0", "0", "0", "0"]);
    let expected = [("x-in", "after"), ("x-more", "a"), ("x-more", "b")];
    assert_eq!(request.headers(), wasmhost::Headers::new(&expected));
}

#[test]
fn all_headers_travel_both_ways() {
    let module = guest(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $digit (call $get_all (i32.const 0) (i32.const 0) (i32.const 4)))
            ;; Behind the count, two pairs of sizes and ":path\0/", the byte "a" becomes "b".
            (i32.store8 (i32.add (i32.load (i32.const 0)) (i32.const 27)) (i32.const 0x62))
            (call $digit (call $set_all (i32.const 0) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
            (i32.const 0))"#,
    );
    let process = Process::new(1);
    let vm = process.vm(&module).unwrap();
    let root = vm.start_root("r", "").unwrap();
    let mut request = vm.request(root, &[(":path", "/a"), ("x", "y")]);
    request.headers_phase();
    assert_eq!(said(&process), ["0", "0"]);
    assert_eq!(request.header(":path").as_deref(), Some("/b"));
    assert_eq!(request.header("x").as_deref(), Some("y"));
    assert_eq!(request.headers().len(), 2);
}

#[test]
fn a_map_outside_its_phase_is_a_bad_argument_but_the_access_log_may_read() {
    let module = guest(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $digit (call $get (i32.const 2) ':status' (i32.const 0) (i32.const 4)))
            (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (call $digit (call $get (i32.const 0) ':path' (i32.const 0) (i32.const 4)))
            (call $digit (call $add (i32.const 0) 'late' 'x'))
            (call $digit (call $add (i32.const 2) 'server' 'x'))
            (i32.const 0))
        (func (export "proxy_on_log") (param i32)
            (call $digit (call $get (i32.const 0) ':path' (i32.const 0) (i32.const 4)))
            (call $say_result)
            (call $digit (call $get (i32.const 2) ':status' (i32.const 0) (i32.const 4)))
            (call $say_result)
            (call $digit (call $get (i32.const 3) 'grpc-status' (i32.const 0) (i32.const 4)))
            (call $digit (call $add (i32.const 2) 'late' 'x')))"#,
    );
    let process = Process::new(1);
    let vm = process.vm(&module).unwrap();
    let root = vm.start_root("r", "").unwrap();
    let mut request = vm.request(root, &[(":path", "/a")]);
    request.headers_phase();
    assert_eq!(said(&process), ["2"]);
    request.respond(204);
    assert_eq!(said(&process), ["2", "2", "0"]);
    request.finish();
    assert_eq!(said(&process), ["0", "/a", "0", "204", "1", "2"]);
    assert_eq!(request.header("late"), None);
    assert_eq!(request.response_header("server").as_deref(), Some("x"));
}

#[test]
fn a_paused_request_keeps_its_headers_open_until_it_is_resumed() {
    let module = guest(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (drop (call $act_for (i32.const 2)))
            (call $digit (call $add (i32.const 0) 'x-late' '1'))
            (drop (call $resume (i32.const 0)))
            (call $digit (call $add (i32.const 0) 'x-too-late' '1')))"#,
    );
    let process = Process::new(1);
    let vm = process.vm(&module).unwrap();
    let root = vm.start_root("r", "").unwrap();
    let mut request = vm.request(root, &[]);
    assert_eq!(request.request_headers(false), Action::Pause);
    assert!(!request.is_resumed());
    vm.tick(root);
    assert!(request.is_resumed());
    request.request_body(b"x", true);
    assert_eq!(said(&process), ["0", "2"]);
    assert_eq!(request.header("x-late").as_deref(), Some("1"));
    assert_eq!(request.header("x-too-late"), None);
}

#[test]
fn bodies_are_read_and_replaced_in_their_phase_only() {
    let module = guest(
        r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
            (call $digit (local.get 1))
            (call $digit (call $buffer (i32.const 1) (i32.const 1) (i32.const -1) (i32.const 0) (i32.const 4)))
            (call $say_result)
            (call $digit (call $set_buffer (i32.const 1) (i32.const 0) (i32.const 0) '>'))
            (call $digit (call $set_buffer (i32.const 1) (i32.const 2) (i32.const 1) 'no'))
            (drop (call $buffer (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 4)))
            (call $say_result)
            (call $digit (call $buffer (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 4)))
            (i32.const 0))"#,
    );
    let process = Process::new(1);
    let vm = process.vm(&module).unwrap();
    let root = vm.start_root("r", "").unwrap();
    let mut request = vm.request(root, &[]);
    request.headers_phase();
    request.response_headers(&[(":status", "200")], false);
    request.response_body(b"body", true);
    assert_eq!(said(&process), ["4", "0", "ody", "0", "2", ">body", "0"]);
}

#[test]
fn properties_come_from_the_request_then_the_process_then_the_plugin() {
    let module = guest(
        r#"(func $show (param i32 i32)
            (call $digit (call $property (local.get 0) (local.get 1) (i32.const 0) (i32.const 4)))
            (call $say_result))
        (func $all (call $show 'xds\00cluster_name') (call $show 'node\00id') (call $show 'plugin_name'))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $all) (i32.const 0))
        (func (export "proxy_on_tick") (param i32) (call $all))"#,
    );
    let process = Process::new(1);
    process.property(&["node", "id"], "edge");
    let vm = process.vm(&module).unwrap();
    let root = vm.start_root("evenkeel", "").unwrap();
    vm.tick(root);
    assert_eq!(said(&process), ["1", "", "0", "edge", "0", "evenkeel"]);
    let mut request = vm.request(root, &[]);
    request.property(&["xds", "cluster_name"], b"web");
    request.property(&["node", "id"], "other");
    request.headers_phase();
    assert_eq!(said(&process), ["0", "web", "0", "other", "0", "evenkeel"]);
}

#[test]
fn a_local_response_pauses_the_request_and_returns_through_the_guest() {
    let module = guest(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $answer (i32.const 503) 'nobody' 'try later' (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (drop (call $get (i32.const 2) ':status' (i32.const 0) (i32.const 4)))
            (call $say_result)
            (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
            (call $digit (local.get 1))
            (i32.const 0))"#,
    );
    let process = Process::new(1);
    let vm = process.vm(&module).unwrap();
    let root = vm.start_root("r", "").unwrap();
    let mut request = vm.request(root, &[]);
    assert!(!request.deliver_local_response());
    assert_eq!(request.headers_phase(), Action::Pause);
    let response = request.local_response().unwrap();
    assert_eq!(
        (response.status, response.text().as_str(), response.details.as_str()),
        (503, "try later", "nobody")
    );
    assert!(request.deliver_local_response());
    assert_eq!(said(&process), ["503", "9"]);
}
