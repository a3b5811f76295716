//! Configurations for Envoy: evenkeel's, and the overload manager's.

use std::net::SocketAddr;
use std::path::Path;

use testbed::anyhow::Result;
use testbed::envoy::Filter;
use testbed::serde_json::{Value, json};
use testbed::tools;

use crate::fuse;
use crate::setting::{Setting, Source};

/// evenkeel with its configuration; files that it needs are written to `directory`.
pub fn filter(
    setting: &Setting,
    directory: &Path,
    endpoints: &[SocketAddr],
    slow_start: &str,
) -> Result<Filter> {
    let configuration = configuration(setting, endpoints, slow_start);
    if setting.module {
        return Ok(Filter::module(&configuration.to_string()));
    }
    if !setting.fuse {
        return Filter::evenkeel(&configuration);
    }
    let code = directory.join("fused.wasm");
    std::fs::write(&code, fuse::laid(&std::fs::read(tools::wasm()?)?)?)?;
    Ok(Filter::wasm(code, &configuration.to_string()))
}

fn configuration(setting: &Setting, endpoints: &[SocketAddr], slow_start: &str) -> Value {
    let fixed: Vec<Value> = endpoints.iter().map(|address| json!({ "address": address })).collect();
    let (mut upstream, mut plugin) = (setting.upstream.clone(), setting.plugin.clone());
    upstream["cluster"] = json!("web");
    upstream["endpoints"] = json!({ "static": fixed });
    plugin["status"] = json!({ "path": "/_evenkeel" });
    match setting.source {
        Some(Source::FalseAdmin) => {
            upstream["endpoints"] =
                json!({ "envoy_admin": { "cluster": "prometheus", "interval": "500ms" } });
        }
        Some(Source::Admin) => {
            upstream["endpoints"] =
                json!({ "envoy_admin": { "cluster": "envoy_admin", "interval": "500ms" } });
        }
        Some(_) => {
            plugin["prometheus"] =
                json!({ "cluster": "prometheus", "interval": "500ms", "timeout": "250ms" });
            upstream["signals"] = json!([{ "name": "busy", "query": "http_inflight_requests", "max": 100 }]);
        }
        None => {}
    }
    if !slow_start.is_empty() {
        upstream["slow_start"] = json!(slow_start);
    }
    plugin["upstreams"] = json!([upstream]);
    plugin
}

/// The environment variable by which Envoy finds the native module.
pub fn module_path(directory: &Path) -> Result<(String, std::ffi::OsString)> {
    std::os::unix::fs::symlink(tools::module()?, directory.join("libevenkeel.so"))?;
    Ok(("ENVOY_DYNAMIC_MODULES_SEARCH_PATH".to_owned(), directory.into()))
}

/// An overload manager whose pressure is set by hand: Envoy's `injected_resource` reads it from a file.
pub fn overload_manager(directory: &Path, action: &str) -> Result<Value> {
    pressure(directory, 0.0)?;
    let monitor = "envoy.resource_monitors.injected_resource";
    Ok(json!({ "overload_manager": {
        "refresh_interval": "0.1s",
        "resource_monitors": [{
            "name": monitor,
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig",
                "filename": directory.join("pressure"),
            },
        }],
        "actions": [{
            "name": format!("envoy.overload_actions.{action}"),
            "triggers": [{ "name": monitor, "threshold": { "value": 0.9 } }],
        }],
    } }))
}

/// Sets Envoy's pressure, 0..=1.
pub fn pressure(directory: &Path, value: f64) -> Result<()> {
    let (draft, file) = (directory.join("pressure.draft"), directory.join("pressure"));
    std::fs::write(&draft, value.to_string())?;
    Ok(std::fs::rename(draft, file)?)
}
