//! Whole requests: callbacks in any order that Envoy's contract allows, two workers, their ticks, shared data that
//! others write, arbitrary answers of Prometheus and the admin interface, a clock that steps, new configurations. Runs
//! on the native test host, which checks the phases.

use core::net::SocketAddr;
use core::time::Duration;

use super::input::{Input, is_line};
use super::status::shown;
use crate::native::Native;
use crate::world::{Answer, Plugin, Stream, World};

type NativeStream = <Native as World>::Stream;

const STEERING: &str = "x-evenkeel-endpoint";
const SECRET: &str = "S3CR3T-S3CR3T";
const MAX_STEPS: usize = 96;
const MAX_OPEN: usize = 12;

const HEADERS: [&str; 14] = [
    ":path",
    ":method",
    "cookie",
    "x-user",
    "traceparent",
    "b3",
    "x-request-id",
    STEERING,
    "content-type",
    "grpc-timeout",
    "x-evenkeel-debug",
    "x-envoy-retry-on",
    "upgrade",
    "x-other",
];
const RESPONSE: [&str; 9] = [
    ":status",
    "content-type",
    "grpc-status",
    "endpoint-load-metrics",
    "set-cookie",
    "x-envoy-overloaded",
    "retry-after",
    STEERING,
    "x-evenkeel-decision",
];
const STATUSES: [&[u8]; 8] = [b"200", b"503", b"500", b"504", b"101", b"429", b"404", b"\xff"];
const PROPERTIES: [&[&str]; 8] = [
    &["xds", "cluster_name"],
    &["upstream", "address"],
    &["response", "code_details"],
    &["upstream", "request_attempt_count"],
    &["source", "address"],
    &["response", "flags"],
    &["upstream", "num_endpoints"],
    &["response", "backend_latency"],
];
const VALUES: [&[u8]; 10] = [
    b"web",
    b"api",
    b"10.0.0.1:80",
    b"10.0.0.2:80",
    b"via_upstream",
    b"downstream_remote_disconnect",
    b"upstream_reset_before_response_started{connection_termination}",
    b"response_timeout",
    b"\x02\0\0\0\0\0\0\0",
    b"10.9.9.9:1",
];
const CLUSTERS: &[u8] = br#"{"cluster_statuses":[{"name":"api","host_statuses":[{"address":{"socket_address":{"address":"10.0.1.1","port_value":80}},"health_status":{"eds_health_status":"HEALTHY"},"weight":1}]}]}"#;
const SAMPLES: &[u8] = br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"instance":"10.0.0.1:80"},"value":[1,"7"]}]}}"#;

/// Variants of the upstream `web`; its endpoints are 10.0.0.1:80 and 10.0.0.2:80 in each.
const ENTRIES: [&str; 5] = [
    r#""endpoints":{"static":["10.0.0.1:80","10.0.0.2:80"]}"#,
    r#""endpoints":{"static":["10.0.0.1:80","10.0.0.2:80"]},"policy":"consistent_hash","affinity":{"cookie":{"name":"user"}}"#,
    r#""endpoints":{"static":["10.0.0.1:80",{"address":"10.0.0.2:80","zone":"b","version":"v2"}]},"split":{"v2":20},"zone":{"local":"b"},"policy":"least_request""#,
    r#""endpoints":{"static":["10.0.0.1:80","10.0.0.2:80"]},"failover":{"none_eligible":"reject","panic_percent":0},"health":{"max_ejected_percent":100,"fail_after":1}"#,
    r#""endpoints":{"static":["10.0.0.1:80","10.0.0.2:80"]},"autoscale":{},"signals":[{"name":"queue","query":"q","max":100}],"load_reports":[{"name":"load","header":"endpoint-load-metrics","metric":"named_metrics.queue"}]"#,
];

fn configuration(choice: u8) -> String {
    let entry = ENTRIES[usize::from(choice) % ENTRIES.len()];
    let mode = if choice & 0x40 == 0 { "enforce" } else { "observe" };
    let format = if choice & 0x20 == 0 { "text" } else { "json" };
    format!(
        r#"{{"mode":"{mode}","prometheus":{{"cluster":"prometheus","interval":"1s","timeout":"500ms","headers":{{"authorization":"{SECRET}"}}}},
            "status":{{"path":"/_evenkeel"}},"debug":{{"when":"asked","secret":"{SECRET}"}},"log":{{"format":"{format}","failures":true,"sample_percent":100}},
            "attributes":["endpoint","reason","cost","decision"],
            "upstreams":[{{"cluster":"web",{entry}}},{{"cluster":"api","endpoints":{{"envoy_admin":{{"cluster":"admin","interval":"1s"}}}}}}]}}"#
    )
}

struct Open {
    stream: NativeStream,
    began: bool,
    answered: bool,
    over: bool,
}

struct Run {
    world: Native,
    plugins: Vec<Plugin>,
    open: Vec<Open>,
    /// Whether others have written to shared data.
    disturbed: bool,
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut world = Native::new(1);
    world.add_cluster("prometheus");
    world.add_cluster("admin");
    let choice = input.byte();
    let plugins = (0..2).map(|_| {
        let thread = world.thread();
        world
            .configure(thread, "evenkeel", &configuration(choice))
            .unwrap_or_else(|lines| panic!("{lines:?}"))
    });
    let plugins = plugins.collect();
    let mut run = Run { world, plugins, open: Vec::new(), disturbed: false };
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
    }
    run.rest();
}

impl Run {
    fn plugin(&self, input: &mut Input<'_>) -> Plugin {
        self.plugins[usize::from(input.byte()) % self.plugins.len()]
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 | 1 => {
                self.world.advance(Duration::from_millis(u64::from(input.byte()) * 20));
                self.tick();
            }
            2..=4 => self.begin(input),
            5..=7 => self.respond(input),
            8 => self.property(input),
            9 => self.part(input),
            10 | 11 => self.end(input),
            12 => self.damage(input),
            13 => self.answer(input),
            14 => self.elsewhere(input),
            _ => self.look(input),
        }
    }

    fn tick(&mut self) {
        for plugin in self.plugins.clone() {
            self.world.tick(plugin);
        }
    }

    fn begin(&mut self, input: &mut Input<'_>) {
        if self.open.len() >= MAX_OPEN {
            return;
        }
        let plugin = self.plugin(input);
        let mut headers = vec![(":method", &b"GET"[..]), (":path", b"/"), (":authority", b"web")];
        for _ in 0..input.byte() % 5 {
            headers.push((input.of(&HEADERS), input.piece()));
        }
        let mut stream = self.world.stream(plugin, &headers);
        stream.property(&["xds", "cluster_name"], input.of(&[b"web", b"web", b"api", b"xyz"]));
        // Some streams are answered by an earlier filter, and never reach this one.
        let began = !input.byte().is_multiple_of(16);
        if began {
            let goes_on = stream.request_headers_of(input.byte() & 1 == 0);
            checked(&stream, &headers, goes_on);
        }
        let answered = stream.local_response().is_some();
        self.open.push(Open { stream, began, answered, over: answered });
    }

    fn chosen(&mut self, input: &mut Input<'_>) -> Option<&mut Open> {
        let at = usize::from(input.byte());
        let count = self.open.len();
        if count == 0 { None } else { self.open.get_mut(at % count) }
    }

    fn respond(&mut self, input: &mut Input<'_>) {
        let Some(open) = self.chosen(input).filter(|open| !open.answered) else { return };
        let mut headers = vec![(":status", input.of(&STATUSES))];
        for _ in 0..input.byte() % 4 {
            headers.push((input.of(&RESPONSE), input.piece()));
        }
        let complete = input.byte() & 1 == 0;
        open.stream.response_headers_of(&headers, complete);
        (open.answered, open.over) = (true, complete);
        let told = open.stream.response_values("x-evenkeel-decision");
        let theirs = headers.iter().filter(|(name, _)| *name == "x-evenkeel-decision").count();
        assert!(told.len() <= theirs + 1, "told without being asked");
    }

    fn part(&mut self, input: &mut Input<'_>) {
        let request = input.byte();
        let Some(open) = self.chosen(input) else { return };
        if request & 1 == 0 && open.began {
            open.stream.request_body(request & 2 == 0);
        } else if open.answered && !open.over {
            if input.byte() & 3 == 0 {
                let status = input.piece();
                open.stream
                    .response_trailers(&[("grpc-status", status), ("endpoint-load-metrics", input.piece())]);
                open.over = true;
            } else {
                let last = input.byte() & 1 == 0;
                open.stream.response_part(input.piece(), last);
                open.over = last;
            }
        }
    }

    fn property(&mut self, input: &mut Input<'_>) {
        let (path, any) = (input.of(&PROPERTIES), input.byte() & 3 == 0);
        let value = if any { input.piece() } else { input.of(&VALUES) };
        if let Some(open) = self.chosen(input) {
            open.stream.property(path, value);
        }
    }

    fn end(&mut self, input: &mut Input<'_>) {
        let at = usize::from(input.byte());
        if !self.open.is_empty() {
            let open = self.open.swap_remove(at % self.open.len());
            finish(open);
        }
    }

    /// Others write to shared data.
    fn damage(&mut self, input: &mut Input<'_>) {
        let keys = self.world.shared_keys();
        if keys.is_empty() {
            return;
        }
        let key = &keys[usize::from(input.byte()) % keys.len()];
        let mut value = self.world.shared(key);
        match input.byte() % 4 {
            0 => value = input.piece().to_vec(),
            1 => value.truncate(usize::from(input.byte())),
            2 => value.extend(input.piece()),
            _ => {
                let at = usize::from(u16::from_le_bytes(input.array()));
                let piece = input.piece();
                let length = value.len();
                value.iter_mut().skip(1 + at % length.max(1)).zip(piece).for_each(|(old, new)| *old = *new);
            }
        }
        self.world.set_shared(key, &value);
        self.disturbed = true;
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let calls = self.world.calls();
        if calls.is_empty() {
            return;
        }
        let call = &calls[usize::from(input.byte()) % calls.len()];
        assert!(!call.path.contains(SECRET) && call.path.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(
            call.cluster == "prometheus" || call.headers.iter().all(|(_, value)| !value.contains(SECRET))
        );
        let usual = if call.cluster == "admin" { CLUSTERS } else { SAMPLES };
        let answer = match input.byte() % 6 {
            0 => Answer::Failed,
            1 => Answer::NoStatus(b"x"),
            2 => Answer::Http(200, input.piece()),
            3 => Answer::Http(503, input.piece()),
            _ => Answer::Http(200, usual),
        };
        self.world.answer(call, &answer);
    }

    /// The clock steps, or a new configuration takes effect.
    fn elsewhere(&mut self, input: &mut Input<'_>) {
        match input.byte() % 4 {
            0 => {
                let back = u64::from(input.byte()) * 1_000_000_000;
                let now = self.world.now();
                self.world.set_now(now - back);
            }
            1 => self.world.advance(Duration::from_secs(u64::from(input.byte()) * 60)),
            _ => {
                let plugin = self.plugin(input);
                let thread = self.world.thread_of(plugin);
                let json = configuration(input.byte());
                let new = self.world.configure(thread, "evenkeel", &json).expect("accepted");
                if self.plugins.len() < 6 {
                    self.plugins.push(new);
                }
            }
        }
    }

    fn look(&mut self, input: &mut Input<'_>) {
        let (plugin, path) =
            (self.plugin(input), input.of(&[&b"/status.json"[..], b"/metrics", b"/config.json"]));
        self.shown(plugin, path);
    }

    fn shown(&mut self, plugin: Plugin, path: &[u8]) -> Vec<u8> {
        let whole = [b"/_evenkeel", path].concat();
        let mut stream = self.world.stream(plugin, &[(":method", b"GET"), (":path", &whole)]);
        assert!(!stream.request_headers(), "the status page is answered here");
        let body = stream.local_body();
        assert!(!String::from_utf8_lossy(&body).contains(SECRET), "a secret on the status page");
        shown(path, &body);
        stream.log();
        stream.done();
        body
    }

    /// After the last request nothing is in flight, and every logged line is a single line.
    fn rest(mut self) {
        self.open.drain(..).for_each(finish);
        let pause = if self.disturbed { 120 } else { 1 };
        for _ in 0..4 {
            self.world.advance(Duration::from_secs(pause));
            self.tick();
        }
        for plugin in self.plugins.clone() {
            let body = self.shown(plugin, b"/status.json");
            let status: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            for upstream in status["upstreams"].as_array().expect("upstreams") {
                assert_eq!(upstream["in_flight"], 0, "at rest: {upstream}");
            }
        }
        for line in self.world.logs() {
            is_line(&line);
            assert!(!line.contains(SECRET), "a secret in the log: {line}");
        }
    }
}

fn finish(mut open: Open) {
    open.stream.log();
    open.stream.done();
}

/// Of the request's headers, evenkeel changes only the steering header; it names endpoints, and never repeats the
/// client's text.
fn checked(stream: &NativeStream, headers: &[(&str, &[u8])], goes_on: bool) {
    assert_eq!(goes_on, stream.local_response().is_none());
    let steered = stream.request_values(STEERING);
    assert!(steered.len() <= 1, "{steered:?}");
    for value in &steered {
        let text = core::str::from_utf8(value).expect("addresses");
        assert!(text.split(',').all(|part| part.trim().parse::<SocketAddr>().is_ok()), "{text:?}");
    }
    for name in ["x-other", "cookie", ":path", "traceparent", "x-request-id"] {
        let sent: Vec<&[u8]> =
            headers.iter().filter(|(other, _)| *other == name).map(|(_, value)| *value).collect();
        assert_eq!(stream.request_values(name), sent, "{name} is not ours");
    }
    assert!(stream.request_values("x-evenkeel-debug").is_empty(), "the question is taken off");
}
