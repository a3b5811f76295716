//! Fuel, hostcall counts and randomness are the same on every run.

use crate::guest::{guest, said};
use wasmhost::Process;

/// Loops once per request header, and draws eight random letters.
const WORKER: &str = r#"
    (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param i32) (result i32)
        (local $i i32)
        (loop $again
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (drop (call $remove (i32.const 0) 'x'))
            (br_if $again (i32.lt_u (local.get $i) (local.get $count))))
        (drop (call $random (i32.const 64) (i32.const 8)))
        (i64.store (i32.const 64) (i64.or (i64.and (i64.load (i32.const 64))
            (i64.const 0x0F0F0F0F0F0F0F0F)) (i64.const 0x4040404040404040)))
        (call $say (i32.const 64) (i32.const 8))
        (i32.const 0))"#;

#[test]
fn a_request_costs_the_same_fuel_each_time_and_more_work_costs_more() {
    let process = Process::new(1);
    let vm = process.vm(&guest(WORKER)).unwrap();
    let root = vm.start_root("r", "").unwrap();
    let cost = |headers: &[(&str, &str)]| {
        let mut request = vm.request(root, headers);
        request.headers_phase();
        (
            request.fuel(),
            request.hostcalls("proxy_remove_header_map_value"),
            request.hostcalls("proxy_get_shared_data"),
        )
    };
    let (one, two, three) = (cost(&[("a", "")]), cost(&[("a", ""); 2]), cost(&[("a", ""); 3]));
    assert_eq!(one, cost(&[("a", "")]));
    assert_eq!((one.1, two.1, three.1), (1, 2, 3));
    assert_eq!((one.2, two.2, three.2), (0, 0, 0));
    assert!(one.0 > 0 && two.0 > one.0);
    assert_eq!(two.0 - one.0, three.0 - two.0, "each round costs the same");
    assert_eq!(vm.last_cost().callback, "proxy_on_request_headers");
    assert_eq!(vm.fuel(), 2 * one.0 + two.0 + three.0);
    assert_eq!(vm.memory_bytes(), 2 * 65536);
}

#[test]
fn randomness_repeats_for_a_seed_and_differs_between_vms() {
    let draws = |seed| {
        let process = Process::new(seed);
        let module = guest(WORKER);
        for _ in 0..2 {
            let vm = process.vm(&module).unwrap();
            let root = vm.start_root("r", "").unwrap();
            vm.request(root, &[]).headers_phase();
        }
        said(&process)
    };
    let first = draws(1);
    assert_eq!(first, draws(1));
    assert_ne!(first, draws(2));
    assert_ne!(first[0], first[1]);
}

#[test]
fn an_endless_loop_ends_as_a_trap() {
    let process = Process::new(1);
    let vm =
        process.vm(&guest(r#"(func (export "proxy_on_tick") (param i32) (loop $ever (br $ever)))"#)).unwrap();
    let root = vm.start_root("r", "").unwrap();
    vm.tolerate_traps();
    vm.tick(root);
    assert!(vm.trap().unwrap().message.contains("fuel"), "{}", vm.trap().unwrap());
}
