//! Child processes that end with this process, however it ends.
//!
//! Three mechanisms, because each has a gap: `Drop` kills the child's process group (but does not run on a signal),
//! [`until_signal`] makes Ctrl-C and SIGTERM drop what is held (but SIGKILL cannot be caught), and on Linux the kernel
//! kills the child when its parent thread dies. That thread has to outlive every child, so one thread that never ends
//! spawns them all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process_group};

use crate::{clock, wait};

/// A running child. Dropping it kills its process group.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
    reaped: bool,
}

impl Running {
    /// Starts `command` with both outputs written to the file `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = spawn_on_lasting_thread(command).with_context(|| format!("cannot start {name}"))?;
        let group =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("impossible process id")?;
        Ok(Self { name: name.to_owned(), child, group, log: log.to_owned(), reaped: false })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last `lines` lines of its output.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// An error with the end of the log.
    pub fn failure(&self, what: impl std::fmt::Display) -> anyhow::Error {
        anyhow!("{}: {what}; the end of {}:\n{}", self.name, self.log.display(), self.log_tail(25))
    }

    /// Sends SIGTERM, and kills it if it has not ended within `patience`.
    pub async fn stop(&mut self, patience: Duration) {
        if self.ended().is_none() {
            let _ = kill_process_group(self.group, Signal::TERM);
            let name = format!("the end of {}", self.name);
            let _ = wait::until(&name, patience, || {
                let ended = self.ended();
                async move { ended }
            })
            .await;
        }
        self.kill();
    }

    /// Kills and reaps it.
    pub fn kill(&mut self) {
        // A second time could kill another process with the same id.
        if !std::mem::replace(&mut self.reaped, true) {
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = self.child.wait();
        }
    }

    /// The processor time that it has used, seconds; 0 once it has ended.
    pub fn cpu_s(&self) -> f64 {
        // Fields 14 and 15 of proc(5), in ticks of USER_HZ. The name before them may contain anything, but ends with
        // ')'.
        const USER_HZ: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / USER_HZ
    }

    /// Sends a signal, for example to stop and continue it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process_group(self.group, signal)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `work` to its end or until SIGINT, SIGTERM or SIGHUP. Then it drops `work`, so that everything held is cleaned
/// up, and ends this process with the usual exit code.
pub async fn until_signal<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let code = tokio::select! {
        result = work => return result,
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
        _ = hangup.recv() => 129,
    };
    std::process::exit(code)
}

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

fn spawn_on_lasting_thread(mut command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    die_with_parent_thread(&mut command);
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = mpsc::channel();
    spawner.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).send((command, answer))?;
    Ok(child.recv()??)
}

#[allow(unsafe_code)]
fn die_with_parent_thread(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl(2) is one.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}

/// Waits until `probe` succeeds, at most for `deadline`; fails early with the log if the child ends.
pub(crate) async fn ready<F>(
    running: &mut Running,
    deadline: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<()>
where
    F: Future<Output = bool>,
{
    let end = clock::now() + deadline;
    loop {
        if probe().await {
            return Ok(());
        }
        if let Some(status) = running.ended() {
            return Err(running.failure(format!("ended at once ({status})")));
        }
        if clock::now() >= end {
            return Err(running.failure(format!("not ready after {deadline:?}")));
        }
        clock::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(id: u32) -> bool {
        let state = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    }

    #[tokio::test]
    async fn a_dropped_child_takes_its_group_along() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]);
        let running = Running::spawn("sh", command, &dir.path().join("log"))?;
        let grandchild: u32 = wait::until("the grandchild's id", Duration::from_secs(5), || {
            let id = running.log().trim().parse().ok();
            async move { id }
        })
        .await?;
        assert!(alive(running.id()) && alive(grandchild));
        drop(running);
        wait::until("the grandchild's end", Duration::from_secs(5), || async move {
            (!alive(grandchild)).then_some(())
        })
        .await
    }

    #[tokio::test]
    async fn a_failure_shows_the_end_of_the_log() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such listener; exit 3"]);
        let mut running = Running::spawn("sh", command, &dir.path().join("log"))?;
        let error =
            ready(&mut running, Duration::from_secs(5), || async { false }).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such listener"), "{error}");
        Ok(())
    }
}
