//! The machine, and what the kernel says of a process on it.

use std::{fmt, fs};

use testbed::anyhow::{Context, Result};

/// What the figures are from.
pub struct Machine {
    model: String,
    cores: usize,
    load: String,
}

impl Machine {
    pub fn of_this() -> Result<Machine> {
        let information = fs::read_to_string("/proc/cpuinfo")?;
        let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Machine {
            model: model.map_or("an unnamed processor", |(_, model)| model).to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        })
    }
}

impl Machine {
    /// Whether other work takes more than a quarter of it.
    pub fn is_busy(&self) -> bool {
        self.load.parse::<f64>().is_ok_and(|load| load > self.cores as f64 / 4.0)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { model, cores, load } = self;
        write!(f, "{model}, {cores} cores; load of the machine before it began: {load}")
    }
}

/// Processor time of a process so far, in seconds: all threads, to the nanosecond, user's and kernel's.
pub fn cpu_s(process: u32) -> Result<f64> {
    let mut total_ns = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // One that ends meanwhile has had its time; Envoy's workers do not end.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let ran = text.split_whitespace().next().context("an empty schedstat")?;
        total_ns += ran.parse::<u64>()?;
    }
    Ok(total_ns as f64 / 1e9)
}

/// Resident memory of a process, megabytes.
pub fn memory_mb(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1000.0)
}

/// How often the threads of a process have gone to sleep so far.
pub fn sleeps(process: u32) -> Result<u64> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let Ok(text) = fs::read_to_string(thread?.path().join("status")) else { continue };
        let slept = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        total += slept.context("no voluntary_ctxt_switches")?.trim().parse::<u64>()?;
    }
    Ok(total)
}
