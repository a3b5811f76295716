//! Where a plugin's configuration stands in the files that people have.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const NAME: &str = "evenkeel";
const WASM_FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";
const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";

/// The configuration of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Where in the file; empty where the file is nothing else.
    pub place: String,
    /// As the filter gets it.
    pub json: Vec<u8>,
}

/// The configurations in a file: itself, or what an Envoy configuration or manifests have for a plugin of this name.
pub fn plugins(bytes: &[u8]) -> Result<Vec<Plugin>> {
    // Left to the filter's own reader, which says more of what is wrong with it.
    let itself = || vec![Plugin { place: String::new(), json: bytes.to_vec() }];
    let looks_like_json = bytes.trim_ascii_start().starts_with(b"{");
    let Ok(text) = str::from_utf8(bytes) else { return Ok(itself()) };
    if text.trim().is_empty() {
        return Ok(itself());
    }
    let documents: Vec<Value> = if looks_like_json {
        match serde_json::from_str(text) {
            Ok(document) => vec![document],
            Err(_) => return Ok(itself()),
        }
    } else {
        serde_saphyr::from_multiple(text).context("is neither JSON nor YAML")?
    };
    let mut found = Vec::new();
    for document in &documents {
        search(document, &named(document), &mut found)?;
    }
    if found.is_empty() {
        ensure!(looks_like_json, "has no configuration of a plugin {NAME:?} in it");
        return Ok(itself());
    }
    Ok(found)
}

/// What a manifest calls itself.
fn named(document: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match (text(&document["kind"]), text(&document["metadata"]["name"])) {
        (Some(kind), Some(name)) => format!("{kind} {name}"),
        _ => "plugin".into(),
    }
}

fn search(value: &Value, place: &str, found: &mut Vec<Plugin>) -> Result<()> {
    match value {
        Value::Object(members) => {
            if let Some(configuration) = in_manifest(value).or_else(|| in_envoy(value)) {
                let json = as_the_filter_gets_it(configuration).with_context(|| place.to_owned())?;
                found.push(Plugin { place: place.to_owned(), json });
                return Ok(());
            }
            members.values().try_for_each(|member| search(member, place, found))
        }
        Value::Array(items) => items.iter().try_for_each(|item| search(item, place, found)),
        _ => Ok(()),
    }
}

/// `pluginConfig` of Istio's WasmPlugin and TrafficExtension, `config` of Envoy Gateway's EnvoyExtensionPolicy.
fn in_manifest(value: &Value) -> Option<&Value> {
    let ours = ["pluginName", "rootID", "name"].iter().any(|name| value[name] == NAME);
    let istio = value.get("url").and(value.get("pluginConfig"));
    let gateway = value.get("code").and(value.get("config"));
    istio.or(gateway).filter(|_| ours)
}

/// The filter's message, as it is or as a TypedStruct.
fn in_envoy(value: &Value) -> Option<&Value> {
    let config = if value["@type"] == WASM_FILTER {
        &value["config"]
    } else if value["type_url"] == WASM_FILTER {
        &value["value"]["config"]
    } else {
        return None;
    };
    (config["name"] == NAME || config["root_id"] == NAME).then(|| &config["configuration"])
}

fn as_the_filter_gets_it(configuration: &Value) -> Result<Vec<u8>> {
    match configuration["@type"].as_str() {
        Some(STRING) => {
            let text = configuration["value"].as_str().context("a StringValue without a string")?;
            Ok(text.as_bytes().to_vec())
        }
        Some(STRUCT) => Ok(configuration["value"].to_string().into_bytes()),
        Some(other) => bail!("a plugin configuration of type {other}: StringValue or Struct is wanted"),
        None if configuration.is_null() => Ok(Vec::new()),
        None => Ok(configuration.to_string().into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"upstreams":[]}"#;

    fn found(text: &str) -> Vec<(String, String)> {
        let plugins = plugins(text.as_bytes()).unwrap();
        plugins.into_iter().map(|plugin| (plugin.place, String::from_utf8(plugin.json).unwrap())).collect()
    }

    fn one(place: &str) -> Vec<(String, String)> {
        vec![(place.to_owned(), CONFIG.to_owned())]
    }

    #[test]
    fn plain_json_is_handed_on_as_it_is_even_if_it_is_none() {
        for text in [CONFIG, "", " \n", "{", "{ \"upstreams\": [], \"upstreams\": [] }", "{} {}"] {
            assert_eq!(found(text), [(String::new(), text.to_owned())]);
        }
        assert_eq!(plugins(b"{\xff}").unwrap()[0].json, b"{\xff}");
    }

    #[test]
    fn an_envoy_configuration_has_it_as_text_or_as_a_struct() {
        for configuration in [
            format!("{{ '@type': {STRING}, value: '{CONFIG}' }}"),
            format!("{{ '@type': {STRUCT}, value: {CONFIG} }}"),
        ] {
            let config = format!("{{ root_id: evenkeel, configuration: {configuration} }}");
            for filter in [
                format!("{{ '@type': {WASM_FILTER}, config: {config} }}"),
                format!(
                    "{{ '@type': x/TypedStruct, type_url: {WASM_FILTER}, value: {{ config: {config} }} }}"
                ),
            ] {
                assert_eq!(found(&format!("http_filters:\n- typed_config: {filter}\n")), one("plugin"));
            }
        }
    }

    #[test]
    fn manifests_have_it_in_their_own_ways() {
        for (kind, spec) in [
            ("WasmPlugin", format!("url: oci://x\n  pluginName: evenkeel\n  pluginConfig: {CONFIG}")),
            (
                "TrafficExtension",
                format!("wasm: {{ url: 'oci://x', pluginName: evenkeel, pluginConfig: {CONFIG} }}"),
            ),
            (
                "EnvoyExtensionPolicy",
                format!("wasm: [{{ name: evenkeel, code: {{ type: Image }}, config: {CONFIG} }}]"),
            ),
        ] {
            let text = format!(
                "apiVersion: v1\nkind: Service\n---\nkind: {kind}\nmetadata: {{ name: web }}\nspec:\n  {spec}\n"
            );
            assert_eq!(found(&text), one(&format!("{kind} web")), "{text}");
        }
    }

    #[test]
    fn plugins_of_others_are_passed_over_and_nothing_at_all_is_said() {
        let other =
            "kind: WasmPlugin\nspec: { url: 'oci://x', pluginName: other, pluginConfig: { upstreams: [] } }";
        for text in [other, "static_resources: {}", "just text", "- 1"] {
            let error = plugins(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, "has no configuration of a plugin \"evenkeel\" in it", "{text}");
        }
        assert!(plugins(b"a: [").is_err());
    }

    #[test]
    fn a_configuration_of_another_kind_is_named() {
        let text = format!(
            "{{ '@type': {WASM_FILTER}, config: {{ name: evenkeel, configuration: {{ '@type': x/BytesValue }} }} }}"
        );
        let text = format!("filter: {text}");
        assert!(format!("{:#}", plugins(text.as_bytes()).unwrap_err()).contains("x/BytesValue"));
    }
}
