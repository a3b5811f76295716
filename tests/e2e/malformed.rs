//! Invalid configurations, each with the JSON path of its fault.

/// The path that the log must name, and the configuration.
pub fn all() -> Vec<(&'static str, String)> {
    let whole = |path, json: &str| (path, json.to_owned());
    let root = |path, more: &str| {
        let upstreams = r#""upstreams":[{"cluster":"web","endpoints":{"static":["127.0.0.1:80"]}}]"#;
        (path, format!("{{{more},{upstreams}}}"))
    };
    let upstream = |path, more: &str| {
        let json = r#"{"cluster":"web","endpoints":{"static":["127.0.0.1:80"]},"#;
        (path, format!(r#"{{"prometheus":{{"cluster":"p"}},"upstreams":[{json}{more}}}]}}"#))
    };
    let endpoint = |path, endpoint: &str| {
        (path, format!(r#"{{"upstreams":[{{"cluster":"web","endpoints":{{"static":[{endpoint}]}}}}]}}"#))
    };
    vec![
        whole("$", ""),
        whole("$", "null"),
        whole("$", "[]"),
        whole("$", "upstreams"),
        whole("$", "{"),
        whole("$", r#"{"upstreams":[]} trailing"#),
        whole("$.upstreams", "{}"),
        whole("$.upstreams", r#"{"upstreams":[]}"#),
        whole("$.upstreams", r#"{"upstreams":{"web":{}}}"#),
        whole("$.upstreams[0]", r#"{"upstreams":["web"]}"#),
        whole("$.upstreams[0].cluster", r#"{"upstreams":[{"endpoints":{"static":["127.0.0.1:80"]}}]}"#),
        whole("$.upstreams[0].endpoints", r#"{"upstreams":[{"cluster":"web"}]}"#),
        whole("$.upstreams[0].endpoints", r#"{"upstreams":[{"cluster":"web","endpoints":{}}]}"#),
        whole(
            "$.upstreams[1].cluster",
            r#"{"upstreams":[{"cluster":"web","endpoints":{"static":["127.0.0.1:80"]}},
                             {"cluster":"web","endpoints":{"static":["127.0.0.1:81"]}}]}"#,
        ),
        root("$.mod", r#""mod":"observe""#),
        root("$.mode", r#""mode":"enforced""#),
        root("$.mode", r#""mode":true"#),
        root("$.mode", r#""mode":"enforce","mode":"observe""#),
        root("$.status", r#""status":"/_evenkeel""#),
        root("$.status.path", r#""status":{"path":"_evenkeel"}"#),
        root("$.steering.via", r#""steering":{"via":"original-dst"}"#),
        root("$.steering.candidates", r#""steering":{"candidates":9}"#),
        root("$.steering.candidates", r#""steering":{"candidates":"2"}"#),
        root("$.steering.candidates", r#""steering":{"via":"stateful_session","candidates":2}"#),
        root("$.steering.header", r#""steering":{"header":":authority"}"#),
        root("$.steering.headers", r#""steering":{"headers":"x-endpoint"}"#),
        root("$.prometheus.cluster", r#""prometheus":{"interval":"5s"}"#),
        root("$.prometheus.interval", r#""prometheus":{"cluster":"p","interval":5}"#),
        root("$.prometheus.interval", r#""prometheus":{"cluster":"p","interval":"5 minutes"}"#),
        root("$.prometheus.timeout", r#""prometheus":{"cluster":"p","interval":"1s","timeout":"2s"}"#),
        root("$.prometheus.path_prefix", r#""prometheus":{"cluster":"p","path_prefix":"mimir"}"#),
        root("$.prometheus.headers.host", r#""prometheus":{"cluster":"p","headers":{"host":"h"}}"#),
        root("$.prometheus.url", r#""prometheus":{"cluster":"p","url":"http://p:9090"}"#),
        endpoint("$.upstreams[0].endpoints.static[0]", r#""localhost:80""#),
        endpoint("$.upstreams[0].endpoints.static[0]", r#""127.0.0.1""#),
        endpoint("$.upstreams[0].endpoints.static[0]", r#""127.0.0.1:0""#),
        endpoint("$.upstreams[0].endpoints.static[0]", r#""127.0.0.1:65536""#),
        endpoint("$.upstreams[0].endpoints.static[0]", "8080"),
        endpoint("$.upstreams[0].endpoints.static[1]", r#""127.0.0.1:80","127.0.0.1:80""#),
        endpoint("$.upstreams[0].endpoints.static[0].address", r#"{"weight":2}"#),
        endpoint("$.upstreams[0].endpoints.static[0].weight", r#"{"address":"127.0.0.1:80","weight":0}"#),
        endpoint("$.upstreams[0].endpoints.static[0].weight", r#"{"address":"127.0.0.1:80","weight":-1}"#),
        endpoint("$.upstreams[0].endpoints.static[0].wieght", r#"{"address":"127.0.0.1:80","wieght":2}"#),
        endpoint(
            "$.upstreams[0].endpoints.static[0].priority",
            r#"{"address":"127.0.0.1:80","priority":1.5}"#,
        ),
        upstream("$.upstreams[0].polcy", r#""polcy":"random""#),
        upstream("$.upstreams[0].policy", r#""policy":"round-robin""#),
        upstream("$.upstreams[0].policy.name", r#""policy":{"name":"maglev"}"#),
        upstream("$.upstreams[0].policy", r#""policy":"least_signal""#),
        upstream("$.upstreams[0].affinity", r#""policy":"consistent_hash""#),
        upstream("$.upstreams[0].signals[0].query", r#""signals":[{"name":"depth"}]"#),
        upstream("$.upstreams[0].signals[0].name", r#""signals":[{"name":"Queue depth","query":"q"}]"#),
        upstream("$.upstreams[0].signals[0].max", r#""signals":[{"name":"q","query":"q","max":0}]"#),
        upstream(
            "$.upstreams[0].signals[0].smoothing",
            r#""signals":[{"name":"q","query":"q","smoothing":2}]"#,
        ),
        upstream("$.upstreams[0].health.fail_after", r#""health":{"fail_after":"3"}"#),
        upstream("$.upstreams[0].health.fail_after", r#""health":{"suspect_after":4,"fail_after":3}"#),
        upstream("$.upstreams[0].health.max_ejected_percent", r#""health":{"max_ejected_percent":101}"#),
        upstream("$.upstreams[0].failover.none_eligible", r#""failover":{"none_eligible":"rejct"}"#),
        upstream("$.upstreams[0].failover.safe_endpoint", r#""failover":{"none_eligible":"safe_endpoint"}"#),
        upstream("$.upstreams[0].slow_start", r#""slow_start":30"#),
        upstream("$.upstreams[0].zone.local", r#""zone":{}"#),
        upstream("$.upstreams[0].affinity.cookie", r#""affinity":{"header":"a","cookie":"b"}"#),
        upstream("$.upstreams[0].split.v1", r#""split":{"v1":-1}"#),
        upstream("$.upstreams[0].autoscale.min", r#""autoscale":{"min":5,"max":3}"#),
    ]
}
