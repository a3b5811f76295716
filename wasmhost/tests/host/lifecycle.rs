//! Configurations, the order of callbacks, and traps.

use crate::guest::{guest, said};
use wasmhost::{Action, Level, Module, Process};

/// Refuses every configuration of more than four bytes, and logs it.
const PICKY: &str = r#"
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $buffer (i32.const 7) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 4)))
        (call $say_result)
        (i32.lt_u (local.get 1) (i32.const 5)))"#;

#[test]
fn refused_configuration_is_logged_and_the_others_keep_running() {
    let process = Process::new(1);
    let vm = process.vm(&guest(PICKY)).unwrap();
    let first = vm.start_root("r", "good").unwrap();
    said(&process);
    let refused = vm.start_root("r", "too long").unwrap_err();
    assert_eq!(refused.logged, ["too long"]);
    let second = vm.start_root("r", "new").unwrap();
    assert_ne!(first, second);
    assert!(vm.stop_root(first));
    let mut request = vm.request(second, &[]);
    assert_eq!(request.headers_phase(), Action::Continue);
}

#[test]
fn callbacks_come_in_the_order_of_envoy() {
    let module = guest(
        r#"(func (export "_initialize") (call $say 'initialize'))
        (func (export "proxy_on_context_create") (param i32 i32)
            (call $say 'create') (call $digit (local.get 0)) (call $digit (local.get 1)))
        (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (call $say 'vm start') (i32.const 1))
        (func (export "proxy_on_configure") (param i32 i32) (result i32) (call $say 'configure') (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $say 'request') (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $say 'response') (i32.const 0))
        (func (export "proxy_on_response_trailers") (param i32 i32) (result i32) (call $say 'trailers') (i32.const 0))
        (func (export "proxy_on_log") (param i32) (call $say 'log'))
        (func (export "proxy_on_done") (param i32) (result i32) (call $say 'done') (i32.const 1))
        (func (export "proxy_on_delete") (param i32) (call $say 'delete'))"#,
    );
    let process = Process::new(1);
    let vm = process.vm(&module).unwrap();
    let root = vm.start_root("r", "").unwrap();
    assert_eq!(said(&process), ["initialize", "create", "1", "0", "vm start", "configure"]);

    let mut request = vm.request(root, &[]);
    request.headers_phase();
    request.response_headers(&[], false);
    request.response_trailers(&[]);
    request.finish();
    assert_eq!(
        said(&process),
        ["create", "2", "1", "request", "response", "trailers", "log", "done", "delete"]
    );
    assert_eq!(request.costs().len(), 7);

    let mut cancelled = vm.request(root, &[]);
    cancelled.headers_phase();
    cancelled.finish();
    assert_eq!(said(&process), ["create", "3", "1", "request", "log", "done", "delete"]);

    let mut never_started = vm.request(root, &[]);
    assert_eq!(never_started.respond(400), Action::Continue);
    never_started.finish();
    assert_eq!(said(&process), ["create", "4", "1", "log", "done", "delete"]);

    assert!(vm.stop_root(root));
    assert_eq!(said(&process), ["done", "delete"]);
}

/// Traps on the request header `die`, and logs every request.
const MORTAL: &str = r#"
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $say 'alive')
        (if (i32.eqz (call $get (i32.const 0) 'die' (i32.const 0) (i32.const 4))) (then (unreachable)))
        (i32.const 1))"#;

#[test]
fn a_trap_kills_one_vm_and_is_reported() {
    let process = Process::new(1);
    let module = guest(MORTAL);
    let (vm, other) = (process.vm(&module).unwrap(), process.vm(&module).unwrap());
    let (root, other_root) = (vm.start_root("r", "").unwrap(), other.start_root("r", "").unwrap());
    vm.tolerate_traps();
    let mut request = vm.request(root, &[("die", "1")]);
    assert_eq!(request.headers_phase(), Action::Continue);
    request.finish();
    let trap = vm.trap().unwrap();
    assert!(vm.is_dead());
    assert_eq!(
        (trap.vm, trap.callback, trap.logged.as_slice()),
        (0, "proxy_on_request_headers", &["alive".into()][..])
    );
    assert!(trap.message.contains("unreachable"), "{trap}");
    assert_eq!(said(&process), ["alive"]);

    assert_eq!(vm.request(root, &[]).headers_phase(), Action::Continue);
    assert!(vm.start_root("r", "").is_err());
    assert_eq!(said(&process), [""; 0], "the dead say nothing");
    assert_eq!(other.request(other_root, &[]).headers_phase(), Action::Pause);
}

#[test]
#[should_panic(expected = "VM 0 trapped in proxy_on_request_headers")]
fn unexpected_trap_fails_the_test() {
    let process = Process::new(1);
    let vm = process.vm(&guest(MORTAL)).unwrap();
    let root = vm.start_root("r", "").unwrap();
    vm.request(root, &[("die", "1")]).headers_phase();
}

#[test]
fn what_the_host_lacks_traps_by_name_and_only_when_called() {
    let process = Process::new(1);
    let vm = process
        .vm(&guest(
            r#"(func (export "proxy_on_tick") (param i32) (drop (call $absent_from_the_host (local.get 0))))"#,
        ))
        .unwrap();
    let root = vm.start_root("r", "").unwrap();
    vm.tolerate_traps();
    vm.tick(root);
    assert!(vm.trap().unwrap().message.contains("the host has no env.proxy_grpc_close"));
}

#[test]
fn a_pointer_outside_memory_traps_by_the_hostcalls_name() {
    let process = Process::new(1);
    let vm = process
        .vm(&guest(
            r#"(func (export "proxy_on_tick") (param i32) (call $say (i32.const -8) (i32.const 100)))"#,
        ))
        .unwrap();
    let root = vm.start_root("r", "").unwrap();
    vm.tolerate_traps();
    vm.tick(root);
    assert!(vm.trap().unwrap().message.contains("proxy_log reads outside memory"));
}

#[test]
fn printing_counts_as_logging() {
    let process = Process::new(1);
    let vm = process
        .vm(&guest(
            r#"(func $print (param $to i32) (param $data i32) (param $size i32)
                (i32.store (i32.const 64) (local.get $data))
                (i32.store (i32.const 68) (local.get $size))
                (drop (call $fd_write (local.get $to) (i32.const 64) (i32.const 1) (i32.const 72))))
            (func (export "proxy_on_tick") (param i32)
                (call $print (i32.const 1) 'out')
                (call $print (i32.const 2) 'err'))"#,
        ))
        .unwrap();
    let root = vm.start_root("r", "").unwrap();
    vm.tick(root);
    let lines: Vec<_> = process.logs().into_iter().map(|line| (line.vm, line.level, line.message)).collect();
    assert_eq!(lines, [(0, Level::Info, "out".to_owned()), (0, Level::Error, "err".to_owned())]);
    assert!(process.has_logged("err") && !process.has_logged("nothing of the kind"));
}

#[test]
fn modules_of_another_abi_are_turned_down() {
    let error = Module::parse("(module)").unwrap_err();
    assert!(error.to_string().contains("proxy_abi_version"), "{error}");
}
