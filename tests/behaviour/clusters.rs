//! Clusters whose names a control plane generates, and clusters that the configuration does not name.

use std::collections::BTreeMap;

use testbed::serde_json::{Value, from_slice};

use crate::discovery::{ADMIN, by_envoy, crew, split};
use crate::scene::{address, candidates, load, ms, pass_with};
use crate::world::{Answer, Plugin, Stream, World};

/// A request to this cluster; returns the endpoints in the steering header.
fn request<W: World>(world: &mut W, plugin: Plugin, cluster: &str) -> Vec<String> {
    let mut stream = world.stream(plugin, &[(":method", b"GET"), (":path", b"/"), (":authority", b"web")]);
    stream.property(&["xds", "cluster_name"], cluster.as_bytes());
    assert!(stream.request_headers());
    let named = candidates(&stream);
    stream.response_headers(&[(":status", b"200")]);
    stream.response_body(true);
    stream.log();
    stream.done();
    named
}

fn status<W: World>(world: &mut W, plugin: Plugin) -> Value {
    let mut stream =
        world.stream(plugin, &[(":method", b"GET"), (":path", b"/_e/status.json"), (":authority", b"x")]);
    assert!(!stream.request_headers());
    let body = stream.local_body();
    stream.done();
    from_slice(&body).expect("JSON")
}

/// Answers every request to Envoy's admin interface with these clusters for `seconds`.
fn envoy_has<W: World>(world: &mut W, all: &[Plugin], clusters: &BTreeMap<&str, Vec<usize>>, seconds: u64) {
    let host = |endpoint: &usize| {
        let (ip, port) = split(*endpoint);
        format!(r#"{{"address":{{"socket_address":{{"address":"{ip}","port_value":{port}}}}},"weight":1}}"#)
    };
    let one = |(name, endpoints): (&&str, &Vec<usize>)| {
        let hosts: Vec<String> = endpoints.iter().map(host).collect();
        format!(r#"{{"name":"{name}","host_statuses":[{}]}}"#, hosts.join(","))
    };
    let all_clusters: Vec<String> = clusters.iter().map(one).collect();
    let body = format!(r#"{{"cluster_statuses":[{}]}}"#, all_clusters.join(","));
    pass_with(world, all, ms(1000 * seconds), |world| {
        for call in world.calls().into_iter().filter(|call| call.cluster == ADMIN) {
            world.answer(&call, &Answer::Http(200, body.as_bytes()));
        }
    });
}

fn each_cluster_that_matches_a_pattern_has_its_own_endpoints(mut world: impl World) {
    let json = format!(
        r#"{{"status":{{"path":"/_e"}},"upstreams":[
            {{"cluster":"route/web/*","policy":"random","endpoints":{{{admin}}}}},
            {{"cluster":"route/web/1","policy":"random","endpoints":{{"static":["{fixed}"]}}}},
            {{"cluster":"*","endpoints":{{"static":["{any}"]}}}}]}}"#,
        admin = by_envoy(),
        fixed = address(8),
        any = address(9),
    );
    let crew = crew(&mut world, 2, &json);
    let all: Vec<Plugin> = [crew.main()].into_iter().chain(crew.iter().copied()).collect();
    let clusters = BTreeMap::from([("route/web/0", vec![0]), ("route/web/2", vec![1])]);
    envoy_has(&mut world, &all, &clusters, 2);
    assert!(request(&mut world, crew[0], "route/web/0").is_empty(), "nobody has met it");
    assert!(request(&mut world, crew[1], "route/web/2").is_empty());
    envoy_has(&mut world, &all, &clusters, 2);
    for plugin in crew.iter() {
        assert_eq!(request(&mut world, *plugin, "route/web/0"), [address(0)]);
        assert_eq!(request(&mut world, *plugin, "route/web/2"), [address(1)]);
        assert_eq!(request(&mut world, *plugin, "route/web/1"), [address(8)], "its own entry comes first");
        assert_eq!(request(&mut world, *plugin, "route/api/0"), [address(9)]);
    }
    let names = |status: &Value| -> Vec<String> {
        let upstreams = status["upstreams"].as_array().expect("upstreams");
        upstreams.iter().map(|u| u["cluster"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&status(&mut world, crew[0])), ["route/web/1", "*", "route/web/0", "route/web/2"]);
    // A new configuration has them from its first request on.
    let thread = world.thread_of(crew[0]);
    let new = load(&mut world, thread, &json);
    assert_eq!(request(&mut world, new, "route/web/2"), [address(1)]);
}

fn clusters_by_a_pattern_are_bounded(mut world: impl World) {
    let json = format!(
        r#"{{"status":{{"path":"/_e"}},"upstreams":[{{"cluster":"c*","endpoints":{{{}}}}}]}}"#,
        by_envoy()
    );
    let crew = crew(&mut world, 1, &json);
    let all = [crew.main(), crew[0]];
    for round in 0..10 {
        (0..10).for_each(|n| _ = request(&mut world, crew[0], &format!("c{}", 10 * round + n)));
        pass_with(&mut world, &all, ms(100), |_| ());
    }
    let upstreams = status(&mut world, crew[0])["upstreams"].as_array().map_or(0, Vec::len);
    assert_eq!(upstreams, 64);
    let logs = world.logs();
    assert!(
        logs.iter().any(|line| line.contains("patterns have already matched 64 clusters, the limit")),
        "{logs:?}"
    );
}

fn a_pattern_over_one_set_of_endpoints_is_one_upstream(mut world: impl World) {
    let json =
        format!(r#"{{"upstreams":[{{"cluster":"web-*-x","endpoints":{{"static":["{}"]}}}}]}}"#, address(3));
    let crew = crew(&mut world, 1, &json);
    assert_eq!(request(&mut world, crew[0], "web-1-x"), [address(3)]);
    assert_eq!(request(&mut world, crew[0], "web-2-x"), [address(3)]);
    assert!(request(&mut world, crew[0], "web-2-y").is_empty());
}

/// How many lines of the log contain `what`.
fn said(world: &impl World, what: &str) -> usize {
    world.logs().iter().filter(|line| line.contains(what)).count()
}

fn unmatched_clusters_and_unmet_upstreams_are_logged(mut world: impl World) {
    let one = |name: &str| format!(r#"{{"cluster":"{name}","endpoints":{{"static":["{}"]}}}}"#, address(0));
    let json =
        format!(r#"{{"status":{{"path":"/_e"}},"upstreams":[{},{}]}}"#, one("web"), one("outbound|80||web"));
    let crew = crew(&mut world, 2, &json);
    let all: Vec<Plugin> = [crew.main()].into_iter().chain(crew.iter().copied()).collect();
    for second in 0..400 {
        if second == 250 {
            assert_eq!(said(&world, "cluster=outbound|80||web: no requests in "), 0, "some may come yet");
        }
        for plugin in crew.iter() {
            request(&mut world, *plugin, "web");
            request(&mut world, *plugin, "web/canary");
        }
        pass_with(&mut world, &all, ms(1000), |_| ());
    }
    let status = status(&mut world, crew[0]);
    assert_eq!(status["unmatched"]["requests"], 800);
    assert_eq!(status["unmatched"]["clusters"][0], "web/canary");
    let unmet: Vec<bool> = [0, 1].map(|at| status["upstreams"][at]["unmet"] == true).into();
    assert_eq!(unmet, [false, true]);
    for line in
        [r#"cluster="web/canary": requests are not balanced: "#, "cluster=outbound|80||web: no requests in "]
    {
        assert_eq!(said(&world, line), 1, "{:?}", world.logs());
    }
}

both!(
    each_cluster_that_matches_a_pattern_has_its_own_endpoints,
    clusters_by_a_pattern_are_bounded,
    a_pattern_over_one_set_of_endpoints_is_one_upstream,
    unmatched_clusters_and_unmet_upstreams_are_logged,
);
