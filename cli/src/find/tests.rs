//! What is found in a file, and what is not.

use super::*;

const CONFIG: &str = r#"{"upstreams":[]}"#;

fn found(text: &str) -> Vec<(String, String)> {
    let plugins = plugins(text.as_bytes()).unwrap().plugins;
    plugins.into_iter().map(|plugin| (plugin.place, String::from_utf8(plugin.json).unwrap())).collect()
}

/// Why the file's last plugin is refused.
fn refused(text: &str) -> String {
    plugins(text.as_bytes()).unwrap().plugins.pop().unwrap().fault.unwrap()
}

fn one(place: &str) -> Vec<(String, String)> {
    vec![(place.to_owned(), CONFIG.to_owned())]
}

#[test]
fn plain_json_is_handed_on_as_it_is_even_if_it_is_none() {
    for text in [CONFIG, "", " \n", "{", "{ \"upstreams\": [], \"upstreams\": [] }", "{} {}"] {
        assert_eq!(found(text), [(String::new(), text.to_owned())]);
    }
    assert_eq!(plugins(b"{\xff}").unwrap().plugins[0].json, b"{\xff}");
}

#[test]
fn an_envoy_configuration_has_it_as_text_or_as_bytes() {
    for configuration in [
        format!("{{ '@type': {STRING}, value: '{CONFIG}' }}"),
        // The same text in base64.
        format!("{{ '@type': {BYTES}, value: 'eyJ1cHN0cmVhbXMiOltdfQ==' }}"),
    ] {
        let config = format!("{{ root_id: evenkeel, configuration: {configuration} }}");
        for filter in [
            format!("{{ '@type': {WASM_FILTER}, config: {config} }}"),
            format!("{{ '@type': x/TypedStruct, type_url: {WASM_FILTER}, value: {{ config: {config} }} }}"),
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
fn the_native_module_has_it_in_envoy_and_in_a_policy() {
    let configuration = format!("{{ '@type': {STRING}, value: '{CONFIG}' }}");
    let structure = format!("{{ '@type': {STRUCT}, value: {CONFIG} }}");
    for text in [
        format!("filter: {{ '@type': {MODULE_FILTER}, filter_name: evenkeel, filter_config: {structure} }}"),
        format!(
            "filter: {{ '@type': {MODULE_FILTER}, filter_name: evenkeel, filter_config: {configuration} }}"
        ),
        format!(
            "filter: {{ '@type': {MODULE_FILTER}, dynamicModuleConfig: {{ name: evenkeel }}, filterConfig: {configuration} }}"
        ),
        format!(
            "kind: A\nspec: {{ dynamicModule: [{{ name: other, config: {{ a: 1 }} }}, {{ name: evenkeel, config: {CONFIG} }}] }}"
        ),
    ] {
        let found = plugins(text.as_bytes()).unwrap().plugins;
        assert_eq!(found.len(), 1, "{text}");
        assert!(found[0].native && found[0].json == CONFIG.as_bytes(), "{text}");
    }
}

#[test]
fn plugins_of_other_names_are_found_by_their_code_or_by_what_is_in_them() {
    const OURS: &str = r#"{"upstreams":[{"cluster":"web"}]}"#;
    for spec in [
        format!("{{ url: 'oci://x', pluginName: evenkeel-web, pluginConfig: {OURS} }}"),
        format!("{{ url: 'oci://x/evenkeel:1', pluginName: lb, pluginConfig: {OURS} }}"),
        format!("{{ url: 'oci://x', pluginName: lb, pluginConfig: {OURS} }}"),
        format!("{{ wasm: [{{ name: lb, code: {{ http: {{ url: x }} }}, config: {OURS} }}] }}"),
        format!(
            "{{ '@type': {WASM_FILTER}, config: {{ name: lb, configuration: {{ '@type': {STRING}, value: '{OURS}' }} }} }}"
        ),
    ] {
        let found = plugins(format!("kind: A\nmetadata: {{ name: b }}\nspec: {spec}").as_bytes()).unwrap();
        assert_eq!(found.plugins.len(), 1, "{spec}");
        assert_eq!(found.plugins[0].json, OURS.as_bytes(), "{spec}");
    }
}

#[test]
fn lists_and_texts_hide_nothing() {
    let manifest = |name: &str| {
        format!(
            r#"{{"kind":"WasmPlugin","metadata":{{"name":"{name}"}},"spec":{{"url":"oci://x/evenkeel","pluginConfig":{CONFIG}}}}}"#
        )
    };
    let (a, b) = (manifest("a"), manifest("b"));
    let both = [one("WasmPlugin a"), one("WasmPlugin b")].concat();
    for text in [
        format!(r#"{{"kind":"List","items":[{a},{b}]}}"#),
        format!("kind: WasmPluginList\nitems:\n- {a}\n- {b}\n"),
        format!("{a}\n{b}\n"),
    ] {
        assert_eq!(found(&text), both, "{text}");
    }
    let filter = format!(
        "'@type': {WASM_FILTER}, config: {{ name: evenkeel, configuration: {{ '@type': {STRING}, value: '{CONFIG}' }} }}"
    );
    let map = format!(
        "kind: ConfigMap\nmetadata: {{ name: envoy }}\ndata:\n  envoy.yaml: |\n    filter: {{ {filter} }}\n"
    );
    assert_eq!(found(&map), one("ConfigMap envoy"));
    let script =
        format!("kind: ConfigMap\ndata:\n  run.sh: |\n    cat <<EOF\n    {filter}\n      a: [\n    EOF\n");
    assert_eq!(plugins(script.as_bytes()).unwrap().plugins, []);
    assert_eq!(plugins(format!("of: {WASM_FILTER}").as_bytes()).unwrap().plugins, []);
    let typed = format!(
        "filter: {{ '@type': x/TypedStruct, typeUrl: {WASM_FILTER}, value: {{ config: {{ name: evenkeel }} }} }}"
    );
    assert_eq!(found(&typed), [("plugin".to_owned(), String::new())]);
}

#[test]
fn a_plugin_without_a_configuration_gets_an_empty_one() {
    let text = "kind: WasmPlugin\nmetadata: { name: a }\nspec: { url: 'oci://x/evenkeel:1' }";
    assert_eq!(found(text), [("WasmPlugin a".to_owned(), String::new())]);
    let policy = "kind: EnvoyExtensionPolicy\nmetadata: { name: a }\nspec: { wasm: [{ name: evenkeel, code: { type: Image } }] }";
    assert_eq!(found(policy), [("EnvoyExtensionPolicy a".to_owned(), String::new())]);
    // A link to the project is no plugin.
    let chart = "kind: Chart\nmetadata: { name: a }\nspec: { url: 'https://x/evenkeel' }";
    assert_eq!(plugins(chart.as_bytes()).unwrap().plugins, []);
}

#[test]
fn a_byte_order_mark_hides_nothing() {
    let text =
        format!("\u{feff}kind: WasmPlugin\nspec: {{ url: x, pluginName: evenkeel, pluginConfig: {CONFIG} }}");
    assert_eq!(found(&text), one("plugin"));
    // Its faults are for the filter's reader to find.
    assert_eq!(found(&format!("\u{feff}{CONFIG}")), [(String::new(), format!("\u{feff}{CONFIG}"))]);
}

#[test]
fn plugins_of_others_are_passed_over() {
    let other =
        "kind: WasmPlugin\nspec: { url: 'oci://x', pluginName: other, pluginConfig: { upstreams: [] } }";
    for text in [other, "static_resources: {}", "just text", "- 1"] {
        assert_eq!(plugins(text.as_bytes()).unwrap().plugins, [], "{text}");
    }
    assert!(plugins(b"a: [").is_err());
}

#[test]
fn a_configuration_of_another_kind_is_named() {
    let text = format!(
        "{{ '@type': {WASM_FILTER}, config: {{ name: evenkeel, configuration: {{ '@type': x/Int64Value }} }} }}"
    );
    let text = format!("filter: {text}");
    assert!(refused(&text).contains("x/Int64Value"));
    let text = text.replace("x/Int64Value", STRUCT);
    assert!(refused(&text).contains("write a StringValue"));
    // With the members of the Struct under `value`, without `value`, and without a type.
    for configuration in [
        format!("{{ '@type': {STRUCT}, value: {CONFIG} }}"),
        format!("{{ '@type': {STRUCT}, {} }}", &CONFIG[1..CONFIG.len() - 1]),
        CONFIG.to_owned(),
        format!("'{CONFIG}'"),
    ] {
        let text = format!(
            "filter: {{ '@type': {WASM_FILTER}, config: {{ name: evenkeel, configuration: {configuration} }} }}"
        );
        let error = refused(&text);
        assert!(error.contains("write a StringValue"), "{configuration}: {error}");
    }
}

#[test]
fn a_value_that_only_looks_like_a_number_hides_nothing() {
    let plugin =
        format!("kind: WasmPlugin\nspec: {{ url: x, pluginName: evenkeel, pluginConfig: {CONFIG} }}");
    for value in ["1234e567", ".inf", "-.inf", ".nan"] {
        let text = format!("kind: Service\nmetadata: {{ labels: {{ v: {value} }} }}\n---\n{plugin}");
        assert_eq!(found(&text), one("plugin"), "{value}");
    }
}

/// Istio's `pluginConfig` is a Struct; Envoy Gateway hands any JSON on.
#[test]
fn istio_takes_an_object_only() {
    for value in [format!("'{CONFIG}'"), "[]".into(), "7".into()] {
        for (kind, spec) in [
            ("WasmPlugin", format!("{{ url: x, pluginName: evenkeel, pluginConfig: {value} }}")),
            (
                "TrafficExtension",
                format!("{{ wasm: {{ url: x, pluginName: evenkeel, pluginConfig: {value} }} }}"),
            ),
        ] {
            let text = format!("kind: {kind}\nmetadata: {{ name: a }}\nspec: {spec}");
            assert!(refused(&text).contains("pluginConfig has to be an object"), "{text}");
        }
    }
    let gateway =
        format!("spec: {{ wasm: [{{ name: evenkeel, code: {{ type: Image }}, config: '{CONFIG}' }}] }}");
    assert_eq!(plugins(gateway.as_bytes()).unwrap().plugins[0].fault, None);
}
