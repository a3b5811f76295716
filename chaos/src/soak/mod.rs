//! An hour of churn through one Envoy: endpoints come and go at new addresses, the configuration changes, one endpoint
//! after the other fails, and the load never stops.
//!
//! A cycle takes 20 s: an endpoint is replaced by one at an address never used before, a new configuration arrives over
//! LDS, an endpoint fails for 6 s and is healthy for 6 s. Each cycle yields one sample of each [`series`](drift), taken
//! alike.
//! over LDS, an endpoint fails for 6 s and is well for 6 s. Each cycle gives one sample of each [`series`](drift), taken alike.

pub mod drift;
mod sample;

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{Backend, Behaviour};
use testbed::clock;
use testbed::load::{Running, Summary};
use testbed::relay::Relay;

use crate::chance::{Arm, explained};
use crate::setting::{Setting, Source};
use crate::trial::Outcome;
use crate::world::World;

const TICK: Duration = Duration::from_secs(2);
const TICKS: u32 = 10;
/// The tick of a cycle in which the configuration changes.
const RECONFIGURED: u32 = 2;
/// The tick of a cycle in which an endpoint begins to fail.
const FAULT: u32 = 4;
/// The tick of a cycle in which it is healthy again.
const HEALED: u32 = 7;
/// Requests per second at each listener.
const RATE: f64 = 50.0;
/// The behaviours of the failing endpoint, in turn.
const FAULTS: [Behaviour; 6] = [
    Behaviour::FAIL_FAST,
    Behaviour::Slow(20.0),
    Behaviour::Refuse,
    Behaviour::ErrorRatio(0.3),
    Behaviour::BlackHole,
    Behaviour::Reset,
];

/// The measurements of a soak.
pub struct Course {
    /// One per cycle.
    pub cycles: Vec<sample::Cycle>,
    /// Failures and requests with evenkeel and without.
    pub arms: [Arm; 2],
    /// Lines of Envoy's log that report a trap.
    pub traps: Vec<String>,
}

impl Course {
    /// The probability that the difference in failures is chance.
    pub fn chance(&self) -> f64 {
        explained(self.arms[0], self.arms[1])
    }
}

/// Runs for `time`, and calls `each` after each cycle.
pub async fn run(time: Duration, mut each: impl FnMut(&sample::Cycle)) -> Result<Course> {
    let mut setting = Setting { rate: RATE, source: Some(Source::Admin), ..Setting::default() };
    setting.proxy.dynamic = true;
    setting.proxy.drain = Some(TICK);
    let mut churn = Churn::new(World::open(setting).await?);
    let seconds = time.as_secs_f64() + 60.0;
    let (with, alone) =
        (churn.world.load(true, seconds).start().await?, churn.world.load(false, seconds).start().await?);
    let began = with.started();
    let mut cycles = Vec::new();
    for number in 0..u32::MAX {
        let start = TICK * TICKS * number;
        if start >= time {
            break;
        }
        let mut samples = Vec::new();
        for tick in 0..TICKS {
            clock::sleep_until(began + start + TICK * tick).await;
            churn.turn(number as usize, tick).await?;
            samples.push(sample::take(&mut churn.world).await?);
        }
        // The fault and its aftermath are left out: otherwise the kind of fault would be measured.
        let calm = |load: &Running| -> Summary { load.report().between(start, start + TICK * FAULT) };
        let cycle = sample::Cycle::new(
            (start + TICK * TICKS / 2).as_secs_f64(),
            &samples,
            [calm(&with), calm(&alone)],
        );
        each(&cycle);
        cycles.push(cycle);
    }
    let arms = [&with, &alone].map(|load| Outcome::arm(&load.report().summary()));
    drop((with, alone));
    let mut traps = Vec::new();
    crate::rest::traps(&churn.world, &mut traps).await?;
    Ok(Course { cycles, arms, traps })
}

struct Churn {
    world: World,
    /// The relays in front of endpoints that were replaced.
    relays: Vec<Option<Relay>>,
    /// The relays of endpoints that Envoy was told to remove; a request may still be in flight there.
    leaving: Vec<Relay>,
}

impl Churn {
    fn new(world: World) -> Self {
        let relays = world.backends.iter().map(|_| None).collect();
        Self { world, relays, leaving: Vec::new() }
    }

    async fn turn(&mut self, cycle: usize, tick: u32) -> Result<()> {
        let all = self.world.backends.len();
        match tick {
            0 => self.replace(cycle % all).await?,
            RECONFIGURED => {
                self.leaving.clear();
                let filter = self.world.filter(&format!("{}ms", 10_000 + cycle))?;
                self.world.envoy.reload(vec![filter]).await?;
            }
            FAULT => self.world.backends[(cycle + 2) % all].set(FAULTS[cycle % FAULTS.len()]),
            HEALED => {
                self.world.backends.iter().for_each(|backend: &Backend| backend.set(Behaviour::Healthy))
            }
            _ => {}
        }
        Ok(())
    }

    /// Moves a backend to a new address.
    async fn replace(&mut self, index: usize) -> Result<()> {
        let relay = Relay::start(self.world.backends[index].address()).await?;
        self.world.endpoints[index] = relay.address();
        self.leaving.extend(self.relays[index].replace(relay));
        for cluster in ["web", "alone"] {
            let endpoints: Vec<SocketAddr> = self.world.endpoints.clone();
            self.world.envoy.set_endpoints(cluster, endpoints).await?;
        }
        Ok(())
    }
}
