//! The replicas: processes of their own, started and stopped on demand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testbed::anyhow::{Context, Result, bail};
use testbed::process::Running;
use testbed::{backend, clock, http, ports};

/// Environment variable that marks a process as a replica; its value is the start-up time in ms.
const ROLE: &str = "DEMO_AUTOSCALE_REPLICA";
/// Time between leaving the cluster and the end, in which a replica finishes its requests and gets no more.
const DRAIN: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(5);

/// The phase of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Serving,
    Draining,
}

pub struct Replica {
    pub address: SocketAddr,
    pub state: State,
    since: Instant,
    process: Running,
}

pub struct Replicas {
    pub all: Vec<Replica>,
    directory: PathBuf,
    boot: Duration,
    changed: bool,
}

/// Whether this process is a replica.
pub fn is_one_of_them() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// Runs a replica.
pub async fn serve() -> Result<()> {
    let boot: u64 = std::env::var(ROLE)?.parse()?;
    // Loading, warming up: whatever delays a process' first answer.
    clock::sleep(Duration::from_millis(boot)).await;
    backend::run_from_command_line().await
}

impl Replicas {
    pub fn new(directory: &Path, boot: Duration) -> Replicas {
        Replicas { all: Vec::new(), directory: directory.to_owned(), boot, changed: false }
    }

    /// Starts or stops replicas until `wanted` are starting or serving.
    pub fn want(&mut self, wanted: usize) -> Result<()> {
        while self.count(State::Starting) + self.count(State::Serving) < wanted {
            self.start()?;
        }
        while self.count(State::Starting) + self.count(State::Serving) > wanted {
            // One that does not serve yet is stopped first, else the youngest.
            let goes = |state| self.all.iter().rposition(|replica| replica.state == state);
            if let Some(at) = goes(State::Starting) {
                self.all.remove(at);
            } else if let Some(replica) = goes(State::Serving).and_then(|at| self.all.get_mut(at)) {
                replica.state = State::Draining;
                replica.since = clock::now();
                self.changed = true;
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let address = ports::free()?;
        let mut command = Command::new(std::env::current_exe().context("this program's path")?);
        command.env(ROLE, self.boot.as_millis().to_string()).args([
            "--listen",
            &address.to_string(),
            "--seed",
            &address.port().to_string(),
        ]);
        let log = self.directory.join(format!("replica-{}.log", address.port()));
        let process = Running::spawn("replica", command, &log)?;
        self.all.push(Replica { address, state: State::Starting, since: clock::now(), process });
        Ok(())
    }

    /// Marks replicas that serve by now, and ends those that have drained; returns whether the members of the cluster
    /// have changed.
    pub async fn settle(&mut self) -> Result<bool> {
        for replica in self.all.iter_mut().filter(|replica| replica.state == State::Starting) {
            if let Some(status) = replica.process.ended() {
                bail!(replica.process.failure(format!("ended before it served ({status})")));
            }
            if http::get(replica.address, "/metrics").await.is_ok_and(|answer| answer.status == 200) {
                replica.state = State::Serving;
                self.changed = true;
            }
        }
        let drained = |replica: &Replica| replica.state == State::Draining && replica.since.elapsed() > DRAIN;
        for at in (0..self.all.len()).rev() {
            if self.all.get(at).is_some_and(drained) {
                self.all.remove(at).process.stop(PATIENCE).await;
            }
        }
        Ok(std::mem::take(&mut self.changed))
    }

    /// Waits until every endpoint serves.
    pub async fn all_serving(&mut self, deadline: Duration) -> Result<()> {
        let end = clock::now() + deadline;
        while self.count(State::Starting) > 0 {
            self.settle().await?;
            if clock::now() > end {
                bail!("the replicas do not serve after {deadline:?}");
            }
            clock::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub fn count(&self, state: State) -> usize {
        self.all.iter().filter(|replica| replica.state == state).count()
    }

    /// Addresses of the replicas that serve.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let serving = self.all.iter().filter(|replica| replica.state == State::Serving);
        serving.map(|replica| replica.address).collect()
    }
}
