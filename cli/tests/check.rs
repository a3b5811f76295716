//! The program as users run it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

const FAULTY: &str = r#"{ "upstreams": [{ "cluster": "web", "endpoints": { "static": ["10.0.0.1:80"] }, "slow_start": 30, "helth": {} }] }"#;
const FINE: &str = r#"{
  "prometheus": { "cluster": "p", "headers": { "authorization": "Bearer S3CR3T" } },
  "upstreams": [{ "cluster": "web", "endpoints": { "static": ["10.0.0.1:80"] } }]
}"#;

#[test]
fn faults_are_the_filters_own_words_and_the_status_is_1() {
    let output = run(&["check", "-"], FAULTY);
    let expected: String = config::parse(FAULTY.as_bytes())
        .unwrap_err()
        .iter()
        .map(|fault| format!("standard input: configuration refused: {fault}\n"))
        .collect();
    assert_eq!(text(&output.stderr), expected);
    assert_eq!((text(&output.stdout), output.status.code()), ("", Some(1)));
}

#[test]
fn what_is_shipped_is_fine() {
    let output = run(&["check", "envoy/envoy.yaml", "envoy/envoy-stateful-session.yaml"], "");
    let expected = "envoy/envoy.yaml, plugin: ok\nenvoy/envoy-stateful-session.yaml, plugin: ok\n";
    assert_eq!((text(&output.stderr), text(&output.stdout)), ("", expected));
    assert_eq!(output.status.code(), Some(0));
}

/// The native module's configuration is checked too, both in Envoy's files and in Envoy Gateway's.
#[test]
fn module_files_are_checked() {
    for (file, place, old, new, said) in [
        ("envoy/module.yaml", "plugin", "\"interval\": \"5s\"", "\"interval\": 5", "$.prometheus.interval"),
        (
            "envoy/module.yaml",
            "plugin",
            "\"cluster\": \"web\"",
            "\"cluster\": \"wbe\"",
            "$.upstreams[0].cluster",
        ),
        (
            "envoy/module.yaml",
            "plugin",
            "\"prometheus\": {",
            "\"role\": \"upstream\", \"prometheus\": {",
            "the native module works among the listener's filters only",
        ),
        (
            "envoy/module-lb.yaml",
            "plugin",
            "\"cluster\": \"web\"",
            "\"cluster\": \"wbe\"",
            "$.upstreams[0].cluster",
        ),
        (
            "envoy/envoy-gateway/module.yaml",
            "EnvoyExtensionPolicy evenkeel",
            "max: 100",
            "max: -1",
            "$.upstreams[0].signals[0].max",
        ),
    ] {
        let output = run(&["check", file], "");
        assert_eq!(
            (text(&output.stderr), text(&output.stdout)),
            ("", format!("{file}, {place}: ok\n").as_str())
        );
        let shipped = std::fs::read_to_string(root().join(file)).unwrap();
        assert!(shipped.contains(old), "{file}: {old}");
        let output = run(&["check", "-"], &shipped.replace(old, new));
        assert_eq!(output.status.code(), Some(1), "{file}: {new}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
}

#[test]
fn the_effective_configuration_is_json_that_is_accepted_and_has_no_secret() {
    let output = run(&["check", "--effective", "-"], FINE);
    let written = text(&output.stdout);
    assert!(written.contains("\"slow_start\": \"30s\""), "{written}");
    assert!(written.contains("\"authorization\": \"(not shown)\""), "{written}");
    assert!(!written.contains("S3CR3T"));
    config::parse(&output.stdout).unwrap();
    let again = run(&["check", "--effective", "-"], written);
    assert_eq!(text(&again.stdout), written);
}

#[test]
fn one_bad_file_does_not_hide_the_others() {
    let output = run(&["check", "no-such-file.json", "Cargo.toml", "envoy/envoy.yaml"], "");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "envoy/envoy.yaml, plugin: ok\n");
    let complaints: Vec<&str> = text(&output.stderr).lines().collect();
    assert!(complaints[0].starts_with("no-such-file.json: cannot be read: "), "{complaints:?}");
    assert!(text(&output.stderr).contains("Cargo.toml: "), "{complaints:?}");
}

#[test]
fn calling_it_without_anything_to_check_shows_how() {
    for arguments in [&[][..], &["check"], &["chek", "x"]] {
        let output = run(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("Usage: evenkeel"), "{arguments:?}");
    }
}

/// A folder of this name in the build directory, with these files in it.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

const RULE: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: web-failover, namespace: shop }
spec:
  host: web
  trafficPolicy:
    outlierDetection: { consecutive5xxErrors: 5 }
    loadBalancer: { localityLbSetting: { failover: [{ from: eu, to: us }] } }
";

#[test]
fn a_folder_is_checked_file_by_file_and_all_together() {
    let plugin = std::fs::read_to_string(root().join("envoy/istio/sidecar-override-host.yaml")).unwrap();
    let files =
        [("deep/rule.yaml", RULE), ("evenkeel.yml", &plugin), ("dashboard.json", "{ \"panels\": [] }")];
    let folder = folder("collides", &files);
    let output = run(&["check", folder.to_str().unwrap()], "");
    let complaints = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaints}");
    for part in [
        "deep/rule.yaml, DestinationRule web-failover",
        "outlierDetection and localityLbSetting.failover",
        "stateful_session",
    ] {
        assert!(complaints.contains(part), "{part}: {complaints}");
    }
    assert!(
        text(&output.stdout).contains("evenkeel.yml, WasmPlugin evenkeel: ok"),
        "{}",
        text(&output.stdout)
    );

    let alone = std::fs::read_to_string(root().join("envoy/istio/sidecar-stateful-session.yaml")).unwrap();
    let folder = self::folder("stands", &[("rule.yaml", RULE), ("evenkeel.yaml", &alone)]);
    let output = run(&["check", folder.to_str().unwrap()], "");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

/// What the filter would refuse does not go by without a word, nor with 0 where it is evenkeel's.
#[test]
fn json_that_cannot_be_read_is_named_in_a_folder() {
    let wide = |text: &str| {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [0xff, 0xfe].into_iter().chain(units).collect::<Vec<u8>>()
    };
    let bootstrap =
        r#"{"typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",}}"#;
    for (bytes, status, said) in [
        (FINE.replace("}]\n", "}],\n").into_bytes(), 1, "configuration refused: $: found invalid JSON"),
        (FINE.replacen('{', "{ // ours\n", 1).into_bytes(), 1, "JSON has no comments"),
        (wide(FINE), 1, "configuration refused: $: found text in UTF-16"),
        (format!("{FINE}{FINE}").into_bytes(), 1, "trailing characters"),
        (bootstrap.as_bytes().to_vec(), 1, "trailing comma"),
        (br#"{"upstreams":[{"clster":"web"}]}"#.to_vec(), 1, "$.upstreams[0].clster: unknown field"),
        (br#"{"upstream":[{"cluster":"web"}]}"#.to_vec(), 1, "$.upstream: unknown field"),
        (br#"{"upstreams":{"cluster":"web"}}"#.to_vec(), 1, "$.upstreams: found an object"),
        (br#"{"role":"upstream","mode":"observe"}"#.to_vec(), 1, "$.mode"),
        (br#"{"upstreams":[],"mod":"observe"}"#.to_vec(), 1, "did you mean \"mode\"?"),
        // Kong has upstreams, too.
        (
            br#"{"_format_version":"3.0","upstreams":[{"name":"a","targets":[]}]}"#.to_vec(),
            0,
            "b.json: passed over: $._format_version: unknown field",
        ),
        (br#"{"compilerOptions":{},}"#.to_vec(), 0, "b.json: passed over: invalid JSON: trailing comma"),
        (b"{{- if .Values.on }}\nx: '{\"upstreams\":[]}'\n".to_vec(), 0, "b.json: passed over: invalid JSON"),
        (br#"{"kind":"List","items":[]}"#.to_vec(), 0, ""),
        (br#"{"role":"admin"}"#.to_vec(), 0, ""),
        (b" \n".to_vec(), 0, ""),
    ] {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let folder = folder("unread", &[("a.json", FINE)]);
        std::fs::write(folder.join("b.json"), bytes).unwrap();
        let output = run(&["check", folder.to_str().unwrap()], "");
        let complaints = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{shown}: {complaints}");
        assert!(
            complaints.contains(said) && said.is_empty() == complaints.is_empty(),
            "{shown}: {complaints}"
        );
        assert!(text(&output.stdout).contains("a.json: ok"), "{shown}");
    }
}

/// A manifest that nothing can read is no manifest of another program where it names evenkeel and is no template.
#[test]
fn yaml_that_cannot_be_read_is_a_fault_in_a_folder_where_it_is_ours() {
    let shipped = std::fs::read_to_string(root().join("envoy/istio/sidecar-stateful-session.yaml")).unwrap();
    let envoy = std::fs::read_to_string(root().join("envoy/envoy.yaml")).unwrap();
    for (broken, status, said) in [
        (shipped.replace("    steering:\n", "\tsteering:\n"), 1, "b.yaml: is neither JSON nor YAML"),
        (shipped.replace("  priority: 1000\n", "  priority: 1\n  priority: 2\n"), 1, "duplicate"),
        (format!("{envoy} a: [\n"), 1, "b.yaml: is neither JSON nor YAML"),
        (shipped.replace("name: evenkeel\n", "name: {{ .Release.Name }}\n"), 0, "b.yaml: passed over"),
        ("kind: WasmPlugin\n\tx: 1\n".into(), 0, "b.yaml: passed over"),
    ] {
        let folder = folder("broken", &[("a.json", FINE), ("b.yaml", &broken)]);
        let output = run(&["check", folder.to_str().unwrap()], "");
        assert_eq!(output.status.code(), Some(status), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("a.json: ok"), "{said}");
    }
}

/// What the filter does not even get is refused by it, and hides nothing that stands beside it.
#[test]
fn a_configuration_of_another_kind_is_a_fault_in_a_folder_too() {
    let plugin = |name: &str, configuration: &str| {
        format!(
            "filter:\n  '@type': type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n  \
             config: {{ name: {name}, configuration: {{ '@type': type.googleapis.com/google.protobuf.{configuration} }} }}\n"
        )
    };
    let good = r#"{"upstreams":[{"cluster":"web","endpoints":{"static":["10.0.0.1:80"]}}]}"#;
    let both = [
        plugin("evenkeel", "Struct, value: { upstreams: [] }"),
        plugin("evenkeel-web", &format!("StringValue, value: '{good}'")),
    ]
    .join("---\n");
    let folder = folder("kinds", &[("both.yaml", &both)]);
    let file = folder.join("both.yaml");
    for path in [&folder, &file] {
        let output = run(&["check", path.to_str().unwrap()], "");
        assert_eq!(output.status.code(), Some(1), "{path:?}");
        assert!(text(&output.stderr).contains("configuration refused: a plugin configuration of type"));
        assert!(text(&output.stdout).contains("plugin: ok"), "{path:?}");
    }
}

#[test]
fn folder_without_configurations_is_reported() {
    let folder = folder("nothing", &[("rule.yaml", RULE), ("package.json", "{}")]);
    let output = run(&["check", folder.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("contains no configuration of evenkeel"));
}

#[test]
fn the_manifests_that_are_shipped_are_fine_together() {
    for folder in ["envoy/istio", "envoy/envoy-gateway"] {
        let output = run(&["check", folder], "");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{folder}");
    }
}

#[test]
fn names_and_addresses_that_this_envoy_does_not_have_are_faults() {
    let shipped = std::fs::read_to_string(root().join("envoy/envoy.yaml")).unwrap();
    for (right, wrong, said) in [
        (
            "\"cluster\": \"web\"",
            "\"cluster\": \"wbe\"",
            "$.upstreams[0].cluster: there is no cluster \"wbe\"",
        ),
        (
            "\"172.31.254.11:8080\"",
            "\"172.31.254.99:8080\"",
            "172.31.254.99:8080 is not in the cluster \"web\"",
        ),
    ] {
        assert!(shipped.contains(right), "{right}");
        let output = run(&["check", "-"], &shipped.replace(right, wrong));
        assert_eq!(output.status.code(), Some(1), "{wrong}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
}

/// An Envoy configuration that is text in a manifest is compared with its own clusters.
#[test]
fn names_that_the_envoy_in_a_manifest_does_not_have_are_faults() {
    let shipped = std::fs::read_to_string(root().join("envoy/envoy.yaml")).unwrap();
    let map = |text: &str| {
        let lines: String = text.lines().map(|line| format!("    {line}\n")).collect();
        format!("kind: ConfigMap\nmetadata: {{ name: envoy }}\ndata:\n  envoy.yaml: |\n{lines}")
    };
    let output = run(&["check", "-"], &map(&shipped));
    assert_eq!(text(&output.stdout), "standard input, ConfigMap envoy: ok\n");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let wrong = shipped.replace("\"cluster\": \"web\"", "\"cluster\": \"wbe\"");
    let output = run(&["check", "-"], &map(&wrong));
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    let said = "ConfigMap envoy: $.upstreams[0].cluster: there is no cluster \"wbe\"";
    assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));

    let broken = format!("{}---\n{}", map(&shipped), map(&format!("{shipped}\n a: [\n")));
    let output = run(&["check", "-"], &broken);
    let complaints = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{complaints}");
    assert!(complaints.contains("ConfigMap envoy: passed over: text with the filter in it"), "{complaints}");
}

/// Policies that take each other out of force are each accepted by Envoy Gateway.
#[test]
fn policies_of_envoy_gateway_that_exclude_each_other_are_faults() {
    let shipped = std::fs::read_to_string(root().join("envoy/envoy-gateway/evenkeel.yaml")).unwrap();
    for (kind, target, said) in [
        (
            "EnvoyExtensionPolicy",
            "{ kind: Gateway, name: shop }",
            "theirs: is out of force for HTTPRoute web",
        ),
        ("EnvoyExtensionPolicy", "{ kind: HTTPRoute, name: web }", "theirs: is for the same HTTPRoute web"),
        ("BackendTrafficPolicy", "{ kind: HTTPRoute, name: web }", "theirs: is for the same HTTPRoute web"),
    ] {
        let theirs = format!(
            "kind: {kind}\nmetadata: {{ name: theirs, namespace: shop }}\nspec: {{ targetRefs: [{target}] }}\n"
        );
        let folder = folder("policies", &[("evenkeel.yaml", &shipped), ("theirs.yaml", &theirs)]);
        let output = run(&["check", folder.to_str().unwrap()], "");
        assert_eq!(output.status.code(), Some(1), "{kind} {target}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
        let files = ["theirs.yaml", "evenkeel.yaml"].map(|name| folder.join(name));
        let output = run(&["check", files[0].to_str().unwrap(), files[1].to_str().unwrap()], "");
        assert_eq!(output.status.code(), Some(1), "{kind} {target}");
    }
}

/// Envoy takes such a cluster, and nothing is steered.
#[test]
fn cluster_that_does_not_follow_the_header_is_a_fault() {
    for (file, old, new, status) in [
        ("envoy/envoy.yaml", "- header: x-evenkeel-endpoint", "- header: x-evenkeel-endpiont", 1),
        ("envoy/envoy-minimal.yaml", "header: x-evenkeel-endpoint", "header: x-other", 1),
        // The module names the endpoint by a call, the others are followed elsewhere.
        ("envoy/module.yaml", "", "", 0),
        ("envoy/envoy-stateful-session.yaml", "", "", 0),
        ("envoy/envoy-attempts.yaml", "", "", 0),
        ("envoy/envoy-discovery.yaml", "", "", 0),
    ] {
        let shipped = std::fs::read_to_string(root().join(file)).unwrap();
        assert!(shipped.contains(old), "{file}: {old}");
        let output = run(&["check", "-"], &shipped.replace(old, new));
        assert_eq!(output.status.code(), Some(status), "{file} {new}: {}", text(&output.stderr));
        let said = text(&output.stderr).contains("is not override_host with the header x-evenkeel-endpoint");
        assert_eq!(said, status == 1, "{file} {new}: {}", text(&output.stderr));
    }
}
