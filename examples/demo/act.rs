//! What happens: the backends, their faults and the load.

use std::time::Duration;

use testbed::backend::{Behaviour, Config, Kind, Step};
use testbed::load::Load;

pub struct Act {
    pub title: &'static str,
    pub story: Vec<String>,
    pub kind: Kind,
    pub roles: Vec<Role>,
    pub rate: f64,
    pub length: Duration,
}

/// One backend's part.
pub struct Role {
    /// In a word, for tables.
    pub name: &'static str,
    pub start: Behaviour,
    pub schedule: Vec<Step>,
}

impl Role {
    fn steady(name: &'static str, behaviour: Behaviour) -> Self {
        Self { name, start: behaviour, schedule: Vec::new() }
    }

    fn changing(name: &'static str, at: Duration, behaviour: Behaviour) -> Self {
        Self { name, start: Behaviour::Healthy, schedule: vec![Step { at, behaviour }] }
    }
}

impl Act {
    pub fn all(length: Duration) -> Vec<Self> {
        vec![Self::services(length), Self::workers(length)]
    }

    /// What Envoy's proxy can see by itself. Each service can do about 180 requests/s and is sent 50 on average.
    fn services(length: Duration) -> Self {
        let half = length / 2;
        let mut roles = healthy(5);
        roles.push(Role::steady("10× slower", Behaviour::Slow(10.0)));
        roles.push(Role::changing("5× slower at half-time", half, Behaviour::Slow(5.0)));
        roles.push(Role::changing("503 at once from half-time", half, Behaviour::FAIL_FAST));
        let story = vec![
            "five services are healthy: four slots each, requests take about 20 ms".to_owned(),
            "service 6 takes ten times as long from the start".to_owned(),
            format!("after {half:?} service 7 takes five times as long"),
            format!("after {half:?} service 8 answers 503 within a millisecond"),
        ];
        let kind = Kind::Service { queue: None };
        Self { title: "services that answer when they are done", story, kind, roles, rate: 400.0, length }
    }

    /// What only Prometheus can see. A slow worker does about 45 tasks/s and is sent 70 on average.
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
        }
    }

    pub fn is_asynchronous(&self) -> bool {
        matches!(self.kind, Kind::Worker { .. })
    }

    pub fn backend(&self, index: usize) -> Config {
        Config {
            kind: self.kind,
            seed: 1 + index as u64,
            behaviour: self.roles[index].start,
            ..Config::default()
        }
    }

    /// The same arrivals for every contender.
    pub fn load(&self) -> Load {
        Load { rate: self.rate, duration: self.length, seed: 7, ..Load::default() }
    }

    /// When something changes, and what.
    pub fn marks(&self) -> Vec<(f64, String)> {
        let mut marks: Vec<(f64, String)> = Vec::new();
        for (index, role) in self.roles.iter().enumerate() {
            for step in &role.schedule {
                let (at, what) = (step.at.as_secs_f64(), format!("{}: {}", index + 1, step.behaviour));
                match marks.iter_mut().find(|mark| mark.0 == at) {
                    Some(mark) => mark.1 = format!("{}, {what}", mark.1),
                    None => marks.push((at, what)),
                }
            }
        }
        marks
    }
}

fn healthy(count: usize) -> Vec<Role> {
    (0..count).map(|_| Role::steady("healthy", Behaviour::Healthy)).collect()
}
