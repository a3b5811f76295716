//! Collisions in Envoy Gateway: a policy that evenkeel's takes out of force, or that takes evenkeel's out of force.
//!
//! Of several EnvoyExtensionPolicies or BackendTrafficPolicies for one route the oldest alone is in force, the others are
//! `Conflicted`. An EnvoyExtensionPolicy for a route takes that of its Gateway out of force there (`Overridden`), unless
//! it has a `mergeType`, which Envoy Gateway up to 1.9 does not know in that kind.

use serde_json::Value;

use crate::find;

const EXTENSIONS: &str = "EnvoyExtensionPolicy";
const TRAFFIC: &str = "BackendTrafficPolicy";
/// The product's name, which is in the names or the location of the filter.
const NAME: &str = "evenkeel";

/// Whether a document of this kind can collide.
pub fn matters(document: &Value) -> bool {
    [EXTENSIONS, TRAFFIC].iter().any(|kind| document["kind"] == *kind)
}

/// The collisions among these manifests, each given with the name of its file: one line each.
pub fn collisions(manifests: &[(String, Value)]) -> Vec<String> {
    let mut found = Vec::new();
    for ours in manifests.iter().filter(|(_, manifest)| loads_us(manifest)) {
        for route in targets(&ours.1).into_iter().filter(|target| target.kind != "Gateway") {
            found.extend(extensions(manifests, ours, &route));
            found.extend(traffic(manifests, &route));
        }
    }
    found
}

/// Another EnvoyExtensionPolicy for this route or for its Gateway.
fn extensions(
    manifests: &[(String, Value)],
    (our_file, ours): &(String, Value),
    route: &Target<'_>,
) -> Vec<String> {
    let our_name = format!("{} ({our_file})", find::named(ours));
    let others = manifests.iter().filter(|(_, other)| other["kind"] == EXTENSIONS && !is_same(other, ours));
    let mut found = Vec::new();
    for (file, other) in others {
        let place = format!("{file}, {}", find::named(other));
        let targets = targets(other);
        if targets.contains(route) {
            found.push(format!(
                "{place}: is for the same {} as {our_name}, and Envoy Gateway takes the older of the two alone: put the extensions of both \
                 into one",
                route.shown()
            ));
        } else if ours["spec"]["mergeType"].is_null()
            && targets.iter().any(|of| of.is_above(route, manifests))
        {
            found.push(format!(
                "{place}: is out of force for {} while {our_name} is there, which is for the route alone: put its extensions into that one \
                 as well",
                route.shown()
            ));
        }
    }
    found
}

/// Another BackendTrafficPolicy beside the one that follows the header.
fn traffic(manifests: &[(String, Value)], route: &Target<'_>) -> Vec<String> {
    let same: Vec<&(String, Value)> = manifests
        .iter()
        .filter(|(_, manifest)| manifest["kind"] == TRAFFIC && targets(manifest).contains(route))
        .collect();
    let follows = |manifest: &Value| !manifest["spec"]["loadBalancer"]["endpointOverride"].is_null();
    let Some((our_file, ours)) = same.iter().find(|(_, manifest)| follows(manifest)) else {
        return Vec::new();
    };
    let others = same.iter().filter(|(_, other)| !is_same(other, ours));
    let line = |(file, other): &&&(String, Value)| {
        format!(
            "{file}, {}: is for the same {} as {} ({our_file}), and Envoy Gateway takes the older of the two alone: put both into one",
            find::named(other),
            route.shown(),
            find::named(ours)
        )
    };
    others.map(|other| line(&other)).collect()
}

/// Whether these are one object, perhaps in two files.
fn is_same(one: &Value, other: &Value) -> bool {
    one["metadata"]["name"] == other["metadata"]["name"] && namespace(one) == namespace(other)
}

/// Whether a policy loads the filter or the native module.
fn loads_us(manifest: &Value) -> bool {
    let loads = |list: &str| manifest["spec"][list].to_string().to_lowercase().contains(NAME);
    manifest["kind"] == EXTENSIONS && (loads("wasm") || loads("dynamicModule"))
}

/// What a policy is for.
#[derive(PartialEq, Eq)]
struct Target<'d> {
    kind: &'d str,
    namespace: &'d str,
    name: &'d str,
    section: Option<&'d str>,
}

impl Target<'_> {
    fn shown(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    /// Whether this is the Gateway of the route, as far as the manifests say.
    fn is_above(&self, route: &Target<'_>, manifests: &[(String, Value)]) -> bool {
        let is_it = |manifest: &Value| {
            manifest["kind"] == route.kind
                && manifest["metadata"]["name"] == route.name
                && namespace(manifest) == route.namespace
        };
        let Some((_, manifest)) = manifests.iter().find(|(_, manifest)| is_it(manifest)) else {
            return self.kind == "Gateway";
        };
        let parents = manifest["spec"]["parentRefs"].as_array().into_iter().flatten();
        let of = |parent: &Value| parent["namespace"].as_str().unwrap_or(route.namespace) == self.namespace;
        self.kind == "Gateway" && parents.into_iter().any(|parent| parent["name"] == self.name && of(parent))
    }
}

fn targets(manifest: &Value) -> Vec<Target<'_>> {
    let spec = &manifest["spec"];
    let several = spec["targetRefs"].as_array().into_iter().flatten();
    several.chain(spec.get("targetRef")).filter_map(|target| of(target, manifest)).collect()
}

fn of<'d>(target: &'d Value, manifest: &'d Value) -> Option<Target<'d>> {
    Some(Target {
        kind: target["kind"].as_str()?,
        namespace: namespace(manifest),
        name: target["name"].as_str()?,
        section: target["sectionName"].as_str(),
    })
}

fn namespace(manifest: &Value) -> &str {
    manifest["metadata"]["namespace"].as_str().unwrap_or("default")
}

#[cfg(test)]
mod tests {
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
            for part in
                ["f.yaml, ", "theirs: is for the same HTTPRoute web", "evenkeel (f.yaml)", "the older"]
            {
                assert!(said[0].contains(part), "{part}: {said:?}");
            }
        }
    }

    #[test]
    fn extensions_of_the_gateway_are_out_of_force_for_the_route() {
        let gateway = policy(EXTENSIONS, "edge", "kind: Gateway, name: shop");
        for routes in [&[gateway.as_str()][..], &[gateway.as_str(), ROUTE]] {
            let said = said(OURS, routes);
            assert!(
                said.len() == 1 && said[0].contains("theirs: is out of force for HTTPRoute web"),
                "{said:?}"
            );
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
}
