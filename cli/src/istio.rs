//! Collisions in Istio: rules and services for a host whose cluster has its policy replaced by evenkeel.
//!
//! Istio gives a cluster `locality_weighted_lb_config` for a rule with `distribute`, or with `failover` or
//! `failoverPriority` beside outlier detection, and from 1.25 on for a service with a traffic distribution; and the type
//! ORIGINAL_DST for `PASSTHROUGH` and, except in gateways, for headless services. Envoy refuses a cluster that has either
//! beside `override_host`.

use serde_json::Value;

use crate::bootstrap::member;
use crate::find;

mod names;

/// Two manifests that do not work together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    /// The message: names, consequence and remedy.
    pub text: String,
    /// Whether requests are lost, or go to another pod than their client has named.
    pub costs_requests: bool,
}

/// Whether a document of this kind can collide.
pub fn matters(document: &Value) -> bool {
    let kinds = ["DestinationRule", "ServiceEntry", "Service", "Namespace", "EnvoyFilter"];
    kinds.iter().any(|kind| document["kind"] == *kind)
}

/// A cluster whose policy an EnvoyFilter replaces, or a plugin's choice precedes.
#[derive(Clone)]
struct Replaced<'d> {
    filter: String,
    /// Whether the cluster keeps its policy, and `stateful_session` follows the plugin's choice.
    by_session: bool,
    /// Whether the plugin keeps keys on their endpoints itself.
    keyed: bool,
    /// Whether the proxies are gateways, where headless services have clusters like any other's.
    at_gateway: bool,
    service: Option<&'d str>,
    port: Option<u64>,
    subset: Option<&'d str>,
}

/// The collisions among these manifests, each given with the name of its file.
pub fn collisions(manifests: &[(String, Value)]) -> Vec<Collision> {
    let loaded = loaded(manifests);
    let replaced = manifests.iter().flat_map(|(file, manifest)| replaces(file, manifest));
    let replaced: Vec<Replaced<'_>> = replaced.chain(loaded.iter().flat_map(steers)).collect();
    let mut found = names::misnamed(manifests);
    for (file, manifest) in manifests {
        let place = format!("{file}, {}", find::named(manifest));
        for cluster in &replaced {
            match manifest["kind"].as_str() {
                Some("DestinationRule") => rule(&place, manifest, cluster, &mut found),
                Some("Service") if named_like(manifest, cluster) => {
                    if manifest["spec"]["clusterIP"] == "None" && !cluster.at_gateway {
                        found.push(headless(&place, cluster));
                    } else {
                        found.extend(distributed(&place, manifest, cluster, manifests));
                    }
                }
                Some("ServiceEntry") if !cluster.by_session => {
                    entry(&place, manifest, cluster, manifests, &mut found);
                }
                Some("Namespace") if holds(manifest, cluster) => {
                    found.extend(distributed(&place, manifest, cluster, manifests));
                }
                _ => {}
            }
        }
    }
    found
}

fn replaces<'d>(file: &str, manifest: &'d Value) -> Vec<Replaced<'d>> {
    if manifest["kind"] != "EnvoyFilter" {
        return Vec::new();
    }
    let patches = manifest["spec"]["configPatches"].as_array().into_iter().flatten();
    let ours = patches.filter(|patch| {
        let policy = member(&patch["patch"]["value"], "load_balancing_policy").to_string();
        patch["applyTo"] == "CLUSTER" && policy.contains("override_host")
    });
    ours.filter_map(|patch| {
        let wanted = &patch["match"]["cluster"];
        let filter = format!("{} ({file})", find::named(manifest));
        // A name is exact, and Istio heeds nothing beside it.
        if let Some(name) = wanted["name"].as_str().filter(|name| !name.is_empty()) {
            return of_name(filter, name);
        }
        Some(Replaced {
            filter,
            by_session: false,
            keyed: false,
            at_gateway: patch["match"]["context"] == "GATEWAY",
            service: wanted["service"].as_str(),
            port: wanted["portNumber"].as_u64(),
            subset: wanted["subset"].as_str(),
        })
    })
    .collect()
}

/// The cluster of a name as Istio gives it, `outbound|port|subset|host`; no rule applies to any other.
fn of_name(filter: String, name: &str) -> Option<Replaced<'_>> {
    let parts: Vec<&str> = name.split('|').collect();
    let ["outbound", port, subset, host] = parts[..] else { return None };
    Some(Replaced {
        filter,
        by_session: false,
        keyed: false,
        at_gateway: false,
        service: Some(host),
        port: Some(port.parse().ok()?),
        // A plugin's pattern for all subsets.
        subset: Some(subset).filter(|subset| *subset != "*"),
    })
}

/// A plugin's configuration in a manifest, which may be an EnvoyFilter that loads the plugin itself.
struct Loaded {
    filter: String,
    configuration: Value,
    at_gateway: bool,
}

fn loaded(manifests: &[(String, Value)]) -> Vec<Loaded> {
    let mut all = Vec::new();
    for (file, manifest) in manifests {
        let at_gateway = match manifest["kind"].as_str() {
            Some("WasmPlugin" | "TrafficExtension") => is_at_gateway(manifest, manifests),
            Some("EnvoyFilter") => patches_gateways(manifest),
            _ => continue,
        };
        let filter = format!("{} ({file})", find::named(manifest));
        let configurations = find::configurations(manifest).into_iter();
        all.extend(configurations.map(|configuration| Loaded {
            filter: filter.clone(),
            configuration,
            at_gateway,
        }));
    }
    all
}

/// The clusters that a plugin steers without replacing their policy.
fn steers(loaded: &Loaded) -> Vec<Replaced<'_>> {
    let Loaded { filter, configuration, at_gateway } = loaded;
    if configuration["steering"]["via"] != "stateful_session" || configuration["mode"] == "observe" {
        return Vec::new();
    }
    let upstreams = configuration["upstreams"].as_array().into_iter().flatten();
    let steered = upstreams.filter_map(|upstream| {
        let cluster = of_name(filter.clone(), upstream["cluster"].as_str()?)?;
        let keyed = !upstream["affinity"].is_null();
        Some(Replaced { by_session: true, keyed, at_gateway: *at_gateway, ..cluster })
    });
    steered.collect()
}

/// Whether a plugin is for gateways: it says so, or its EnvoyFilter does, which is for the same pods.
fn is_at_gateway(plugin: &Value, manifests: &[(String, Value)]) -> bool {
    let spec = &plugin["spec"];
    let mut targets = spec["targetRefs"].as_array().into_iter().flatten().chain(spec.get("targetRef"));
    let beside = |filter: &Value| {
        filter["kind"] == "EnvoyFilter"
            && filter["metadata"]["namespace"] == plugin["metadata"]["namespace"]
            && filter["spec"]["workloadSelector"]["labels"] == spec["selector"]["matchLabels"]
    };
    targets.any(|target| target["kind"] == "Gateway")
        || manifests.iter().any(|(_, filter)| beside(filter) && patches_gateways(filter))
}

fn patches_gateways(filter: &Value) -> bool {
    let patches = filter["spec"]["configPatches"].as_array();
    patches.is_some_and(|patches| patches.iter().any(|patch| patch["match"]["context"] == "GATEWAY"))
}

fn headless(place: &str, cluster: &Replaced<'_>) -> Collision {
    if !cluster.by_session {
        return lost(place, "is headless, so that its cluster is ORIGINAL_DST", cluster);
    }
    Collision {
        text: format!(
            "{place}: is headless, so that clients name the pod, and {} sends their requests to another one: leave this host to Istio",
            cluster.filter
        ),
        costs_requests: true,
    }
}

fn lost(place: &str, why: &str, cluster: &Replaced<'_>) -> Collision {
    Collision {
        text: format!(
            "{place}: {why}, which Envoy refuses beside the override_host of {}: a proxy that starts has no such cluster and answers \
             503. Take that patch out and use steering.via stateful_session, which leaves clusters alone \
             (envoy/istio/*-stateful-session.yaml)",
            cluster.filter
        ),
        costs_requests: true,
    }
}

/// Checks a rule, which may set a policy for the whole host, a port or a subset, each of which becomes a cluster.
fn rule(place: &str, manifest: &Value, cluster: &Replaced<'_>, found: &mut Vec<Collision>) {
    let spec = &manifest["spec"];
    let Some(host) = spec["host"].as_str() else { return };
    if !is_for(host, manifest, cluster.service) {
        return;
    }
    let whole = &spec["trafficPolicy"];
    let mut policies = at_ports("", whole, cluster.port);
    for subset in spec["subsets"].as_array().into_iter().flatten() {
        let name = subset["name"].as_str().unwrap_or_default();
        if cluster.subset.is_some_and(|wanted| wanted != name) {
            continue;
        }
        // A subset inherits from the host what it does not set itself.
        let mut merged = whole.as_object().cloned().unwrap_or_default();
        merged.extend(subset["trafficPolicy"].as_object().cloned().unwrap_or_default());
        policies.extend(at_ports(&format!(" for the subset {name}"), &Value::Object(merged), cluster.port));
    }
    let mut said: Vec<String> = Vec::new();
    for (place_in_rule, policy) in policies {
        let found_in = match cluster.by_session {
            true => hashing(&policy).filter(|_| !cluster.keyed),
            false => refused(&policy),
        };
        let Some((what, costs_requests)) = found_in else { continue };
        let collision = if costs_requests {
            lost(place, &format!("has {what}{place_in_rule}"), cluster)
        } else {
            let text = format!(
                "{place}: has {what}{place_in_rule}, which {}{} takes the place of: sessions do not stay. Give the \
                 upstream an \"affinity\", or leave this host to Istio",
                if cluster.by_session { "the choice of " } else { "the policy of " },
                cluster.filter
            );
            Collision { text, costs_requests }
        };
        if !said.contains(&collision.text) {
            said.push(collision.text.clone());
            found.push(collision);
        }
    }
}

/// The policy, or those of the ports that the patch is for: a port's settings replace all others.
fn at_ports(place: &str, policy: &Value, port: Option<u64>) -> Vec<(String, Value)> {
    let mut policies = Vec::new();
    let mut own = false;
    for settings in policy["portLevelSettings"].as_array().into_iter().flatten() {
        let number = settings["port"]["number"].as_u64();
        if port.is_none() || number == port {
            let number = number.map(|number| number.to_string()).unwrap_or_default();
            policies.push((format!("{place} at port {number}"), settings.clone()));
            own = port.is_some();
        }
    }
    if !own {
        policies.push((place.to_owned(), policy.clone()));
    }
    policies
}

/// The part of a policy that collides with the patch, and whether it costs the cluster.
fn refused(policy: &Value) -> Option<(&'static str, bool)> {
    let balancer = &policy["loadBalancer"];
    let locality = &balancer["localityLbSetting"];
    let on = locality["enabled"] != false;
    let has = |name: &str| on && !locality[name].is_null();
    let detects = !policy["outlierDetection"].is_null();
    if balancer["simple"] == "PASSTHROUGH" {
        Some(("PASSTHROUGH", true))
    } else if has("distribute") {
        Some(("localityLbSetting.distribute", true))
    } else if has("failover") && detects {
        Some(("outlierDetection and localityLbSetting.failover", true))
    } else if has("failoverPriority") && detects {
        Some(("outlierDetection and localityLbSetting.failoverPriority", true))
    } else if locality
        .as_object()
        .is_some_and(|all| on && all.keys().any(|key| key.to_lowercase().contains("zone")))
    {
        Some(("zone-aware balancing", true))
    } else {
        hashing(policy)
    }
}

/// A policy that keeps a session on its pod, which evenkeel's choice does not.
fn hashing(policy: &Value) -> Option<(&'static str, bool)> {
    (!policy["loadBalancer"]["consistentHash"].is_null()).then_some(("consistentHash", false))
}

fn entry(
    place: &str,
    manifest: &Value,
    cluster: &Replaced<'_>,
    manifests: &[(String, Value)],
    found: &mut Vec<Collision>,
) {
    let spec = &manifest["spec"];
    let mut hosts = spec["hosts"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if !hosts.any(|host| is_for(host, manifest, cluster.service)) {
        return;
    }
    // The default resolution is NONE.
    let resolution = spec["resolution"].as_str().unwrap_or("NONE");
    if resolution == "DYNAMIC_DNS" || resolution == "NONE" && !cluster.at_gateway {
        let why = format!("has the resolution {resolution}, so that its cluster has a policy of its own");
        found.push(lost(place, &why, cluster));
    } else {
        found.extend(distributed(place, manifest, cluster, manifests));
    }
}

/// The annotation that says the same as a service's `trafficDistribution`, of a service or its namespace.
const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// A traffic distribution, which Istio turns into failover by locality without outlier detection, too.
fn distributed(
    place: &str,
    manifest: &Value,
    cluster: &Replaced<'_>,
    manifests: &[(String, Value)],
) -> Option<Collision> {
    let wanted =
        [&manifest["spec"]["trafficDistribution"], &manifest["metadata"]["annotations"][DISTRIBUTION]];
    let wanted = wanted.into_iter().filter_map(Value::as_str).find(|wanted| is_near(wanted))?;
    // A rule with locality settings of its own, if only to switch them off, counts instead.
    let is_ruled = |manifest: &Value| {
        let host = manifest["spec"]["host"].as_str().filter(|_| manifest["kind"] == "DestinationRule");
        let policies = at_ports("", &manifest["spec"]["trafficPolicy"], cluster.port);
        host.is_some_and(|host| is_for(host, manifest, cluster.service))
            && policies.iter().all(|(_, policy)| !policy["loadBalancer"]["localityLbSetting"].is_null())
    };
    let ruled = cluster.by_session || manifests.iter().any(|(_, manifest)| is_ruled(manifest));
    let why = format!(
        "has the traffic distribution {wanted}, so that Istio from 1.25 on balances by locality unless a DestinationRule for the host has a \
         localityLbSetting"
    );
    (!ruled).then(|| lost(place, &why, cluster))
}

/// Whether Istio knows the value; in annotations its case does not matter.
fn is_near(value: &str) -> bool {
    ["PreferClose", "PreferSameZone", "PreferSameNode"].iter().any(|known| value.eq_ignore_ascii_case(known))
}

/// Whether the cluster's service may be in this namespace.
fn holds(namespace: &Value, cluster: &Replaced<'_>) -> bool {
    let within = |service: &str| service.split('.').nth(1) == namespace["metadata"]["name"].as_str();
    cluster.service.is_none_or(within)
}

fn named_like(service: &Value, cluster: &Replaced<'_>) -> bool {
    service["metadata"]["name"].as_str().is_some_and(|name| is_for(name, service, cluster.service))
}

/// Whether a manifest's `host` is this service; a patch without a service applies to all.
fn is_for(host: &str, manifest: &Value, service: Option<&str>) -> bool {
    let Some(service) = service else { return true };
    if !host.contains(['.', '*']) {
        // A name without a dot belongs to the manifest's own namespace, which may be given where it is applied.
        let namespace = manifest["metadata"]["namespace"].as_str();
        let mut parts = service.split('.');
        let [name, within, kind] = [parts.next(), parts.next(), parts.next()];
        return name == Some(host) && kind == Some("svc") && namespace.is_none_or(|own| within == Some(own));
    }
    match host.strip_prefix('*') {
        Some(ending) => service.ends_with(ending),
        // The domain of the Kubernetes cluster may differ or be absent.
        None => service == host || service.strip_prefix(host).is_some_and(|rest| rest.starts_with(".svc.")),
    }
}

#[cfg(test)]
mod tests;
