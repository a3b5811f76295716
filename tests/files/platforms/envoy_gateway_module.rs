//! The proxy configuration that Envoy Gateway makes of the dynamic modules in EnvoyProxy and EnvoyExtensionPolicy.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, ensure};
use testbed::{tempfile, tools};

use super::proxy::{self, Place};
use super::{Shipped, envoy_gateway, files_of};
use crate::shipped;

const FILTER: &str =
    "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter";

fn files() -> Result<Vec<Shipped>> {
    let modules = |file: &Shipped| !policy(file)["dynamicModule"].is_null();
    let found: Vec<Shipped> = files_of("envoy-gateway")?.into_iter().filter(modules).collect();
    ensure!(!found.is_empty(), "no file has the native module");
    Ok(found)
}

fn policy(file: &Shipped) -> &Value {
    &file.kind("EnvoyExtensionPolicy")[0]["spec"]
}

fn position(file: &Shipped, kind: &str) -> Option<usize> {
    file.manifests.iter().position(|manifest| manifest["kind"] == kind)
}

/// Envoy Gateway answers 500 where the policy names a module that no EnvoyProxy of the Gateway registers.
#[test]
fn the_gateway_has_the_module_that_the_policy_names_before_the_policy_comes() -> Result<()> {
    for file in files()? {
        let (proxy, gateway) = (file.kind("EnvoyProxy")[0], file.kind("Gateway")[0]);
        assert_eq!(gateway["spec"]["infrastructure"]["parametersRef"]["name"], proxy["metadata"]["name"]);
        assert_eq!(gateway["metadata"]["namespace"], proxy["metadata"]["namespace"]);
        let (entry, named) = (&proxy["spec"]["dynamicModules"][0], &policy(&file)["dynamicModule"][0]);
        assert_eq!(entry["name"], named["name"]);
        assert_eq!(entry["doNotClose"], true);
        assert!(position(&file, "EnvoyProxy") < position(&file, "Gateway"));
        assert!(position(&file, "Gateway") < position(&file, "EnvoyExtensionPolicy"));
    }
    Ok(())
}

/// The module steers by a call into Envoy, so users' own policies need no change.
#[test]
fn the_policies_of_users_are_left_alone() -> Result<()> {
    for file in files()? {
        for kind in ["BackendTrafficPolicy", "EnvoyPatchPolicy"] {
            assert!(file.kind(kind).is_empty(), "{}: {kind}", file.name());
        }
        assert!(policy(&file)["dynamicModule"][0]["config"]["steering"].is_null(), "{}", file.name());
    }
    Ok(())
}

#[test]
fn the_configuration_is_the_filters_but_for_steering_and_its_routes_are_the_same() -> Result<()> {
    let filter = envoy_gateway::files()?.into_iter().next().context("the filter's file")?;
    let mut expected = envoy_gateway::configuration(&filter)?.clone();
    expected.as_object_mut().context("an object")?.remove("steering");
    for file in files()? {
        assert_eq!(policy(&file)["dynamicModule"][0]["config"], expected, "{}", file.name());
        for kind in ["HTTPRoute", "SecurityPolicy", "ReferenceGrant"] {
            assert_eq!(file.kind(kind), filter.kind(kind), "{}", file.name());
        }
    }
    Ok(())
}

/// The filter is disabled in the listener and enabled for the policy's routes; its configuration is the policy's, as
/// JSON.
#[test]
fn every_file_makes_a_proxy_that_envoy_loads_with_the_module_in_it() -> Result<()> {
    let module = tools::module()?;
    for file in files()? {
        let entry = &file.kind("EnvoyProxy")[0]["spec"]["dynamicModules"][0];
        let named = &policy(&file)["dynamicModule"][0];
        let name = "envoy.filters.http.dynamic_modules/envoyextensionpolicy/shop/evenkeel/dynamicmodule/0";
        let filter = json!({ "name": name, "disabled": true, "typed_config": {
            "@type": FILTER,
            "dynamic_module_config": {
                "do_not_close": entry["doNotClose"],
                "module": { "local": { "filename": module } }
            },
            "filter_name": named["filterName"],
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": named["config"].to_string()
            }
        } });
        let on = json!({ "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {} });
        let route = json!({
            "match": { "prefix": "/" },
            "route": { "cluster": "httproute/shop/web/rule/0" },
            "typed_per_filter_config": { name: on }
        });
        let place = Place::default();
        let clusters = [
            proxy::cluster("httproute/shop/web/rule/0", &place.endpoints),
            proxy::cluster("httproute/shop/prometheus/rule/0", &[place.prometheus]),
            proxy::cluster("prometheus_stats", &[place.admin]),
        ];
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("envoy.json");
        fs::write(&path, proxy::bootstrap(&place, &route, &[filter], &clusters).to_string())?;
        let mut command = Command::new(tools::envoy()?);
        let said =
            shipped::run(command.args(["--mode", "validate", "--log-level", "warn", "-c"]).arg(&path))?;
        assert!(
            said.contains("OK") && !said.to_lowercase().contains("deprecated"),
            "{}: {said}",
            file.name()
        );
    }
    Ok(())
}
