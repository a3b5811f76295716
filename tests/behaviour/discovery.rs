//! Discovery from Envoy's admin interface and Prometheus: every worker knows the endpoints a tick later, an endpoint
//! that leaves finishes its requests, and responses that are not lists change nothing.

use std::collections::BTreeMap;

use crate::scene::{
    Ending, address, begin, candidates, load, ms, pass, pass_with, picks, respond, target, traffic,
};
use crate::world::{Answer, Call, Plugin, Stream, World};

/// A cluster of the admin interface: `tests/behaviour` has no Envoy.
pub const ADMIN: &str = "envoy_admin";
/// A policy under which every eligible endpoint is picked.
pub const RANDOM: &str = r#""policy":"random""#;
pub const PROMETHEUS: &str = "prometheus";

/// A plugin whose endpoints come from `sources`; the admin interface and Prometheus are polled once a second.
pub fn plugin(sources: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(
        r#"{{"prometheus":{{"cluster":"{PROMETHEUS}","interval":"1s","timeout":"500ms"}},
            "upstreams":[{{"cluster":"web","endpoints":{{{sources}}}{comma}{more}}}]}}"#
    )
}

pub fn by_envoy() -> String {
    format!(r#""envoy_admin":{{"cluster":"{ADMIN}","interval":"1s"}}"#)
}

/// An Envoy with this configuration and both clusters.
pub struct Crew {
    /// Envoy's main thread, then its workers.
    pub all: Vec<Plugin>,
}

impl Crew {
    /// The main thread.
    pub fn main(&self) -> Plugin {
        self.all[0]
    }
}

impl std::ops::Deref for Crew {
    type Target = [Plugin];

    /// The workers.
    fn deref(&self) -> &[Plugin] {
        &self.all[1..]
    }
}

/// The workers, and the main thread, which polls for all.
pub fn crew<W: World>(world: &mut W, workers: usize, json: &str) -> Crew {
    [ADMIN, PROMETHEUS].iter().for_each(|cluster| world.add_cluster(cluster));
    let thread = world.thread();
    let mut all = vec![load(world, thread, json)];
    pass(world, &all, ms(150));
    for _ in 0..workers {
        let thread = world.thread();
        all.push(load(world, thread, json));
    }
    Crew { all }
}

/// `/clusters` as Envoy prints it, with all blanks and counters, for `endpoints` from `first` on.
pub fn printed(first: usize, endpoints: usize) -> String {
    let counter = |name: &str| {
        format!("      {{\n       \"name\": \"{name}\",\n       \"value\": \"1048576\"\n      }}")
    };
    let counters =
        ["cx_connect_fail", "cx_total", "rq_error", "rq_success", "rq_timeout", "rq_total", "cx_active"];
    let counters = counters.map(counter).join(",\n");
    let host = |endpoint: usize| {
        let (ip, port) = split(endpoint);
        format!(
            "    {{\n     \"address\": {{\n      \"socket_address\": {{\n       \"address\": \"{ip}\",\n       \
             \"port_value\": {port}\n      }}\n     }},\n     \"stats\": [\n{counters}\n     ],\n     \
             \"health_status\": {{\n      \"eds_health_status\": \"HEALTHY\"\n     }},\n     \"weight\": 1,\n     \
             \"locality\": {{\n      \"region\": \"eu\",\n      \"zone\": \"eu-1\"\n     }}\n    }}"
        )
    };
    let hosts: Vec<String> = (first..first + endpoints).map(host).collect();
    format!(
        "{{\n \"cluster_statuses\": [\n  {{\n   \"name\": \"web\",\n   \"host_statuses\": [\n{}\n   ]\n  }}\n ]\n}}\n",
        hosts.join(",\n")
    )
}

/// `/clusters` as Envoy before 1.38 prints it, whatever the filter: the cluster among `clusters` others.
pub fn unfiltered(clusters: usize, endpoints: usize) -> String {
    let web = printed(0, endpoints);
    let list = web.find('[').map_or(0, |at| at + 1)..web.rfind(']').unwrap_or_default();
    let web = &web[list];
    let one = |at: usize| match at {
        _ if at == clusters / 2 => web.to_owned(),
        _ => web.replacen("\"web\"", &format!("\"outbound|80||{at}.default.svc.cluster.local\""), 1),
    };
    let all: Vec<String> = (0..clusters).map(|at| one(at).trim_end().to_owned()).collect();
    format!("{{\n \"cluster_statuses\": [{}\n ]\n}}\n", all.join(","))
}

pub fn split(endpoint: usize) -> (String, String) {
    let address = address(endpoint);
    let (ip, port) = address.rsplit_once(':').expect("ip:port");
    (ip.to_owned(), port.to_owned())
}

/// `/clusters` with only the relevant fields, for endpoints with these members of `health_status`.
pub fn members(endpoints: &[(usize, &str)]) -> String {
    let host = |(endpoint, health): &(usize, &str)| {
        let (ip, port) = split(*endpoint);
        format!(
            r#"{{"address":{{"socket_address":{{"address":"{ip}","port_value":{port}}}}},
                "stats":[{{"name":"cx_total","value":"3"}}],"health_status":{{{health}}},"weight":1}}"#
        )
    };
    let hosts: Vec<String> = endpoints.iter().map(host).collect();
    format!(r#"{{"cluster_statuses":[{{"name":"web","host_statuses":[{}]}}]}}"#, hosts.join(","))
}

pub fn healthy(endpoints: &[usize]) -> String {
    members(&endpoints.iter().map(|endpoint| (*endpoint, "")).collect::<Vec<_>>())
}

/// The response of Prometheus to a query for these endpoints.
pub fn series(endpoints: &[usize]) -> String {
    let one =
        |endpoint: &usize| format!(r#"{{"metric":{{"instance":"{}"}},"value":[1,"1"]}}"#, address(*endpoint));
    let all: Vec<String> = endpoints.iter().map(one).collect();
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#, all.join(","))
}

/// Ticks until `cluster` is polled; returns the call.
pub fn asked<W: World>(world: &mut W, crew: &Crew, cluster: &str) -> Call {
    for _ in 0..100 {
        // The latest: Envoy would have timed out the others, and the filter has given them up. Stats are not the list.
        let is_it = |call: &Call| call.cluster == cluster && !call.path.starts_with("/stats");
        if let Some(call) = world.calls().into_iter().rfind(is_it) {
            return call;
        }
        pass(world, &crew.all, ms(50));
    }
    panic!("{cluster} is not asked")
}

/// Answers the next call to `cluster` like this, and ticks every worker once.
pub fn report<W: World>(world: &mut W, crew: &Crew, cluster: &str, answer: &Answer<'_>) {
    let call = asked(world, crew, cluster);
    world.answer(&call, answer);
    crew.all.iter().for_each(|plugin| world.tick(*plugin));
}

/// The same for Envoy's list of hosts.
pub fn report_hosts<W: World>(world: &mut W, crew: &Crew, body: &str) {
    report(world, crew, ADMIN, &Answer::Http(200, body.as_bytes()));
}

/// The endpoints that get two hundred requests.
pub fn targets<W: World>(world: &mut W, plugin: Plugin) -> Vec<String> {
    picks(world, plugin, 200).into_keys().collect()
}

pub fn addresses(endpoints: &[usize]) -> Vec<String> {
    endpoints.iter().map(|endpoint| address(*endpoint)).collect()
}

fn envoys_list_reaches_every_worker_in_a_tick(mut world: impl World) {
    let crew = crew(&mut world, 3, &plugin(&by_envoy(), RANDOM));
    assert_eq!(candidates(&begin(&mut world, crew[0])), [""; 0], "no endpoint is known yet");
    let call = asked(&mut world, &crew, ADMIN);
    assert_eq!(call.path, "/clusters?format=json&filter=%5Eweb%24");
    assert_eq!((call.authority.as_str(), call.timeout), ("localhost", ms(500)));
    report_hosts(&mut world, &crew, &healthy(&[0, 1, 2]));
    for plugin in crew.iter() {
        assert_eq!(targets(&mut world, *plugin), addresses(&[0, 1, 2]), "a fleet found out about is not new");
    }
    report_hosts(&mut world, &crew, &healthy(&[1, 2, 3]));
    for plugin in crew.iter() {
        let counts = picks(&mut world, *plugin, 2000);
        assert_eq!(counts.keys().cloned().collect::<Vec<_>>(), addresses(&[1, 2, 3]));
        assert!((20..200).contains(&counts[&address(3)]), "a newcomer starts slowly: {counts:?}");
    }
}

fn the_first_question_is_put_at_once(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), RANDOM));
    pass(&mut world, &crew.all, ms(100));
    let asked = world.calls().iter().filter(|call| call.cluster == ADMIN).count();
    assert_eq!(asked, 1, "by one thread, two ticks after the start");
}

fn unknown_endpoints_reject_no_request(mut world: impl World) {
    let reject = r#""failover":{"none_eligible":"reject","panic_percent":0}"#;
    let crew = crew(&mut world, 1, &plugin(&by_envoy(), reject));
    // `begin` checks that the request continues.
    assert_eq!(candidates(&begin(&mut world, crew[0])), [""; 0]);
    report_hosts(&mut world, &crew, &members(&[(0, r#""failed_active_health_check":true"#)]));
    let mut stream = world.stream(crew[0], &[(":method", b"GET"), (":path", b"/"), (":authority", b"web")]);
    stream.property(&["xds", "cluster_name"], b"web");
    assert!(!stream.request_headers(), "an endpoint is known, and not eligible");
}

fn that_no_endpoint_is_eligible_is_said_once(mut world: impl World) {
    let reject = r#""failover":{"none_eligible":"reject"}"#;
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), reject));
    let leaving = r#""eds_health_status":"DRAINING""#;
    let said = |lines: Vec<String>| {
        let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        [
            count(
                "none of 2 endpoints is eligible (2 draining, 0 unhealthy as announced): requests are answered with 503",
            ),
            count("endpoints are eligible again"),
        ]
    };
    report_hosts(&mut world, &crew, &members(&[(0, leaving), (1, "")]));
    pass(&mut world, &crew.all, ms(1000));
    assert_eq!(said(world.logs()), [0, 0]);
    report_hosts(&mut world, &crew, &members(&[(0, leaving), (1, leaving)]));
    pass(&mut world, &crew.all, ms(5000));
    assert_eq!(said(world.logs()), [1, 0], "{:?}", world.logs());
    report_hosts(&mut world, &crew, &members(&[(0, leaving), (1, "")]));
    pass(&mut world, &crew.all, ms(1000));
    assert_eq!(said(world.logs()), [1, 1]);
}

fn leaving_endpoint_finishes_its_requests(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), r#""policy":"least_request","slow_start":"0s""#));
    report_hosts(&mut world, &crew, &healthy(&[0, 1]));
    let mut under_way: Vec<_> = (0..10).map(|_| begin(&mut world, crew[0])).collect();
    assert_eq!(under_way.iter().filter(|stream| target(*stream) == address(0)).count(), 5);
    report_hosts(&mut world, &crew, &members(&[(0, r#""eds_health_status":"DRAINING""#), (1, "")]));
    assert_eq!(targets(&mut world, crew[0]), addresses(&[1]), "draining: nothing new");
    report_hosts(&mut world, &crew, &healthy(&[1]));
    assert_eq!(targets(&mut world, crew[1]), addresses(&[1]));
    for stream in &mut under_way {
        respond(stream, &Ending::good());
        stream.log();
        stream.done();
    }
    // An endpoint that takes its slot later starts without its history.
    report_hosts(&mut world, &crew, &healthy(&[1, 2]));
    let waiting: Vec<_> = (0..20).map(|_| begin(&mut world, crew[0])).collect();
    let newcomer = waiting.iter().filter(|stream| target(*stream) == address(2)).count();
    assert!((8..=12).contains(&newcomer), "half: {newcomer}");
}

fn endpoint_unhealthy_in_envoy_gets_nothing(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), RANDOM));
    for health in [
        r#""failed_active_health_check":true,"eds_health_status":"HEALTHY""#,
        r#""failed_outlier_check":true"#,
        r#""eds_health_status":"UNHEALTHY""#,
        r#""failed_active_degraded_check":true"#,
    ] {
        report_hosts(&mut world, &crew, &members(&[(0, ""), (1, health), (2, "")]));
        for plugin in crew.iter() {
            assert_eq!(targets(&mut world, *plugin), addresses(&[0, 2]), "{health}");
        }
        report_hosts(&mut world, &crew, &healthy(&[0, 1, 2]));
        assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 1, 2]));
    }
}

fn what_is_no_list_changes_nothing(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), RANDOM));
    report_hosts(&mut world, &crew, &healthy(&[0, 1]));
    let cut = healthy(&[0, 1, 2]);
    let bodies: [&[u8]; 9] = [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"<html>",
        br#"{"cluster_statuses":[{"name":"api","host_statuses":[{"address":{}}]}]}"#,
        br#"{"cluster_statuses":[{"name":"web","host_statuses":[{"address":{"pipe":{"path":"/x"}}}]}]}"#,
        br#"{"cluster_statuses":[{"name":"web"}]}"#,
        &cut.as_bytes()[..cut.len() - 3],
    ];
    for body in bodies {
        report(&mut world, &crew, ADMIN, &Answer::Http(200, body));
        assert_eq!(targets(&mut world, crew[1]), addresses(&[0, 1]), "{:?}", String::from_utf8_lossy(body));
    }
    for answer in [Answer::Failed, Answer::NoStatus(b"?"), Answer::Http(503, healthy(&[7]).as_bytes())] {
        report(&mut world, &crew, ADMIN, &answer);
        assert_eq!(targets(&mut world, crew[1]), addresses(&[0, 1]), "{answer:?}");
    }
    report_hosts(&mut world, &crew, &healthy(&[1]));
    let logs = world.logs();
    let said = |what: &str| logs.iter().filter(|line| line.contains(what)).count();
    assert!((1..=3).contains(&said("envoy_admin poll failed")), "{logs:?}");
    assert!(said("envoy_admin poll succeeded again") >= 1, "{logs:?}");
}

fn an_answer_that_does_not_come_is_awaited_longer_the_next_time(mut world: impl World) {
    let crew = crew(&mut world, 1, &plugin(&by_envoy(), RANDOM));
    let mut waited = Vec::new();
    for answer in [Answer::Failed, Answer::Http(504, b""), Answer::Failed, Answer::Failed, Answer::Failed] {
        waited.push(asked(&mut world, &crew, ADMIN).timeout);
        report(&mut world, &crew, ADMIN, &answer);
    }
    assert_eq!(waited, [500, 1000, 2000, 4000, 8000].map(ms));
    report_hosts(&mut world, &crew, &healthy(&[0, 1]));
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 1]));
    (0..4).for_each(|_| report(&mut world, &crew, ADMIN, &Answer::Failed));
    assert_eq!(asked(&mut world, &crew, ADMIN).timeout, ms(32_000), "and no longer than that");
}

/// Seconds in which every request to Envoy's admin interface is answered with an empty list.
fn answer_with_no_endpoints<W: World>(world: &mut W, crew: &Crew, seconds: u64) {
    let empty = healthy(&[]);
    pass_with(world, &crew.all, ms(1000 * seconds), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(200, empty.as_bytes()));
        }
    });
}

fn says_none(world: &impl World, source: &str) -> usize {
    let line = format!("discovery: cluster=web source={source}: the answer has no endpoints");
    world.logs().iter().filter(|said| said.contains(&line)).count()
}

fn source_without_endpoints_is_logged(mut world: impl World) {
    let empty = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    let by_prometheus = r#""prometheus":{"query":"up"}"#.to_owned();
    for (source, of, cluster, body) in [
        (by_envoy(), "envoy_admin", ADMIN, healthy(&[])),
        (by_prometheus, "prometheus", PROMETHEUS, empty.to_owned()),
    ] {
        let crew = crew(&mut world, 2, &plugin(&source, RANDOM));
        for _ in 0..3 {
            report(&mut world, &crew, cluster, &Answer::Http(200, body.as_bytes()));
            pass(&mut world, &crew.all, ms(500));
        }
        assert_eq!(says_none(&world, of), 1, "{of}");
    }
}

fn an_empty_list_is_believed_after_a_minute(mut world: impl World) {
    let crew = crew(&mut world, 1, &plugin(&by_envoy(), RANDOM));
    report_hosts(&mut world, &crew, &healthy(&[0, 1]));
    answer_with_no_endpoints(&mut world, &crew, 50);
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 1]));
    assert_eq!(says_none(&world, "envoy_admin"), 0);
    answer_with_no_endpoints(&mut world, &crew, 20);
    assert_eq!(says_none(&world, "envoy_admin"), 1);
    assert_eq!(candidates(&begin(&mut world, crew[0])), [""; 0], "then Envoy's own policy decides");
}

fn sources_are_merged_and_envoys_list_decides(mut world: impl World) {
    let sources = format!(
        r#""static":["{}","{}"],"prometheus":{{"query":"up"}},{}"#,
        address(0),
        address(1),
        by_envoy()
    );
    let crew = crew(&mut world, 2, &plugin(&sources, RANDOM));
    assert_eq!(targets(&mut world, crew[0]), addresses(&[0, 1]), "before anybody answers");
    let call = asked(&mut world, &crew, PROMETHEUS);
    assert_eq!(call.path, "/api/v1/query?query=up&timeout=500ms");
    report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, series(&[1, 2]).as_bytes()));
    assert_eq!(targets(&mut world, crew[1]), addresses(&[0, 1, 2]));
    report_hosts(&mut world, &crew, &healthy(&[1, 2, 3]));
    assert_eq!(targets(&mut world, crew[1]), addresses(&[1, 2, 3]));
    // Prometheus goes away: its endpoints stay.
    report(&mut world, &crew, PROMETHEUS, &Answer::Failed);
    assert_eq!(targets(&mut world, crew[0]), addresses(&[1, 2, 3]));
}

fn prometheus_alone_finds_endpoints(mut world: impl World) {
    let sources = r#""prometheus":{"query":"up","port":8080}"#;
    let crew = crew(&mut world, 2, &plugin(sources, RANDOM));
    let body = series(&[0, 1])
        .replace(":8080", ":9100")
        .replace("]}}", r#",{"metric":{"instance":"web-1:80"},"value":[1,"1"]}]}}"#);
    report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, body.as_bytes()));
    assert_eq!(targets(&mut world, crew[1]), addresses(&[0, 1]));
    let garbage = br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"instance":"?"},"value":[1,"1"]}]}}"#;
    report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, garbage));
    assert_eq!(targets(&mut world, crew[1]), addresses(&[0, 1]));
    assert!(world.logs().iter().any(|line| line.contains("has an address")), "{:?}", world.logs());
}

fn a_tenants_headers_go_with_every_question_and_never_to_envoy_or_a_log(mut world: impl World) {
    let sources = format!(r#""prometheus":{{"query":"up"}},{}"#, by_envoy());
    let json = plugin(&sources, r#""signals":[{"name":"queue","query":"queue"}]"#).replace(
        r#""interval":"1s","timeout":"500ms"}"#,
        r#""interval":"1s","timeout":"500ms","path_prefix":"/prometheus",
           "headers":{"X-Scope-OrgID":"shop","authorization":"Bearer s3cret"}}"#,
    );
    let crew = crew(&mut world, 1, &json);
    pass(&mut world, &crew.all, ms(200));
    let calls = world.calls();
    assert_eq!(calls.len(), 3);
    for call in &calls {
        let sent = |name: &str, value: &str| call.headers.iter().any(|(n, v)| n == name && v == value);
        let of_prometheus = call.cluster == PROMETHEUS;
        assert_eq!(sent("x-scope-orgid", "shop"), of_prometheus, "{call:?}");
        assert_eq!(sent("authorization", "Bearer s3cret"), of_prometheus, "{call:?}");
        assert_eq!(call.path.starts_with("/prometheus/api/v1/query?"), of_prometheus, "{call:?}");
        world.answer(call, &Answer::Http(401, b"no org id"));
    }
    assert!(world.logs().iter().all(|line| !line.contains("s3cret")), "{:?}", world.logs());
    assert!(world.shared_keys().iter().all(|key| !world.shared(key).windows(6).any(|w| w == b"s3cret")));
}

fn new_configuration_starts_with_the_known_endpoints(mut world: impl World) {
    let json = plugin(&by_envoy(), r#""policy":"round_robin","health":{"fail_after":2}"#);
    let crew = crew(&mut world, 2, &json);
    report_hosts(&mut world, &crew, &healthy(&[0, 1, 2, 3]));
    crate::scene::give(&mut world, crew[0], &address(1), &Ending::local("504", "response_timeout"));
    // In the same thread: no worker has ticked, and nothing is forgotten.
    let new = load(&mut world, crate::world::Thread(1), &json);
    assert_eq!(targets(&mut world, new), addresses(&[0, 2, 3]));
    // In a thread of its own, as after a crash.
    let thread = world.thread();
    let fresh = load(&mut world, thread, &json);
    assert_eq!(targets(&mut world, fresh), addresses(&[0, 1, 2, 3]));
}

fn the_latest_configuration_asks(mut world: impl World) {
    let old = crew(&mut world, 2, &plugin(r#""prometheus":{"query":"old"}"#, ""));
    report(&mut world, &old, PROMETHEUS, &Answer::Http(200, series(&[0]).as_bytes()));
    let json = plugin(r#""prometheus":{"query":"new"}"#, "");
    let new: Vec<Plugin> =
        (0..3).map(|thread| load(&mut world, crate::world::Thread(thread), &json)).collect();
    let everybody: Vec<Plugin> = old.all.iter().chain(&new).copied().collect();
    let mut queries: BTreeMap<String, usize> = BTreeMap::new();
    pass_with(&mut world, &everybody, ms(10_000), |world| {
        for call in world.calls() {
            *queries.entry(call.path.clone()).or_default() += 1;
            world.answer(&call, &Answer::Http(200, series(&[1]).as_bytes()));
        }
    });
    let count = |of: &str| queries.iter().find(|(path, _)| path.contains(of)).map_or(0, |(_, count)| *count);
    // Without traffic the pause grows: 0.5, 0.5, 0.5, 1, 2 and 4 seconds, each varied by a tenth.
    assert!(count("query=new") >= 5 && count("query=old") <= 1, "{queries:?}");
    assert_eq!(targets(&mut world, new[1]), addresses(&[1]));
}

fn newcomers_are_asked_about_at_once(mut world: impl World) {
    let more = r#""policy":"least_signal","signals":[{"name":"queue","query":"queue","smoothing":1}]"#;
    let json = plugin(&by_envoy(), more)
        .replace(r#""interval":"1s","timeout":"500ms""#, r#""interval":"1h","timeout":"1s""#);
    let crew = crew(&mut world, 1, &json);
    let queues = series(&[0, 1]).replacen(r#""1"]"#, r#""90"]"#, 1);
    report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, queues.as_bytes()));
    pass(&mut world, &crew.all, ms(2000));
    assert!(world.calls().iter().all(|call| call.cluster == ADMIN), "not for another hour");
    report_hosts(&mut world, &crew, &healthy(&[0, 1]));
    pass(&mut world, &crew.all, ms(100));
    report(&mut world, &crew, PROMETHEUS, &Answer::Http(200, queues.as_bytes()));
    let counts = picks(&mut world, crew[0], 100);
    assert_eq!(counts.get(&address(1)), Some(&100), "{counts:?}");
}

fn removed_endpoints_are_not_named_while_ten_are_replaced(mut world: impl World) {
    let crew = crew(&mut world, 2, &plugin(&by_envoy(), r#""slow_start":"1s""#));
    let mut fleet: Vec<usize> = (0..10).collect();
    report_hosts(&mut world, &crew, &healthy(&fleet));
    for newcomer in 10..40 {
        let leaver = fleet.remove(0);
        fleet.push(newcomer);
        let mut state: Vec<(usize, &str)> = vec![(leaver, r#""eds_health_status":"DRAINING""#)];
        state.extend(fleet.iter().map(|endpoint| (*endpoint, "")));
        report_hosts(&mut world, &crew, &members(&state));
        let named = traffic(&mut world, &crew, 1);
        assert!(!named.contains_key(&address(leaver)) && !named.contains_key(""), "{named:?}");
        report_hosts(&mut world, &crew, &healthy(&fleet));
    }
    let named: std::collections::BTreeSet<String> =
        crew.all.iter().flat_map(|plugin| targets(&mut world, *plugin)).collect();
    assert_eq!(named.len(), 10);
}

both!(
    an_answer_that_does_not_come_is_awaited_longer_the_next_time,
    envoys_list_reaches_every_worker_in_a_tick,
    the_first_question_is_put_at_once,
    unknown_endpoints_reject_no_request,
    that_no_endpoint_is_eligible_is_said_once,
    leaving_endpoint_finishes_its_requests,
    endpoint_unhealthy_in_envoy_gets_nothing,
    what_is_no_list_changes_nothing,
    an_empty_list_is_believed_after_a_minute,
    source_without_endpoints_is_logged,
    sources_are_merged_and_envoys_list_decides,
    prometheus_alone_finds_endpoints,
    a_tenants_headers_go_with_every_question_and_never_to_envoy_or_a_log,
    new_configuration_starts_with_the_known_endpoints,
    the_latest_configuration_asks,
    newcomers_are_asked_about_at_once,
    removed_endpoints_are_not_named_while_ten_are_replaced,
);
