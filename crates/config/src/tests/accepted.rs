//! Valid configurations.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use core::time::Duration;

use super::*;
use crate::*;
use engine::settings::*;

fn only_upstream(json: &str) -> Upstream {
    let mut upstreams = accepted(json).upstreams;
    assert_eq!(upstreams.len(), 1);
    upstreams.remove(0)
}

#[test]
fn only_upstreams_is_required_and_the_rest_has_the_documented_defaults() {
    let expected = Config {
        mode: Mode::Enforce,
        steering: Steering { via: Via::OverrideHost, header: "x-evenkeel-endpoint".into(), candidates: 2 },
        prometheus: None,
        upstreams: vec![Upstream {
            cluster: "web".into(),
            endpoints: Endpoints {
                fixed: vec![StaticEndpoint {
                    address: "10.0.0.1:80".parse().unwrap(),
                    weight: 1.0,
                    zone: String::new(),
                    priority: 0,
                    version: String::new(),
                }],
                prometheus: None,
                envoy_admin: None,
            },
            policy: Policy::Adaptive,
            signals: vec![],
            rules: vec![],
            health: Health {
                suspect_after: 1,
                fail_after: 3,
                recover_after: 3,
                ejection: Duration::from_secs(30),
                max_ejected_percent: 50.0,
                failures: Failures::default(),
                blame_retried: true,
                heed_headers: true,
                probe: None,
            },
            slow_start: Duration::from_secs(30),
            failover: Failover { none_eligible: NoneEligible::Envoy, panic_percent: 50.0 },
            zone: None,
            affinity: None,
            split: vec![],
            pressure: vec![term(PressureValue::Occupancy, 1.0, 1.0, 2.0)],
            autoscale: None,
            guard: None,
        }],
        status: None,
        envoy_stats: true,
        debug: None,
        attributes: vec![],
        log: Log { format: LogFormat::Text, failures: false, sample_percent: 0.0 },
    };
    assert_eq!(accepted(&upstream_with("")), expected);
}

#[test]
fn every_field_is_read() {
    let config = accepted(COMPLETE);
    let prometheus = config.prometheus.unwrap();
    assert_eq!(prometheus.authority, "prometheus:9090");
    assert_eq!(prometheus.path_prefix, "/mimir/prometheus");
    assert_eq!(
        prometheus.headers,
        [
            ("authorization".to_owned(), HeaderValue::Given("Bearer S3CR3T-S3CR3T-S3CR3T".into())),
            ("x-scope-orgid".to_owned(), HeaderValue::Given("S3CR3T".into())),
            (
                "x-token".to_owned(),
                HeaderValue::Environment { variable: "PROM_TOKEN".into(), prefix: "Bearer ".into() }
            ),
        ]
    );
    assert_eq!(prometheus.parameters, [("dedup".to_owned(), "S3CR3T".to_owned())]);
    assert_eq!(prometheus.method, QueryMethod::Post);
    assert_eq!(config.status, Some(Status { path: "/_evenkeel".into() }));

    let upstream = &config.upstreams[0];
    assert_eq!(
        upstream.endpoints.fixed[1],
        StaticEndpoint {
            address: "10.0.0.2:8080".parse().unwrap(),
            weight: 2.0,
            zone: "a".into(),
            priority: 0,
            version: "v2".into(),
        }
    );
    assert_eq!(
        upstream.endpoints.prometheus,
        Some(EndpointQuery {
            query: "up{job=\"web\"} == 1".into(),
            address_label: "instance".into(),
            port: Some(8080),
            zone_label: "zone".into(),
            version_label: "version".into(),
            weight_label: "weight".into(),
        })
    );
    assert_eq!(
        upstream.endpoints.envoy_admin,
        Some(EnvoyAdmin {
            cluster: "envoy_admin".into(),
            interval: Duration::from_secs(5),
            locality_weights: true
        })
    );
    assert_eq!(
        upstream.signals,
        [Signal {
            name: "queue_depth".into(),
            query: "task_queue_depth{job=\"web\"}".into(),
            builtin: None,
            report: None,
            weight: 1.0,
            learn: false,
            max: Some(100.0),
            smoothing: 0.3,
            address_label: "instance".into(),
            port: Some(8080),
            timestamp_query: Some("timestamp(task_queue_depth{job=\"web\"})".into()),
        }]
    );
    assert_eq!(upstream.zone, Some(Zone { local: "a".into(), spill_over_percent: 70.0 }));
    assert_eq!(upstream.affinity, Some(Affinity::Header("x-user".into())));
    assert_eq!(upstream.split, [("v1".to_owned(), 80.0), ("v2".to_owned(), 20.0)]);
    assert_eq!(
        upstream.autoscale,
        Some(Autoscale {
            target_pressure: 0.8,
            min: 2,
            max: 20,
            periods: 2,
            period: Duration::from_secs(30),
            cool_down: Duration::from_secs(300),
            tolerance_percent: 10.0,
            look_ahead: Duration::from_secs(30),
        })
    );
    assert_eq!(upstream.pressure, [term(PressureValue::Signal(0), 1.0, 100.0, 2.0)]);
}

fn term(value: PressureValue, weight: f64, full: f64, most: f64) -> PressureTerm {
    PressureTerm { value, weight, full, most }
}

#[test]
fn pressure_is_made_of_what_is_given_else_of_signals_with_a_maximum() {
    let pressure = |terms: &str| {
        let autoscale = if terms.is_empty() { String::new() } else { format!(r#","autoscale":{{{terms}}}"#) };
        only_upstream(&format!(
            r#"{{"prometheus":{{"cluster":"p"}},"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}},
            "signals":[{{"name":"cpu","query":"cpu"}},{{"name":"queue","query":"queue","max":50,"weight":3}},
            {{"name":"shown","query":"shown","max":1,"weight":0}},{{"name":"waiting","query":"x"}}]{autoscale}}}]}}"#
        ))
        .pressure
    };
    let queue = term(PressureValue::Signal(1), 3.0, 50.0, 2.0);
    assert_eq!(pressure(""), [queue]);
    assert_eq!(pressure(r#""min":3"#), [queue]);
    assert_eq!(
        pressure(
            r#""pressure":[{"signal":"cpu","weight":0.4,"at":75,"most":1.5},{"signal":"queue","weight":0.3},
            {"signal":"occupancy","weight":0.3,"most":1},{"signal":"in_flight","at":9},{"signal":"latency_ms","at":500}]"#
        ),
        [
            term(PressureValue::Signal(0), 0.4, 75.0, 1.5),
            term(PressureValue::Signal(1), 0.3, 50.0, 2.0),
            term(PressureValue::Occupancy, 0.3, 1.0, 1.0),
            term(PressureValue::InFlight, 1.0, 9.0, 2.0),
            term(PressureValue::LatencyMs, 1.0, 500.0, 2.0),
        ]
    );
}

#[test]
fn rules_compare_what_is_measured_and_signals() {
    let upstream = only_upstream(&format!(
        r#"{{"prometheus":{{"cluster":"p"}},"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}},
        "signals":[{{"name":"cpu","query":"cpu"}}],
        "rules":[{},{}]}}]}}"#,
        r#"{"when":"cpu","above":85,"for":"5s","then":"eject"}"#,
        r#"{"when":"error_percent","above":5,"then":"down_weight"}"#,
    ));
    let rule =
        |value, above, seconds, action| Rule { value, above, lasting: Duration::from_secs(seconds), action };
    assert_eq!(
        upstream.rules,
        [
            rule(RuleValue::Signal(0), 85.0, 5, RuleAction::Eject),
            rule(RuleValue::ErrorPercent, 5.0, 0, RuleAction::DownWeight),
        ]
    );
}

#[test]
fn what_has_no_effect_yet_is_named() {
    assert!(crate::without_effect(&accepted(&upstream_with(""))).is_empty());
    assert!(crate::without_effect(&accepted(COMPLETE)).is_empty());
}

#[test]
fn a_policy_is_a_name_or_an_object() {
    let signals = r#""signals":[{"name":"depth","query":"depth"}]"#;
    for (policy, expected) in [
        (r#""round_robin""#, Policy::RoundRobin),
        (r#"{"name":"peak_ewma"}"#, Policy::PeakEwma),
        (r#""least_request""#, Policy::LeastRequest),
        (r#""weighted_round_robin""#, Policy::WeightedRoundRobin),
        (r#""random""#, Policy::Random),
        (r#""ip_hash""#, Policy::IpHash),
        (r#"{"name":"consistent_hash"}"#, Policy::ConsistentHash(LoadBound::default())),
        (r#"{}"#, Policy::Adaptive),
        (
            r#""weighted_score""#,
            Policy::WeightedScore(WeightedScore {
                in_flight_weight: 0.6,
                in_flight_max: 1000.0,
                latency_weight: 0.4,
                latency_max_ms: 500.0,
            }),
        ),
        (
            r#"{"name":"weighted_score","in_flight_weight":0,"in_flight_max":10,"latency_weight":1,"latency_max_ms":5.5}"#,
            Policy::WeightedScore(WeightedScore {
                in_flight_weight: 0.0,
                in_flight_max: 10.0,
                latency_weight: 1.0,
                latency_max_ms: 5.5,
            }),
        ),
        (r#""least_signal""#, Policy::LeastSignal { signal: "depth".into() }),
        (r#"{"name":"least_signal","signal":"depth"}"#, Policy::LeastSignal { signal: "depth".into() }),
    ] {
        let json = format!(
            r#"{{"prometheus":{{"cluster":"p"}},"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}},
                 "affinity":{{"source_ip":true}},"policy":{policy},{signals}}}]}}"#
        );
        assert_eq!(only_upstream(&json).policy, expected, "{policy}");
    }
}

#[test]
fn every_key_for_hashing_is_read() {
    for (affinity, expected) in [
        (r#"{"header":"X-User"}"#, Affinity::Header("x-user".into())),
        (r#"{"cookie":"SessionId"}"#, Affinity::Cookie(Cookie::named("SessionId"))),
        (r#"{"cookie":{"name":"SessionId"}}"#, Affinity::Cookie(Cookie::named("SessionId"))),
        (
            r#"{"cookie":{"name":"s","set":false,"ttl":"1h","path":"/a","secure":true,"same_site":"none"}}"#,
            Affinity::Cookie(Cookie {
                set: false,
                ttl: Duration::from_secs(3600),
                path: "/a".into(),
                secure: true,
                same_site: Some(SameSite::None),
                ..Cookie::named("s")
            }),
        ),
        (r#"{"query":"user"}"#, Affinity::Query("user".into())),
        (r#"{"query_parameter":"user"}"#, Affinity::Query("user".into())),
        (r#"{"source_ip":true}"#, Affinity::SourceIp),
    ] {
        let json = upstream_with(&format!(r#""affinity":{affinity},"policy":"consistent_hash""#));
        assert_eq!(only_upstream(&json).affinity, Some(expected), "{affinity}");
    }
}

#[test]
fn the_last_resort_is_read() {
    for (failover, expected) in [
        (r#"{"none_eligible":"reject"}"#, NoneEligible::Reject),
        (r#"{"none_eligible":"envoy","safe_endpoint":null}"#, NoneEligible::Envoy),
        (
            r#"{"none_eligible":"safe_endpoint","safe_endpoint":"[2001:db8::1]:80"}"#,
            NoneEligible::SafeEndpoint("[2001:db8::1]:80".parse().unwrap()),
        ),
    ] {
        let json = upstream_with(&format!(r#""failover":{failover}"#));
        assert_eq!(only_upstream(&json).failover.none_eligible, expected, "{failover}");
    }
}

#[test]
fn each_way_of_steering_has_its_own_defaults() {
    for (via, header, candidates) in [
        ("override_host", "x-evenkeel-endpoint", 2),
        ("stateful_session", "x-evenkeel-endpoint", 1),
        ("original_dst", "x-envoy-original-dst-host", 1),
        ("cluster_header", "x-evenkeel-endpoint", 1),
    ] {
        let steering = accepted(&root_with(&format!(r#""steering":{{"via":"{via}"}}"#))).steering;
        assert_eq!((steering.header.as_str(), steering.candidates), (header, candidates), "{via}");
    }
    let steering = accepted(&root_with(r#""steering":{"header":"X-Lead","candidates":8}"#)).steering;
    assert_eq!((steering.header.as_str(), steering.candidates), ("x-lead", 8));
}

/// Without `steering.header` a native module names the endpoint by a call, whatever else `steering` says.
#[test]
fn the_header_is_asked_for_where_it_is_named() {
    let named = |steering: &str| crate::legible(root_with(&format!(r#""steering":{steering}"#)).as_bytes());
    for steering in ["{}", r#"{"candidates":3}"#, r#"{"via":"override_host"}"#] {
        assert!(!named(steering).header_named, "{steering}");
    }
    assert!(named(r#"{"header":"x-lead"}"#).header_named);
    assert!(!crate::legible(b"{").header_named);
}

#[test]
fn a_default_gives_way_to_a_value_it_would_contradict() {
    let prometheus = |more: &str| {
        accepted(&root_with(&format!(r#""prometheus":{{"cluster":"p"{more}}}"#))).prometheus.unwrap()
    };
    assert_eq!(prometheus("").interval, Duration::from_secs(5));
    assert_eq!(prometheus("").timeout, Duration::from_secs(2));
    assert_eq!(prometheus(r#","interval":"1s""#).timeout, Duration::from_millis(500));
    assert_eq!(prometheus(r#","interval":"1s","timeout":"1s""#).timeout, Duration::from_secs(1));
    assert_eq!(prometheus("").authority, "p");

    let health = only_upstream(&upstream_with(r#""health":{"suspect_after":7}"#)).health;
    assert_eq!((health.suspect_after, health.fail_after), (7, 7));
    for (health, both) in
        [("{}", (3, 3)), (r#"{"fail_after":5}"#, (5, 5)), (r#"{"suspect_after":1}"#, (1, 3))]
    {
        let health =
            only_upstream(&upstream_with(&format!(r#""policy":"ip_hash","health":{health}"#))).health;
        assert_eq!((health.suspect_after, health.fail_after), both, "one bad answer moves no keys");
    }

    let autoscale =
        |more: &str| only_upstream(&upstream_with(&format!(r#""autoscale":{{{more}}}"#))).autoscale.unwrap();
    assert_eq!((autoscale("").min, autoscale("").max), (2, 20));
    assert_eq!(autoscale(r#""period":"10s""#).look_ahead, Duration::from_secs(10));
    assert_eq!((autoscale(r#""max":1"#).min, autoscale(r#""min":30"#).max), (1, 30));
}

#[test]
fn whole_numbers_may_be_written_as_doubles() {
    let health = only_upstream(&upstream_with(r#""health":{"fail_after":5.0,"recover_after":1e2}"#)).health;
    assert_eq!((health.fail_after, health.recover_after), (5, 100));
}

#[test]
fn a_version_without_a_share_is_left_out() {
    let json = r#"{"upstreams":[{"cluster":"web","split":{"v1":100,"v2":0},
        "endpoints":{"static":[{"address":"10.0.0.1:80","version":"v1"}]}}]}"#;
    assert_eq!(only_upstream(json).split, [("v1".to_owned(), 100.0)]);
}

#[test]
fn header_values_are_not_part_of_the_debug_text() {
    assert!(!format!("{:?}", accepted(COMPLETE)).contains("S3CR3T"));
}

#[test]
fn debug_configuration_is_strict() {
    let secret = r#""debug":{"secret":"open sesame"}"#;
    let debug = accepted(&root_with(secret)).debug.expect("on");
    assert_eq!(debug.header, "x-evenkeel-decision");
    let asking = debug.asking.expect("a secret");
    assert_eq!((asking.header.as_str(), asking.secret.as_str()), ("x-evenkeel-debug", "open sesame"));
    assert!(!format!("{asking:?}").contains("sesame"));
    let open = accepted(&root_with(r#""debug":{"when":"always","header":"X-Why"}"#)).debug.expect("on");
    assert_eq!((open.header.as_str(), open.asking), ("x-why", None));
    let all = accepted(&root_with(
        r#""attributes":["endpoint","cost"],"log":{"format":"json","failures":true,"sample_percent":0.5}"#,
    ));
    assert_eq!(all.attributes, [Attribute::Endpoint, Attribute::Cost]);
    assert_eq!(all.log, Log { format: LogFormat::Json, failures: true, sample_percent: 0.5 });
}

#[test]
fn a_signal_called_like_what_is_measured_is_meant_by_rules_and_pressure_alike() {
    for name in ["error_percent", "latency_ms", "in_flight"] {
        let json = upstream_with(&format!(
            r#""signals":[{{"name":"{name}","query":"q"}}],"rules":[{{"when":"{name}","above":1,"then":"flag"}}],
               "autoscale":{{"pressure":[{{"signal":"{name}","at":1}}]}}"#
        ));
        let json = json.replace(r#""upstreams""#, r#""prometheus":{"cluster":"p"},"upstreams""#);
        let upstream = &accepted(&json).upstreams[0];
        assert_eq!(upstream.rules[0].value, RuleValue::Signal(0), "{name}");
        assert_eq!(upstream.pressure[0].value, PressureValue::Signal(0), "{name}");
    }
}

#[test]
fn load_reports_are_signals_behind_the_polled_ones() {
    let json = r#"{"upstreams":[{"cluster":"web","endpoints":{"static":["10.0.0.1:80"]},
        "load_reports":[{"name":"busy","header":"Endpoint-Load-Metrics","metric":"named_metrics.queue","max":8},
                        {"name":"rif","header":"x-rif","weight":0.5}],
        "rules":[{"when":"busy","above":7,"then":"flag"}],"policy":"least_signal"}]}"#;
    // Two signals to choose from.
    assert!(parse(json.as_bytes()).is_err());
    let json = json.replace(r#""least_signal""#, r#"{"name":"least_signal","signal":"rif"}"#);
    let config = parse(json.as_bytes()).unwrap();
    let reports: Vec<_> = config.upstreams[0].signals.iter().map(|s| s.report.clone().unwrap()).collect();
    assert_eq!(
        (reports[0].header.as_str(), reports[0].metric.as_str()),
        ("endpoint-load-metrics", "named_metrics.queue")
    );
    assert_eq!((reports[1].header.as_str(), reports[1].metric.as_str()), ("x-rif", ""));
    let again = serde_json::to_string(&effective(&config)).unwrap();
    assert_eq!(parse(again.as_bytes()).unwrap(), config);
}

#[test]
fn a_guard_of_all_is_that_of_each_without_its_own() {
    let upstreams = |root: &str, first: &str| {
        let json = format!(
            r#"{{{root}"upstreams":[{{"cluster":"a"{first},"endpoints":{{"static":["10.0.0.1:80"]}}}},
            {{"cluster":"b","endpoints":{{"static":["10.0.0.1:80"]}}}}]}}"#
        );
        let of = |u: &Upstream| u.guard.map(|guard| guard.holdout_percent);
        accepted(&json).upstreams.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(upstreams("", ""), [None, None]);
    assert_eq!(upstreams("", r#","guard":{}"#), [Some(1.0), None]);
    assert_eq!(upstreams(r#""guard":{"holdout_percent":5},"#, r#","guard":{}"#), [Some(1.0), Some(5.0)]);
    let observing = accepted(
        r#"{"mode":"observe","guard":{},"upstreams":[{"cluster":"a","endpoints":{"static":["10.0.0.1:80"]}}]}"#,
    );
    assert_eq!(crate::without_effect(&observing), ["$.upstreams[0].guard"]);
}

#[test]
fn guard_without_requests_to_draw_is_reported() {
    for (upstream, draws) in [
        (r#""policy":"ip_hash""#, false),
        (r#""policy":"consistent_hash","affinity":{"header":"x-user"}"#, true),
        (r#""policy":"consistent_hash","affinity":{"cookie":{"name":"u","set":true}}"#, false),
        (r#""policy":"consistent_hash","affinity":{"cookie":{"name":"u","set":false}}"#, true),
        (r#""policy":"consistent_hash","affinity":{"source_ip":true}"#, false),
    ] {
        for (guard, draws) in [("{}", draws), (r#"{"include_keyed":true}"#, true)] {
            let config = accepted(&format!(
                r#"{{"upstreams":[{{"cluster":"a","endpoints":{{"static":["10.0.0.1:80"]}},{upstream},"guard":{guard}}}]}}"#
            ));
            let unused = crate::without_effect(&config);
            assert_eq!(unused.is_empty(), draws, "{upstream} {guard}: {unused:?}");
            let again = serde_json::to_string(&effective(&config)).unwrap();
            assert_eq!(parse(again.as_bytes()).unwrap(), config);
        }
    }
}

/// A setting may equal the one that bounds it.
#[test]
fn bounds_may_meet() {
    for fields in [
        r#""autoscale":{"min":5,"max":5}"#,
        r#""health":{"suspect_after":3,"fail_after":3}"#,
        r#""health":{"probe":{"path":"/","interval":"2s","timeout":"2s"}}"#,
    ] {
        only_upstream(&upstream_with(fields));
    }
}

/// A section without fields has the same defaults as one with some.
#[test]
fn autoscale_without_fields_has_the_documented_defaults() {
    let autoscale = only_upstream(&upstream_with(r#""autoscale":{}"#)).autoscale.expect("it is given");
    assert_eq!((autoscale.target_pressure, autoscale.min, autoscale.max), (0.8, 2, 20));
    assert_eq!((autoscale.periods, autoscale.tolerance_percent), (2, 10.0));
    assert_eq!(autoscale.look_ahead, autoscale.period);
}
