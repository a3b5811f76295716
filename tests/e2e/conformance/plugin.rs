//! A plugin, as WebAssembly text, that makes the same host calls in every callback and logs what each returns.

use std::fmt::Write;

/// A log line of the plugin begins so; phase, call, argument, `=` and the status as a letter follow.
pub const MARK: &str = "probe:";
/// The kinds of header maps and buffers, and one that there is not.
const KINDS: std::ops::Range<u32> = 0..9;
/// The callbacks: the letter of the phase, the name, further parameters, and the result.
const CALLBACKS: [(char, &str, usize, Option<u32>); 13] = [
    ('v', "proxy_on_vm_start", 1, Some(1)),
    ('f', "proxy_on_configure", 1, Some(1)),
    ('t', "proxy_on_tick", 0, None),
    ('a', "proxy_on_http_call_response", 4, None),
    ('H', "proxy_on_request_headers", 2, Some(0)),
    ('B', "proxy_on_request_body", 2, Some(0)),
    ('T', "proxy_on_request_trailers", 1, Some(0)),
    ('h', "proxy_on_response_headers", 2, Some(0)),
    ('b', "proxy_on_response_body", 2, Some(0)),
    ('r', "proxy_on_response_trailers", 1, Some(0)),
    ('l', "proxy_on_log", 0, None),
    ('d', "proxy_on_done", 0, Some(1)),
    ('x', "proxy_on_delete", 0, None),
];
/// The host's functions: name in the text, name in the ABI, number of parameters. All parameters are `i32` but those of
/// the last two.
const IMPORTS: [(&str, &str, &str); 17] = [
    ("log", "proxy_log", "i32 i32 i32"),
    ("get", "proxy_get_header_map_value", "i32 i32 i32 i32 i32"),
    ("size", "proxy_get_header_map_size", "i32 i32"),
    ("pairs", "proxy_get_header_map_pairs", "i32 i32 i32"),
    ("add", "proxy_add_header_map_value", "i32 i32 i32 i32 i32"),
    ("replace", "proxy_replace_header_map_value", "i32 i32 i32 i32 i32"),
    ("remove", "proxy_remove_header_map_value", "i32 i32 i32"),
    ("buffer", "proxy_get_buffer_bytes", "i32 i32 i32 i32 i32"),
    ("property", "proxy_get_property", "i32 i32 i32 i32"),
    ("shared", "proxy_get_shared_data", "i32 i32 i32 i32 i32"),
    ("share", "proxy_set_shared_data", "i32 i32 i32 i32 i32"),
    ("call", "proxy_http_call", "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32"),
    ("period", "proxy_set_tick_period_milliseconds", "i32"),
    ("effective", "proxy_set_effective_context", "i32"),
    ("define", "proxy_define_metric", "i32 i32 i32 i32"),
    ("increment", "proxy_increment_metric", "i32 i64"),
    ("record", "proxy_record_metric", "i32 i64"),
];

/// Constants in the plugin's memory, behind the line and the results.
struct Data {
    end: usize,
    text: String,
}

impl Data {
    /// Adds bytes; returns address and length as two operands.
    fn add(&mut self, bytes: &[u8]) -> String {
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        writeln!(self.text, r#"(data (i32.const {}) "{escaped}")"#, self.end).expect("a string takes all");
        let operands = format!("(i32.const {}) (i32.const {})", self.end, bytes.len());
        self.end += bytes.len();
        operands
    }
}

/// A header map in the form of the ABI.
fn headers(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in pairs {
        bytes.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    bytes
}

/// Every call: its letter, its argument, and its text.
fn calls(data: &mut Data) -> Vec<(char, u32, String)> {
    let results = "(i32.const 80) (i32.const 84)";
    let [there, absent, added, replaced] =
        ["content-type", "x-absent", "x-added", "x-replaced"].map(|name| data.add(name.as_bytes()));
    let value = data.add(b"1");
    let mut calls = Vec::new();
    for kind in KINDS {
        let of = format!("(i32.const {kind})");
        for (letter, call) in [
            ('g', format!("(call $get {of} {there} {results})")),
            ('m', format!("(call $get {of} {absent} {results})")),
            ('z', format!("(call $size {of} (i32.const 80))")),
            ('p', format!("(call $pairs {of} {results})")),
            ('a', format!("(call $add {of} {added} {value})")),
            ('r', format!("(call $replace {of} {replaced} {value})")),
            ('d', format!("(call $remove {of} {absent})")),
            ('b', format!("(call $buffer {of} (i32.const 0) (i32.const 1) {results})")),
            ('e', format!("(call $buffer {of} (i32.const 1048576) (i32.const 1) {results})")),
        ] {
            calls.push((letter, kind, call));
        }
    }
    for (nth, path) in ["plugin_root_id", "no\0such", "request\0headers\0content-type"].iter().enumerate() {
        let path = data.add(path.as_bytes());
        calls.push(('P', nth as u32, format!("(call $property {path} {results})")));
    }
    let [key, none] = ["evenkeel/probe", "evenkeel/none"].map(|key| data.add(key.as_bytes()));
    let [web, nowhere, nothing] = ["web", "nowhere", ""].map(|name| data.add(name.as_bytes()));
    let whole = data.add(&headers(&[(":method", "GET"), (":path", "/"), (":authority", "web")]));
    let without_authority = data.add(&headers(&[(":method", "GET"), (":path", "/")]));
    let rest = format!("{nothing} {nothing} (i32.const 1000) (i32.const 88)");
    let metric = data.add(b"evenkeel_probe");
    for (letter, nth, call) in [
        ('s', 0, format!("(call $shared {none} {results} (i32.const 88))")),
        ('s', 1, format!("(call $share {key} {value} (i32.const 0))")),
        ('s', 2, format!("(call $share {key} {value} (i32.const 987654321))")),
        ('s', 3, format!("(call $shared {key} {results} (i32.const 88))")),
        ('c', 0, format!("(call $call {nowhere} {whole} {rest})")),
        ('c', 1, format!("(call $call {web} {without_authority} {rest})")),
        ('c', 2, format!("(call $call {web} {nothing} {rest})")),
        ('x', 0, "(call $effective (i32.const 99999))".to_owned()),
        ('k', 0, format!("(call $define (i32.const 0) {metric} (i32.const 88))")),
        ('k', 1, format!("(call $define (i32.const 9) {metric} (i32.const 88))")),
        ('k', 2, "(call $increment (i32.const 424240) (i64.const 1))".to_owned()),
        ('k', 3, "(call $increment (i32.const 424241) (i64.const 1))".to_owned()),
        ('k', 4, "(call $increment (i32.const 424242) (i64.const 1))".to_owned()),
        ('k', 5, "(call $record (i32.const 424240) (i64.const 1))".to_owned()),
        ('k', 6, "(call $record (i32.const 424241) (i64.const 1))".to_owned()),
        ('k', 7, "(call $record (i32.const 424242) (i64.const 1))".to_owned()),
        ('n', 0, format!("(call $log (i32.const 9) {value})")),
    ] {
        calls.push((letter, nth, call));
    }
    // The answer to one call is a phase of its own.
    calls.push(('C', 0, format!("(call $once {web} {whole} {rest})")));
    calls
}

/// The plugin.
pub fn text() -> String {
    let mut data = Data { end: 256, text: String::new() };
    let line = format!("{MARK}...=.");
    let phase_at = 64 + MARK.len();
    writeln!(data.text, r#"(data (i32.const 64) "{line}")"#).expect("a string takes all");
    let mut all = String::new();
    for (letter, argument, call) in calls(&mut data) {
        let (letter, argument) = (letter as u32, u32::from(b'0') + argument);
        writeln!(all, "(call $say (i32.const {letter}) (i32.const {argument}) {call})")
            .expect("a string takes all");
    }
    let mut text = String::from("(module\n");
    for (name, import, parameters) in IMPORTS {
        writeln!(text, r#"(import "env" "{import}" (func ${name} (param {parameters}) (result i32)))"#)
            .expect("a string takes all");
    }
    let parameters = ["i32"; 10].join(" ");
    let operands: String = (0..10).map(|at| format!("(local.get {at})")).collect();
    write!(
        text,
        r#"(memory (export "memory") 4)
{data}
(global $heap (mut i32) (i32.const 65536))
(global $called (mut i32) (i32.const 0))
(func (export "_initialize"))
(func (export "proxy_abi_version_0_2_1"))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (global.get $heap)
  (global.set $heap (i32.add (global.get $heap) (local.get $size))))
(func $once (param {parameters}) (result i32)
  (if (result i32) (i32.or (global.get $called) (i32.ne (i32.load8_u (i32.const {phase_at})) (i32.const {tick})))
    (then (i32.const 0))
    (else (global.set $called (i32.const 1)) (call $call {operands}))))
(func $say (param $letter i32) (param $argument i32) (param $status i32)
  (i32.store8 (i32.const {letter_at}) (local.get $letter))
  (i32.store8 (i32.const {argument_at}) (local.get $argument))
  (i32.store8 (i32.const {status_at}) (i32.add (local.get $status) (i32.const 97)))
  (drop (call $log (i32.const 2) (i32.const 64) (i32.const {length}))))
(func $all (param $phase i32)
  (global.set $heap (i32.const 65536))
  (i32.store8 (i32.const {phase_at}) (local.get $phase))
  {all})
(func (export "proxy_on_context_create") (param i32 i32)
  (call $all (select (i32.const {stream}) (i32.const {root}) (local.get 1))))
"#,
        data = data.text,
        tick = 't' as u32,
        letter_at = phase_at + 1,
        argument_at = phase_at + 2,
        status_at = phase_at + 4,
        length = MARK.len() + 5,
        stream = 'c' as u32,
        root = 'R' as u32,
    )
    .expect("a string takes all");
    for (phase, name, further, result) in CALLBACKS {
        let parameters = vec!["i32"; 1 + further].join(" ");
        let (signature, result) = match result {
            Some(result) => ("(result i32)", format!("(i32.const {result})")),
            None => ("", String::new()),
        };
        let begin = if phase == 'f' { "(drop (call $period (i32.const 100)))" } else { "" };
        writeln!(
            text,
            r#"(func (export "{name}") (param {parameters}) {signature} {begin} (call $all (i32.const {})) {result})"#,
            phase as u32
        )
        .expect("a string takes all");
    }
    text + ")"
}
