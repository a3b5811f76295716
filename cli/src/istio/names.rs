//! Patches that put a filter in the place of a plugin that Istio does not call so.

use serde_json::Value;

use super::Collision;
use crate::find;

/// The patches of an EnvoyFilter for plugins that are not there, beside a plugin in its namespace that has none.
pub(super) fn misnamed(manifests: &[(String, Value)]) -> Vec<Collision> {
    let plugins: Vec<_> = manifests
        .iter()
        .filter_map(|(file, manifest)| {
            Some((manifest, format!("{} ({file})", find::named(manifest)), names(manifest)?))
        })
        .collect();
    let is_there = |name: &str| plugins.iter().any(|(.., names)| names.iter().any(|own| own == name));
    let mut found = Vec::new();
    for (file, filter) in manifests {
        let patched = patched(filter);
        let Some(stray) = patched.iter().find(|name| !is_there(name)) else { continue };
        let without = plugins.iter().find(|(plugin, _, names)| {
            plugin["metadata"]["namespace"] == filter["metadata"]["namespace"]
                && plugin.to_string().to_lowercase().contains("evenkeel")
                && !names.iter().any(|name| patched.contains(&name.as_str()))
        });
        let Some((_, plugin, names)) = without else { continue };
        let wanted = names.first().map_or("", String::as_str);
        let place = format!("{file}, {}", find::named(filter));
        found.push(Collision {
            text: format!(
                "{place}: names the plugin {stray}, and Istio calls that of {plugin} {wanted}: the patch has no effect, and a proxy that starts \
                 while the image holds no module answers 500"
            ),
            costs_requests: true,
        });
    }
    found
}

/// The names of the filters that patches replace, as far as Istio makes such names of plugins.
fn patched(filter: &Value) -> Vec<&str> {
    let patches = filter["spec"]["configPatches"].as_array().into_iter().flatten();
    let of_filters = patches.filter(|_| filter["kind"] == "EnvoyFilter").filter_map(|patch| {
        patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"].as_str()
    });
    of_filters.filter(|name| ["extensions.", "extenstions."].iter().any(|of| name.starts_with(of))).collect()
}

/// What Istio calls a plugin: by 1.30 and newer first, then by 1.26 to 1.29, and by older ones.
fn names(plugin: &Value) -> Option<Vec<String>> {
    let text = |name: &str| plugin["metadata"][name].as_str();
    let name = format!("{}.{}", text("namespace")?, text("name")?);
    match plugin["kind"].as_str()? {
        "TrafficExtension" => Some(vec![format!("extensions.istio.io/trafficextension/{name}")]),
        "WasmPlugin" => Some(vec![
            format!("extensions.istio.io/trafficextension/{name}~istio-translated-wasmplugin"),
            format!("extensions.istio.io/wasmplugin/{name}"),
            format!("extenstions.istio.io/wasmplugin/{name}"),
        ]),
        _ => None,
    }
}
