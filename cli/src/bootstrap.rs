//! Checks a plugin against the clusters in the same Envoy configuration: finds names and addresses that Envoy does not
//! have before traffic does.

use std::net::{IpAddr, SocketAddr};

use config::{Config, Mode, NoneEligible, Via};
use serde_json::Value;

/// The member of this name, which protobuf's JSON writes in snake_case or in lowerCamelCase.
pub(crate) fn member<'v>(object: &'v Value, name: &str) -> &'v Value {
    let camel = || {
        let mut parts = name.split('_');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |camel, part| match part.split_at_checked(1) {
            Some((head, rest)) => camel + &head.to_ascii_uppercase() + rest,
            None => camel,
        })
    };
    match &object[name] {
        Value::Null => &object[camel()],
        found => found,
    }
}

/// The names and addresses that this Envoy does not have, one line each. Empty if its clusters come from elsewhere.
pub fn missing_in_envoy(config: &Config, document: &Value) -> Vec<String> {
    let Some(clusters) = member(document, "static_resources")["clusters"].as_array() else {
        return Vec::new();
    };
    if !member(member(document, "dynamic_resources"), "cds_config").is_null() {
        return Vec::new();
    }
    let names: Vec<&str> = clusters.iter().filter_map(|cluster| cluster["name"].as_str()).collect();
    let named = |name: &str| clusters.iter().find(|cluster| cluster["name"] == name);
    let missing = |path: &str, name: &str, what: &str| {
        let there = names.join(", ");
        format!("{path}: there is no cluster {name:?} in this file, so {what}; it has {there}")
    };
    let mut found = Vec::new();
    if let Some(prometheus) = &config.prometheus
        && named(&prometheus.cluster).is_none()
    {
        found.push(missing("$.prometheus.cluster", &prometheus.cluster, "Prometheus cannot be polled"));
    }
    for (number, upstream) in config.upstreams.iter().enumerate() {
        let path = format!("$.upstreams[{number}]");
        if let Some(admin) = &upstream.endpoints.envoy_admin
            && named(&admin.cluster).is_none()
        {
            let path = format!("{path}.endpoints.envoy_admin.cluster");
            found.push(missing(&path, &admin.cluster, "Envoy cannot be polled for endpoints"));
        }
        let name = upstream.cluster.as_str();
        // A pattern is for names that a control plane generates.
        let Some(cluster) = named(name) else {
            if !name.contains('*') {
                found.push(missing(&format!("{path}.cluster"), name, "nothing is steered"));
            }
            continue;
        };
        let known = match config.steering.via {
            Via::OriginalDst => None,
            Via::ClusterHeader => Some(names.iter().map(|name| (*name).to_owned()).collect()),
            Via::OverrideHost | Via::StatefulSession => addresses(cluster),
        };
        let Some(known) = known else { continue };
        if let NoneEligible::SafeEndpoint(address) = upstream.failover.none_eligible
            && !known.contains(&address.to_string())
        {
            let path = format!("{path}.failover.safe_endpoint");
            found.push(stranger(&path, &address.to_string(), name, &known));
        }
        for (number, endpoint) in upstream.endpoints.fixed.iter().enumerate() {
            let address = endpoint.address.to_string();
            if !known.contains(&address) {
                found.push(stranger(&format!("{path}.endpoints.static[{number}]"), &address, name, &known));
            }
        }
    }
    found
}

fn stranger(path: &str, address: &str, cluster: &str, known: &[String]) -> String {
    let known = known.join(", ");
    format!(
        "{path}: {address} is not in the cluster {cluster:?} of this file, so Envoy skips it; it has {known}"
    )
}

/// The clusters of this Envoy configuration whose policy does not follow the steering header, one line each.
pub fn unfollowed(config: &Config, document: &Value) -> Vec<String> {
    if config.mode == Mode::Observe || config.steering.via != Via::OverrideHost {
        return Vec::new();
    }
    let clusters = member(document, "static_resources")["clusters"].as_array().into_iter().flatten();
    let clusters: Vec<&Value> = clusters.collect();
    let header = &config.steering.header;
    let mut found = Vec::new();
    for (number, upstream) in config.upstreams.iter().enumerate() {
        let named = clusters.iter().find(|cluster| cluster["name"] == upstream.cluster.as_str());
        // Those of other types, such as aggregates, leave the choice to other clusters.
        let Some(cluster) = named.filter(|cluster| member(cluster, "cluster_type").is_null()) else {
            continue;
        };
        let policy = member(cluster, "load_balancing_policy").to_string().to_lowercase();
        // Another filter may turn the header into metadata.
        let reads = [format!("\"{header}\""), "\"metadata\"".to_owned()];
        if !policy.contains("override_host") || !reads.iter().any(|source| policy.contains(source)) {
            found.push(format!(
                "$.upstreams[{number}].cluster: the policy of the cluster {:?} in this file is not override_host with the header {header}, so \
                 nothing is steered",
                upstream.cluster
            ));
        }
    }
    found
}

/// The addresses of a cluster's endpoints, as Envoy writes them; `None` if the file does not have all of them.
fn addresses(cluster: &Value) -> Option<Vec<String>> {
    // The default type is STATIC, which enum also counts as 0.
    let kind = &cluster["type"];
    let is_static = kind.is_null() || kind == "STATIC" || kind == 0;
    if !is_static || !member(cluster, "cluster_type").is_null() {
        return None;
    }
    let localities = member(cluster, "load_assignment")["endpoints"].as_array()?;
    let endpoints = localities
        .iter()
        .flat_map(|locality| member(locality, "lb_endpoints").as_array().into_iter().flatten());
    let mut found = Vec::new();
    for endpoint in endpoints {
        let socket = member(&endpoint["endpoint"]["address"], "socket_address");
        let port = member(socket, "port_value");
        // Numbers may stand in quotes.
        let port =
            port.as_u64().or_else(|| port.as_str()?.parse().ok()).and_then(|port| u16::try_from(port).ok());
        let ip = socket["address"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
        if let (Some(ip), Some(port)) = (ip, port) {
            found.push(SocketAddr::new(ip, port).to_string());
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn strangers_of(plugin: &Value, document: &Value) -> Vec<String> {
        missing_in_envoy(&config::parse(plugin.to_string().as_bytes()).unwrap(), document)
    }

    fn document() -> Value {
        let at = |host: &str| json!({ "endpoint": { "address": { "socket_address": { "address": host, "port_value": 80 } } } });
        json!({ "static_resources": { "clusters": [
            { "name": "web", "load_assignment": { "endpoints": [{ "lb_endpoints": [at("10.0.0.1"), at("fd00::1")] }] } },
            { "name": "dns", "type": "STRICT_DNS" },
        ] } })
    }

    fn plugin(cluster: &str, addresses: &[&str]) -> Value {
        json!({ "upstreams": [{ "cluster": cluster, "endpoints": { "static": addresses } }] })
    }

    #[test]
    fn clusters_and_addresses_that_envoy_does_not_have_are_named() {
        let said = strangers_of(&plugin("wbe", &["10.0.0.1:80"]), &document());
        assert_eq!(
            said,
            [
                "$.upstreams[0].cluster: there is no cluster \"wbe\" in this file, so nothing is steered; it has web, dns"
            ]
        );
        let said = strangers_of(&plugin("web", &["10.0.0.1:80", "10.0.0.1:81"]), &document());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("$.upstreams[0].endpoints.static[1]: 10.0.0.1:81 is not in"), "{said:?}");
        let mut asking = plugin("web", &["10.0.0.1:80"]);
        asking["prometheus"] = json!({ "cluster": "prom" });
        assert!(strangers_of(&asking, &document())[0].starts_with("$.prometheus.cluster"));
        let admin = json!({ "upstreams": [{ "cluster": "web", "endpoints": { "envoy_admin": { "cluster": "admin" } } }] });
        assert!(
            strangers_of(&admin, &document())[0].starts_with("$.upstreams[0].endpoints.envoy_admin.cluster")
        );
    }

    #[test]
    fn safe_endpoint_that_envoy_does_not_have_is_named() {
        let safe = |address: &str| {
            let mut plugin = plugin("web", &["10.0.0.1:80"]);
            plugin["upstreams"][0]["failover"] =
                json!({ "none_eligible": "safe_endpoint", "safe_endpoint": address });
            strangers_of(&plugin, &document())
        };
        assert!(safe("[fd00::1]:80").is_empty());
        let said = safe("10.9.0.1:80");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("$.upstreams[0].failover.safe_endpoint: 10.9.0.1:80 is not in"),
            "{said:?}"
        );
    }

    #[test]
    fn cluster_that_does_not_follow_the_header_is_named() {
        let sources = |sources: Value| {
            let followed = json!({ "policies": [{ "typed_extension_config": {
                "name": "envoy.load_balancing_policies.override_host",
                "typed_config": { "override_host_sources": sources } } }] });
            json!({ "static_resources": { "clusters": [{ "name": "web", "load_balancing_policy": followed }] } })
        };
        let unfollowed = |root: &str, document: &Value| {
            let plugin = plugin("web", &["10.0.0.1:80"]).to_string().replacen('{', &format!("{{{root}"), 1);
            super::unfollowed(&config::parse(plugin.as_bytes()).unwrap(), document).len()
        };
        let ours = sources(json!([{ "header": "X-Evenkeel-Endpoint" }]));
        let other = sources(json!([{ "header": "x-other" }]));
        let filtered = sources(json!([{ "metadata": { "key": "evenkeel" } }]));
        let plain = document();
        assert_eq!([&ours, &other, &filtered, &plain].map(|document| unfollowed("", document)), [0, 1, 0, 1]);
        assert_eq!(unfollowed(r#""steering":{"header":"x-other"},"#, &other), 0);
        for elsewhere in [r#""mode":"observe","#, r#""steering":{"via":"stateful_session"},"#] {
            assert_eq!(unfollowed(elsewhere, &plain), 0, "{elsewhere}");
        }
        let mut aggregate = document();
        aggregate["static_resources"]["clusters"][0]["cluster_type"] =
            json!({ "name": "envoy.clusters.aggregate" });
        assert_eq!(unfollowed("", &aggregate) + unfollowed("", &Value::Null), 0);
    }

    #[test]
    fn both_spellings_of_names_are_read() {
        let mut camel = json!({ "staticResources": { "clusters": [{ "name": "web", "type": 0, "loadAssignment": {
            "endpoints": [{ "lbEndpoints": [{ "endpoint": { "address": {
                "socketAddress": { "address": "fd00:0:0::1", "portValue": "80" } } } }] }] } }] } });
        assert!(strangers_of(&plugin("web", &["[fd00::1]:80"]), &camel).is_empty());
        let said = strangers_of(&plugin("wbe", &["10.0.0.1:80"]), &camel);
        assert!(said[0].contains("there is no cluster \"wbe\" in this file"), "{said:?}");
        let said = strangers_of(&plugin("web", &["10.0.0.1:80"]), &camel);
        assert!(
            said[0].contains("is not in the cluster") && said[0].ends_with("it has [fd00::1]:80"),
            "{said:?}"
        );
        camel["dynamicResources"] = json!({ "cdsConfig": { "ads": {} } });
        assert!(strangers_of(&plugin("wbe", &["10.0.0.1:80"]), &camel).is_empty());
    }

    #[test]
    fn unknown_parts_of_a_file_are_not_reported() {
        assert!(strangers_of(&plugin("web", &["10.0.0.1:80", "[fd00::1]:80"]), &document()).is_empty());
        assert!(strangers_of(&plugin("dns", &["10.0.0.9:80"]), &document()).is_empty());
        assert!(strangers_of(&plugin("wbe", &["10.0.0.1:80"]), &Value::Null).is_empty());
        let mut dynamic = document();
        dynamic["dynamic_resources"] = json!({ "cds_config": { "ads": {} } });
        assert!(strangers_of(&plugin("wbe", &["10.0.0.1:80"]), &dynamic).is_empty());
    }
}
