//! Manifests against types and validators generated from the CRDs: an unknown field does not compile, a value out of
//! range does not validate. Needs `scripts/setup crd-schemas`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, bail, ensure};
use testbed::{tempfile, tools};

use super::files_of;
use crate::shipped;

/// The generated module for a manifest's kind.
fn module(manifest: &Value) -> Result<String> {
    let (group, version) =
        manifest["apiVersion"].as_str().and_then(|text| text.split_once('/')).context("apiVersion")?;
    let kind = manifest["kind"].as_str().context("kind")?;
    let package = match group {
        "gateway.envoyproxy.io" => "envoy-gateway",
        "gateway.networking.k8s.io" => "gateway-api",
        group if group.ends_with(".istio.io") => "istio",
        group => bail!("no types of the group {group}"),
    };
    Ok(format!("@kubernetes-models/{package}/{group}/{version}/{kind}"))
}

/// Faults of each manifest, by the types and the validator of its kind; empty if there are none.
fn faults(manifests: &[Value]) -> Result<Vec<String>> {
    let schemas = tools::crd_schemas()?;
    let directory = tempfile::tempdir()?;
    symlink(schemas.join("node_modules"), directory.path().join("node_modules"))?;
    fs::write(directory.path().join("package.json"), r#"{ "type": "module" }"#)?;
    // Two lines per manifest, so that the compiler's line number tells which one it is.
    let (mut typed, mut run) = (String::new(), String::new());
    for (number, manifest) in manifests.iter().enumerate() {
        let (module, kind) = (module(manifest)?, manifest["kind"].as_str().context("kind")?);
        writeln!(typed, "import type {{ I{kind} as T{number} }} from {module:?};")?;
        writeln!(typed, "export const m{number}: T{number} = {manifest};")?;
        writeln!(run, "import {{ {kind} as C{number} }} from {module:?};")?;
        writeln!(
            run,
            "try {{ new C{number}({manifest}).validate() }} catch (e) {{ console.log(`{number}: ${{e}}`) }}"
        )?;
    }
    fs::write(directory.path().join("typed.ts"), typed)?;
    fs::write(directory.path().join("run.js"), run)?;
    let tsc = schemas.join("node_modules/typescript/bin/tsc");
    let options =
        ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "typed.ts"];
    let compiled = Command::new("node").arg(tsc).args(options).current_dir(directory.path()).output()?;
    let validated = shipped::run(Command::new("node").arg("run.js").current_dir(directory.path()))?;

    let mut faults = vec![String::new(); manifests.len()];
    for line in String::from_utf8(compiled.stdout)?.lines().filter(|line| !line.starts_with(' ')) {
        let number =
            line.strip_prefix("typed.ts(").and_then(|rest| rest.split(',').next()?.parse::<usize>().ok());
        let number = number.with_context(|| format!("not about a manifest: {line}"))?;
        faults[(number - 1) / 2] += line;
    }
    for line in validated.lines() {
        let number = line.split(':').next().and_then(|number| number.parse::<usize>().ok());
        faults[number.with_context(|| format!("not about a manifest: {line}"))?] += line;
    }
    Ok(faults)
}

/// Converts a TrafficExtension, which is newer than the types, to a WasmPlugin: its `wasm` has the same fields as
/// WasmPlugin has beside its selectors.
fn as_wasm_plugin(manifest: &Value) -> Result<Value> {
    let mut spec = manifest["spec"].as_object().context("spec")?.clone();
    let own = ["selector", "targetRefs", "phase", "priority", "match", "wasm"];
    if let Some(stranger) = spec.keys().find(|key| !own.contains(&key.as_str())) {
        bail!("TrafficExtension has no field {stranger}");
    }
    let wasm = spec.remove("wasm").context("wasm")?;
    let wasm = wasm.as_object().context("wasm")?;
    if let Some(twice) = wasm.keys().find(|key| own.contains(&key.as_str())) {
        bail!("TrafficExtension's wasm has no field {twice}");
    }
    spec.extend(wasm.clone());
    let mut plugin = manifest.clone();
    plugin["kind"] = json!("WasmPlugin");
    plugin["spec"] = Value::Object(spec);
    Ok(plugin)
}

/// Removes the fields for dynamic modules, which are newer than the types (Envoy Gateway 1.9), after checking them
/// against its definitions.
fn without_modules(manifest: &Value) -> Result<Value> {
    let mut manifest = manifest.clone();
    let spec = manifest["spec"].as_object_mut().context("spec")?;
    for (list, fields) in [
        ("dynamicModules", &["name", "doNotClose", "loadGlobally", "source"][..]),
        ("dynamicModule", &["name", "filterName", "config", "terminalFilter"][..]),
    ] {
        let Some(entries) = spec.remove(list) else { continue };
        for entry in entries.as_array().context("a list")? {
            let stranger =
                entry.as_object().context("an entry")?.keys().find(|key| !fields.contains(&key.as_str()));
            ensure!(stranger.is_none() && entry["name"].is_string(), "{list} has no field {stranger:?}");
        }
    }
    Ok(manifest)
}

fn all() -> Result<Vec<Value>> {
    let files = files_of("istio")?.into_iter().chain(files_of("envoy-gateway")?);
    let known = |manifest: Value| match manifest["kind"].as_str() {
        Some("TrafficExtension") => as_wasm_plugin(&manifest),
        Some("EnvoyProxy" | "EnvoyExtensionPolicy") => without_modules(&manifest),
        _ => Ok(manifest),
    };
    files.flat_map(|file| file.manifests).map(known).collect()
}

#[test]
fn every_manifest_is_what_its_custom_resource_is_defined_to_be_and_faults_are_noticed() -> Result<()> {
    let mut manifests = all()?;
    let fine = manifests.len();
    for (kind, pointer, value) in [
        ("WasmPlugin", "/spec/pluginConfg", json!({})),
        ("WasmPlugin", "/spec/phase", json!("FIRST")),
        ("WasmPlugin", "/spec/url", json!(7)),
        ("WasmPlugin", "/spec/sha256", json!("not a checksum")),
        ("WasmPlugin", "/spec/vmConfig/env/0/valeu", json!("x")),
        ("EnvoyFilter", "/spec/configPatches/0/patch/operaton", json!("MERGE")),
        ("BackendTrafficPolicy", "/spec/loadBalancer/endpointOverride/extractFrom/0/heder", json!("x")),
        ("EnvoyExtensionPolicy", "/spec/wasm/0/failureOpen", json!(true)),
        ("HTTPRoute", "/spec/rules/0/backendRefs/0/port", json!("http")),
    ] {
        let mut broken = manifests.iter().find(|manifest| manifest["kind"] == kind).context(kind)?.clone();
        let (parent, name) = pointer.rsplit_once('/').context("pointer")?;
        broken.pointer_mut(parent).context(parent)?[name] = value;
        manifests.push(broken);
    }
    for (number, (manifest, fault)) in manifests.iter().zip(faults(&manifests)?).enumerate() {
        assert_eq!(fault.is_empty(), number < fine, "{fault}\n{manifest}");
    }
    Ok(())
}
