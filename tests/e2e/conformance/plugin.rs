//! A plugin, as WebAssembly text, that makes the same host calls in every callback and logs what each returns.

use std::fmt::Write;

/// A log line of the plugin begins so; scenario, phase, call, argument, `=` and the result as a character follow.
pub const MARK: &str = "probe:";
/// The request header that names the scenario by a character.
pub const SCENARIO: &str = "x-scenario";
/// The scenario of callbacks that belong to no request, or come before its headers.
pub const NONE: char = '-';
/// The scenario in which the plugin holds the request's body until it has ended. In those named by a phase it answers in
/// that phase.
pub const HOLDS: char = '3';
/// The kinds of header maps and buffers, and one that there is not.
const KINDS: std::ops::Range<u32> = 0..10;
/// The kind of buffer that has what was read of another one before.
const LEFT_OVER: u32 = 8;
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
/// The properties that Envoy knows at a time of its own, before the response headers: by call and argument.
pub const SOON_KNOWN: [&str; 3] = ["P<", "O<", ADDRESS];
/// That of the endpoint.
pub const ADDRESS: &str = "P=";
/// The phases of the plugin itself.
const OF_ROOT: &str = "vfta";
/// The phases that say whether they are the last.
const ENDING: &str = "HBhb";
/// The host's functions: name in the text, name in the ABI, number of parameters. All parameters are `i32` but those of
/// the last two.
const IMPORTS: [(&str, &str, &str); 23] = [
    ("log", "proxy_log", "i32 i32 i32"),
    ("get", "proxy_get_header_map_value", "i32 i32 i32 i32 i32"),
    ("size", "proxy_get_header_map_size", "i32 i32"),
    ("pairs", "proxy_get_header_map_pairs", "i32 i32 i32"),
    ("set_pairs", "proxy_set_header_map_pairs", "i32 i32 i32"),
    ("add", "proxy_add_header_map_value", "i32 i32 i32 i32 i32"),
    ("replace", "proxy_replace_header_map_value", "i32 i32 i32 i32 i32"),
    ("remove", "proxy_remove_header_map_value", "i32 i32 i32"),
    ("buffer", "proxy_get_buffer_bytes", "i32 i32 i32 i32 i32"),
    ("set_buffer", "proxy_set_buffer_bytes", "i32 i32 i32 i32 i32"),
    ("property", "proxy_get_property", "i32 i32 i32 i32"),
    ("set_property", "proxy_set_property", "i32 i32 i32 i32"),
    ("shared", "proxy_get_shared_data", "i32 i32 i32 i32 i32"),
    ("share", "proxy_set_shared_data", "i32 i32 i32 i32 i32"),
    ("call", "proxy_http_call", "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32"),
    ("answer", "proxy_send_local_response", "i32 i32 i32 i32 i32 i32 i32 i32"),
    ("continue", "proxy_continue_stream", "i32"),
    ("close", "proxy_close_stream", "i32"),
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
    fn add(&mut self, bytes: impl AsRef<[u8]>) -> String {
        let bytes = bytes.as_ref();
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        writeln!(self.text, r#"(data (i32.const {}) "{escaped}")"#, self.end).expect("a string takes all");
        let operands = format!("(i32.const {}) (i32.const {})", self.end, bytes.len());
        self.end += bytes.len();
        operands
    }
}

/// A header map in the form of the ABI.
pub fn headers(pairs: &[(&str, &str)]) -> Vec<u8> {
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

/// A call: its letter, its argument, and its text.
type Call = (char, u32, String);

/// Reading and changing the header maps.
fn maps(data: &mut Data, calls: &mut Vec<Call>) {
    let results = "(i32.const 80) (i32.const 84)";
    let [there, absent, added, replaced] =
        ["content-type", "x-absent", "x-added", "x-replaced"].map(|name| data.add(name));
    let value = data.add("1");
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
            ('S', format!("(call $same {of})")),
            ('R', format!("(call $replaced {of} {added} {value})")),
        ] {
            calls.push((letter, kind, call));
        }
    }
}

/// Reading and changing the buffers, with their lengths in between.
fn buffers(data: &mut Data, calls: &mut Vec<Call>) {
    let results = "(i32.const 80) (i32.const 84)";
    let value = data.add("1");
    for kind in KINDS {
        let of = format!("(i32.const {kind})");
        for (letter, call) in [
            ('b', format!("(call $buffer {of} (i32.const 0) (i32.const 1) {results})")),
            ('e', format!("(call $buffer {of} (i32.const 1048576) (i32.const 1) {results})")),
            ('L', format!("(call $length {of})")),
            ('w', format!("(call $set_buffer {of} (i32.const 0) (i32.const 0) {value})")),
            ('W', format!("(call $length {of})")),
            ('u', format!("(call $set_buffer {of} (i32.const 1048576) (i32.const 0) {value})")),
            ('U', format!("(call $length {of})")),
            ('y', format!("(call $set_buffer {of} (i32.const 1) (i32.const 1) {value})")),
            ('Y', format!("(call $length {of})")),
            ('j', format!("(call $set_buffer {of} (i32.const 0) (i32.const 1048576) {value})")),
            ('J', format!("(call $length {of})")),
        ] {
            if kind != LEFT_OVER || letter.is_lowercase() {
                calls.push((letter, kind, call));
            }
        }
    }
}

/// Reading and setting properties.
fn properties(data: &mut Data, calls: &mut Vec<Call>) {
    let results = "(i32.const 80) (i32.const 84)";
    let value = data.add("1");
    let names = [
        "plugin_root_id",
        "no\0such",
        "request\0headers\0content-type",
        "request\0headers\0x-several",
        "request\0headers\0X-Several",
        "response\0headers\0content-type",
        "response\0trailers\0grpc-status",
        "request\0headers",
        "evenkeel_probe",
        "evenkeel\0probe",
        "",
        "xds\0cluster_name",
        "response\0code_details",
        "upstream\0address",
        "plugin_name",
    ];
    // As they are, set, and read once more.
    let paths = names.map(|name| data.add(name));
    for (nth, path) in (0..).zip(&paths) {
        let is_set = nth == 0 || (8..=10).contains(&nth);
        calls.push(('P', nth, format!("(call $property {path} {results})")));
        if is_set {
            calls.push(('q', nth, format!("(call $set_property {path} {value})")));
            calls.push(('Q', nth, format!("(call $property {path} {results})")));
        }
        // The headers of a request, and a port, are not the same in both.
        if nth != 7 && nth != 13 {
            calls.push(('O', nth, format!("(call $property_length {path})")));
        }
    }
}

/// Every call.
fn calls(data: &mut Data) -> Vec<Call> {
    let mut calls = Vec::new();
    maps(data, &mut calls);
    buffers(data, &mut calls);
    properties(data, &mut calls);
    let results = "(i32.const 80) (i32.const 84)";
    let value = data.add("1");
    let [key, none] = ["evenkeel/probe", "evenkeel/none"].map(|key| data.add(key));
    let [web, nowhere, nothing] = ["web", "nowhere", ""].map(|name| data.add(name));
    let whole = data.add(headers(&[(":method", "GET"), (":path", "/"), (":authority", "web")]));
    let without_authority = data.add(headers(&[(":method", "GET"), (":path", "/")]));
    let rest = format!("{nothing} {nothing} (i32.const 1000) (i32.const 88)");
    let metric = data.add("evenkeel_probe");
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
    // Those of HTTP would resume or end the stream.
    for kind in 2..5 {
        calls.push(('i', kind, format!("(call $continue (i32.const {kind}))")));
        calls.push(('o', kind, format!("(call $close (i32.const {kind}))")));
    }
    // The answer to one call is a phase of its own.
    calls.push(('C', 0, format!("(call $once {web} {whole} {rest})")));
    calls
}

/// Appends a line of the text.
macro_rules! put {
    ($text:expr, $($part:tt)*) => { writeln!($text, $($part)*).expect("a string takes all") };
}

/// The plugin.
pub fn text() -> String {
    let mut data = Data { end: 256, text: String::new() };
    let line = format!("{MARK}....=.");
    put!(data.text, r#"(data (i32.const 64) "{line}")"#);
    let mut all = String::new();
    for (letter, argument, call) in calls(&mut data) {
        let (letter, argument) = (letter as u32, u32::from(b'0') + argument);
        put!(all, "(call $say (i32.const {letter}) (i32.const {argument}) {call})");
    }
    let (named, details, body) = (data.add(SCENARIO), data.add("probe"), data.add("not here"));
    let mut text = String::from("(module\n");
    for (name, import, parameters) in IMPORTS {
        put!(text, r#"(import "env" "{import}" (func ${name} (param {parameters}) (result i32)))"#);
    }
    let scenario_at = 64 + MARK.len();
    put!(
        text,
        r#"(memory (export "memory") 4)
{data}
(global $heap (mut i32) (i32.const 65536))
(global $called (mut i32) (i32.const 0))
(global $scenario (mut i32) (i32.const {NONE}))
(global $answered (mut i32) (i32.const 0))
(func (export "_initialize"))
(func (export "proxy_abi_version_0_2_1"))
(func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
  (global.get $heap)
  (global.set $heap (i32.add (global.get $heap) (local.get $size))))
(func $once (param {parameters}) (result i32)
  (if (result i32) (i32.or (global.get $called) (i32.ne (i32.load8_u (i32.const {phase_at})) (i32.const {tick})))
    (then (i32.const 0))
    (else (global.set $called (i32.const 1)) (call $call {operands}))))
(func $forget (i64.store (i32.const 80) (i64.const 0)))
(func $length (param $kind i32) (result i32)
  (call $forget)
  (drop (call $buffer (local.get $kind) (i32.const 0) (i32.const 1048576) (i32.const 80) (i32.const 84)))
  (i32.load (i32.const 84)))
(func $property_length (param $path i32) (param $size i32) (result i32)
  (call $forget)
  (drop (call $property (local.get $path) (local.get $size) (i32.const 80) (i32.const 84)))
  (i32.load (i32.const 84)))
(func $same (param $kind i32) (result i32)
  (call $forget)
  (drop (call $pairs (local.get $kind) (i32.const 80) (i32.const 84)))
  (call $set_pairs (local.get $kind) (i32.load (i32.const 80)) (i32.load (i32.const 84))))
(func $measure (param $kind i32) (result i32)
  (call $forget)
  (drop (call $size (local.get $kind) (i32.const 80)))
  (i32.load (i32.const 80)))
;; By how much a header map grows where a value is added to one of the same name, and both are replaced by one.
(func $replaced (param $kind i32) (param $name i32) (param $of i32) (param $value i32) (param $long i32) (result i32)
  (local $before i32)
  (local.set $before (call $measure (local.get $kind)))
  (drop (call $add (local.get $kind) (local.get $name) (local.get $of) (local.get $value) (local.get $long)))
  (drop (call $replace (local.get $kind) (local.get $name) (local.get $of) (local.get $value) (local.get $long)))
  (i32.sub (call $measure (local.get $kind)) (local.get $before)))
(func $say (param $letter i32) (param $argument i32) (param $result i32)
  (i32.store8 (i32.const {letter_at}) (local.get $letter))
  (i32.store8 (i32.const {argument_at}) (local.get $argument))
  (i32.store8 (i32.const {result_at})
    (i32.add (i32.const 48)
      (select (local.get $result) (i32.const 63) (i32.lt_u (local.get $result) (i32.const 63)))))
  (drop (call $log (i32.const 2) (i32.const 64) (i32.const {length}))))
(func $scenario
  (call $forget)
  (drop (call $get (i32.const 0) {named} (i32.const 80) (i32.const 84)))
  (if (i32.load (i32.const 84))
    (then (global.set $scenario (i32.load8_u (i32.load (i32.const 80))))))
  (global.set $answered (i32.const 0)))
(func $all (param $scenario i32) (param $phase i32)
  (global.set $heap (i32.const 65536))
  (i32.store8 (i32.const {scenario_at}) (local.get $scenario))
  (i32.store8 (i32.const {phase_at}) (local.get $phase))
  {all}
  (if (i32.and (i32.eq (local.get $phase) (local.get $scenario)) (i32.eqz (global.get $answered)))
    (then
      (global.set $answered (i32.const 1))
      (call $say (i32.const {answers}) (i32.const 48)
        (call $answer (i32.const 403) {details} {body} (i32.const 0) (i32.const 0) (i32.const -1))))))
(func (export "proxy_on_context_create") (param i32 i32)
  (call $all (i32.const {NONE}) (select (i32.const {stream}) (i32.const {root}) (local.get 1))))
"#,
        NONE = NONE as u32,
        data = data.text,
        parameters = ["i32"; 10].join(" "),
        operands = (0..10).map(|at| format!("(local.get {at})")).collect::<String>(),
        tick = 't' as u32,
        phase_at = scenario_at + 1,
        letter_at = scenario_at + 2,
        argument_at = scenario_at + 3,
        result_at = scenario_at + 5,
        length = line.len(),
        answers = 'A' as u32,
        stream = 'c' as u32,
        root = 'R' as u32,
    );
    for (phase, name, further, result) in CALLBACKS {
        let parameters = vec!["i32"; 1 + further].join(" ");
        let begin = match phase {
            'f' => "(drop (call $period (i32.const 100)))",
            'H' => "(call $scenario)",
            _ => "",
        };
        let scenario = if OF_ROOT.contains(phase) {
            format!("(i32.const {})", NONE as u32)
        } else {
            "(global.get $scenario)".to_owned()
        };
        let ends = if ENDING.contains(phase) {
            "(call $say (i32.const 64) (i32.add (i32.const 48) (local.get 2)) (i32.const 0))"
        } else {
            ""
        };
        let (signature, result) = match result {
            // Held until the last part.
            Some(_) if phase == 'B' => (
                "(result i32)",
                format!(
                    "(i32.and (i32.eqz (local.get 2)) (i32.eq (global.get $scenario) (i32.const {})))",
                    HOLDS as u32
                ),
            ),
            Some(result) => ("(result i32)", format!("(i32.const {result})")),
            None => ("", String::new()),
        };
        put!(
            text,
            r#"(func (export "{name}") (param {parameters}) {signature} {begin}
  (call $all {scenario} (i32.const {})) {ends} {result})"#,
            phase as u32
        );
    }
    text + ")"
}
