//! Guests in WebAssembly text: a test gives the callbacks; imports, memory, allocator and strings are added here.

use wasmhost::Module;

const PRELUDE: &str = r#"
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
    (import "env" "proxy_set_tick_period_milliseconds" (func $tick_every (param i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_pairs" (func $get_all (param i32 i32 i32) (result i32)))
    (import "env" "proxy_set_header_map_pairs" (func $set_all (param i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_shared_data" (func $shared (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $metric (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
    (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
    (import "env" "proxy_http_call"
        (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $resume (param i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $act_for (param i32) (result i32)))
    (import "env" "proxy_grpc_close" (func $absent_from_the_host (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 65536))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
        (global.get $free)
        (global.set $free (i32.add (global.get $free) (local.get $size))))
    ;; Logs a text.
    (func $say (param $data i32) (param $size i32)
        (drop (call $log (i32.const 2) (local.get $data) (local.get $size))))
    ;; Logs a one-digit number, a status most of the time.
    (func $digit (param $number i32)
        (i32.store8 (i32.const 60) (i32.add (local.get $number) (i32.const 48)))
        (call $say (i32.const 60) (i32.const 1)))
    ;; Logs what a hostcall has left: address at 0, size at 4. Clears both.
    (func $say_result
        (call $say (i32.load (i32.const 0)) (i32.load (i32.const 4)))
        (i64.store (i32.const 0) (i64.const 0)))
"#;

/// A guest that ticks has asked for it.
const TICKS: &str = r#"
    (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (drop (call $tick_every (i32.const 100))) (i32.const 1))
"#;

/// The module of these callbacks, in which `'text'` stands for the address and size of a string.
pub fn guest(callbacks: &str) -> Module {
    let ticks = if callbacks.contains("proxy_on_tick") { TICKS } else { "" };
    let (mut code, mut data) = (PRELUDE.to_owned() + ticks, String::new());
    let mut free = 1024;
    for (index, piece) in callbacks.split('\'').enumerate() {
        if index % 2 == 0 {
            code.push_str(piece);
            continue;
        }
        let size = piece.replace("\\00", "0").len();
        data.push_str(&format!("(data (i32.const {free}) \"{piece}\")\n"));
        code.push_str(&format!("(i32.const {free}) (i32.const {size})"));
        free += size;
    }
    Module::parse(format!("(module {code} {data})")).unwrap()
}

/// Removes and returns the log lines of a process's guests, in order.
pub fn said(process: &wasmhost::Process) -> Vec<String> {
    process.take_logs().into_iter().map(|line| line.message).collect()
}
