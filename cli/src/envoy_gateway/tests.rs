use super::*;

const OURS: &str = "kind: EnvoyExtensionPolicy
metadata: { name: evenkeel, namespace: shop }
spec: { targetRefs: [{ kind: HTTPRoute, name: web }], wasm: [{ name: evenkeel, code: { type: Image } }] }
---
kind: BackendTrafficPolicy
metadata: { name: evenkeel, namespace: shop }
spec: { targetRefs: [{ kind: HTTPRoute, name: web }], loadBalancer: { endpointOverride: { extractFrom: [{ header: x-evenkeel-endpoint }] } } }
";
const ROUTE: &str = "kind: HTTPRoute\nmetadata: { name: web, namespace: shop }\nspec: { parentRefs: [{ name: shop, namespace: edge }] }\n";

fn said(ours: &str, others: &[&str]) -> Vec<String> {
    let text = [&[ours], others].concat().join("---\n");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    collisions(&documents.into_iter().map(|document| ("f.yaml".to_owned(), document)).collect::<Vec<_>>())
}

fn policy(kind: &str, namespace: &str, target: &str) -> String {
    format!(
        "kind: {kind}\nmetadata: {{ name: theirs, namespace: {namespace} }}\nspec: {{ targetRef: {{ {target} }}, lua: [] }}\n"
    )
}

#[test]
fn policies_for_the_same_route_are_named() {
    for kind in [EXTENSIONS, TRAFFIC] {
        let other = policy(kind, "shop", "kind: HTTPRoute, name: web");
        let said = said(OURS, &[&other]);
        assert_eq!(said.len(), 1, "{kind}: {said:?}");
        for part in ["f.yaml, ", "theirs: is for the same HTTPRoute web", "evenkeel (f.yaml)", "the older"] {
            assert!(said[0].contains(part), "{part}: {said:?}");
        }
    }
}

#[test]
fn extensions_of_the_gateway_are_out_of_force_for_the_route() {
    let gateway = policy(EXTENSIONS, "edge", "kind: Gateway, name: shop");
    for routes in [&[gateway.as_str()][..], &[gateway.as_str(), ROUTE]] {
        let said = said(OURS, routes);
        assert!(said.len() == 1 && said[0].contains("theirs: is out of force for HTTPRoute web"), "{said:?}");
    }
    let merged = OURS.replace("wasm:", "mergeType: StrategicMerge, wasm:");
    assert_eq!(said(&merged, &[&gateway]), [""; 0]);
}

#[test]
fn what_does_not_collide_is_passed_over() {
    for other in [
        policy(EXTENSIONS, "shop", "kind: HTTPRoute, name: other"),
        policy(EXTENSIONS, "other", "kind: HTTPRoute, name: web"),
        policy(EXTENSIONS, "edge", "kind: Gateway, name: other"),
        // Merged, as the shipped policy says.
        policy(TRAFFIC, "edge", "kind: Gateway, name: shop"),
        OURS.to_owned(),
    ] {
        assert_eq!(said(OURS, &[&other, ROUTE]), [""; 0], "{other}");
    }
    assert_eq!(said(&policy(TRAFFIC, "shop", "kind: HTTPRoute, name: web"), &[ROUTE]), [""; 0]);
}

/// A policy for one rule takes that of the route out of force there.
#[test]
fn policies_for_a_rule_take_those_of_the_route_out_of_force() {
    let ours = OURS.replace(
        "wasm: [{ ",
        "wasm: [{ config: { upstreams: [{ cluster: 'httproute/shop/web/rule/0*' }] }, ",
    );
    for (kind, said_of_it) in [(EXTENSIONS, "clients then steer"), (TRAFFIC, "nothing is steered there")] {
        let other = policy(kind, "shop", "kind: HTTPRoute, name: web, sectionName: pay");
        let found = said(&ours, &[&other]);
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        assert!(found[0].contains("HTTPRoute web, pay") && found[0].contains(said_of_it), "{found:?}");
        let elsewhere = ours.replace("httproute/shop/web", "httproute/shop/other");
        assert_eq!(said(&elsewhere, &[&other]), [""; 0]);
    }
    let follows = policy(TRAFFIC, "shop", "kind: HTTPRoute, name: web, sectionName: pay")
        .replace("lua: []", "loadBalancer: { endpointOverride: {} }");
    assert_eq!(said(&ours, &[&follows]), [""; 0]);
}

/// The same for a filter that a whole Gateway has.
#[test]
fn policies_for_a_route_take_those_of_the_gateway_out_of_force() {
    let ours = OURS
        .replace("kind: HTTPRoute, name: web", "kind: Gateway, name: shop")
        .replace("namespace: shop", "namespace: edge")
        .replace("wasm: [{ ", "wasm: [{ config: { upstreams: [{ cluster: 'httproute/shop/*' }] }, ");
    for kind in [EXTENSIONS, TRAFFIC] {
        let other = policy(kind, "shop", "kind: HTTPRoute, name: web");
        let found = said(&ours, &[&other, ROUTE]);
        assert!(found.len() == 1 && found[0].contains("out of force for HTTPRoute web"), "{kind}: {found:?}");
        let merged = other.replace("lua", "mergeType: StrategicMerge, lua");
        assert_eq!(said(&ours, &[&merged, ROUTE]), [""; 0], "{kind}");
        let stranger = ROUTE.replace("name: shop", "name: other");
        assert_eq!(said(&ours, &[&other, &stranger]), [""; 0], "{kind}");
    }
}

#[test]
fn selectors_name_their_targets() {
    let labelled = ROUTE.replace("namespace: shop }", "namespace: shop, labels: { team: a } }");
    let by = |selector: &str| {
        format!(
            "kind: {EXTENSIONS}\nmetadata: {{ name: theirs, namespace: shop }}\nspec: {{ lua: [], targetSelectors: [{{ kind: HTTPRoute, {selector} }}] }}\n"
        )
    };
    for (selector, count) in [
        ("matchLabels: { team: a }", 1),
        ("matchLabels: { team: b }", 0),
        ("matchExpressions: [{ key: team, operator: In, values: [a, b] }]", 1),
        ("matchExpressions: [{ key: team, operator: NotIn, values: [a, b] }]", 0),
        ("matchExpressions: [{ key: team, operator: Exists }]", 1),
        ("matchExpressions: [{ key: team, operator: DoesNotExist }]", 0),
        ("matchExpressions: [{ key: other, operator: DoesNotExist }]", 1),
    ] {
        let found = said(OURS, &[&labelled, &by(selector)]);
        assert_eq!(found.len(), count, "{selector}: {found:?}");
    }
}

#[test]
fn policies_without_a_namespace_may_be_of_any() {
    let other = policy(TRAFFIC, "shop", "kind: HTTPRoute, name: web").replace(", namespace: shop", "");
    assert_eq!(said(OURS, &[&other]).len(), 1);
    let ours = OURS.replace(", namespace: shop", "");
    assert_eq!(said(&ours, &[&policy(TRAFFIC, "shop", "kind: HTTPRoute, name: web")]).len(), 1);
}

/// Such a policy gets no conditions at all.
#[test]
fn patches_beside_a_gateway_in_another_namespace_are_named() {
    let patches = |namespace: &str, kind: &str| {
        format!(
            "kind: {PATCHES}\nmetadata: {{ name: evenkeel, namespace: {namespace} }}\nspec: {{ targetRef: {{ kind: {kind}, name: shop }}, \
                 jsonPatches: [{{ name: httproute/shop/web/rule/0 }}] }}\n"
        )
    };
    let found = said(OURS, &[ROUTE, &patches("shop", "Gateway")]);
    assert!(found.len() == 1 && found[0].contains("passes it over"), "{found:?}");
    for other in [patches("edge", "Gateway"), patches("shop", "GatewayClass")] {
        assert_eq!(said(OURS, &[ROUTE, &other]), [""; 0], "{other}");
    }
    assert_eq!(said(OURS, &[&patches("shop", "Gateway")]), [""; 0], "its route is not among these");
    let set = ROUTE.replace("name: shop, namespace: edge", "kind: ListenerSet, name: more");
    assert_eq!(said(OURS, &[&set, &patches("shop", "Gateway")]), [""; 0], "which may be of that Gateway");
    let other = patches("shop", "Gateway").replace("/web/", "/web-2/");
    assert_eq!(said(OURS, &[ROUTE, &other]), [""; 0], "for another route");
}

/// Envoy Gateway puts an answer of 500 into the place of a module that it does not know.
#[test]
fn module_that_no_proxy_has_is_named() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/envoy-gateway/module.yaml");
    let shipped = std::fs::read_to_string(path).unwrap();
    let proxy = shipped.split("---\n").next().unwrap();
    let renamed = proxy.replace("    - name: evenkeel\n      # What", "    - name: balancer\n      # What");
    assert_ne!(proxy, renamed);
    let found = said(&shipped.replace(proxy, &renamed), &[]);
    assert!(found.len() == 1 && found[0].contains("no EnvoyProxy has a module \"evenkeel\""), "{found:?}");
    assert_eq!(said(&shipped, &[]), [""; 0]);
    assert_eq!(said(&shipped.replace(proxy, ""), &[]), [""; 0], "its EnvoyProxy is not among these");
}

/// With `mergeGateways` such a policy has to be for the class.
#[test]
fn patches_for_a_gateway_that_is_merged_are_named() {
    let all = |merges: bool, kind: &str, name: &str| {
        format!(
            "kind: {PATCHES}\nmetadata: {{ name: evenkeel, namespace: edge }}\nspec: {{ targetRef: {{ kind: {kind}, name: {name} }} }}\n---
kind: Gateway\nmetadata: {{ name: shop, namespace: edge }}\nspec: {{ gatewayClassName: eg }}\n---
kind: GatewayClass\nmetadata: {{ name: eg }}\nspec: {{ parametersRef: {{ kind: EnvoyProxy, name: all, namespace: system }} }}\n---
kind: EnvoyProxy\nmetadata: {{ name: all, namespace: system }}\nspec: {{ mergeGateways: {merges} }}\n"
        )
    };
    let found = said(OURS, &[&all(true, "Gateway", "shop")]);
    assert!(found.len() == 1 && found[0].contains("GatewayClass"), "{found:?}");
    for other in
        [all(false, "Gateway", "shop"), all(true, "GatewayClass", "eg"), all(true, "Gateway", "other")]
    {
        assert_eq!(said(OURS, &[&other]), [""; 0], "{other}");
    }
}
