//! Finds plugin configurations in Envoy configurations, manifests and plain JSON.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

const NAME: &str = "evenkeel";
const WASM_FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const MODULE_FILTER: &str =
    "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";
const BYTES: &str = "type.googleapis.com/google.protobuf.BytesValue";
const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";

/// The configuration of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Its place in the file; empty if the file is nothing else.
    pub place: String,
    /// The bytes that the filter gets.
    pub json: Vec<u8>,
    /// The index of the document in the file.
    pub document: usize,
    /// Whether it is for the native module.
    pub native: bool,
    /// Why the filter does not get what stands there, and refuses it.
    pub fault: Option<String>,
}

impl Plugin {
    /// A configuration that stands at a place.
    fn at(place: &str, document: usize, native: bool, read: Result<Vec<u8>>) -> Plugin {
        let (json, fault) = match read {
            Ok(json) => (json, None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        Plugin { place: place.to_owned(), json, document, native, fault }
    }
}

/// The configuration of a plugin in a document.
struct Standing<'v> {
    configuration: &'v Value,
    native: bool,
}

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its documents, if it is JSON or YAML, and after them those that are text in them.
    pub documents: Vec<Value>,
    /// The configurations of evenkeel in it.
    pub plugins: Vec<Plugin>,
    /// Remarks on what is no fault.
    pub notes: Vec<String>,
    /// Whether it is meant as JSON and cannot be read.
    pub unread: bool,
}

/// Finds the configurations in a file: the whole file, or those in an Envoy configuration or in manifests.
pub fn plugins(bytes: &[u8]) -> Result<Found> {
    // Left to the filter's own reader, which says more about its faults.
    let itself = |documents| {
        let plugins = vec![Plugin::at("", 0, false, Ok(bytes.to_vec()))];
        Found { documents, plugins, ..Found::default() }
    };
    let unread = || Found { unread: true, ..itself(Vec::new()) };
    let looks_like_json = without_mark(bytes).trim_ascii_start().starts_with(b"{");
    let Ok(text) = str::from_utf8(without_mark(bytes)) else { return Ok(unread()) };
    if text.trim().is_empty() {
        return Ok(itself(Vec::new()));
    }
    let documents: Vec<Value> = if looks_like_json {
        match serde_json::Deserializer::from_str(text).into_iter().collect::<Result<Vec<Value>, _>>() {
            // The filter takes one, and says so of more; manifests may follow each other.
            Ok(documents) if documents.len() == 1 || documents.iter().all(|d| d["kind"].is_string()) => {
                documents
            }
            _ => return Ok(unread()),
        }
    } else {
        yaml(text)?
    };
    let documents: Vec<Value> = documents.into_iter().flat_map(unpacked).collect();
    let found = all_in(documents);
    if found.plugins.is_empty() && looks_like_json {
        return Ok(Found { notes: found.notes, ..itself(found.documents) });
    }
    Ok(found)
}

/// The configurations in documents and in the texts within them. A text becomes a document, for an Envoy configuration
/// has its clusters beside the plugin.
fn all_in(documents: Vec<Value>) -> Found {
    let mut places: Vec<String> = documents.iter().map(named).collect();
    let mut found = Found { documents, ..Found::default() };
    let mut number = 0;
    while let (Some(document), Some(place)) = (found.documents.get(number), places.get(number).cloned()) {
        let mut texts = Vec::new();
        search(document, &place, number, &mut found.plugins, &mut texts);
        for text in texts {
            match yaml(&text) {
                // A name alone is itself again.
                Ok(inside) => found.documents.extend(inside.into_iter().filter(|inside| !inside.is_string())),
                // Or a script that writes one.
                Err(_) => found.notes.push(format!(
                    "{place}: passed over: text with the filter in it that is neither JSON nor YAML"
                )),
            }
        }
        places.resize(found.documents.len(), place);
        number += 1;
    }
    found
}

fn yaml(text: &str) -> Result<Vec<Value>> {
    // A short commit such as 1234e567 reads as a number without end; it stays text.
    let options = serde_saphyr::options! { reject_non_finite_typeless_float: false };
    serde_saphyr::from_multiple_with_options(text, options).context("is neither JSON nor YAML")
}

/// The bytes without a byte order mark, which some editors write.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The manifests of a `List`, as `kubectl get` prints them; anything else is itself.
fn unpacked(mut document: Value) -> Vec<Value> {
    let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match document.get_mut("items").filter(|_| is_list) {
        Some(Value::Array(items)) => core::mem::take(items).into_iter().flat_map(unpacked).collect(),
        _ => vec![document],
    }
}

/// The configurations of evenkeel in a manifest, as far as they are JSON.
pub fn configurations(manifest: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    search(manifest, &named(manifest), 0, &mut found, &mut Vec::new());
    found.iter().filter_map(|plugin| serde_json::from_slice(&plugin.json).ok()).collect()
}

/// Kind and name of a manifest.
pub fn named(document: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match (text(&document["kind"]), text(&document["metadata"]["name"])) {
        (Some(kind), Some(name)) => format!("{kind} {name}"),
        _ => "plugin".into(),
    }
}

fn search(value: &Value, place: &str, document: usize, found: &mut Vec<Plugin>, texts: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Standing { configuration, native }) = in_manifest(value, place) {
                let of_istio = value.get("url").is_some() && value.get("pluginConfig").is_some();
                let read = if of_istio && !configuration.is_object() && !configuration.is_null() {
                    Err(anyhow!("pluginConfig has to be an object: Istio takes nothing else"))
                } else {
                    as_the_filter_gets_it(configuration)
                };
                found.push(Plugin::at(place, document, native, read));
                return;
            }
            if let Some(Standing { configuration, native }) = in_envoy(value) {
                let read = if !configuration.is_null() && !configuration["@type"].is_string() {
                    Err(anyhow!(
                        "the plugin's configuration has no \"@type\", so Envoy refuses it: write a StringValue ({STRING}) \
                         with the JSON as text"
                    ))
                } else {
                    written_out(configuration, native)
                        .map_or_else(|| as_the_filter_gets_it(configuration), Ok)
                };
                found.push(Plugin::at(place, document, native, read));
                return;
            }
            if let Some(modules) = value["dynamicModule"].as_array() {
                for configuration in modules.iter().filter_map(in_policy) {
                    found.push(Plugin::at(place, document, true, as_the_filter_gets_it(configuration)));
                }
            }
            members.values().for_each(|member| search(member, place, document, found, texts));
        }
        Value::Array(items) => items.iter().for_each(|item| search(item, place, document, found, texts)),
        // A whole Envoy configuration as text: in a ConfigMap, or the bootstrap of an EnvoyProxy.
        Value::String(text) if text.contains(WASM_FILTER) || text.contains(MODULE_FILTER) => {
            texts.push(text.clone());
        }
        _ => {}
    }
}

/// The configuration in `pluginConfig` of Istio's WasmPlugin and TrafficExtension, or in `config` of Envoy Gateway's
/// EnvoyExtensionPolicy.
fn in_manifest<'v>(value: &'v Value, place: &str) -> Option<Standing<'v>> {
    // Without a `pluginConfig` or a `config` the filter gets an empty one.
    let none_of = |kinds: &[&str]| kinds.iter().any(|kind| place.starts_with(kind)).then_some(&Value::Null);
    let no_plugin_config = none_of(&["WasmPlugin ", "TrafficExtension "]);
    let istio = value.get("url").and(value.get("pluginConfig").or(no_plugin_config));
    let no_config = none_of(&["EnvoyExtensionPolicy "]);
    let gateway = value.get("code").and(value.get("config").or(no_config));
    let configuration = istio.or(gateway)?;
    let names = ["pluginName", "rootID", "name", "url", "code"];
    let ours = is_ours(names.iter().map(|name| &value[name]), configuration);
    ours.then_some(Standing { configuration, native: false })
}

/// The configuration in an entry of `dynamicModule` in Envoy Gateway's EnvoyExtensionPolicy.
fn in_policy(module: &Value) -> Option<&Value> {
    let configuration = &module["config"];
    let ours = is_ours([&module["name"], &module["filterName"]].into_iter(), configuration);
    ours.then_some(configuration)
}

/// The configuration in the Wasm filter's message, plain or as a TypedStruct, or in the dynamic module's.
fn in_envoy(value: &Value) -> Option<Standing<'_>> {
    let message = |kind: &str| {
        let typed = value["type_url"] == kind || value["typeUrl"] == kind;
        (typed || value["@type"] == kind).then(|| if typed { &value["value"] } else { value })
    };
    if let Some(filter) = message(WASM_FILTER) {
        let config = &filter["config"];
        let code = ["vm_config", "vmConfig"].map(|name| &config[name]["code"]);
        let names = [&config["name"], &config["root_id"], &config["rootId"]];
        let configuration = &config["configuration"];
        let ours = is_ours(names.into_iter().chain(code), configuration);
        return ours.then_some(Standing { configuration, native: false });
    }
    let module = message(MODULE_FILTER)?;
    let either = |names: [&str; 2]| names.iter().find_map(|name| module.get(name)).unwrap_or(&Value::Null);
    let configuration = either(["filter_config", "filterConfig"]);
    let source = either(["dynamic_module_config", "dynamicModuleConfig"]);
    let names = [either(["filter_name", "filterName"]), &source["name"], &source["module"]];
    is_ours(names.into_iter(), configuration).then_some(Standing { configuration, native: true })
}

/// Whether a plugin is evenkeel. Names and the location of the code are the operator's choice, such as `evenkeel-web`
/// for one route; if none contains the product's name, the configuration decides.
fn is_ours<'v>(mut names: impl Iterator<Item = &'v Value>, configuration: &Value) -> bool {
    names.any(|name| name.to_string().to_lowercase().contains(NAME)) || looks_ours(configuration)
}

/// Whether this looks like evenkeel's JSON and not like that of another plugin.
pub fn looks_ours(configuration: &Value) -> bool {
    let read = match configuration["@type"].as_str() {
        Some(STRING) => configuration["value"].as_str().and_then(|text| serde_json::from_str(text).ok()),
        Some(STRUCT) => Some(configuration["value"].clone()),
        _ => configuration.as_str().and_then(|text| serde_json::from_str(text).ok()),
    };
    let configuration = read.as_ref().unwrap_or(configuration);
    let upstreams = configuration["upstreams"].as_array();
    upstreams.is_some_and(|all| all.iter().any(|upstream| upstream.get("cluster").is_some()))
}

/// Whether a JSON file that is nothing else may be for evenkeel, with slips that keep [`looks_ours`] from knowing it.
pub fn is_meant_for_us(document: &Value) -> bool {
    let upstreams = ["upstreams", "upstream"].iter().any(|name| document.get(name).is_some());
    upstreams || document["role"] == "upstream"
}

/// Whether a file that cannot be read as JSON has a configuration of evenkeel. A template is no JSON yet.
pub fn names_us(bytes: &[u8]) -> bool {
    // Without the zeros of UTF-16.
    let text = String::from_utf8_lossy(bytes).replace('\0', "");
    let parts = ["\"upstreams\"", WASM_FILTER, MODULE_FILTER];
    !text.trim_start().starts_with("{{") && parts.iter().any(|part| text.contains(part))
}

/// Whether a file that cannot be read as YAML has a configuration of evenkeel. A template is no YAML yet.
pub fn is_our_yaml(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let kinds = ["WasmPlugin", "TrafficExtension", "EnvoyExtensionPolicy", WASM_FILTER, MODULE_FILTER];
    !text.contains("{{") && text.to_lowercase().contains(NAME) && kinds.iter().any(|kind| text.contains(kind))
}

/// The JSON that Envoy writes for a Struct, which it does for a dynamic module only.
fn written_out(configuration: &Value, native: bool) -> Option<Vec<u8>> {
    let members = configuration.get("value").filter(|members| members.is_object())?;
    (native && configuration["@type"] == STRUCT).then(|| members.to_string().into_bytes())
}

fn as_the_filter_gets_it(configuration: &Value) -> Result<Vec<u8>> {
    match configuration["@type"].as_str() {
        Some(STRING) => {
            let text = configuration["value"].as_str().context("a StringValue without a string")?;
            Ok(text.as_bytes().to_vec())
        }
        Some(BYTES) => {
            let text = configuration["value"].as_str().context("a BytesValue without a string")?;
            base64(text).context("a BytesValue that is not base64")
        }
        Some(STRUCT) => bail!(
            "a plugin configuration of type {STRUCT}: Envoy hands it to the filter as protobuf bytes, not as JSON; \
             write a StringValue with the JSON as text"
        ),
        Some(other) => bail!("a plugin configuration of type {other}: expected a StringValue"),
        None if configuration.is_null() => Ok(Vec::new()),
        None => Ok(configuration.to_string().into_bytes()),
    }
}

/// The bytes of base64 in either alphabet, with or without padding, as JSON has `bytes`.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut kept, mut bytes) = (0u32, 0, Vec::new());
    for digit in text.trim_end_matches('=').bytes() {
        let six = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        kept += 6;
        if kept >= 8 {
            kept -= 8;
            bytes.push((bits >> kept) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
