//! Counters of a process add up over its workers and never go down, though workers come, go, crash and rise again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use evenkeel::exchange::counts::{Counts, EndpointCounts, MOST_ENDPOINTS, MOST_UPSTREAMS};
use evenkeel::exchange::estate::{self, Estate, Keys};
use evenkeel::exchange::registry;
use evenkeel::host::{Call, Host, SharedError};
use evenkeel::member::Counters;
use evenkeel::time::Time;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

const CLUSTER: u64 = 7;

/// Shared data; before a chosen access somebody else gets a word in.
#[derive(Default)]
struct Shared {
    entries: RefCell<BTreeMap<String, (Vec<u8>, u32)>>,
    accesses: Cell<u32>,
    interrupted_at: Cell<u32>,
    /// Who is then buried by somebody else.
    by_burying: Cell<u64>,
}

impl Shared {
    fn access(&self) {
        let access = self.accesses.get() + 1;
        self.accesses.set(access);
        if access == self.interrupted_at.get() {
            let _it_may_be_interrupted_no_more = estate::bury(self, &keys(), self.by_burying.get());
        }
    }
}

impl Host for Shared {
    fn now(&self) -> Time {
        Time::ZERO
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.access();
        self.entries.borrow().get(key).filter(|(value, _)| !value.is_empty()).cloned()
    }

    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
        self.access();
        let mut entries = self.entries.borrow_mut();
        let current = entries.get(key).map(|(_, version)| *version);
        if version.is_some_and(|version| current.is_some_and(|current| current != version)) {
            return Err(SharedError::Conflict);
        }
        entries.insert(key.into(), (value.into(), current.unwrap_or_default() + 1));
        Ok(())
    }

    fn call(&self, _call: &Call<'_>) -> Option<u32> {
        None
    }

    fn log(&self, _level: log::Level, _message: &str) {}
}

fn keys() -> Keys {
    Keys::under("evenkeel/test")
}

fn counts(requests: u64) -> Counts {
    let mut counts = Counts::default();
    let of = counts.upstreams.entry(CLUSTER).or_default();
    of.totals.policy = requests;
    let counters = Counters { requests, failures: requests / 2, picks: requests };
    of.endpoints.insert(1, EndpointCounts { counters, recent: 0.0 });
    counts
}

fn sum(host: &Shared) -> u64 {
    let counts = estate::gather(host, &keys(), 0, Time::ZERO).counts;
    let Some(of) = counts.upstream(CLUSTER) else { return 0 };
    let endpoint = of.endpoints.get(&1).copied().unwrap_or_default().counters;
    assert_eq!(of.totals.policy, endpoint.requests);
    endpoint.requests
}

/// What happens to the workers of a process.
#[derive(Clone, Debug)]
enum Step {
    Count(Index, u16),
    /// It ends as Envoy lets it end, and another takes its place.
    End(Index),
    /// It falls silent for good.
    Crash(Index),
    Pass(u16),
    /// The next access to shared data but so many is preceded by somebody else's burial.
    Interrupt(u8, Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<Index>(), any::<u16>()).prop_map(|(who, n)| Step::Count(who, n)),
        1 => any::<Index>().prop_map(Step::End),
        1 => any::<Index>().prop_map(Step::Crash),
        3 => (0u16..100).prop_map(Step::Pass),
        2 => (1u8..12, any::<Index>()).prop_map(|(after, who)| Step::Interrupt(after, who)),
    ]
}

proptest! {
    #![proptest_config(crate::seeded(300))]

    #[test]
    fn every_count_is_there_once_whoever_is_gone(steps in vec(step(), 1..60)) {
        let (host, keys) = (Shared::default(), keys());
        estate::seed(&host, &keys, Time(1));
        let mut last_id = 4;
        let mut workers: Vec<(u64, u64)> = (1..=4).map(|id| (id, 0)).collect();
        let mut gone = Vec::new();
        let (mut truth, mut now) = (0, 1_000_000);
        for step in steps {
            match step {
                Step::Count(who, n) => {
                    let at = who.index(workers.len());
                    workers[at].1 += u64::from(n);
                    truth += u64::from(n);
                }
                Step::End(who) | Step::Crash(who) => {
                    last_id += 1;
                    let at = who.index(workers.len());
                    let (id, _) = std::mem::replace(&mut workers[at], (last_id, 0));
                    if matches!(step, Step::End(_)) {
                        estate::bury_surely(&host, &keys, id);
                    }
                    gone.push(id);
                }
                Step::Pass(seconds) => now += u64::from(seconds),
                Step::Interrupt(after, who) if !gone.is_empty() => {
                    host.interrupted_at.set(host.accesses.get() + u32::from(after));
                    host.by_burying.set(gone[who.index(gone.len())]);
                }
                Step::Interrupt(..) => {}
            }
            let second = Time(now * 1_000_000_000);
            for (id, requests) in &workers {
                let written = counts(*requests).encode();
                host.shared_set(&keys.counts(*id), &written, None).expect("nobody else writes it");
                let listed = registry::update(&host, &keys.workers, *id, true, second);
                prop_assert!(!listed.to_bury.contains(id));
                listed.to_bury.iter().for_each(|dead| _ = estate::bury(&host, &keys, *dead));
            }
            // Once more, for those whose entry lost a race.
            workers.iter().for_each(|(id, _)| _ = registry::update(&host, &keys.workers, *id, true, second));
            prop_assert_eq!(sum(&host), truth);
        }
        // Much later nothing but the living and the estate is left.
        for later in [100, 200] {
            let second = Time((now + later) * 1_000_000_000);
            for _ in 0..3 {
                for (id, _) in &workers {
                    let listed = registry::update(&host, &keys.workers, *id, true, second);
                    listed.to_bury.iter().for_each(|dead| _ = estate::bury(&host, &keys, *dead));
                }
            }
        }
        prop_assert_eq!(sum(&host), truth);
        prop_assert_eq!(registry::everybody(&host, &keys.workers).len(), workers.len());
        let full = host.entries.borrow().iter().filter(|(_, (value, _))| !value.is_empty()).count();
        prop_assert_eq!(full, workers.len() + 2, "nothing of the dead is left behind");
    }

    #[test]
    fn counts_and_the_estate_survive_the_journey(
        ids in vec(any::<u64>(), 0..20),
        endpoints in vec((any::<u8>(), any::<u64>(), any::<[u64; 3]>(), 0.0f32..1e6), 0..40),
        cut: Index,
        damage in vec(any::<(Index, u8)>(), 0..9),
    ) {
        let mut counts = Counts::default();
        for (cluster, endpoint, [requests, failures, picks], recent) in endpoints {
            let of = counts.upstreams.entry(u64::from(cluster)).or_default();
            of.totals.probes = requests;
            let counters = Counters { requests, failures, picks };
            of.endpoints.insert(endpoint, EndpointCounts { counters, recent });
        }
        let estate = Estate { founded: Time(5), ids, counts: counts.clone() };
        prop_assert_eq!(Counts::decode(&counts.encode()), Some(counts));
        let mut bytes = estate.encode();
        prop_assert_eq!(Estate::decode(&bytes[..cut.index(bytes.len())]), None);
        prop_assert_eq!(Estate::decode(&bytes), Some(estate.clone()));
        damage.iter().for_each(|(at, byte)| { let at = at.index(bytes.len()); bytes[at] = *byte });
        let mut sum = estate.counts;
        // Whatever it reads, it adds without overflow.
        (0..2).for_each(|_| sum.merge(&Estate::decode(&bytes).unwrap_or_default().counts));
    }
}

/// What a worker has counted that gave each of so many endpoints one request, and as many to each of the first ten as
/// there are.
fn of_many(first: u64, endpoints: u64) -> Counts {
    let mut counts = Counts::default();
    let of = counts.upstreams.entry(CLUSTER).or_default();
    for endpoint in (0..10).chain(first..first + endpoints) {
        let requests = if endpoint < 10 { endpoints } else { 1 };
        let counters = Counters { requests, failures: 0, picks: requests };
        of.endpoints.insert(endpoint, EndpointCounts { counters, recent: 0.0 });
        of.totals.policy += requests;
    }
    counts
}

#[test]
fn more_endpoints_than_are_remembered_cost_only_the_least_used() {
    let (host, keys) = (Shared::default(), keys());
    estate::seed(&host, &keys, Time(1));
    for (id, first, endpoints) in [(1, 10, 150_000), (2, 1_000_000, 150_000)] {
        host.shared_set(&keys.counts(id), &of_many(first, endpoints).encode(), None).expect("written");
        // A worker that lives is counted in full, however much it has counted.
        registry::update(&host, &keys.workers, id, true, Time(1_000_000_000));
        let told = estate::gather(&host, &keys, 0, Time::ZERO).counts;
        assert!(told.upstream(CLUSTER).is_some_and(|of| of.endpoints.len() >= endpoints as usize));
        estate::bury(&host, &keys, id).expect("alone");
    }
    let left = estate::gather(&host, &keys, 0, Time::ZERO).counts;
    let left = left.upstream(CLUSTER).expect("counted");
    assert_eq!(left.totals.policy, 2 * (10 * 150_000 + 150_000));
    assert_eq!(left.endpoints.len(), MOST_ENDPOINTS);
    assert!((0..10).all(|endpoint| left.endpoints[&endpoint].counters.requests == 2 * 150_000));
}

#[test]
fn more_upstreams_than_are_remembered_cost_only_the_least_used() {
    let mut counts = Counts::default();
    for cluster in 0..2 * MOST_UPSTREAMS as u64 {
        counts.upstreams.entry(cluster).or_default().totals.policy = cluster;
    }
    counts.keep_the_most_used();
    assert_eq!(counts.upstreams.len(), MOST_UPSTREAMS);
    assert!(counts.upstreams.keys().all(|cluster| *cluster >= MOST_UPSTREAMS as u64));
    assert_eq!(Counts::decode(&counts.encode()), Some(counts));
}
