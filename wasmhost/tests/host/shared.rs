//! State that several VMs of a process share: shared data, calls, clock, metrics.

use crate::guest::{guest, said};
use std::time::Duration;
use wasmhost::{Headers, Process, Root, Vm};

fn start(process: &Process, callbacks: &str) -> (Vm, Root) {
    let vm = process.vm(&guest(callbacks)).unwrap();
    let root = vm.start_root("r", "").unwrap();
    (vm, root)
}

#[test]
fn a_compare_and_swap_between_two_vms_has_one_winner() {
    // On configure the guest reads the key and remembers its number; on tick it writes with that number.
    let module = guest(
        r#"(global $cas (mut i32) (i32.const 0))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (call $digit (call $shared 'lease' (i32.const 0) (i32.const 4) (i32.const 8)))
            (call $say_result)
            (global.set $cas (i32.load (i32.const 8)))
            (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (call $digit (call $share 'lease' 'mine' (global.get $cas))))"#,
    );
    let process = Process::new(1);
    let (a, b) = (process.vm(&module).unwrap(), process.vm(&module).unwrap());
    a.start_root("r", "").unwrap();
    assert_eq!(said(&process), ["1", ""]);
    process.set_shared_data("lease", b"old");
    let (root_a, root_b) = (a.start_root("r", "new").unwrap(), b.start_root("r", "new").unwrap());
    assert_eq!(said(&process), ["0", "old", "0", "old"]);
    b.tick(root_b);
    a.tick(root_a);
    assert_eq!(said(&process), ["0", "8"]);
    assert_eq!(process.shared_data("lease"), Some((b"mine".to_vec(), 2)));
    assert_eq!((a.hostcalls("proxy_set_shared_data"), a.hostcalls("proxy_get_shared_data")), (1, 2));
    assert_eq!(process.shared_data_keys(), ["lease"]);
}

/// Calls the cluster `prometheus` on every tick, with one complete and one incomplete header map.
const CALLER: &str = r#"
    (func (export "proxy_on_tick") (param i32)
        (call $digit (call $http_call 'prometheus'
            '\03\00\00\00\07\00\00\00\04\00\00\00\05\00\00\00\02\00\00\00\0a\00\00\00\01\00\00\00:method\00POST\00:path\00/q\00:authority\00p\00'
            'query=up' (i32.const 0) (i32.const 0) (i32.const 2500) (i32.const 8)))
        (call $digit (call $http_call 'prometheus' '\01\00\00\00\05\00\00\00\02\00\00\00:path\00/q\00'
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2500) (i32.const 12))))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (call $digit (local.get 1))
        (call $digit (local.get 2))
        (call $digit (local.get 3))
        (call $digit (call $get (i32.const 6) ':status' (i32.const 0) (i32.const 4)))
        (call $say_result)
        (call $digit (call $buffer (i32.const 4) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 4)))
        (call $say_result))"#;

#[test]
fn calls_are_held_until_the_test_answers_or_fails_them() {
    let process = Process::new(1);
    let (vm, root) = start(&process, CALLER);
    vm.tick(root);
    assert_eq!(said(&process), ["2", "2"], "nobody knows the cluster yet");

    process.add_cluster("prometheus");
    vm.tick(root);
    vm.tick(root);
    assert_eq!(said(&process), ["0", "2", "0", "2"], "a call without :method and :authority is refused");
    let calls = process.calls();
    assert_eq!(calls.iter().map(|call| (call.vm, call.token)).collect::<Vec<_>>(), [(0, 1), (0, 2)]);
    assert_eq!((calls[0].cluster.as_str(), calls[0].path().as_str()), ("prometheus", "/q"));
    assert_eq!((calls[0].text().as_str(), calls[0].timeout), ("query=up", Duration::from_millis(2500)));

    process.answer_with(&calls[1], Headers::new(&[(":status", "200"), ("a", "b")]), "ok");
    assert_eq!(said(&process), ["2", "2", "2", "0", "200", "0", "ok"]);
    process.fail(&calls[0]);
    assert_eq!(
        said(&process),
        ["1", "0", "0", "2", "", "1", ""],
        "a failed call has neither headers nor body"
    );
    assert_eq!(process.calls(), []);
}

#[test]
fn calls_of_a_root_or_a_vm_that_goes_away_are_cancelled() {
    let process = Process::new(1);
    process.add_cluster("prometheus");
    let (a, root_a) = start(&process, CALLER);
    let (b, root_b) = start(&process, CALLER);
    a.tick(root_a);
    b.tick(root_b);
    assert_eq!(process.calls().len(), 2);
    assert!(a.stop_root(root_a));
    assert_eq!(process.calls().iter().map(|call| call.vm).collect::<Vec<_>>(), [1]);
    drop(b);
    assert_eq!(process.calls(), []);
}

#[test]
fn one_clock_moves_only_when_told() {
    let process = Process::new(1);
    let (vm, root) = start(
        &process,
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $tick_every (i32.const 250)))
            (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (drop (call $now (i32.const 64)))
            (call $say (i32.const 64) (i32.const 8)))"#,
    );
    assert_eq!(vm.tick_period(root), Some(Duration::from_millis(250)));
    let read = |expected: u64| {
        process.set_now(expected);
        vm.tick(root);
        // Bytes below 128, so that the text is the number.
        assert_eq!(said(&process)[0].as_bytes(), expected.to_le_bytes());
    };
    read(0x0102_0304_0506_0708);
    read(0x0102_0304_0506_0707);
    process.advance(Duration::from_nanos(3));
    assert_eq!(process.now(), 0x0102_0304_0506_070A);
}

#[test]
fn metrics_belong_to_the_process() {
    let process = Process::new(1);
    let callbacks = r#"
        (func (export "proxy_on_tick") (param i32)
            (drop (call $metric (i32.const 0) 'picks' (i32.const 64)))
            (drop (call $metric (i32.const 1) 'load' (i32.const 68)))
            (drop (call $metric (i32.const 2) 'latency' (i32.const 72)))
            (call $digit (call $increment (i32.load (i32.const 64)) (i64.const 2)))
            (call $digit (call $increment (i32.load (i32.const 64)) (i64.const 0)))
            (call $digit (call $increment (i32.load (i32.const 68)) (i64.const 5)))
            (call $digit (call $increment (i32.load (i32.const 68)) (i64.const -1)))
            (call $digit (call $record (i32.load (i32.const 72)) (i64.const 7)))
            (call $digit (call $increment (i32.const 4000) (i64.const 1))))"#;
    let (a, root_a) = start(&process, callbacks);
    let (b, root_b) = start(&process, callbacks);
    assert_eq!(process.counter("picks"), None);
    a.tick(root_a);
    assert_eq!(said(&process), ["0", "2", "0", "0", "0", "1"]);
    b.tick(root_b);
    assert_eq!((process.counter("picks"), process.gauge("load")), (Some(4), Some(8)));
    assert_eq!(process.histogram("latency"), [7, 7]);
    assert_eq!(process.metric_names(), ["picks", "load", "latency"]);
}
