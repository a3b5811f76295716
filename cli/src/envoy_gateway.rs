//! Collisions in Envoy Gateway: a policy that evenkeel's takes out of force, or that takes evenkeel's out of force.
//!
//! Of several EnvoyExtensionPolicies or BackendTrafficPolicies for one route the oldest alone is in force, the others are
//! `Conflicted`. One for a rule takes that of the route out of force there, and one for a route that of its Gateway
//! (`Overridden`), unless it has a `mergeType`, which Envoy Gateway up to 1.9 does not know in an EnvoyExtensionPolicy. An
//! EnvoyPatchPolicy is for a Gateway of its own namespace; Envoy Gateway passes over any other without a condition. In place of
//! a native module that the EnvoyProxy does not have Envoy Gateway answers 500.

use serde_json::Value;

use crate::find;

mod targets;

use targets::{Target, namespace, targets};

const EXTENSIONS: &str = "EnvoyExtensionPolicy";
const TRAFFIC: &str = "BackendTrafficPolicy";
const PATCHES: &str = "EnvoyPatchPolicy";
/// The product's name, which is in the names or the location of the filter.
const NAME: &str = "evenkeel";

/// Manifests, each with the name of its file.
type Manifests<'d> = &'d [(String, Value)];

/// Whether a document of this kind can collide.
pub fn matters(document: &Value) -> bool {
    [EXTENSIONS, TRAFFIC, PATCHES, "EnvoyProxy"].iter().any(|kind| document["kind"] == *kind)
}

/// The collisions among these manifests, each given with the name of its file: one line each.
pub fn collisions(manifests: Manifests<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for ours in manifests.iter().filter(|(_, manifest)| loads_us(manifest)) {
        found.extend(unregistered(manifests, ours));
        for target in targets(&ours.1, manifests) {
            found.extend(extensions(manifests, ours, &target));
            found.extend(traffic(manifests, ours, &target));
        }
    }
    found.extend(patches(manifests));
    found
}

/// Another EnvoyExtensionPolicy for the same, for what is below it, or for what is above it.
fn extensions(manifests: Manifests<'_>, (our_file, ours): &(String, Value), own: &Target<'_>) -> Vec<String> {
    let our_name = format!("{} ({our_file})", find::named(ours));
    let others = manifests.iter().filter(|(_, other)| other["kind"] == EXTENSIONS && !is_same(other, ours));
    let mut found = Vec::new();
    for (file, other) in others {
        let place = format!("{file}, {}", find::named(other));
        let targets = targets(other, manifests);
        if targets.contains(own) {
            found.push(format!(
                "{place}: is for the same {} as {our_name}, and Envoy Gateway takes the older of the two alone: put the extensions of both \
                 into one",
                own.shown()
            ));
        } else if let Some(below) = targets.iter().find(|of| own.is_above(of, manifests)) {
            if !loads_us(other) && other["spec"]["mergeType"].is_null() && steers(ours, below) {
                found.push(format!(
                    "{place}: takes {our_name} out of force for {}, where clients then steer: put its extensions into that one as well",
                    below.shown()
                ));
            }
        } else if ours["spec"]["mergeType"].is_null() && targets.iter().any(|of| of.is_above(own, manifests))
        {
            found.push(format!(
                "{place}: is out of force for {} while {our_name} is there, which is for the {} alone: put its extensions into that one \
                 as well",
                own.shown(),
                if own.section.is_some() { "rule" } else { "route" }
            ));
        }
    }
    found
}

/// Another BackendTrafficPolicy beside the one that follows the header.
fn traffic(manifests: Manifests<'_>, (_, plugin): &(String, Value), own: &Target<'_>) -> Vec<String> {
    let policies = || manifests.iter().filter(|(_, manifest)| manifest["kind"] == TRAFFIC);
    let follows = |manifest: &Value| !manifest["spec"]["loadBalancer"]["endpointOverride"].is_null();
    let same = |manifest: &Value| targets(manifest, manifests).contains(own);
    let Some((our_file, ours)) = policies().find(|(_, policy)| follows(policy) && same(policy)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (file, other) in policies().filter(|(_, other)| !is_same(other, ours)) {
        let place = format!("{file}, {}", find::named(other));
        let our_name = format!("{} ({our_file})", find::named(ours));
        let below = targets(other, manifests).into_iter().find(|of| own.is_above(of, manifests));
        if same(other) {
            found.push(format!(
                "{place}: is for the same {} as {our_name}, and Envoy Gateway takes the older of the two alone: put both into one",
                own.shown()
            ));
        } else if let Some(below) = below
            && !follows(other)
            && other["spec"]["mergeType"].is_null()
            && steers(plugin, &below)
        {
            found.push(format!(
                "{place}: takes {our_name} out of force for {}, so that nothing is steered there: give it a loadBalancer.endpointOverride \
                 as well",
                below.shown()
            ));
        }
    }
    found
}

/// A native module that no EnvoyProxy among these has under the policy's name.
fn unregistered(manifests: Manifests<'_>, (file, ours): &(String, Value)) -> Vec<String> {
    let entries =
        |manifest: &'_ Value, list: &str| manifest["spec"][list].as_array().cloned().unwrap_or_default();
    let proxies = manifests.iter().filter(|(_, manifest)| manifest["kind"] == "EnvoyProxy");
    let registered: Vec<Value> = proxies.flat_map(|(_, proxy)| entries(proxy, "dynamicModules")).collect();
    let strange = entries(ours, "dynamicModule").into_iter().filter(|module| {
        !registered.is_empty() && !registered.iter().any(|entry| entry["name"] == module["name"])
    });
    let line = |module: Value| {
        format!(
            "{file}, {}: no EnvoyProxy has a module {} among its dynamicModules, and Envoy Gateway answers 500 to every request of the route",
            find::named(ours),
            module["name"]
        )
    };
    strange.map(line).collect()
}

/// An EnvoyPatchPolicy for clusters of a route whose Gateway is in another namespace or merged with others.
fn patches(manifests: Manifests<'_>) -> Vec<String> {
    let ours = manifests.iter().filter(|(_, manifest)| {
        manifest["kind"] == PATCHES && manifest.to_string().to_lowercase().contains(NAME)
    });
    let mut found = Vec::new();
    for (file, policy) in ours {
        let of = &policy["spec"]["targetRef"];
        let (Some(own), Some(gateway)) = (namespace(policy), of["name"].as_str()) else { continue };
        if of["kind"] == "Gateway" && class_of_merged(gateway, own, manifests) {
            found.push(format!(
                "{file}, {}: is for a Gateway of those that an EnvoyProxy merges, and Envoy Gateway passes it over without a condition: let it be \
                 for the GatewayClass",
                find::named(policy)
            ));
            continue;
        }
        let patched = policy["spec"]["jsonPatches"].as_array().into_iter().flatten();
        let patched: Vec<&str> = patched.filter_map(|patch| patch["name"].as_str()).collect();
        let routes = manifests.iter().filter_map(|(_, manifest)| Target::of_route(manifest));
        for route in routes.filter(|route| patched.iter().any(|name| name.starts_with(&route.clusters()))) {
            let gateway = Target { kind: "Gateway", namespace: Some(own), name: gateway, section: None };
            if of["kind"] == "Gateway" && !gateway.is_above(&route, manifests) {
                found.push(format!(
                    "{file}, {}: is for the Gateway {} of its own namespace {own}, which is not that of {}, and Envoy Gateway passes it over \
                     without a condition: put it into the Gateway's namespace",
                    find::named(policy),
                    gateway.name,
                    route.shown()
                ));
            }
        }
    }
    found
}

/// Whether the EnvoyProxy of this Gateway's class merges the class' Gateways.
fn class_of_merged(gateway: &str, within: &str, manifests: Manifests<'_>) -> bool {
    let find = |kind: &str, name: &Value, within: Option<&str>| {
        let is_it = |manifest: &Value| {
            manifest["kind"] == kind
                && manifest["metadata"]["name"] == *name
                && targets::meet(namespace(manifest), within)
        };
        manifests.iter().map(|(_, manifest)| manifest).find(|manifest| is_it(manifest))
    };
    let class = find("Gateway", &Value::from(gateway), Some(within))
        .map(|gateway| &gateway["spec"]["gatewayClassName"]);
    let of = class
        .and_then(|class| find("GatewayClass", class, None))
        .map(|class| &class["spec"]["parametersRef"]);
    let proxy = of.and_then(|of| find("EnvoyProxy", &of["name"], of["namespace"].as_str()));
    proxy.is_some_and(|proxy| proxy["spec"]["mergeGateways"] == true)
}

/// Whether these are one object, perhaps in two files.
fn is_same(one: &Value, other: &Value) -> bool {
    one["metadata"]["name"] == other["metadata"]["name"] && targets::meet(namespace(one), namespace(other))
}

/// Whether a policy loads the filter or the native module.
fn loads_us(manifest: &Value) -> bool {
    let loads = |list: &str| manifest["spec"][list].to_string().to_lowercase().contains(NAME);
    manifest["kind"] == EXTENSIONS && (loads("wasm") || loads("dynamicModule"))
}

/// Whether a policy's filter balances clusters of this route.
fn steers(policy: &Value, route: &Target<'_>) -> bool {
    let filters = ["wasm", "dynamicModule"].map(|list| policy["spec"][list].as_array().into_iter().flatten());
    let upstreams =
        filters.into_iter().flatten().filter_map(|filter| filter["config"]["upstreams"].as_array());
    let clusters = upstreams.flatten().filter_map(|upstream| upstream["cluster"].as_str());
    let of_route = route.clusters();
    let mut begins = clusters.map(|cluster| cluster.split('*').next().unwrap_or_default());
    begins.any(|begins| {
        route.namespace.is_none() || begins.starts_with(&of_route) || of_route.starts_with(begins)
    })
}

#[cfg(test)]
mod tests;
