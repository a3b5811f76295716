//! The proxy configuration that Envoy Gateway makes of EnvoyExtensionPolicy and BackendTrafficPolicy.

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, ensure};

use super::proxy::{self, Place};
use super::{Shipped, files_of};

/// The files that load the Wasm filter; the others load the native module.
pub fn files() -> Result<Vec<Shipped>> {
    let with_the_filter = |file: &Shipped| !file.kind("EnvoyExtensionPolicy")[0]["spec"]["wasm"].is_null();
    Ok(files_of("envoy-gateway")?.into_iter().filter(with_the_filter).collect())
}

pub fn configuration(file: &Shipped) -> Result<&Value> {
    let policies = file.kind("EnvoyExtensionPolicy");
    Ok(&policies.first().context("no EnvoyExtensionPolicy")?["spec"]["wasm"][0]["config"])
}

/// The proxy's configuration, with `configuration` in the plugin: the filter is disabled in the listener and enabled
/// for the policy's routes, and the override wraps the load-balancing policy of the route rule's cluster.
pub fn proxy(file: &Shipped, configuration: &Value, place: &Place) -> Result<Value> {
    let policy = file.kind("EnvoyExtensionPolicy")[0];
    let wasm = &policy["spec"]["wasm"][0];
    let route = file
        .kind("HTTPRoute")
        .into_iter()
        .find(|route| route["metadata"]["name"] == policy["spec"]["targetRefs"][0]["name"]);
    let route = &route.context("the route that the policy is for")?["metadata"];
    let text = |value: &Value| value.as_str().map(str::to_owned).context("text");
    let (namespace, name) = (text(&route["namespace"])?, text(&route["name"])?);
    let cluster = format!("httproute/{namespace}/{name}/rule/0");
    let id = format!("envoyextensionpolicy/{namespace}/{}/wasm/0", text(&policy["metadata"]["name"])?);
    let filter = format!("envoy.filters.http.wasm/{id}");
    let failure = if wasm["failOpen"] == true { "FAIL_OPEN" } else { "FAIL_CLOSED" };
    let plugin = proxy::plugin(&text(&wasm["name"])?, &text(&wasm["rootID"])?, &id, configuration, failure);
    let filters = [json!({ "name": filter, "disabled": true, "typed_config": plugin })];

    let traffic = file
        .kind("BackendTrafficPolicy")
        .into_iter()
        .find(|traffic| traffic["spec"]["targetRefs"] == policy["spec"]["targetRefs"]);
    let traffic = &traffic.context("a BackendTrafficPolicy for the same route")?["spec"];
    let balancer = &traffic["loadBalancer"];
    ensure!(balancer["type"] == "LeastRequest", "{balancer}");
    let mut web = proxy::cluster(&cluster, &place.endpoints);
    if let Some(options) = protocol_options(traffic) {
        web["typed_extension_protocol_options"] = json!({ OPTIONS: options });
    }
    web["lb_policy"] = json!("CLUSTER_PROVIDED");
    web["load_balancing_policy"] = json!({ "policies": [{ "typed_extension_config": {
        "name": "envoy.load_balancing_policies.override_host",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost",
            "override_host_sources": balancer["endpointOverride"]["extractFrom"],
            "fallback_policy": { "policies": [{ "typed_extension_config": {
                "name": "envoy.load_balancing_policies.least_request",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"
                }
            } }] }
        }
    } }] });
    for patch in file.kind("EnvoyPatchPolicy") {
        patched(&mut web, &patch["spec"], &cluster)?;
    }
    let prometheus = text(&configuration["prometheus"]["cluster"])?;
    let clusters = [
        web,
        proxy::cluster(&prometheus, &[place.prometheus]),
        proxy::cluster("prometheus_stats", &[place.admin]),
    ];
    let on = json!({ "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {} });
    let route = json!({
        "match": { "prefix": "/" },
        "route": { "cluster": cluster },
        "typed_per_filter_config": { filter: on }
    });
    Ok(proxy::bootstrap(place, &route, &filters, &clusters))
}

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The protocol options that Envoy Gateway makes of a policy's time-outs and HTTP/2; none where the policy has neither.
fn protocol_options(policy: &Value) -> Option<Value> {
    let (http, http2) = (&policy["timeout"]["http"], &policy["http2"]);
    let common = json!({
        "idle_timeout": seconds(&http["connectionIdleTimeout"]),
        "max_connection_duration": seconds(&http["maxConnectionDuration"]),
        "max_requests_per_connection": policy["circuitBreaker"]["maxRequestsPerConnection"],
    });
    let common: serde_json::Map<String, Value> =
        common.as_object()?.clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
    if common.is_empty() && http2.is_null() {
        return None;
    }
    let protocol = if http2.is_null() { "http_protocol_options" } else { "http2_protocol_options" };
    Some(json!({
        "@type": format!("type.googleapis.com/{OPTIONS}"),
        "common_http_protocol_options": common,
        "explicit_http_config": { protocol: {} },
    }))
}

/// Converts a duration to protobuf's notation.
fn seconds(duration: &Value) -> Value {
    duration.as_str().map_or(Value::Null, |text| json!(text.replace("1h", "3600s")))
}

/// Applies the policy's patches. A path that leads nowhere, which Envoy Gateway ignores, is an error here.
fn patched(web: &mut Value, policy: &Value, cluster: &str) -> Result<()> {
    ensure!(policy["targetRef"]["kind"] == "Gateway" && policy["type"] == "JSONPatch", "{policy}");
    for patch in policy["jsonPatches"].as_array().context("patches")? {
        ensure!(patch["type"] == "type.googleapis.com/envoy.config.cluster.v3.Cluster", "{patch}");
        ensure!(patch["name"] == cluster, "{patch} is not about {cluster}");
        let operation = &patch["operation"];
        ensure!(operation["op"] == "add", "{operation}");
        let (parent, member) =
            operation["path"].as_str().and_then(|path| path.rsplit_once('/')).context("a path")?;
        let parent = web.pointer_mut(parent).with_context(|| format!("{parent} leads nowhere"))?;
        ensure!(parent.is_object() && parent.get(member).is_none(), "{operation} replaces what is there");
        parent[member] = operation["value"].clone();
    }
    Ok(())
}

/// A user's own connection settings remain in the cluster when the patch is applied.
#[test]
fn the_patch_adds_to_the_protocol_options_and_replaces_none() -> Result<()> {
    for mut file in files()? {
        let policy = file.manifests.iter_mut().find(|manifest| manifest["kind"] == "BackendTrafficPolicy");
        let spec = &mut policy.context("BackendTrafficPolicy")?["spec"];
        spec["timeout"]["http"] = json!({ "connectionIdleTimeout": "7s", "maxConnectionDuration": "60s" });
        spec["circuitBreaker"] = json!({ "maxRequestsPerConnection": 9 });
        spec["http2"] = json!({ "maxConcurrentStreams": 5 });
        let proxy = proxy(&file, configuration(&file)?, &Place::default())?;
        proxy::loads(&file, &proxy)?;
        let options = &proxy["static_resources"]["clusters"][0]["typed_extension_protocol_options"][OPTIONS];
        let common = &options["common_http_protocol_options"];
        assert_eq!(
            (&common["idle_timeout"], &common["max_connection_duration"]),
            (&json!("7s"), &json!("60s"))
        );
        assert_eq!(common["max_requests_per_connection"], 9);
        assert!(options["explicit_http_config"]["http2_protocol_options"].is_object(), "{options}");
        assert!(options["http_filters"].to_string().contains("x-evenkeel-endpoint"), "{options}");
    }
    Ok(())
}

/// A route's policy replaces the Gateway's unless it is merged, and its own fields win: it must not set anything that a
/// user may have set for connections, such as an idle time-out shorter than the endpoints'.
#[test]
fn the_policy_leaves_the_gateways_own_in_force() -> Result<()> {
    for file in files()? {
        let spec = &file.kind("BackendTrafficPolicy")[0]["spec"];
        assert_eq!(spec["mergeType"], "StrategicMerge");
        let fields: Vec<&str> = spec.as_object().context("a policy")?.keys().map(String::as_str).collect();
        assert_eq!(fields, ["circuitBreaker", "loadBalancer", "mergeType", "targetRefs"]);
        assert_eq!(spec["circuitBreaker"], json!({ "maxRequestsPerConnection": 0 }));
    }
    Ok(())
}

/// `endpointOverride` leaves the weights of backends out of the policy beneath it.
#[test]
fn the_patch_lets_the_weights_of_backends_count_without_the_header() -> Result<()> {
    for file in files()? {
        let proxy = proxy(&file, configuration(&file)?, &Place::default())?;
        let policy = &proxy["static_resources"]["clusters"][0]["load_balancing_policy"]["policies"][0];
        let beneath = &policy["typed_extension_config"]["typed_config"]["fallback_policy"]["policies"][0];
        let config = &beneath["typed_extension_config"]["typed_config"];
        assert_eq!(config["locality_lb_config"], json!({ "locality_weighted_lb_config": {} }));
    }
    Ok(())
}

#[test]
fn every_file_makes_a_proxy_that_envoy_loads_with_the_filter_in_it() -> Result<()> {
    for file in files()? {
        proxy::loads(&file, &proxy(&file, configuration(&file)?, &Place::default())?)?;
    }
    Ok(())
}

/// Clusters are named after routes: the names in the plugin match routes in the file, and clients cannot use the route
/// that leads to Prometheus.
#[test]
fn the_clusters_that_the_plugin_names_are_made_by_the_routes() -> Result<()> {
    for file in files()? {
        let configuration = configuration(&file)?;
        let routes: Vec<String> = file
            .kind("HTTPRoute")
            .iter()
            .map(|route| {
                let text = |name: &str| route["metadata"][name].as_str().unwrap_or_default();
                format!("httproute/{}/{}/rule/0", text("namespace"), text("name"))
            })
            .collect();
        // A pattern, because backends of the rule may have their own clusters.
        let balanced = &configuration["upstreams"][0]["cluster"];
        assert!(
            routes.iter().any(|route| *balanced == format!("{route}*")),
            "{balanced} is none of {routes:?}"
        );
        let prometheus = &configuration["prometheus"]["cluster"];
        assert!(routes.iter().any(|route| prometheus == route), "{prometheus} is none of {routes:?}");
        let guard = file.kind("SecurityPolicy").into_iter().next().context("no SecurityPolicy")?;
        assert_eq!(guard["spec"]["targetRefs"][0]["name"], "prometheus");
        assert_eq!(guard["spec"]["authorization"]["defaultAction"], "Deny");
    }
    Ok(())
}
