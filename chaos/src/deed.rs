//! Faults in action: what happens at their beginning, every second, and at their end.

use std::time::Duration;

use testbed::anyhow::{Context, Result, ensure};
use testbed::backend::Behaviour;
use testbed::envoy::Filter;
use testbed::http::{self, Method};
use testbed::liar::Lie;
use testbed::process::Signal;
use testbed::relay::Wire;

use crate::fuse;
use crate::world::World;

/// The kind of fault.
#[derive(Clone)]
pub enum Deed {
    /// The relay to the first endpoint behaves like this.
    Wire(Wire),
    /// The first endpoint behaves like this.
    One(Behaviour),
    /// All endpoints behave like this.
    All(Behaviour),
    /// The first endpoint's process is killed (SIGKILL), and restarted.
    Kill,
    /// The first endpoint's process is stopped (SIGSTOP), and continued.
    Stop,
    /// Prometheus is killed, and restarted with its data.
    KillPrometheus,
    /// Prometheus is stopped, and continued.
    StopPrometheus,
    /// The fake Prometheus or admin interface gives one false answer after the other.
    Lies(fn(&World) -> Vec<Lie>),
    /// Envoy is under pressure, all the time or every other second.
    Pressure {
        /// Whether the pressure is permanent.
        steady: bool,
    },
    /// A new configuration every second, every third of them refused.
    Flap,
    /// A new process replaces this one.
    HotRestart,
    /// A worker's VM traps, every four seconds.
    EndVm,
    /// The wall clock steps by an hour and by seconds, forward and back, every two seconds.
    Clock,
}

/// Offsets of the clock in turn: whether forward, and seconds.
const STEPS: [(bool, u64); 4] = [(true, 3600), (false, 3600), (true, 5), (false, 5)];

const REFUSED: &str = r#"{ "mode": "enforced", "upstreams": [] }"#;

impl Deed {
    /// Begins the fault.
    pub async fn begin(&self, world: &mut World) -> Result<()> {
        match self {
            Self::Wire(wire) => relay(world)?.set(wire.clone()),
            Self::One(behaviour) => world.backends[0].set(*behaviour),
            Self::All(behaviour) => world.backends.iter().for_each(|backend| backend.set(*behaviour)),
            Self::Kill => world.child.as_mut().context("a process")?.process = None,
            Self::Stop => self.signal(world, Signal::STOP)?,
            Self::KillPrometheus => world.prometheus.as_mut().context("Prometheus")?.kill(),
            Self::StopPrometheus => self.signal(world, Signal::STOP)?,
            Self::HotRestart => world.envoy.hot_restart().await?,
            Self::Lies(_) | Self::Pressure { .. } | Self::Flap | Self::EndVm | Self::Clock => {
                self.turn(world, 0).await?
            }
        }
        Ok(())
    }

    /// Continues the fault for another second.
    pub async fn turn(&self, world: &mut World, second: usize) -> Result<()> {
        match self {
            Self::Lies(lies) => {
                let lies = lies(world);
                let lie = lies.get(second % lies.len()).context("a lie")?;
                world.liar.as_ref().context("a liar")?.set(lie.clone());
            }
            Self::Pressure { steady } => {
                world.pressure(if *steady || second.is_multiple_of(2) { 1.0 } else { 0.0 })?
            }
            Self::Flap if second % 3 == 2 => {
                let refused = world.envoy.reload(vec![Filter::evenkeel_text(REFUSED)?]).await;
                ensure!(refused.is_err(), "a faulty configuration was taken");
            }
            Self::Flap => {
                let filter = world.filter(&format!("{}s", 10 + second))?;
                world.envoy.reload(vec![filter]).await?;
            }
            Self::EndVm if second.is_multiple_of(4) => {
                let names: Vec<String> = (0..=fuse::HEADERS).map(|number| format!("x-{number}")).collect();
                let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "y")).collect();
                // The outcome of this request does not matter: it is the fault.
                let _ = http::send(world.envoy.address(), Method::GET, "/", &headers, "").await;
            }
            Self::Clock if second.is_multiple_of(2) => {
                let (ahead, by) = STEPS[second / 2 % STEPS.len()];
                world.clock.as_ref().context("a clock")?.set(ahead, Duration::from_secs(by))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the fault itself ends a VM.
    pub fn ends_a_vm(&self) -> bool {
        matches!(self, Self::EndVm)
    }

    /// Ends the fault.
    pub async fn end(&self, world: &mut World) -> Result<()> {
        match self {
            Self::Wire(_) => relay(world)?.set(Wire::Pass),
            Self::One(_) | Self::All(_) => {
                world.backends.iter().for_each(|backend| backend.set(Behaviour::Healthy));
            }
            Self::Kill => world.revive().await?,
            Self::Stop | Self::StopPrometheus => self.signal(world, Signal::CONT)?,
            Self::KillPrometheus => world.prometheus.as_mut().context("Prometheus")?.resume().await?,
            Self::Lies(_) => world.honest_again(),
            Self::Pressure { .. } => world.pressure(0.0)?,
            Self::Flap | Self::EndVm => {}
            Self::Clock => world.clock.as_ref().context("a clock")?.set(true, Duration::ZERO)?,
            Self::HotRestart => world.envoy.parents_gone().await?,
        }
        Ok(())
    }

    fn signal(&self, world: &mut World, signal: Signal) -> Result<()> {
        let process = match self {
            Self::Stop => world.child.as_mut().and_then(|child| child.process.as_mut()),
            _ => world.prometheus.as_mut().and_then(|prometheus| prometheus.process()),
        };
        process.context("a process")?.signal(signal)
    }
}

fn relay(world: &World) -> Result<&testbed::relay::Relay> {
    world.relay.as_ref().context("a relay")
}
