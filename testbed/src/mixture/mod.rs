//! A mixture of requests: methods, HTTP versions, bodies, calls, streams, upgrades, clients that cancel, responses that
//! fail, malformed headers. Each has one expected end whichever backend it reaches, so that a single lost request among
//! a million is found.

mod client;
mod kinds;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use client::Client;
use kinds::{KINDS, Kind};

/// The requests to send. The target routes `/` to a cluster that speaks HTTP/1.1, and `/chat` to one that speaks
/// HTTP/2.
#[derive(Clone, Debug)]
pub struct Mixture {
    /// The address to send requests to.
    pub target: SocketAddr,
    /// The path of the status page, which is requested, too; `None` without one.
    pub status: Option<String>,
    /// The number of requests.
    pub requests: u64,
    /// The number of clients, each of which sends one request after the other.
    pub clients: u64,
    /// The seed of everything that is drawn.
    pub seed: u64,
}

/// The result of a mixture.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Requests by kind.
    pub sent: BTreeMap<&'static str, u64>,
    /// Requests that did not end as they must, by kind and end.
    pub unexpected: BTreeMap<String, u64>,
}

impl Findings {
    fn merge(&mut self, other: Findings) {
        for (kind, count) in other.sent {
            *self.sent.entry(kind).or_default() += count;
        }
        for (end, count) in other.unexpected {
            *self.unexpected.entry(end).or_default() += count;
        }
    }

    /// The number of requests.
    pub fn total(&self) -> u64 {
        self.sent.values().sum()
    }
}

/// A running mixture.
#[derive(Debug)]
pub struct Running {
    clients: JoinSet<()>,
    begun: Arc<AtomicU64>,
    findings: Arc<Mutex<Findings>>,
}

impl Mixture {
    /// Starts the mixture on the current runtime.
    pub fn start(self) -> Running {
        let (begun, findings) = (Arc::new(AtomicU64::new(0)), Arc::<Mutex<Findings>>::default());
        let mut clients = JoinSet::new();
        for number in 0..self.clients {
            clients.spawn(send_in_turn(self.clone(), number, begun.clone(), findings.clone()));
        }
        Running { clients, begun, findings }
    }
}

impl Running {
    /// The number of requests begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether every client has ended.
    pub fn is_over(&mut self) -> bool {
        while self.clients.try_join_next().is_some() {}
        self.clients.is_empty()
    }

    /// Waits for the last response.
    pub async fn finish(mut self) -> Findings {
        while self.clients.join_next().await.is_some() {}
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut findings)
    }
}

async fn send_in_turn(mixture: Mixture, number: u64, begun: Arc<AtomicU64>, all: Arc<Mutex<Findings>>) {
    let mut random = StdRng::seed_from_u64(mixture.seed.wrapping_mul(1_000_003).wrapping_add(number));
    let often: u32 = KINDS.iter().map(|kind| kind.often).sum();
    let mut client = Client::new(mixture.target);
    let mut findings = Findings::default();
    while begun.fetch_add(1, Ordering::Relaxed) < mixture.requests {
        let kind = drawn(random.random_range(0..often));
        let ask = (kind.ask)(&mut random, mixture.status.as_deref());
        let (http2, expected) = (ask.http2, ask.expected);
        let end = client.ask(ask).await;
        *findings.sent.entry(kind.name).or_default() += 1;
        if !expected.allows(&end) {
            let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
            let end = format!("{} over {version}: {end}, not {expected:?}", kind.name);
            *findings.unexpected.entry(end).or_default() += 1;
        }
    }
    all.lock().unwrap_or_else(PoisonError::into_inner).merge(findings);
}

fn drawn(mut luck: u32) -> &'static Kind {
    for kind in KINDS {
        match luck.checked_sub(kind.often) {
            Some(left) => luck = left,
            None => return kind,
        }
    }
    &KINDS[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{self, Backend};

    /// A backend alone responds as expected.
    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_unexpected_comes_of_a_backend_alone() {
        let backend = Backend::start(backend::Config {
            median: std::time::Duration::from_millis(1),
            slots: 32,
            ..backend::Config::default()
        });
        let target = backend.await.expect("a backend");
        let mixture =
            Mixture { target: target.address(), status: None, requests: 3_000, clients: 16, seed: 5 };
        let findings = mixture.start().finish().await;
        assert_eq!(findings.total(), 3_000);
        assert_eq!(findings.sent.len(), KINDS.len(), "{:?}", findings.sent);
        // Without a proxy a broken connection is no 503, and hyper as a server sends a body with HEAD over HTTP/2.
        let its_own = |end: &str| end.starts_with("reset") || end.starts_with("head over HTTP/2");
        let unexpected: Vec<_> = findings.unexpected.keys().filter(|end| !its_own(end)).collect();
        assert!(unexpected.is_empty(), "{unexpected:?}");
    }
}
