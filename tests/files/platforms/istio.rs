//! The proxy configuration that istiod makes of WasmPlugin, TrafficExtension, DestinationRule and EnvoyFilter, as far
//! as the shipped files use them.

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, bail, ensure};

use super::proxy::{self, Place};
use super::{Shipped, files_of};
use crate::envoy;

const ROUTER: &str = "envoy.filters.http.router";
/// Prefix of the filter names that Istio 1.30 gives to a plugin of either kind.
const RESOURCES: &str = "extensions.istio.io/trafficextension/";
/// Prefix and suffix around namespace and name in the filter names for a `WasmPlugin`, in Istio 1.30, 1.26 to 1.29, and
/// older ones.
const OF_A_WASM_PLUGIN: [(&str, &str); 3] = [
    (RESOURCES, "~istio-translated-wasmplugin"),
    ("extensions.istio.io/wasmplugin/", ""),
    ("extenstions.istio.io/wasmplugin/", ""),
];

/// The files, each of which makes a complete proxy.
pub fn complete() -> Result<Vec<Shipped>> {
    files_of("istio")
}

/// The plugin's configuration, from whichever of the two kinds.
pub fn configuration(file: &Shipped) -> Result<&Value> {
    let plugin = file.kind("WasmPlugin").into_iter().chain(file.kind("TrafficExtension")).next();
    let spec = &plugin.context("no plugin")?["spec"];
    Ok(if spec["wasm"].is_object() { &spec["wasm"]["pluginConfig"] } else { &spec["pluginConfig"] })
}

/// The proxy's configuration, with `configuration` in the plugin.
pub fn proxy(file: &Shipped, configuration: &Value, place: &Place) -> Result<Value> {
    with_plugin(file, configuration, place, |plugin| {
        // Whichever way it was delivered, Envoy has it.
        drop(plugin.as_object_mut().context("the plugin")?.remove("config_discovery"));
        Ok(())
    })
}

/// A proxy that gets its plugin from the watched file `discovered`, and the contents that Istio would deliver there.
pub fn discovering(file: &Shipped, place: &Place, discovered: &str) -> Result<(Value, Value)> {
    let mut delivered = Value::Null;
    let config = with_plugin(file, configuration(file)?, place, |plugin| {
        delivered = json!({
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": plugin["name"],
            "typed_config": plugin.as_object_mut().and_then(|plugin| plugin.remove("typed_config")),
        });
        let unpatched = json!({ "type_urls": [proxy::WASM] });
        let discovery =
            plugin.as_object_mut().context("the plugin")?.entry("config_discovery").or_insert(unpatched);
        discovery["config_source"] =
            json!({ "path_config_source": { "path": discovered }, "resource_api_version": "V3" });
        Ok(())
    })?;
    Ok((config, delivered))
}

fn with_plugin(
    file: &Shipped,
    configuration: &Value,
    place: &Place,
    finish: impl FnOnce(&mut Value) -> Result<()>,
) -> Result<Value> {
    let (context, name) = cluster_of(file, configuration)?;
    let mut web = proxy::cluster(&name, &place.endpoints);
    web["lb_policy"] = json!("LEAST_REQUEST");
    web["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http_protocol_options": {} }
        }
    });
    let service = name.rsplit('|').next().context("a cluster of Istio's")?;
    let rules = file.kind("DestinationRule");
    let rule = rules.iter().find(|rule| rule["spec"]["host"] == service);
    if let Some(rule) = rule {
        ruled(&mut web, &rule["spec"]["trafficPolicy"]);
    }
    let mut filters = vec![plugin(file, configuration)?];
    for patch in file
        .kind("EnvoyFilter")
        .iter()
        .flat_map(|filter| filter["spec"]["configPatches"].as_array().cloned().unwrap_or_default())
    {
        apply(&patch, &context, &name, &mut filters, &mut web)?;
    }
    let is_plugin =
        |filter: &&mut Value| filter["name"].as_str().is_some_and(|name| name.contains(RESOURCES));
    finish(filters.iter_mut().find(is_plugin).context("no plugin")?)?;
    let prometheus = configuration["prometheus"]["cluster"].as_str().context("prometheus")?;
    let clusters = [
        web,
        proxy::cluster(prometheus, &[place.prometheus]),
        proxy::cluster("prometheus_stats", &[place.admin]),
    ];
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": name } });
    Ok(proxy::bootstrap(place, &route, &filters, &clusters))
}

/// Applies a user's own DestinationRule to the cluster, as far as it affects whether `override_host` is accepted.
fn ruled(cluster: &mut Value, policy: &Value) {
    let balancer = &policy["loadBalancer"];
    let locality = &balancer["localityLbSetting"];
    let spreads = ["distribute", "failover", "failoverPriority"].iter().any(|name| locality[name].is_array());
    // Only with outlier detection, and never without a setting:
    // https://istio.io/latest/docs/tasks/traffic-management/locality-load-balancing/
    if policy["outlierDetection"].is_object() && spreads {
        cluster["common_lb_config"] = json!({ "locality_weighted_lb_config": {} });
    }
    if balancer["simple"] == "PASSTHROUGH" {
        cluster["type"] = json!("ORIGINAL_DST");
        cluster["lb_policy"] = json!("CLUSTER_PROVIDED");
        cluster.as_object_mut().into_iter().for_each(|cluster| drop(cluster.remove("load_assignment")));
    }
}

/// The context of the patches, and the one cluster that they and the plugin are about.
fn cluster_of(file: &Shipped, configuration: &Value) -> Result<(String, String)> {
    let name = configuration["upstreams"][0]["cluster"].as_str().context("cluster")?.to_owned();
    let filters = file.kind("EnvoyFilter");
    let context = filters[0]["spec"]["configPatches"][0]["match"]["context"].as_str().context("context")?;
    ensure!(matches!(context, "SIDECAR_OUTBOUND" | "GATEWAY"), "{context}");
    Ok((context.to_owned(), name))
}

fn plugin(file: &Shipped, configuration: &Value) -> Result<Value> {
    let manifest =
        file.kind("WasmPlugin").into_iter().chain(file.kind("TrafficExtension")).next().context("plugin")?;
    let spec = &manifest["spec"];
    ensure!(spec["phase"] == "AUTHN", "only at the front does no other filter see a spoofed header");
    let wasm = if spec["wasm"].is_object() { &spec["wasm"] } else { spec };
    let name = resources(manifest)?.swap_remove(0);
    let root_id = wasm["pluginName"].as_str().context("pluginName")?;
    let policy = wasm["failStrategy"].as_str().context("failStrategy")?;
    let mut filter = proxy::plugin(&name, root_id, "", configuration, policy);
    let mut environment = json!({});
    for variable in wasm["vmConfig"]["env"].as_array().into_iter().flatten() {
        environment[variable["name"].as_str().context("the name of a variable")?] = variable["value"].clone();
    }
    filter["config"]["vm_config"]["environment_variables"] = json!({ "key_values": environment });
    Ok(json!({ "name": name, "typed_config": filter }))
}

/// The filter names that Istio's versions give to a plugin, the latest one's first.
fn resources(plugin: &Value) -> Result<Vec<String>> {
    let metadata = &plugin["metadata"];
    let name = metadata["name"].as_str().context("name")?;
    let name = format!("{}.{name}", metadata["namespace"].as_str().context("namespace")?);
    let around = if plugin["kind"] == "WasmPlugin" { &OF_A_WASM_PLUGIN[..] } else { &[(RESOURCES, "")] };
    Ok(around.iter().map(|(before, after)| format!("{before}{name}{after}")).collect())
}

/// Applies one patch; an error if it would have no effect.
fn apply(
    patch: &Value,
    context: &str,
    cluster: &str,
    filters: &mut Vec<Value>,
    web: &mut Value,
) -> Result<()> {
    let (wanted, value) = (&patch["match"], &patch["patch"]["value"]);
    ensure!(wanted["context"] == context, "a patch for another context: {patch}");
    match (patch["applyTo"].as_str(), patch["patch"]["operation"].as_str()) {
        (Some("CLUSTER"), Some("MERGE")) => {
            let of = &wanted["cluster"];
            let named =
                format!("outbound|{}||{}", of["portNumber"], of["service"].as_str().context("service")?);
            ensure!(named == cluster, "the patch is for {named}, the plugin for {cluster}");
            merge(web, value);
        }
        (Some("HTTP_FILTER"), Some("INSERT_BEFORE")) => {
            let filter = &wanted["listener"]["filterChain"]["filter"];
            ensure!(filter["name"] == "envoy.filters.network.http_connection_manager", "{filter}");
            ensure!(filter["subFilter"]["name"] == ROUTER, "{filter}");
            // The router is last, and not in this list.
            filters.push(value.clone());
        }
        (Some("HTTP_FILTER"), Some("INSERT_FIRST")) => {
            let filter = &wanted["listener"]["filterChain"]["filter"];
            ensure!(filter["name"] == "envoy.filters.network.http_connection_manager", "{filter}");
            filters.insert(0, value.clone());
        }
        (Some("HTTP_FILTER"), Some("REPLACE")) => {
            let name = &wanted["listener"]["filterChain"]["filter"]["subFilter"]["name"];
            ensure!(
                value["name"] == *name,
                "a filter of another name would be asked for another configuration"
            );
            if let Some(filter) = filters.iter_mut().find(|filter| filter["name"] == *name) {
                filter["config_discovery"] = value["config_discovery"].clone();
            }
        }
        other => bail!("this test does not know {other:?}"),
    }
    Ok(())
}

fn merge(into: &mut Value, value: &Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(value)) => {
            for (name, value) in value {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value.clone(),
    }
}

#[test]
fn every_file_makes_a_proxy_that_envoy_loads_with_the_filter_in_it() -> Result<()> {
    let files = complete()?;
    ensure!(files.len() >= 5, "{}", files.len());
    for file in files {
        proxy::loads(&file, &proxy(&file, configuration(&file)?, &Place::default())?)?;
    }
    Ok(())
}

/// Istio chooses the filter's name, and older versions another one: each file has all of them.
#[test]
fn something_stands_in_the_plugins_place_whatever_istio_calls_it() -> Result<()> {
    for file in complete()? {
        let filters = file.kind("EnvoyFilter");
        let patches = filters
            .iter()
            .flat_map(|filter| filter["spec"]["configPatches"].as_array().into_iter().flatten());
        let replaced: Vec<&Value> = patches
            .filter(|patch| patch["patch"]["operation"] == "REPLACE")
            .map(|patch| &patch["patch"]["value"]["name"])
            .collect();
        let plugin = file
            .kind("WasmPlugin")
            .into_iter()
            .chain(file.kind("TrafficExtension"))
            .next()
            .context("plugin")?;
        let names = resources(plugin)?;
        ensure!(replaced.iter().copied().eq(names.iter()), "{}: {replaced:?}, not {names:?}", file.name());
    }
    Ok(())
}

/// Users have their own DestinationRules. With any of them, the files that leave clusters alone load; where Envoy
/// refuses the others, `evenkeel check` reports it.
#[test]
fn a_users_own_rule_costs_no_cluster_where_clusters_are_left_alone() -> Result<()> {
    let failover = json!([{ "from": "a", "to": "b" }]);
    let locality = |name: &str, value: &Value| {
        json!({ "outlierDetection": { "consecutive5xxErrors": 5 },
            "loadBalancer": { "localityLbSetting": { "enabled": true, name: value } } })
    };
    let policies = [
        locality("failover", &failover),
        locality("distribute", &json!([{ "from": "a/*", "to": { "a/*": 80, "b/*": 20 } }])),
        locality("failoverPriority", &json!(["topology.kubernetes.io/region"])),
        json!({ "loadBalancer": { "simple": "PASSTHROUGH" } }),
    ];
    let mut lost = 0;
    for policy in &policies {
        // Gateways differ only in the context.
        for mut file in complete()?.into_iter().filter(|file| !file.name().contains("gateway-")) {
            let rule = json!({ "kind": "DestinationRule", "metadata": { "name": "theirs", "namespace": "shop" },
                "spec": { "host": "web.shop.svc.cluster.local", "trafficPolicy": policy } });
            file.manifests.push(rule);
            let loaded =
                envoy::validate(&proxy(&file, configuration(&file)?, &Place::default())?.to_string());
            let texts: Vec<String> = file.manifests.iter().map(ToString::to_string).collect();
            let said = evenkeel_cli::check::documents(&format!("---\n{}", texts.join("\n---\n")));
            if file.name().contains("override-host") {
                assert!(loaded.is_err(), "{}: {policy}", file.name());
                assert!(said.complaints.contains("DestinationRule theirs"), "{}", said.complaints);
                lost += 1;
            } else {
                loaded.with_context(|| format!("{}: {policy}", file.name()))?;
                assert_eq!(said.complaints, "", "{}: {policy}", file.name());
            }
        }
    }
    ensure!(lost == policies.len(), "{lost}");
    Ok(())
}

/// `stateful_session` writes the address of the pod into every response, and the plugin that takes it off may be missing.
#[test]
fn the_guard_hides_what_stateful_session_writes_into_responses() -> Result<()> {
    let remove = json!([{ "remove": "x-evenkeel-endpoint" }]);
    let mut guarded = 0;
    for file in complete()? {
        let filters = file.kind("EnvoyFilter");
        let patches = filters
            .iter()
            .flat_map(|filter| filter["spec"]["configPatches"].as_array().into_iter().flatten());
        let values: Vec<&Value> = patches.map(|patch| &patch["patch"]["value"]).collect();
        let named = |name: &str| values.iter().find(|value| value["name"] == name);
        let mutations = &named("evenkeel.guard").context("the guard")?["typed_config"]["mutations"];
        ensure!(mutations["request_mutations"] == remove, "{}: {mutations}", file.name());
        if named("evenkeel.session").is_some() {
            ensure!(mutations["response_mutations"] == remove, "{}: {mutations}", file.name());
            guarded += 1;
        }
    }
    ensure!(guarded >= 3, "{guarded}");
    Ok(())
}

#[test]
fn selectors_of_a_file_agree() -> Result<()> {
    for file in complete()? {
        let plugin = file
            .kind("WasmPlugin")
            .into_iter()
            .chain(file.kind("TrafficExtension"))
            .next()
            .context("plugin")?;
        for filter in file.kind("EnvoyFilter") {
            assert_eq!(filter["metadata"]["namespace"], plugin["metadata"]["namespace"], "{}", file.name());
            assert_eq!(
                filter["spec"]["workloadSelector"]["labels"],
                plugin["spec"]["selector"]["matchLabels"],
                "{}",
                file.name()
            );
        }
    }
    Ok(())
}
