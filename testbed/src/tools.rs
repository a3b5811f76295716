//! The paths of the real binaries, schemas and builds.
//!
//! Each is looked up in its environment variable, in `.tools/env` at the repository's root (written by `make setup`,
//! lines `export NAME=value`) and in `PATH`, in this order.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Result, bail};

/// The Envoy binary.
pub fn envoy() -> Result<PathBuf> {
    binary("ENVOY", "envoy")
}

/// The Prometheus binary.
pub fn prometheus() -> Result<PathBuf> {
    binary("PROMETHEUS", "prometheus")
}

/// Prometheus' `promtool`.
pub fn promtool() -> Result<PathBuf> {
    binary("PROMTOOL", "promtool")
}

/// The Alertmanager binary.
pub fn alertmanager() -> Result<PathBuf> {
    binary("ALERTMANAGER", "alertmanager")
}

/// Alertmanager's `amtool`.
pub fn amtool() -> Result<PathBuf> {
    binary("AMTOOL", "amtool")
}

/// A headless Chromium.
pub fn chromium() -> Result<PathBuf> {
    binary("CHROMIUM", "chromium")
}

/// The JSON Schema of the Compose Specification.
pub fn compose_schema() -> Result<PathBuf> {
    binary("COMPOSE_SCHEMA", "compose-spec.json")
}

/// The directory with the schemas of Kubernetes resources, built-in and custom ones, installed from npm.
pub fn crd_schemas() -> Result<PathBuf> {
    binary("CRD_SCHEMAS", "crd-schemas")
}

/// `umoci`, which unpacks OCI images.
pub fn umoci() -> Result<PathBuf> {
    binary("UMOCI", "umoci")
}

/// The directory with the CycloneDX schemas.
pub fn cyclonedx_schema() -> Result<PathBuf> {
    binary("CYCLONEDX_SCHEMA", "cyclonedx")
}

/// The filter: `EVENKEEL_WASM`, or the output of `make build`.
pub fn wasm() -> Result<PathBuf> {
    if let Some(path) = env::var_os("EVENKEEL_WASM") {
        return existing(PathBuf::from(path), "EVENKEEL_WASM names");
    }
    let built = root().join("target/wasm32-wasip1/release/evenkeel.wasm");
    if !built.is_file() {
        bail!("the filter is not built: no {}; run `make build` or set EVENKEEL_WASM", built.display());
    }
    Ok(built)
}

/// The native module, with the file name that Envoy looks for: `EVENKEEL_MODULE`, or the output of `make module`.
pub fn module() -> Result<PathBuf> {
    if let Some(path) = env::var_os("EVENKEEL_MODULE") {
        return existing(PathBuf::from(path), "EVENKEEL_MODULE names");
    }
    let built = root().join("target/module/libevenkeel.so");
    if !built.is_file() {
        bail!("the module is not built: no {}; run `make module` or set EVENKEEL_MODULE", built.display());
    }
    Ok(built)
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn binary(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable).filter(|value| !value.is_empty()) {
        return existing(PathBuf::from(path), &format!("{variable} names"));
    }
    let settings = root().join(".tools/env");
    if let Some(path) = fs::read_to_string(&settings).ok().and_then(|text| exported(&text, variable)) {
        return existing(path, &format!("{} names for {variable}", settings.display()));
    }
    let found = env::var_os("PATH")
        .and_then(|path| env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()));
    match found {
        Some(path) => Ok(path),
        None => bail!("{name} is missing: run `make setup`, or set {variable}=/path/to/{name}"),
    }
}

fn existing(path: PathBuf, who: &str) -> Result<PathBuf> {
    if !path.exists() {
        bail!("{who} {}, which is not there", path.display());
    }
    Ok(path)
}

fn exported(text: &str, variable: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (name, value) = line.trim().strip_prefix("export ")?.split_once('=')?;
        (name.trim() == variable).then(|| PathBuf::from(value.trim().trim_matches(['"', '\''])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shell_exports() {
        let text = "# made by make setup\nexport ENVOY=/opt/envoy\nexport PROMETHEUS=\"/opt/p r\"\n";
        assert_eq!(exported(text, "ENVOY"), Some(PathBuf::from("/opt/envoy")));
        assert_eq!(exported(text, "PROMETHEUS"), Some(PathBuf::from("/opt/p r")));
        assert_eq!(exported(text, "PROMTOOL"), None);
    }

    #[test]
    fn a_missing_tool_is_named_with_the_way_to_get_it() {
        let error = binary("TESTBED_NO_SUCH_TOOL", "no-such-tool").unwrap_err().to_string();
        assert!(error.contains("no-such-tool is missing"), "{error}");
        assert!(error.contains("make setup"), "{error}");
    }
}
