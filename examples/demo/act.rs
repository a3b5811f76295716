//! The acts: the backends, their faults and the load.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{Behaviour, Config, Kind, Step};
use testbed::load::Load;
use testbed::ports;

pub struct Act {
    pub title: &'static str,
    pub story: Vec<String>,
    pub kind: Kind,
    pub roles: Vec<Role>,
    pub rate: f64,
    pub length: Duration,
    /// Addresses of the backends, one per role: the same for every contender.
    pub addresses: Vec<SocketAddr>,
}

/// The role of a backend.
pub struct Role {
    /// A short name, for tables.
    pub name: &'static str,
    pub start: Behaviour,
    pub change: Option<Change>,
}

/// A change of behaviour of a backend that is healthy at the start.
pub struct Change {
    pub step: Step,
    /// A short name, for the chart.
    pub name: &'static str,
}

impl Role {
    fn steady(name: &'static str, behaviour: Behaviour) -> Self {
        Self { name, start: behaviour, change: None }
    }

    fn changing(name: &'static str, change: Change) -> Self {
        Self { name, start: Behaviour::Healthy, change: Some(change) }
    }

    pub fn schedule(&self) -> Vec<Step> {
        self.change.iter().map(|change| change.step).collect()
    }
}

impl Act {
    pub fn all(length: Duration) -> Result<Vec<Self>> {
        let mut acts = vec![Self::services(length), Self::workers(length)];
        for act in &mut acts {
            act.addresses = act.roles.iter().map(|_| ports::free()).collect::<Result<_>>()?;
        }
        Ok(acts)
    }

    /// Faults that Envoy sees by itself. Each service can do about 180 requests/s and is sent 50 on average.
    fn services(length: Duration) -> Self {
        let half = length / 2;
        let mut roles = healthy(5);
        roles.push(Role::steady("10× slower", Behaviour::Slow(10.0)));
        let slows = Step { at: half, behaviour: Behaviour::Slow(5.0) };
        let fails = Step { at: half, behaviour: Behaviour::FAIL_FAST };
        roles.push(Role::changing("5× slower at half-time", Change { step: slows, name: "7 slows down" }));
        roles.push(Role::changing("503 from half-time", Change { step: fails, name: "8 answers 503" }));
        let story = vec![
            "five services are healthy: four slots each, requests take about 20 ms".to_owned(),
            "service 6 takes ten times as long from the start".to_owned(),
            format!("after {half:?} service 7 takes five times as long"),
            format!("after {half:?} service 8 answers 503 within a millisecond"),
        ];
        let kind = Kind::Service { queue: None };
        let title = "services that answer when they are done";
        Self { title, story, kind, roles, rate: 400.0, length, addresses: Vec::new() }
    }

    /// Faults that only Prometheus shows. A slow worker does about 45 tasks/s and is sent 70 on average.
    fn workers(length: Duration) -> Self {
        let mut roles = healthy(5);
        roles.extend((0..3).map(|_| Role::steady("4× slower", Behaviour::Slow(4.0))));
        let story = vec![
            "eight workers answer 202 at once and put the task into a queue of 100; 503 when it is full"
                .to_owned(),
            "workers 6 to 8 work four times slower: their answers look like everybody's".to_owned(),
            "only the metric task_queue_depth in Prometheus tells, scraped every second".to_owned(),
        ];
        Self {
            title: "workers that answer before they are done",
            story,
            kind: Kind::WORKER,
            roles,
            rate: 560.0,
            length,
            addresses: Vec::new(),
        }
    }

    pub fn is_asynchronous(&self) -> bool {
        matches!(self.kind, Kind::Worker { .. })
    }

    pub fn backend(&self, index: usize) -> Config {
        Config {
            address: self.addresses[index],
            kind: self.kind,
            seed: 1 + index as u64,
            behaviour: self.roles[index].start,
            ..Config::default()
        }
    }

    /// The load, with the same arrivals for every contender.
    pub fn load(&self) -> Load {
        Load { rate: self.rate, duration: self.length, seed: 7, ..Load::default() }
    }

    /// Time and description of each change; changes at the same time are one mark.
    pub fn marks(&self) -> Vec<(f64, String)> {
        let mut marks: Vec<(f64, String)> = Vec::new();
        for change in self.roles.iter().filter_map(|role| role.change.as_ref()) {
            let at = change.step.at.as_secs_f64();
            match marks.iter_mut().find(|mark| mark.0 == at) {
                Some(mark) => mark.1 = format!("{}, {}", mark.1, change.name),
                None => marks.push((at, change.name.to_owned())),
            }
        }
        marks
    }
}

fn healthy(count: usize) -> Vec<Role> {
    (0..count).map(|_| Role::steady("healthy", Behaviour::Healthy)).collect()
}
