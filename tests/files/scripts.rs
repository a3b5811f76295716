//! The scripts of the set-up, where they have to notice something early.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use testbed::anyhow::Result;
use testbed::{tempfile, tools};

use crate::shipped;

/// `make` builds where cargo does, however cargo is told.
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
    // The same as `[build] target-dir` in a home of cargo's.
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

/// Before anything is fetched or built, and not after three minutes of it.
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
