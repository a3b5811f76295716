//! The decision of a single request is shown to clients that know the secret, and to no others.

use testbed::serde_json::{Value, from_str, json};

use crate::scene::{Ending, HEADER, address, candidates, config, give, ms, pass, respond, serve, single};
use crate::wasm::Wasm;
use crate::world::{Plugin, Stream, World};

const SECRET: &str = "open-sesame";
const ASKED: &str = r#""debug":{"secret":"open-sesame"}"#;
const TOLD: &str = "x-evenkeel-decision";

/// A successful request with these headers beside the usual ones.
fn request<W: World>(world: &mut W, plugin: Plugin, more: &[(&str, &[u8])]) -> W::Stream {
    let mut headers: Vec<(&str, &[u8])> = vec![(":method", b"GET"), (":path", b"/"), (":authority", b"web")];
    headers.extend(more);
    let mut stream = world.stream(plugin, &headers);
    stream.property(&["xds", "cluster_name"], b"web");
    assert!(stream.request_headers());
    world.advance(ms(10));
    stream
}

fn debug_headers<W: World>(
    world: &mut W,
    plugin: Plugin,
    more: &[(&str, &[u8])],
    ending: &Ending,
) -> Vec<String> {
    let mut stream = request(world, plugin, more);
    respond(&mut stream, ending);
    let values = stream.response_values(TOLD);
    stream.log();
    stream.done();
    values.into_iter().map(|value| String::from_utf8(value).expect("text")).collect()
}

fn good_under_a_false_name() -> Ending {
    let mut ending = Ending::good();
    let headers = ending.headers.get_or_insert_default();
    headers.push((TOLD, b"by=the-endpoint".to_vec()));
    ending
}

fn debug_header_is_shown_for_the_secret(mut world: impl World) {
    let plugin = single(&mut world, &config(3, "", ASKED));
    for _ in 0..20 {
        serve(&mut world, plugin, |_| Ending::good());
    }
    // Occasionally a probe is due.
    let by_policy = (0..20).any(|_| {
        let mut stream = request(&mut world, plugin, &[("x-evenkeel-debug", SECRET.as_bytes())]);
        assert!(
            stream.request_values("x-evenkeel-debug").is_empty(),
            "the endpoint does not learn the secret"
        );
        let named = candidates(&stream);
        assert_eq!(named.len(), 2);
        respond(&mut stream, &good_under_a_false_name());
        let values = stream.response_values(TOLD);
        stream.log();
        stream.done();
        let [said] = values.as_slice() else { panic!("{values:?}") };
        let said = String::from_utf8(said.clone()).expect("text");
        assert!(said.contains(&format!(", endpoint=\"{}\", cost_ms=", named[0])), "{said}");
        for part in [&format!("runner_up=\"{}\", runner_up_cost_ms=", named[1]), "expected_ms=", "why=\""] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(said.len() <= 512 && !said.contains("served="), "{said}");
        said.starts_with("by=policy, ") && said.ends_with("why=\"lowest cost of the endpoints compared\"")
    });
    assert!(by_policy);
    // A retry went to another endpoint.
    let to_another = (0..50).any(|turn| {
        let other = address(turn % 3);
        let elsewhere = Ending { served_by: Some(other.clone()), attempts: Some(2), ..Ending::good() };
        let said = debug_headers(&mut world, plugin, &[("x-evenkeel-debug", SECRET.as_bytes())], &elsewhere);
        said[0].ends_with(&format!("served=\"{other}\""))
    });
    assert!(to_another);
}

/// Recording the decision does not change what Envoy is told: a retry goes where it would otherwise go.
fn asking_names_no_further_endpoint(mut world: impl World) {
    let plugin = single(&mut world, &config(3, "", &format!(r#"{ASKED},"steering":{{"candidates":1}}"#)));
    for asked in [&[("x-evenkeel-debug", SECRET.as_bytes())][..], &[]] {
        let mut stream = request(&mut world, plugin, asked);
        assert_eq!(candidates(&stream).len(), 1);
        respond(&mut stream, &Ending::good());
        assert_eq!(stream.response_values(TOLD).len(), asked.len());
        stream.log();
        stream.done();
    }
}

fn debug_header_needs_the_secret(mut world: impl World) {
    let plugin = single(&mut world, &config(3, "", ASKED));
    for value in [&b""[..], b"open-sesam", b"open-sesame,open-sesame", b"\xff\xfe", &[b'x'; 5000]] {
        let mut stream = request(&mut world, plugin, &[("x-evenkeel-debug", value)]);
        assert!(stream.request_values("x-evenkeel-debug").is_empty());
        respond(&mut stream, &good_under_a_false_name());
        assert!(stream.response_values(TOLD).is_empty(), "nor by the endpoint's own words");
        stream.log();
        stream.done();
    }
    assert!(debug_headers(&mut world, plugin, &[], &Ending::good()).is_empty());
    // Also where the decision is recorded for the log.
    let logged = single(&mut world, &config(3, "", &format!(r#"{ASKED},"log":{{"sample_percent":100}}"#)));
    assert!(debug_headers(&mut world, logged, &[], &good_under_a_false_name()).is_empty());
    let off = single(&mut world, &config(3, "", ""));
    assert!(
        debug_headers(&mut world, off, &[("x-evenkeel-debug", SECRET.as_bytes())], &Ending::good())
            .is_empty()
    );
}

fn header_is_always_shown_also_without_eligible_endpoint<W: World>(mut world: W) {
    let upstream = r#""health":{"fail_after":1,"max_ejected_percent":100},"failover":{"panic_percent":0}"#;
    let plugin = single(&mut world, &config(1, upstream, r#""debug":{"when":"always","header":"X-Why"}"#));
    let why = |world: &mut W, ending: &Ending| {
        let mut stream = request(world, plugin, &[(HEADER, b"1.2.3.4:5")]);
        respond(&mut stream, ending);
        let said = stream.response_values("x-why");
        stream.log();
        stream.done();
        String::from_utf8(said.into_iter().next().expect("a header")).expect("text")
    };
    let said = why(&mut world, &Ending::good());
    assert!(said.starts_with("by=") && !said.contains("1.2.3.4"), "{said}");
    for _ in 0..6 {
        why(
            &mut world,
            &Ending::local("503", "upstream_reset_before_response_started{connection_termination}"),
        );
        pass(&mut world, &[plugin], ms(100));
    }
    let last =
        (0..20).map(|_| why(&mut world, &Ending::status("503"))).find(|said| said.starts_with("by=fallback"));
    assert_eq!(last.as_deref(), Some("by=fallback, why=\"no endpoint is eligible\""));
}

/// The events of this kind in the log.
fn events(world: &impl World, kind: &str) -> Vec<Value> {
    let logs = world.logs();
    let events = logs.iter().filter_map(|line| from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == json!(kind)).collect()
}

const TRACE: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn log_is_json_if_configured(mut world: impl World) {
    let root = r#""log":{"format":"json","failures":true},"prometheus":{"cluster":"nowhere","headers":{"x":"s3cr3t-s3cr3t"}}"#;
    let upstream = r#""policy":"round_robin","health":{"fail_after":3},"affinity":{"header":"x"},"signals":[{"name":"q","query":"q"}]"#;
    let plugin = single(&mut world, &config(4, upstream, root));
    for _ in 0..8 {
        serve(&mut world, plugin, |_| Ending::good());
    }
    pass(&mut world, &[plugin], ms(1000));
    assert!(events(&world, "decision").is_empty(), "nothing has failed");
    let headers: [(&str, &[u8]); 2] = [("traceparent", TRACE), ("x-request-id", b"\"}\n<script>")];
    // A worker begins at a random endpoint, so the next one need not be the one below.
    give(&mut world, plugin, &address(1), &Ending::good());
    debug_headers(&mut world, plugin, &headers, &Ending::status("503"));
    give(&mut world, plugin, &address(1), &Ending::local("504", "response_timeout"));
    pass(&mut world, &[plugin], ms(500));
    let decisions = events(&world, "decision");
    assert_eq!(decisions.len(), 2, "{decisions:?}");
    assert_eq!(decisions[0]["trace_id"], json!("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!(decisions[0]["request_id"], Value::Null, "that is none");
    assert_eq!((&decisions[0]["failure"], &decisions[0]["status"]), (&json!("status_5xx"), &json!(503)));
    assert_eq!(decisions[1]["endpoint"], json!(address(1)));
    assert_eq!((&decisions[1]["failure"], &decisions[1]["upstream"]), (&json!("timeout"), &json!("web")));
    // Ejection takes three failures and two have happened: a timeout counts twice.
    assert!(events(&world, "ejected").is_empty(), "{:?}", events(&world, "ejected"));
    let changed = events(&world, "state_changed");
    let suspect = |event: &Value| event["endpoint"] == json!(address(1)) && event["to"] == json!("suspect");
    assert!(changed.iter().any(suspect), "{changed:?}");
    let fails = events(&world, "source_fails");
    assert_eq!(
        (fails.len(), &fails[0]["source"], &fails[0]["level"]),
        (1, &json!("prometheus"), &json!("warn"))
    );
    assert_eq!(events(&world, "without_effect")[0]["path"], json!("$.upstreams[0].affinity"));
    for line in world.logs() {
        assert!(from_str::<Value>(&line).is_ok_and(|line| line["message"].is_string()), "{line}");
        assert!(!line.contains("s3cr3t") && !line.contains("script"), "{line}");
    }
}

fn a_sample_of_good_requests_is_logged_too(mut world: impl World) {
    let plugin = single(&mut world, &config(4, "", r#""log":{"sample_percent":100}"#));
    for _ in 0..30 {
        serve(&mut world, plugin, |_| Ending::good());
    }
    let lines = world.logs().iter().filter(|line| line.starts_with("decision: cluster=web: by=")).count();
    assert_eq!(lines, 20, "no more than that in a second");
}

both!(
    debug_header_is_shown_for_the_secret,
    asking_names_no_further_endpoint,
    debug_header_needs_the_secret,
    header_is_always_shown_also_without_eligible_endpoint,
    log_is_json_if_configured,
    a_sample_of_good_requests_is_logged_too,
);

#[test]
fn faults_stay_readable() {
    let mut world = Wasm::new(1);
    let thread = world.thread();
    let lines =
        world.configure(thread, "evenkeel", &config(1, r#""helth":{}"#, r#""log":{"format":"json"}"#));
    let lines = lines.expect_err("refused");
    assert!(lines.iter().any(|line| line.contains("$.upstreams[0].helth: unknown field")), "{lines:?}");
}

#[test]
fn debug_output_costs_only_its_requests() {
    let fuel = |root: &str| {
        let mut world = Wasm::new(7);
        let plugin = single(&mut world, &config(10, "", root));
        let mut one = || {
            let mut stream = request(&mut world, plugin, &[("x-evenkeel-debug", SECRET.as_bytes())]);
            respond(&mut stream, &Ending::good());
            stream.finish();
            (stream.fuel(), stream.costs().iter().flat_map(|cost| cost.hostcalls.values()).sum::<u64>())
        };
        (0..100).for_each(|_| _ = one());
        let (fuel, trips) = (0..100).map(|_| one()).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        (fuel / 100, trips / 100)
    };
    let plain = fuel("");
    for root in [
        ASKED,
        r#""attributes":["endpoint","reason","cost"]"#,
        r#""attributes":["decision"]"#,
        r#""log":{"failures":true}"#,
        r#""log":{"sample_percent":1}"#,
        r#""debug":{"secret":"another-secret"}"#,
    ] {
        let with = fuel(root);
        println!("{} fuel and {} trips a request, {} and {} with {root}", plain.0, plain.1, with.0, with.1);
        assert!(with.0 < 4 * plain.0, "{plain:?} {with:?} {root}");
    }
}
