//! Polls of Prometheus: requests, intervals, and what is logged when responses cannot be used.

use testbed::serde_json::{Value, from_slice};

use crate::scene::{Ending, address, config, load, ms, pass_with, picks, picks_of, serve, single};
use crate::world::{Answer, Call, Plugin, Stream, World};

const SERVER: &str = r#""status":{"path":"/_evenkeel"},"prometheus":{"cluster":"prometheus","interval":"1s","timeout":"500ms""#;
const TWO: &str =
    r#""signals":[{"name":"queue","query":"queue","max":100},{"name":"load","query":"load","max":100}]"#;
pub const SIGNAL: &str = r#""signals":[{"name":"queue","query":"queue","max":100,"smoothing":1}]"#;

/// Threads with these fields of the upstream and of `prometheus`.
pub fn crew<W: World>(world: &mut W, threads: usize, upstream: &str, prometheus: &str) -> Vec<Plugin> {
    world.add_cluster("prometheus");
    let json = config(4, upstream, &format!("{SERVER}{prometheus}}}"));
    (0..threads)
        .map(|_| {
            let thread = world.thread();
            load(world, thread, &json)
        })
        .collect()
}

pub fn vector(series: &[(&str, f64, &str)]) -> String {
    let one = |(instance, at, value): &(&str, f64, &str)| {
        format!(r#"{{"metric":{{"instance":"{instance}","job":"web"}},"value":[{at},"{value}"]}}"#)
    };
    let series: Vec<String> = series.iter().map(one).collect();
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#, series.join(","))
}

pub fn refusal(why: &str) -> String {
    format!(r#"{{"status":"error","errorType":"bad_data","error":"{why}"}}"#)
}

/// Lets time pass, every call answered by `answer`; the calls.
pub fn watch<W: World>(
    world: &mut W,
    crew: &[Plugin],
    seconds: u64,
    mut answer: impl FnMut(&Call, f64) -> String,
) -> Vec<Call> {
    let mut calls = Vec::new();
    pass_with(world, crew, ms(1000 * seconds), |world| {
        let now = world.now() as f64 * 1e-9;
        for call in world.calls() {
            let body = answer(&call, now);
            world.answer(&call, &Answer::Http(200, body.as_bytes()));
            calls.push(call);
        }
    });
    calls
}

fn get<W: World>(world: &mut W, plugin: Plugin, path: &str) -> Vec<u8> {
    let headers: [(&str, &[u8]); 3] =
        [(":method", b"GET"), (":path", path.as_bytes()), (":authority", b"web")];
    let mut stream = world.stream(plugin, &headers);
    stream.request_headers();
    let body = stream.local_body();
    stream.log();
    stream.done();
    body
}

fn status<W: World>(world: &mut W, plugin: Plugin) -> Value {
    from_slice(&get(world, plugin, "/_evenkeel/status.json")).expect("JSON")
}

fn metrics<W: World>(world: &mut W, plugin: Plugin) -> String {
    String::from_utf8(get(world, plugin, "/_evenkeel/metrics")).expect("text")
}

/// How many log lines contain `part`.
pub fn lines<W: World>(world: &W, part: &str) -> usize {
    world.logs().iter().filter(|line| line.contains(part)).count()
}

fn a_cluster_that_takes_no_request_is_not_called_unknown(mut world: impl World) {
    world.block_cluster("prometheus");
    let crew = crew(&mut world, 2, SIGNAL, "");
    watch(&mut world, &crew, 5, |_, _| String::new());
    assert_eq!(lines(&world, "is unknown to Envoy"), 0);
    assert_eq!(lines(&world, "cluster \"prometheus\" accepts no request now: no healthy host"), 1);
}

fn what_envoy_answers_itself_stands_in_the_log(mut world: impl World) {
    let crew = crew(&mut world, 1, SIGNAL, "");
    let mut told = false;
    pass_with(&mut world, &crew, ms(3000), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(503, b"no healthy upstream"));
            told = true;
        }
    });
    assert!(told && lines(&world, "HTTP status 503: no healthy upstream") == 1, "{:?}", world.logs());
}

fn unmatched_signals_are_logged_once_per_change(mut world: impl World) {
    let crew = crew(&mut world, 2, SIGNAL, "");
    let by_name = |_: &Call, now| vector(&[("web-1:8080", now, "1"), ("web-2:8080", now, "2")]);
    let by_address = |_: &Call, now| vector(&[(&address(0), now, "1"), ("web-2:8080", now, "2")]);
    watch(&mut world, &crew, 10, by_name);
    let told = "cluster=web signal=queue: none of 2 series matches an endpoint by label instance: first \"web-1:8080\", \"web-2:8080\"";
    assert_eq!(lines(&world, told), 1, "{:?}", world.logs());
    for plugin in &crew {
        let fit = status(&mut world, *plugin)["upstreams"][0]["signals"][0].clone();
        assert_eq!((fit["series"].as_u64(), fit["matched"].as_u64()), (Some(2), Some(0)), "{fit}");
        assert!(fit["problem"].as_str().is_some_and(|problem| problem.starts_with("none of 2")), "{fit}");
        let metrics = metrics(&mut world, *plugin);
        assert!(
            metrics.contains("evenkeel_upstream_signal_series{upstream=\"web\",signal=\"queue\"} 2\n"),
            "{metrics}"
        );
        assert!(
            metrics
                .contains("evenkeel_upstream_signal_matched_series{upstream=\"web\",signal=\"queue\"} 0\n")
        );
    }
    watch(&mut world, &crew, 10, by_address);
    assert_eq!(lines(&world, "series match endpoints again"), 1);
    let fit = status(&mut world, crew[0])["upstreams"][0]["signals"][0].clone();
    assert_eq!((fit["matched"].as_u64(), fit["problem"].is_null()), (Some(1), true), "{fit}");
    watch(&mut world, &crew, 5, by_name);
    assert_eq!(lines(&world, told), 2);
    // Another worker takes over: it knows what has been logged.
    let (first, rest) = crew.split_at(1);
    watch(&mut world, rest, 10, by_name);
    watch(&mut world, first, 10, by_name);
    assert_eq!(lines(&world, told), 2);
}

fn series_without_the_label_are_logged_with_their_labels(mut world: impl World) {
    let crew = crew(&mut world, 1, SIGNAL, "");
    let body = vector(&[("x", 1.0, "1")]).replace("instance", "pod");
    watch(&mut world, &crew, 5, |_, _| body.clone());
    let told = "none of 1 series has the label \"instance\"; the first has pod, job";
    assert_eq!(lines(&world, told), 1, "{:?}", world.logs());
}

fn query_without_series_is_logged(mut world: impl World) {
    let crew = crew(&mut world, 1, SIGNAL, "");
    watch(&mut world, &crew, 5, |_, _| vector(&[]));
    assert_eq!(lines(&world, "cluster=web signal=queue: the query returns no series"), 1);
}

fn all(now: f64, ages: [f64; 4], names: &[String]) -> Vec<(&str, f64, &str)> {
    names.iter().zip(ages).map(|(name, age)| (name.as_str(), now - age, "5")).collect()
}

fn names() -> Vec<String> {
    (0..4).map(address).collect()
}

/// The age of each endpoint's signal on the status page, and whether it counts.
fn ages<W: World>(world: &mut W, plugin: Plugin) -> Vec<(f64, bool)> {
    let status = status(world, plugin);
    let endpoints = status["upstreams"][0]["endpoints"].as_array().expect("endpoints");
    let signal = |e: &Value| {
        let signal = &e["signals"]["queue"];
        (signal["age_s"].as_f64().unwrap_or(-1.0), signal["used"].as_bool().unwrap_or_default())
    };
    endpoints.iter().map(signal).collect()
}

fn sample_age_follows_its_timestamp(mut world: impl World) {
    let names = names();
    let one = crew(&mut world, 1, SIGNAL, "");
    watch(&mut world, &one, 5, |_, now| vector(&all(now, [0.0, 0.0, 0.0, 30.0], &names)));
    let found = ages(&mut world, one[0]);
    assert!(found[..3].iter().all(|(age, used)| *age < 1.5 && *used), "{found:?}");
    assert!((30.0..31.5).contains(&found[3].0) && !found[3].1, "{found:?}");
}

fn an_answer_that_lags_as_a_whole_is_as_old_as_it_lags(mut world: impl World) {
    let names = names();
    let one = crew(&mut world, 1, SIGNAL, "");
    watch(&mut world, &one, 5, |_, now| vector(&all(now, [30.0; 4], &names)));
    let found = ages(&mut world, one[0]);
    assert!(found.iter().all(|(age, used)| (30.0..31.5).contains(age) && !used), "{found:?}");
}

fn clocks_may_differ_and_times_be_none(mut world: impl World) {
    let names = names();
    for off in [-3.0, 3.0, 1e9, -1e9] {
        let one = crew(&mut world, 1, SIGNAL, "");
        watch(&mut world, &one, 5, |_, now| vector(&all(now, [off; 4], &names)));
        let found = ages(&mut world, one[0]);
        assert!(found.iter().all(|(age, used)| *age < 1.5 && *used), "{off}: {found:?}");
        world.advance(ms(60_000));
    }
}

fn timestamp_query_sets_the_age(mut world: impl World) {
    let names = names();
    let dated = SIGNAL.replace(r#""max""#, r#""timestamp_query":"timestamp(queue)","max""#);
    let one = crew(&mut world, 1, &dated, "");
    // The server's clock is wrong by a quarter of an hour, which does not matter.
    let off = 900.0;
    let mut asked = [0u32, 0];
    watch(&mut world, &one, 20, |call, now| {
        let of = usize::from(call.path.contains("timestamp%28queue%29"));
        asked[of] += 1;
        match of {
            0 => vector(&all(now - off, [0.0; 4], &names)),
            _ => {
                let measured: Vec<String> =
                    [0.0, 1.0, 2.0, 40.0].map(|age| format!("{}", now - off - age)).into();
                let series: Vec<_> = names
                    .iter()
                    .zip(&measured)
                    .map(|(name, at)| (name.as_str(), now - off, at.as_str()))
                    .collect();
                vector(&series)
            }
        }
    });
    assert!(asked[0] >= 4 && asked[0].abs_diff(asked[1]) <= 1, "one for one: {asked:?}");
    let found = ages(&mut world, one[0]);
    let wanted = [0.0, 1.0, 2.0, 40.0];
    assert!(found.iter().zip(wanted).all(|((age, _), wanted)| *age >= wanted), "{found:?}");
    assert!(!found[3].1, "{found:?}");
}

fn timestamps_that_cannot_be_had_cost_no_values(mut world: impl World) {
    let names = names();
    let dated = SIGNAL.replace(r#""max""#, r#""timestamp_query":"timestamp(queue)","max""#);
    let one = crew(&mut world, 1, &dated, "");
    watch(&mut world, &one, 5, |call, now| match call.path.contains("timestamp%28") {
        true => "{".into(),
        false => vector(&all(now, [0.0; 4], &names)),
    });
    assert!(ages(&mut world, one[0]).iter().all(|(_, used)| *used));
    assert_eq!(lines(&world, "cluster=web timestamps of signal=queue: not a Prometheus response"), 1);
}

/// While one query fails, the source counts as failing.
fn success_is_logged_after_the_last_failure(mut world: impl World) {
    let crew = crew(&mut world, 1, TWO, "");
    picks(&mut world, crew[0], 1);
    for (failing, said) in [(&["queue", "load"][..], 0), (&["load"], 0), (&[], 1)] {
        watch(&mut world, &crew, 5, |call, _| {
            let fails = failing.iter().any(|name| call.path.contains(&format!("query={name}")));
            if fails { "no answer".to_owned() } else { vector(&[]) }
        });
        assert_eq!(lines(&world, "prometheus poll succeeded again"), said, "{failing:?} fail");
    }
    assert_eq!(lines(&world, "prometheus poll failed"), 1);
}

/// That Prometheus is away is one line, whatever it takes with it.
fn fault_of_one_query_is_logged_whatever_else_fails(mut world: impl World) {
    let crew = crew(&mut world, 1, TWO, "");
    picks(&mut world, crew[0], 1);
    for (of_queue, of_load, said) in [
        ("no answer".to_owned(), refusal("1:7"), 2),
        (refusal("1:7"), "no answer".to_owned(), 2),
        (vector(&[]), refusal("unknown function"), 3),
    ] {
        watch(&mut world, &crew, 5, |call, _| {
            if call.path.contains("query=queue") { of_queue.clone() } else { of_load.clone() }
        });
        assert_eq!(lines(&world, "prometheus poll failed"), said, "{of_queue} {of_load}");
    }
    let shown = &status(&mut world, crew[0])["upstreams"][0]["signals"];
    let problem = |at: usize| shown[at]["problem"].as_str().unwrap_or_default().to_owned();
    assert_eq!(problem(0), "the query returns no series");
    assert!(problem(1).starts_with("query failed: Prometheus refused the query: bad_data"), "{shown}");
    assert!(shown[1]["series"].is_null(), "{shown}");
    watch(&mut world, &crew, 5, |_, _| vector(&[]));
    assert_eq!(lines(&world, "series match endpoints again"), 0);
}

/// The worker that takes over the asking repeats none of it.
fn query_faults_are_logged_once_by_all_workers(mut world: impl World) {
    let crew = crew(&mut world, 3, TWO, "");
    let refuse = |call: &Call, _: f64| refusal(if call.path.contains("query=queue") { "1:7" } else { "1:9" });
    let first = watch(&mut world, &crew, 10, refuse).last().expect("one of them asks").thread;
    let rest: Vec<Plugin> = crew.iter().copied().filter(|plugin| plugin.0 != first.0).collect();
    let then = watch(&mut world, &rest, 10, refuse).last().expect("one of the others asks").thread;
    assert_ne!(then, first);
    assert_eq!(lines(&world, "prometheus poll failed"), 2);
}

fn an_answer_beyond_the_limit_is_called_too_large(mut world: impl World) {
    let crew = crew(&mut world, 1, SIGNAL, "");
    let body = vec![b' '; 8 * 1024 * 1024 + 1];
    let mut told = 0;
    pass_with(&mut world, &crew, ms(2500), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(200, &body));
            told += 1;
        }
    });
    assert!(told > 0);
    assert_eq!(lines(&world, "the answer has more than 8388608 bytes"), 1, "{:?}", world.logs());
}

fn parameters_go_along_and_long_queries_are_posted(mut world: impl World) {
    let long = "x".repeat(5000);
    let signals = format!(r#""signals":[{{"name":"a","query":"up"}},{{"name":"b","query":"{long}"}}]"#);
    let crew = crew(&mut world, 1, &signals, r#","parameters":{"dedup":"true"}"#);
    let calls = watch(&mut world, &crew, 1, |_, _| vector(&[]));
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_eq!(
        (calls[0].path.as_str(), &calls[0].form),
        ("/api/v1/query?query=up&timeout=500ms&dedup=true", &None)
    );
    assert_eq!(calls[1].path, "/api/v1/query?dedup=true");
    assert_eq!(calls[1].form.as_deref(), Some(format!("query={long}&timeout=500ms").as_str()));
}

const TOKEN: &str = r#","headers":{"authorization":{"env":"PROM_TOKEN","prefix":"Bearer "}}"#;

fn token_from_the_environment_is_never_logged(mut world: impl World) {
    world.set_environment("PROM_TOKEN", "s3cr3t\n");
    let crew = crew(&mut world, 1, SIGNAL, TOKEN);
    let calls = watch(&mut world, &crew, 1, |_, _| vector(&[]));
    let sent = calls[0].headers.iter().find(|(name, _)| name == "authorization");
    assert_eq!(sent.map(|(_, value)| value.as_str()), Some("Bearer s3cr3t"));
    let shown = String::from_utf8(get(&mut world, crew[0], "/_evenkeel/config.json")).expect("text");
    assert!(shown.contains("PROM_TOKEN") && !shown.contains("s3cr3t"), "{shown}");
    assert_eq!(lines(&world, "s3cr3t"), 0);
}

fn a_token_that_the_server_repeats_is_not_shown(mut world: impl World) {
    world.set_environment("PROM_TOKEN", "s3cr3t-token");
    let crew = crew(&mut world, 1, SIGNAL, &format!(r#"{TOKEN},"parameters":{{"key":"s3cr3t-key"}}"#));
    watch(&mut world, &crew, 3, |_, _| {
        r#"{"status":"error","errorType":"unauthorized","error":"got s3cr3t-key, no such token: Bearer s3cr3t-token"}"#
            .to_owned()
    });
    let error = status(&mut world, crew[0])["prometheus"]["last_error"].clone();
    assert!(
        error.as_str().is_some_and(|error| error.ends_with("got (not shown), no such token: (not shown)")),
        "{error}"
    );
    assert!(
        lines(&world, "no such token: (not shown)") >= 1 && lines(&world, "s3cr3t") == 0,
        "{:?}",
        world.logs()
    );
}

fn polling_is_disabled_without_its_token(mut world: impl World) {
    world.add_cluster("prometheus");
    let crew = crew(&mut world, 2, SIGNAL, TOKEN);
    let told = "$.prometheus.headers[\"authorization\"].env: found no variable \"PROM_TOKEN\" in the plugin's environment";
    assert!(lines(&world, told) >= 1, "{:?}", world.logs());
    let calls = watch(&mut world, &crew, 20, |_, _| vector(&[]));
    assert_eq!(calls.len(), 0, "nothing goes out without the token");
    let polls = status(&mut world, crew[0])["prometheus"].clone();
    assert!(polls["failures"].as_u64().is_some_and(|failures| failures > 0), "{polls}");
    assert!(polls["last_error"].as_str().is_some_and(|error| error.contains("PROM_TOKEN")), "{polls}");
    assert_eq!(
        picks(&mut world, crew[1], 40).values().sum::<usize>(),
        40,
        "requests are steered all the same"
    );
}

/// Seconds without traffic: as many polls as there would be at one per second.
const IDLE_S: u64 = 120;

fn without_traffic_polls_become_few_and_the_first_request_makes_them_good(mut world: impl World) {
    let crew = crew(&mut world, 3, SIGNAL, "");
    picks(&mut world, crew[1], 20);
    let names = names();
    let answer = |_: &Call, now| vector(&all(now, [0.0; 4], &names));
    let calls = watch(&mut world, &crew, IDLE_S, answer).len();
    assert!((5..=12).contains(&calls), "1, 2, 4, … seconds apart: {calls}");
    let quiet = status(&mut world, crew[0]);
    assert!(
        quiet["prometheus"]["pause_s"].as_f64().is_some_and(|pause| pause > 10.0),
        "{}",
        quiet["prometheus"]
    );
    assert_eq!(quiet["prometheus"]["stale"], false, "{}", quiet["prometheus"]);
    // Whichever worker gets it.
    serve(&mut world, crew[2], |_| Ending::good());
    let calls = watch(&mut world, &crew, 1, answer).len();
    assert!((1..=2).contains(&calls), "{calls}");
    assert!(ages(&mut world, crew[2]).iter().all(|(age, used)| *age < 1.0 && *used));
    let mut calls = 0;
    for _ in 0..10 {
        calls += watch(&mut world, &crew, 1, answer).len();
        serve(&mut world, crew[0], |_| Ending::good());
    }
    assert!((8..=12).contains(&calls), "as configured: {calls}");
    assert!(status(&mut world, crew[0])["prometheus"]["pause_s"].as_f64().is_some_and(|pause| pause < 4.0));
}

fn what_scales_replicas_is_asked_without_traffic_too(mut world: impl World) {
    let crew = crew(&mut world, 1, &format!(r#"{SIGNAL},"autoscale":{{}}"#), "");
    let calls = watch(&mut world, &crew, IDLE_S, |_, _| vector(&[])).len();
    assert!((110..=130).contains(&calls), "{calls}");
}

fn a_prometheus_that_fails_goes_stale_though_it_is_asked_seldom(mut world: impl World) {
    let plugin = single(&mut world, &config(4, SIGNAL, &format!("{SERVER}}}")));
    world.add_cluster("prometheus");
    watch(&mut world, &[plugin], 3, |_, _| vector(&[]));
    assert_eq!(status(&mut world, plugin)["prometheus"]["stale"], false);
    for _ in 0..60 {
        serve(&mut world, plugin, |_| Ending::good());
        pass_with(&mut world, &[plugin], ms(1000), |world| {
            world.calls().iter().for_each(|call| world.answer(call, &Answer::Failed));
        });
    }
    assert_eq!(status(&mut world, plugin)["prometheus"]["stale"], true);
}

/// Queue lengths of all endpoints: `third` at the third endpoint, at most `others` at each other one.
fn queues(third: u32, others: u32) -> impl FnMut(&Call, f64) -> String {
    let mut nth = 0;
    move |_, now| {
        nth += 1;
        let length = |at: u32| if at == 2 { third } else { (nth + at) % (others + 1) };
        let series: Vec<(String, String)> =
            (0..4).map(|at| (address(at as usize), length(at).to_string())).collect();
        let series: Vec<(&str, f64, &str)> =
            series.iter().map(|(address, length)| (address.as_str(), now, length.as_str())).collect();
        vector(&series)
    }
}

fn standing_queue_is_set_aside_with_its_reason_until_needed(mut world: impl World) {
    let crew = crew(&mut world, 2, SIGNAL, "");
    let seen = |world: &mut _, of: Plugin| {
        let told = status(world, of);
        let third = told["upstreams"][0]["endpoints"].as_array().unwrap();
        let third = third.iter().find(|e| e["address"] == address(2).as_str()).unwrap();
        let given = picks_of(world, of, &address(2), 200);
        (third["reason"].as_str().unwrap().to_owned(), given)
    };
    watch(&mut world, &crew, 4, queues(15, 3));
    let (reason, given) = seen(&mut world, crew[0]);
    assert!(reason.is_empty() && given > 10, "four news say nothing yet: {reason:?}, {given} of 200");
    watch(&mut world, &crew, 16, queues(15, 3));
    for plugin in &crew {
        let (reason, given) = seen(&mut world, *plugin);
        assert!(reason.starts_with("set aside: standing queue") && given <= 5, "{reason:?}, {given} of 200");
    }
    let firmness = "evenkeel_upstream_signal_firmness{upstream=\"web\",signal=\"queue\"} 1\n";
    assert!(metrics(&mut world, crew[0]).contains(firmness), "{}", metrics(&mut world, crew[0]));
    // As long as half of its queue: there is no room elsewhere.
    watch(&mut world, &crew, 3, |_, now| {
        let series = (0..4).map(|at| (address(at), now, "12")).collect::<Vec<_>>();
        vector(
            &series.iter().map(|(address, now, value)| (address.as_str(), *now, *value)).collect::<Vec<_>>(),
        )
    });
    let (reason, given) = seen(&mut world, crew[1]);
    assert!(reason.is_empty() && given > 20, "{reason:?}, {given} of 200");
}

/// The fraction of time spent on garbage collection, for example: 0 at the others for long, and a little at one.
fn what_is_no_whole_number_is_no_queue(mut world: impl World) {
    let crew = crew(&mut world, 1, SIGNAL, "");
    watch(&mut world, &crew, 30, |_, now| {
        let value = |at: usize| if at == 2 { "15.25" } else { "0" };
        let series: Vec<(String, &str)> = (0..4).map(|at| (address(at), value(at))).collect();
        vector(&series.iter().map(|(address, value)| (address.as_str(), now, *value)).collect::<Vec<_>>())
    });
    let given = picks_of(&mut world, crew[0], &address(2), 200);
    assert!(given > 10, "less than in proportion: {given} of 200");
    let told = status(&mut world, crew[0]).to_string();
    assert!(!told.contains("set aside"), "{told}");
}

both!(
    what_is_no_whole_number_is_no_queue,
    standing_queue_is_set_aside_with_its_reason_until_needed,
    a_cluster_that_takes_no_request_is_not_called_unknown,
    what_envoy_answers_itself_stands_in_the_log,
    unmatched_signals_are_logged_once_per_change,
    series_without_the_label_are_logged_with_their_labels,
    query_without_series_is_logged,
    sample_age_follows_its_timestamp,
    an_answer_that_lags_as_a_whole_is_as_old_as_it_lags,
    clocks_may_differ_and_times_be_none,
    timestamp_query_sets_the_age,
    timestamps_that_cannot_be_had_cost_no_values,
    success_is_logged_after_the_last_failure,
    fault_of_one_query_is_logged_whatever_else_fails,
    query_faults_are_logged_once_by_all_workers,
    an_answer_beyond_the_limit_is_called_too_large,
    parameters_go_along_and_long_queries_are_posted,
    token_from_the_environment_is_never_logged,
    a_token_that_the_server_repeats_is_not_shown,
    polling_is_disabled_without_its_token,
    without_traffic_polls_become_few_and_the_first_request_makes_them_good,
    what_scales_replicas_is_asked_without_traffic_too,
    a_prometheus_that_fails_goes_stale_though_it_is_asked_seldom,
);
