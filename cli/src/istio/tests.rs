use super::*;

const FILTER: &str = "kind: EnvoyFilter
metadata: { name: evenkeel, namespace: shop }
spec:
  configPatches:
    - applyTo: CLUSTER
      match: { cluster: { service: web.shop.svc.cluster.local, portNumber: 8080 } }
      patch: { operation: MERGE, value: { load_balancing_policy: { policies: [{ typed_extension_config: { name: envoy.load_balancing_policies.override_host } }] } } }
";

/// A plugin that leaves clusters as they are.
const PLUGIN: &str = "kind: WasmPlugin
metadata: { name: evenkeel, namespace: shop }
spec: { url: 'oci://evenkeel', pluginConfig: { steering: { via: stateful_session }, upstreams: [{ cluster: 'outbound|8080||web.shop.svc.cluster.local' }] } }
";

fn said(other: &str) -> Vec<Collision> {
    said_beside(FILTER, other)
}

fn said_beside(filter: &str, other: &str) -> Vec<Collision> {
    let text = format!("{filter}---\n{other}");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    collisions(&documents.into_iter().map(|document| ("f.yaml".to_owned(), document)).collect::<Vec<_>>())
}

fn rule(host: &str, policy: &str) -> String {
    format!(
        "kind: DestinationRule\nmetadata: {{ name: theirs, namespace: shop }}\nspec:\n  host: '{host}'\n  trafficPolicy: {policy}\n"
    )
}

#[test]
fn rules_that_cost_the_cluster_are_named_with_the_remedy() {
    let failover =
        "outlierDetection: {}, loadBalancer: { localityLbSetting: { failover: [{ from: a, to: b }] } }";
    for policy in [
        format!("{{ {failover} }}"),
        "{ loadBalancer: { localityLbSetting: { distribute: [{ from: a }] } } }".into(),
        "{ outlierDetection: {}, loadBalancer: { localityLbSetting: { failoverPriority: [zone] } } }".into(),
        "{ loadBalancer: { simple: PASSTHROUGH } }".into(),
        format!("{{ portLevelSettings: [{{ port: {{ number: 8080 }}, {failover} }}] }}"),
    ] {
        for host in ["web.shop.svc.cluster.local", "web", "web.shop", "*.shop.svc.cluster.local"] {
            let said = said(&rule(host, &policy));
            assert_eq!(said.len(), 1, "{host} {policy}: {said:?}");
            assert!(said[0].costs_requests);
            for part in
                ["f.yaml, DestinationRule theirs", "EnvoyFilter evenkeel (f.yaml)", "stateful_session"]
            {
                assert!(said[0].text.contains(part), "{part}: {said:?}");
            }
        }
    }
}

#[test]
fn subset_inherits_from_its_host() {
    let subset = "kind: DestinationRule\nmetadata: { name: theirs, namespace: shop }\nspec:\n  host: web\n  trafficPolicy: { outlierDetection: {} }\n  subsets:\n  - name: v1\n    trafficPolicy: { loadBalancer: { localityLbSetting: { failover: [] } } }\n";
    let said = said(subset);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].text.contains("for the subset v1"), "{said:?}");
}

#[test]
fn services_without_an_address_of_their_own_are_named() {
    for other in [
        "kind: Service\nmetadata: { name: web, namespace: shop }\nspec: { clusterIP: None }",
        "kind: ServiceEntry\nmetadata: { name: e, namespace: shop }\nspec: { hosts: [web.shop.svc.cluster.local], resolution: NONE }",
        "kind: ServiceEntry\nmetadata: { name: e, namespace: shop }\nspec: { hosts: [web.shop.svc.cluster.local] }",
    ] {
        let said = said(other);
        assert!(said.len() == 1 && said[0].costs_requests, "{other}: {said:?}");
    }
}

#[test]
fn replaced_consistent_hash_is_reported_without_a_fault() {
    let said =
        said(&rule("web", "{ loadBalancer: { consistentHash: { httpCookie: { name: a, ttl: 0s } } } }"));
    assert_eq!(said.len(), 1);
    assert!(!said[0].costs_requests && said[0].text.contains("consistentHash"), "{said:?}");
}

/// A patch may name its cluster as Envoy does: direction, port, subset and host.
#[test]
fn a_cluster_by_its_name_is_one_host_one_port_and_one_subset() {
    let named = |name: &str, other: &str| {
        let by_name = format!("name: '{name}'");
        let text = FILTER.replace("service: web.shop.svc.cluster.local, portNumber: 8080", &by_name);
        assert!(text.contains(&by_name));
        said_beside(&text, other)
    };
    let bad = "{ loadBalancer: { simple: PASSTHROUGH } }";
    let at = |port| {
        format!(
            "{{ portLevelSettings: [{{ port: {{ number: {port} }}, loadBalancer: {{ simple: PASSTHROUGH }} }}] }}"
        )
    };
    let subset = "kind: DestinationRule\nmetadata: { name: theirs, namespace: shop }\nspec:\n  host: web\n  subsets: [{ name: v2, trafficPolicy: { loadBalancer: { simple: PASSTHROUGH } } }]\n";
    let headless = "kind: Service\nmetadata: { name: other, namespace: shop }\nspec: { clusterIP: None }";
    const WEB: &str = "outbound|8080||web.shop.svc.cluster.local";
    const V1: &str = "outbound|8080|v1|web.shop.svc.cluster.local";
    const V2: &str = "outbound|8080|v2|web.shop.svc.cluster.local";
    for (name, other, count) in [
        (WEB, rule("web", bad), 1),
        (WEB, rule("web", &at(8080)), 1),
        (V2, subset.into(), 1),
        (WEB, rule("other", bad), 0),
        (WEB, rule("web", &at(9090)), 0),
        (WEB, headless.into(), 0),
        (WEB, subset.into(), 0),
        (V1, subset.into(), 0),
        ("inbound|8080||", rule("web", bad), 0),
        ("web", rule("web", bad), 0),
        ("", rule("web", bad), 1),
    ] {
        let said = named(name, &other);
        assert_eq!(said.len(), count, "{name}: {other}: {said:?}");
    }
}

/// With `stateful_session` clusters stay as they are, and evenkeel's choice comes before theirs.
#[test]
fn what_a_session_passes_over_is_named() {
    let hash = rule("web", "{ loadBalancer: { consistentHash: { useSourceIp: true } } }");
    let headless = "kind: Service\nmetadata: { name: web, namespace: shop }\nspec: { clusterIP: None }";
    let newer = PLUGIN
        .replace("WasmPlugin", "TrafficExtension")
        .replace("spec: {", "spec: { wasm: {")
        .replace("] } }\n", "] } } }\n");
    for plugin in [PLUGIN, &newer] {
        let said = said_beside(plugin, &hash);
        assert!(said.len() == 1 && !said[0].costs_requests, "{said:?}");
        assert!(said[0].text.contains("consistentHash") && said[0].text.contains("affinity"), "{said:?}");
        let said = said_beside(plugin, headless);
        assert!(said.len() == 1 && said[0].costs_requests, "{said:?}");
        assert!(said[0].text.contains("headless") && said[0].text.contains("evenkeel (f.yaml)"), "{said:?}");
    }
    let observing = PLUGIN.replace("steering:", "mode: observe, steering:");
    let other = PLUGIN.replace("||web", "||other");
    let keyed = PLUGIN.replace("cluster: '", "affinity: { source_ip: true }, cluster: '");
    for (plugin, manifest) in [
        (PLUGIN, rule("web", "{ loadBalancer: { simple: PASSTHROUGH } }")),
        (PLUGIN, rule("other", "{ loadBalancer: { consistentHash: { useSourceIp: true } } }")),
        (&observing, hash.clone()),
        (&keyed, hash.clone()),
        (&observing, headless.to_owned()),
        (&other, headless.to_owned()),
    ] {
        assert_eq!(said_beside(plugin, &manifest), [], "{manifest}");
    }
}

#[test]
fn what_does_not_collide_is_passed_over() {
    for other in [
            rule("web", "{ outlierDetection: {}, connectionPool: {} }"),
            rule("web", "{ loadBalancer: { localityLbSetting: { failover: [] } } }"),
            rule("web", "{ outlierDetection: {}, loadBalancer: { localityLbSetting: { enabled: false, failover: [] } } }"),
            rule("other", "{ loadBalancer: { simple: PASSTHROUGH } }"),
            rule("web", "{ portLevelSettings: [{ port: { number: 9090 }, loadBalancer: { simple: PASSTHROUGH } }] }"),
            "kind: Service\nmetadata: { name: web, namespace: shop }\nspec: { clusterIP: 10.0.0.1 }".into(),
            "kind: Service\nmetadata: { name: web, namespace: other }\nspec: { clusterIP: None }".into(),
            "kind: ServiceEntry\nmetadata: { name: e }\nspec: { hosts: [web.shop.svc.cluster.local], resolution: STATIC }".into(),
        ] {
            assert_eq!(said(&other), [], "{other}");
        }
    // Without a replaced policy nothing collides.
    let alone = rule("web", "{ loadBalancer: { simple: PASSTHROUGH } }");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&alone).unwrap();
    assert_eq!(collisions(&[("f".to_owned(), documents[0].clone())]), []);
}

/// From Istio 1.25 on it is failover by locality, with outlier detection or without.
#[test]
fn traffic_distribution_costs_the_cluster() {
    const ON: &str = "annotations: { networking.istio.io/traffic-distribution: preferclose }";
    let near = "kind: Service\nmetadata: { name: web, namespace: shop }\nspec: { trafficDistribution: PreferSameZone }".to_owned();
    let entry = format!(
        "kind: ServiceEntry\nmetadata: {{ name: e, {ON} }}\nspec: {{ hosts: [web.shop.svc.cluster.local], resolution: DNS }}"
    );
    for other in [
        near.clone(),
        near.replace("PreferSameZone", "PreferClose"),
        near.replace("PreferSameZone", "PreferSameNode"),
        format!("kind: Service\nmetadata: {{ name: web, namespace: shop, {ON} }}"),
        format!("kind: Namespace\nmetadata: {{ name: shop, {ON} }}"),
        entry.clone(),
        format!("{near}\n---\n{}", rule("web", "{ outlierDetection: {} }")),
    ] {
        let said = said(&other);
        assert!(said.len() == 1 && said[0].costs_requests, "{other}: {said:?}");
        assert!(said[0].text.contains("traffic distribution Prefer") || other.contains(ON), "{said:?}");
    }
    let off = rule("web", "{ loadBalancer: { localityLbSetting: { enabled: false } } }");
    for other in [
        format!("{near}\n---\n{off}"),
        near.replace("PreferSameZone", "Any"),
        near.replace("name: web", "name: other"),
        entry.replace("hosts: [web", "hosts: [other"),
        format!("kind: Namespace\nmetadata: {{ name: other, {ON} }}"),
    ] {
        assert_eq!(said(&other), [], "{other}");
    }
    // With stateful_session the cluster stays as Istio makes it.
    assert_eq!(said_beside(PLUGIN, &near), []);
}

/// A gateway has an EDS cluster for a headless service, and its clients name no pod.
#[test]
fn headless_service_behind_a_gateway_is_like_any_other() {
    let headless = "kind: Service\nmetadata: { name: web, namespace: shop }\nspec: { clusterIP: None }";
    let gateway = FILTER.replace("match: {", "match: { context: GATEWAY,");
    assert_eq!(said_beside(&gateway, headless), []);
    assert_eq!(said_beside(&gateway, &rule("web", "{ loadBalancer: { simple: PASSTHROUGH } }")).len(), 1);
    let labels = "{ istio: ingressgateway }";
    let plugin = PLUGIN.replace("spec: {", &format!("spec: {{ selector: {{ matchLabels: {labels} }},"));
    let filter = |context: &str, labels: &str| {
        format!(
            "kind: EnvoyFilter\nmetadata: {{ name: evenkeel, namespace: shop }}\nspec: {{ workloadSelector: {{ labels: {labels} }}, \
             configPatches: [{{ applyTo: HTTP_FILTER, match: {{ context: {context} }} }}] }}\n---\n{headless}"
        )
    };
    for (filter, count) in [
        (filter("GATEWAY", labels), 0),
        (filter("SIDECAR_OUTBOUND", labels), 1),
        (filter("GATEWAY", "{ app: other }"), 1),
    ] {
        assert_eq!(said_beside(&plugin, &filter).len(), count, "{filter}");
    }
    let targets = "spec: { targetRefs: [{ kind: Gateway, name: shop }],";
    assert_eq!(said_beside(&PLUGIN.replace("spec: {", targets), headless), []);
}

/// Kustomize, Argo CD and `kubectl -n` give the namespace later.
#[test]
fn manifest_without_a_namespace_may_be_of_any() {
    for other in [
        "kind: Service\nmetadata: { name: web }\nspec: { clusterIP: None }".to_owned(),
        rule("web", "{ loadBalancer: { simple: PASSTHROUGH } }").replace(", namespace: shop", ""),
    ] {
        assert_eq!(said(&other).len(), 1, "{other}");
        let other = other.replace("web", "shop");
        assert_eq!(said(&other), [], "{other}");
    }
}

#[test]
fn pattern_for_all_subsets_meets_each_of_them() {
    let subset = "kind: DestinationRule\nmetadata: { name: theirs, namespace: shop }\nspec:\n  host: web\n  subsets: [{ name: v2, trafficPolicy: { loadBalancer: { consistentHash: { useSourceIp: true } } } }]\n";
    for (cluster, count) in [("8080|*|", 1), ("8080|v2|", 1), ("8080||", 0)] {
        assert_eq!(said_beside(&PLUGIN.replace("8080||", cluster), subset).len(), count, "{cluster}");
    }
}

/// Namespace and name of a plugin are part of the names that its EnvoyFilter patches.
#[test]
fn patches_for_a_plugin_of_another_name_are_named() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/istio");
    let shipped = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (sidecar, newer) = (shipped("sidecar-stateful-session.yaml"), shipped("traffic-extension.yaml"));
    let moved = |text: &str| text.replace("namespace: shop\n", "namespace: payments\n");
    let renamed = |text: &str| moved(text).replace("shop.evenkeel", "payments.evenkeel");
    for (text, count) in [
        (sidecar.clone(), 0),
        (newer.clone(), 0),
        (renamed(&sidecar), 0),
        (renamed(&newer), 0),
        (moved(&sidecar), 1),
        (moved(&newer), 1),
        // The plugin of the newer kind beside the filter for the older one.
        (sidecar.replace("kind: WasmPlugin", "kind: TrafficExtension"), 1),
        // A filter in another namespace may be for a plugin that is not among these.
        (sidecar.replacen("namespace: shop\n", "namespace: other\n", 1), 0),
        (format!("{sidecar}---\n{}", shipped("gateway-stateful-session.yaml")), 0),
    ] {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let said = collisions(&documents.into_iter().map(|d| ("f.yaml".to_owned(), d)).collect::<Vec<_>>());
        assert_eq!(said.len(), count, "{said:?}");
        assert!(said.iter().all(|said| said.costs_requests && said.text.contains("answers 500")), "{said:?}");
    }
}

/// The page has this for those for which a crash must not cost a request.
#[test]
fn filter_that_an_envoy_filter_loads_is_a_plugin_too() {
    let loads = |context: &str| {
        format!(
            "kind: EnvoyFilter
metadata: {{ name: evenkeel, namespace: shop }}
spec:
  configPatches:
    - applyTo: EXTENSION_CONFIG
      match: {{ context: {context} }}
      patch:
        operation: ADD
        value:
          name: evenkeel.plugin
          typed_config:
            '@type': type.googleapis.com/udpa.type.v1.TypedStruct
            type_url: type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
            value:
              config:
                name: evenkeel
                configuration:
                  '@type': type.googleapis.com/google.protobuf.StringValue
                  value: '{{ \"steering\": {{ \"via\": \"stateful_session\" }}, \"upstreams\": [{{ \"cluster\": \"outbound|8080||web.shop.svc.cluster.local\" }}] }}'
"
        )
    };
    let headless = "kind: Service\nmetadata: { name: web, namespace: shop }\nspec: { clusterIP: None }";
    let said = said_beside(&loads("SIDECAR_OUTBOUND"), headless);
    assert!(said.len() == 1 && said[0].text.contains("EnvoyFilter evenkeel (f.yaml)"), "{said:?}");
    assert_eq!(said_beside(&loads("GATEWAY"), headless), []);
}
