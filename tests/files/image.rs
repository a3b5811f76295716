//! The output of `make image`: an image that an independent tool unpacks, correct checksums, and a bill of materials
//! that follows its schema.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testbed::anyhow::{Context, Result};
use testbed::{tempfile, tools};

use crate::shipped;

fn packed(output: &Path) -> Result<String> {
    let script = tools::root().join("scripts/image");
    shipped::run(
        Command::new(script)
            .arg(tools::wasm()?)
            .arg(output)
            .env("IMAGE", "registry.example.com:5000/evenkeel:1.2.3"),
    )
}

fn json(path: &Path) -> Result<Value> {
    serde_json::from_str(&shipped::text(path)?).with_context(|| path.display().to_string())
}

fn blob(layout: &Path, descriptor: &Value) -> Result<std::path::PathBuf> {
    let digest = descriptor["digest"].as_str().context("digest")?;
    Ok(layout.join("blobs").join(digest.replace(':', "/")))
}

#[test]
fn the_image_has_the_filter_at_its_root_in_the_only_layer_and_is_the_same_each_time() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("image");
    let said = packed(&output)?;
    let layout = output.join("oci");
    let index = json(&layout.join("index.json"))?;
    let entry = &index["manifests"][0];
    assert!(said.contains(entry["digest"].as_str().context("digest")?), "{said}");
    let manifest = json(&blob(&layout, entry)?)?;
    // The platforms' fetchers recognize a compatible image by this.
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let layers = manifest["layers"].as_array().context("layers")?;
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");

    let bundle = directory.path().join("bundle");
    let image = format!("{}:1.2.3", layout.display());
    shipped::run(
        Command::new(tools::umoci()?).args(["unpack", "--rootless", "--image", &image]).arg(&bundle),
    )?;
    let files: Vec<_> = fs::read_dir(bundle.join("rootfs"))?.collect::<std::io::Result<_>>()?;
    assert_eq!(files.iter().map(std::fs::DirEntry::file_name).collect::<Vec<_>>(), ["plugin.wasm"]);
    assert!(fs::read(files[0].path())? == fs::read(tools::wasm()?)?, "not the filter");

    let again = directory.path().join("again");
    packed(&again)?;
    for name in ["evenkeel.oci.tar", "SHA256SUMS"] {
        assert!(fs::read(output.join(name))? == fs::read(again.join(name))?, "{name} differs");
    }
    Ok(())
}

/// Docker's older store reads an archive's manifest.json, the newer one the image's full name: without them it reported
/// a broken archive, or an image without a name.
#[test]
fn either_store_of_docker_finds_the_image_and_its_name() -> Result<()> {
    for (name, whole) in [
        ("registry.example.com:5000/evenkeel:1.2.3", "registry.example.com:5000/evenkeel:1.2.3"),
        ("localhost/evenkeel:1.2.3", "localhost/evenkeel:1.2.3"),
        ("someone/evenkeel:1.2.3", "docker.io/someone/evenkeel:1.2.3"),
        ("evenkeel:1.2.3", "docker.io/library/evenkeel:1.2.3"),
    ] {
        let directory = tempfile::tempdir()?;
        let (output, unpacked) = (directory.path().join("image"), directory.path().join("unpacked"));
        let script = tools::root().join("scripts/image");
        shipped::run(Command::new(script).arg(tools::wasm()?).arg(&output).env("IMAGE", name))?;
        fs::create_dir(&unpacked)?;
        shipped::run(
            Command::new("tar").arg("-xf").arg(output.join("evenkeel.oci.tar")).arg("-C").arg(&unpacked),
        )?;
        let entry = json(&unpacked.join("index.json"))?["manifests"][0].clone();
        assert_eq!(entry["annotations"]["io.containerd.image.name"], whole);
        let manifest = json(&blob(&unpacked, &entry)?)?;
        let told = json(&unpacked.join("manifest.json"))?[0].clone();
        assert_eq!(told["RepoTags"], serde_json::json!([name]));
        assert_eq!(
            unpacked.join(told["Config"].as_str().context("config")?),
            blob(&unpacked, &manifest["config"])?
        );
        let layer = told["Layers"][0].as_str().context("a layer")?;
        assert_eq!(unpacked.join(layer), blob(&unpacked, &manifest["layers"][0])?);
    }
    Ok(())
}

#[test]
fn checksums_hold_and_notice_a_change() -> Result<()> {
    let directory = tempfile::tempdir()?;
    packed(directory.path())?;
    let check = || {
        shipped::run(
            Command::new("sha256sum").args(["--strict", "-c", "SHA256SUMS"]).current_dir(directory.path()),
        )
    };
    let said = check()?;
    for name in ["evenkeel.cdx.json", "evenkeel.oci.tar", "evenkeel.wasm"] {
        assert!(said.contains(&format!("{name}: OK")), "{said}");
    }
    fs::write(directory.path().join("evenkeel.wasm"), "something else")?;
    assert!(check().is_err());
    Ok(())
}

/// CycloneDX's schema with its external references inlined; that of signatures, of which there are none, is left out.
fn cyclonedx() -> Result<Value> {
    let schemas = tools::cyclonedx_schema()?;
    let mut schema = json(&schemas.join("bom-1.6.SNAPSHOT.schema.json"))?;
    let spdx = json(&schemas.join("spdx.SNAPSHOT.schema.json"))?;
    resolve(&mut schema, &spdx["enum"]);
    Ok(schema)
}

fn resolve(value: &mut Value, licenses: &Value) {
    match value {
        Value::Object(members) => match members.get("$ref").and_then(Value::as_str) {
            Some(target) if target.starts_with("spdx") => *value = serde_json::json!({ "enum": licenses }),
            Some(target) if target.starts_with("jsf") => *value = serde_json::json!({}),
            _ => members.values_mut().for_each(|member| resolve(member, licenses)),
        },
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, licenses)),
        _ => {}
    }
}

#[test]
fn the_bill_of_materials_is_one_and_names_what_is_compiled_in_and_nothing_else() -> Result<()> {
    let directory = tempfile::tempdir()?;
    packed(directory.path())?;
    let mut bill = json(&directory.path().join("evenkeel.cdx.json"))?;
    let validator = jsonschema::validator_for(&cyclonedx()?)?;
    let faults: Vec<String> = validator.iter_errors(&bill).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{faults:#?}");

    let names: Vec<&str> = bill["components"]
        .as_array()
        .context("components")?
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    for inside in ["getrandom", "serde_json", "hashbrown"] {
        assert!(names.contains(&inside), "{inside}: {names:?}");
    }
    let own = bill["metadata"]["component"]["components"].as_array().context("own components")?;
    let own: Vec<&str> = own.iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(own, ["evenkeel-config", "evenkeel-engine"]);
    for outside in ["tokio", "clap", "wasmi", "proptest", "jsonschema"] {
        assert!(!names.contains(&outside), "{outside}: {names:?}");
    }
    assert!(
        bill["components"]
            .as_array()
            .context("components")?
            .iter()
            .all(|c| c["hashes"][0]["content"].is_string())
    );
    bill["components"][0]["type"] = "no such type".into();
    assert!(!validator.is_valid(&bill));
    Ok(())
}

/// Every target, script and folder that the release workflow names exists, and its matrix has every supported Envoy
/// version.
#[test]
fn the_workflow_of_a_release_does_what_there_is() -> Result<()> {
    let read = |path: &str| shipped::yaml(&tools::root().join(path));
    let workflow = read(".github/workflows/release.yml")?;
    let makefile = shipped::text(&tools::root().join("Makefile"))?;
    let jobs = workflow["jobs"].as_object().context("jobs")?;
    // A job is one of its own, or another workflow's.
    let mut all: Vec<Value> = Vec::new();
    for job in jobs.values() {
        match job["uses"].as_str() {
            Some(other) => all.extend(read(other)?["jobs"].as_object().context("jobs")?.values().cloned()),
            None => all.push(job.clone()),
        }
    }
    let mut runs = Vec::new();
    for job in &all {
        let steps = job["steps"].as_array().context("steps")?;
        runs.extend(steps.iter().filter_map(|step| step["run"].as_str()));
        // Pinned to a version, at least.
        for action in steps.iter().filter_map(|step| step["uses"].as_str()) {
            assert!(action.contains("@v"), "{action}");
        }
    }
    let targets: Vec<&str> =
        runs.iter().filter_map(|run| run.strip_prefix("make ")?.split_whitespace().next()).collect();
    for target in ["release", "test-envoys", "advisories"] {
        assert!(targets.contains(&target), "{targets:?}");
    }
    for target in targets {
        assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
    }
    assert!(runs.iter().any(|run| run.contains("SUPPORTED_ENVOYS")), "{runs:?}");
    let needs = jobs["publish"]["needs"].as_array().context("needs")?;
    for before in ["build", "again", "test", "envoy", "advisories"] {
        assert!(needs.iter().any(|job| job == before), "published without {before}");
    }
    Ok(())
}
