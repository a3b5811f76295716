//! A wall clock that can be set for one process: a small preloaded library reads the offset from a file.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testbed::anyhow::{Context, Result, ensure};

const SOURCE: &str = include_str!("clock.c");

/// The clock of processes that run with [`Stepping::environment`].
pub struct Stepping {
    library: PathBuf,
    file: PathBuf,
}

impl Stepping {
    /// Compiles the library with the C compiler that the set-up requires; the offset is 0 at first.
    pub fn new(directory: &Path) -> Result<Self> {
        let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
        fs::write(&source, SOURCE)?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let compiled = Command::new(compiler)
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&library, &source])
            .output()
            .context("no C compiler")?;
        ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let file = directory.join("clock");
        fs::write(&file, 0_i64.to_ne_bytes())?;
        Ok(Self { library, file })
    }

    /// The environment variables of the process.
    pub fn environment(&self) -> Vec<(String, std::ffi::OsString)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library.clone().into()),
            ("CHAOS_CLOCK".to_owned(), self.file.clone().into()),
        ]
    }

    /// Sets the offset of the clock, forward if `ahead`, otherwise back.
    pub fn set(&self, ahead: bool, by: Duration) -> Result<()> {
        let nanoseconds = i64::try_from(by.as_nanos())?;
        let step = if ahead { nanoseconds } else { -nanoseconds };
        // Written in place, because the process has mapped the file.
        let file = fs::OpenOptions::new().write(true).open(&self.file)?;
        Ok(file.write_all_at(&step.to_ne_bytes(), 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_the_time_that_was_set() -> Result<()> {
        let directory = testbed::tempfile::tempdir()?;
        let clock = Stepping::new(directory.path())?;
        let seconds = || -> Result<i64> {
            let date = Command::new("date").arg("+%s").envs(clock.environment()).output()?;
            Ok(String::from_utf8(date.stdout)?.trim().parse()?)
        };
        let right = seconds()?;
        clock.set(true, Duration::from_secs(7200))?;
        let ahead = seconds()? - right;
        clock.set(false, Duration::from_secs(7200))?;
        let back = seconds()? - right;
        assert!((7200..7260).contains(&ahead) && (-7200..-7140).contains(&back), "{ahead} {back}");
        Ok(())
    }
}
