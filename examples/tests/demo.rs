//! `make demo` and `make demo-autoscale` as a newcomer runs them: they run, leave their files, and leave no process
//! behind.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testbed::anyhow::{Context, Result, ensure};
use testbed::process::{Running, Signal};
use testbed::serde_json::{self, Value};
use testbed::{tempfile, tokio, wait};

/// Deadline for Envoy and Prometheus to start on a busy machine.
const STARTED: Duration = Duration::from_secs(60);
const FINISHED: Duration = Duration::from_secs(120);

/// `make demo` with two of its contenders and acts of `length` seconds.
fn demo(directory: &Path, length: &str) -> Result<Running> {
    start(env!("CARGO_BIN_EXE_demo"), directory, &[("ONLY", "round_robin,least_request"), ("LENGTH", length)])
}

/// One of this package's programs, with all of its files in this directory.
fn start(program: &str, directory: &Path, settings: &[(&str, &str)]) -> Result<Running> {
    let mut command = Command::new(program);
    command
        .env("TMPDIR", directory.join("tmp"))
        .env("OUT", directory.join("out"))
        .env_remove("KEEP")
        .envs(settings.iter().copied());
    fs::create_dir(directory.join("tmp"))?;
    Running::spawn("demo", command, &directory.join("demo.log"))
}

/// Processes with this directory in their arguments, as the demo's Envoy and Prometheus have.
fn processes_of(directory: &Path) -> Vec<PathBuf> {
    processes_with("cmdline", &directory.join("tmp"))
}

/// Processes that have this path in their `cmdline` or `environ`; a zombie has neither.
fn processes_with(file: &str, path: &Path) -> Vec<PathBuf> {
    let name = path.display().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_ours = |process: &PathBuf| {
        let text = fs::read(process.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(&name)
    };
    entries.map(|entry| entry.path()).filter(of_ours).collect()
}

#[tokio::test(crate = "testbed::tokio")]
async fn it_ends_with_a_table_a_chart_and_figures() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut demo = demo(directory.path(), "2")?;
    let status = wait::until("the demo's end", FINISHED, || {
        let status = demo.ended();
        async move { status }
    })
    .await
    .with_context(|| demo.log())?;
    ensure!(status.success(), "{status}\n{}", demo.log());
    for text in ["Act 1", "p99", "failed", "tasks' p99", "share of 6, 10× slower", "demo.svg"] {
        ensure!(demo.log().contains(text), "no {text:?} in\n{}", demo.log());
    }
    ensure!(fs::read_to_string(directory.path().join("out/demo.svg"))?.contains("round_robin"));
    let figures: Value = serde_json::from_slice(&fs::read(directory.path().join("out/demo.json"))?)?;
    let run = &figures[0]["runs"][0];
    ensure!(run["balancer"] == "round_robin" && run["requests"].as_u64() > Some(500), "{run}");
    // Round robin sends a slow service as many requests as the others.
    ensure!(run["p99_ms"].as_f64() > Some(200.0), "{run}");
    ensure!(processes_of(directory.path()).is_empty());
    Ok(())
}

#[tokio::test(crate = "testbed::tokio")]
async fn neither_ctrl_c_nor_a_crash_leaves_a_process_behind() -> Result<()> {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let directory = tempfile::tempdir()?;
        let mut demo = demo(directory.path(), "60")?;
        wait::until("Envoy and Prometheus", STARTED, || {
            let up = processes_of(directory.path()).len() == 2 && demo.log().contains("0 s of 60 s");
            async move { up.then_some(()) }
        })
        .await
        .with_context(|| demo.log())?;
        demo.signal(signal)?;
        wait::until("the demo's end", STARTED, || {
            let ended = demo.ended();
            async move { ended }
        })
        .await?;
        wait::until("its children's end", STARTED, || {
            let none = processes_of(directory.path()).is_empty();
            async move { none.then_some(()) }
        })
        .await
        .with_context(|| format!("{signal:?}"))?;
        let left = fs::read_dir(directory.path().join("tmp"))?.count();
        ensure!(left == 0 || signal == Signal::KILL, "{signal:?} left {left} temporary directories");
    }
    Ok(())
}

#[tokio::test(crate = "testbed::tokio")]
async fn ctrl_c_ends_the_replicas_too() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut demo = start(env!("CARGO_BIN_EXE_demo-autoscale"), directory.path(), &[("PACE", "4")])?;
    // Their environment has the directory, their arguments do not.
    let temporary = directory.path().join("tmp");
    let running = || processes_with("environ", &temporary).len();
    wait::until("two replicas, Envoy, Prometheus and the demo itself", STARTED, || {
        let up = running() == 5 && demo.log().contains("serving  2");
        async move { up.then_some(()) }
    })
    .await
    .with_context(|| demo.log())?;
    demo.signal(Signal::INT)?;
    wait::until("everybody's end", STARTED, || {
        let none = demo.ended().is_some() && running() == 0;
        async move { none.then_some(()) }
    })
    .await?;
    ensure!(fs::read_dir(temporary)?.count() == 0, "temporary directories are left");
    Ok(())
}
