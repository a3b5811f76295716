//! A process' counters add up over its workers and never decrease, whatever workers start, end, crash or resume.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use engine::endpoint::Counters;
use engine::time::Time;
use evenkeel::host::{Call, CallError, Host, SharedError};
use evenkeel::sharing::counts::{Counts, EndpointCounts, MAX_ENDPOINTS, MAX_UPSTREAMS};
use evenkeel::sharing::registry;
use evenkeel::sharing::retired_counters::{self, Keys, RetiredCounters};
use evenkeel::sharing::slot_id::SlotId;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

const CLUSTER: u64 = 7;

/// Shared data in which another worker retires `to_retire` just before access number `interrupted_at`.
#[derive(Default)]
struct Shared {
    entries: RefCell<BTreeMap<String, (Vec<u8>, u32)>>,
    accesses: Cell<u32>,
    interrupted_at: Cell<u32>,
    /// The slot id that the other worker retires.
    to_retire: Cell<Option<SlotId>>,
}

impl Shared {
    fn access(&self) {
        let access = self.accesses.get() + 1;
        self.accesses.set(access);
        if access == self.interrupted_at.get() {
            let expired = self.to_retire.get();
            expired.into_iter().for_each(|slot_id| _ = retired_counters::retire(self, &keys(), slot_id));
        }
    }
}

impl Host for Shared {
    fn now(&self) -> Time {
        Time::ZERO
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.access();
        self.entries.borrow().get(key).cloned()
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

    fn call(&self, _call: &Call<'_>) -> Result<u32, CallError> {
        Err(CallError::UnknownCluster)
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
    let counts = retired_counters::gather(host, &keys(), 0, Time::ZERO).counts;
    let Some(of) = counts.upstream(CLUSTER) else { return 0 };
    let endpoint = of.endpoints.get(&1).copied().unwrap_or_default().counters;
    assert_eq!(of.totals.policy, endpoint.requests);
    endpoint.requests
}

/// An event in the life of a process' workers.
#[derive(Clone, Debug)]
enum Step {
    Count(Index, u16),
    /// The worker ends regularly, and a new one takes its place.
    End(Index),
    /// The worker stops without notice, and a new one takes its place.
    Crash(Index),
    Pass(u16),
    /// Just before the n-th next access to shared data, another worker retires one that has ended or crashed.
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

/// A worker: its slot id once it has one, and the number of requests that it has counted.
#[derive(Clone, Copy)]
struct Worker {
    id: u64,
    slot_id: Option<SlotId>,
    requests: u64,
    /// How many of them are published.
    told: u64,
}

impl Worker {
    fn new(id: u64) -> Worker {
        Worker { id, slot_id: None, requests: 0, told: 0 }
    }

    /// A worker's periodic work: registers, retires expired workers, and writes its counts.
    fn chores(&mut self, host: &Shared, now: Time) {
        let keys = keys();
        let mut listed = registry::update(host, &keys.workers, self.id, true, now);
        if listed.gone {
            *self = Worker { requests: self.requests - self.told, ..Worker::new(self.id + 1_000_000) };
            listed = registry::update(host, &keys.workers, self.id, true, now);
        }
        assert!(listed.to_retire.iter().all(|slot_id| slot_id.id != self.id));
        listed.to_retire.iter().for_each(|slot_id| _ = retired_counters::retire(host, &keys, *slot_id));
        self.slot_id = listed.mine;
        if let Some(slot_id) = self.slot_id {
            self.told = self.requests;
            slot_id
                .write(host, &keys.counts, counts(self.requests).encode())
                .expect("written by this worker alone");
        }
    }
}

proptest! {
    #![proptest_config(crate::seeded(300))]

    #[test]
    fn counts_of_ended_workers_are_kept_once(steps in vec(step(), 1..60)) {
        let (host, keys) = (Shared::default(), keys());
        retired_counters::seed(&host, &keys, Time(1));
        let mut last_id = 4;
        let mut workers: Vec<Worker> = (1..=4).map(Worker::new).collect();
        let mut gone = Vec::new();
        let (mut truth, mut now, mut most_listed) = (0, 1_000_000, 0);
        for step in steps {
            match step {
                Step::Count(who, n) => {
                    let at = who.index(workers.len());
                    workers[at].requests += u64::from(n);
                    truth += u64::from(n);
                }
                Step::End(who) | Step::Crash(who) => {
                    last_id += 1;
                    let at = who.index(workers.len());
                    let worker = std::mem::replace(&mut workers[at], Worker::new(last_id));
                    if matches!(step, Step::End(_)) {
                        retired_counters::end(&host, &keys, worker.id, worker.slot_id, &counts(worker.requests));
                    } else if worker.slot_id.is_none() {
                        truth -= worker.requests;
                    }
                    gone.extend(worker.slot_id);
                }
                Step::Pass(seconds) => now += u64::from(seconds),
                Step::Interrupt(after, who) if !gone.is_empty() => {
                    host.interrupted_at.set(host.accesses.get() + u32::from(after));
                    host.to_retire.set(Some(gone[who.index(gone.len())]));
                }
                Step::Interrupt(..) => {}
            }
            let second = Time(now * 1_000_000_000);
            // Twice, for workers whose registration lost a race.
            for _ in 0..2 {
                workers.iter_mut().for_each(|worker| worker.chores(&host, second));
            }
            // Counts of a worker without a slot id are not in shared data.
            let untold = workers.iter().filter(|worker| worker.slot_id.is_none()).map(|worker| worker.requests);
            prop_assert_eq!(sum(&host) + untold.sum::<u64>(), truth);
            most_listed = most_listed.max(registry::all(&host, &keys.workers).len());
        }
        // A step of the clock makes each look gone; a minute later only the records of live workers and the retired
        // counters are left.
        for later in (100..=200).step_by(20) {
            let second = Time((now + later) * 1_000_000_000);
            for _ in 0..3 {
                workers.iter_mut().for_each(|worker| worker.chores(&host, second));
            }
        }
        prop_assert_eq!(sum(&host), truth);
        prop_assert_eq!(registry::all(&host, &keys.workers).len(), workers.len());
        let full = host.entries.borrow().iter().filter(|(_, (value, _))| !value.is_empty()).count();
        prop_assert_eq!(full, workers.len() + 2, "nothing of retired workers is left behind");
        // One more may have been registered and removed in between.
        let keys = host.entries.borrow().len();
        prop_assert!(keys <= 2 + most_listed + 4, "{keys} keys for {most_listed} workers at most");
    }

    #[test]
    fn late_writer_is_not_mistaken_for_the_new_owner_of_its_slot(late in any::<[u16; 3]>(), kept in any::<u16>()) {
        let (host, keys) = (Shared::default(), keys());
        retired_counters::seed(&host, &keys, Time(1));
        let second = |second: u64| Time((1_000_000 + second) * 1_000_000_000);
        let (mut old, mut other) = (Worker::new(1), Worker::new(2));
        old.requests = 10;
        for now in [0, 1] {
            old.chores(&host, second(now));
            other.chores(&host, second(now));
        }
        let slot_id = old.slot_id.expect("listed");
        // It is inactive for so long that it is retired and its slot is reassigned.
        for now in [40, 80, 120, 160] {
            other.chores(&host, second(now));
        }
        let mut new = Worker::new(3);
        new.requests = kept.into();
        new.chores(&host, second(160));
        prop_assert_eq!(new.slot_id.expect("listed").number, slot_id.number);
        prop_assert_eq!(sum(&host), 10 + u64::from(kept));
        for requests in late {
            // It resumes in the middle of a write.
            slot_id.write(&host, &keys.counts, counts(requests.into()).encode()).expect("written");
            prop_assert_eq!(sum(&host), 10, "until the owner writes again");
            new.chores(&host, second(161));
            prop_assert_eq!(sum(&host), 10 + u64::from(kept));
            retired_counters::retire(&host, &keys, slot_id).expect("alone");
            prop_assert_eq!(sum(&host), 10 + u64::from(kept), "retired again");
        }
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
        let retired_counters = RetiredCounters { founded: Time(5), ids, counts: counts.clone() };
        prop_assert_eq!(Counts::decode(&counts.encode()), Some(counts));
        let mut bytes = retired_counters.encode();
        prop_assert_eq!(RetiredCounters::decode(&bytes[..cut.index(bytes.len())]), None);
        prop_assert_eq!(RetiredCounters::decode(&bytes), Some(retired_counters.clone()));
        damage.iter().for_each(|(at, byte)| { let at = at.index(bytes.len()); bytes[at] = *byte });
        let mut sum = retired_counters.counts;
        // Decoding arbitrary bytes never makes addition overflow.
        (0..2).for_each(|_| sum.merge(&RetiredCounters::decode(&bytes).unwrap_or_default().counts));
    }
}

/// Counts of a worker that sent one request to each of `endpoints` endpoints from `first` on, and `endpoints` requests
/// to each of the first ten.
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
    retired_counters::seed(&host, &keys, Time(1));
    registry::update(&host, &keys.workers, 9, true, Time(1_000_000_000));
    for (id, first, endpoints) in [(1, 10, 101_000), (2, 1_000_000, 1_000)] {
        let slot_id =
            registry::update(&host, &keys.workers, id, true, Time(1_000_000_000)).mine.expect("a slot id");
        slot_id.write(&host, &keys.counts, of_many(first, endpoints).encode()).expect("written");
        // A live worker's counts are never truncated.
        let told = retired_counters::gather(&host, &keys, 0, Time::ZERO).counts;
        assert!(told.upstream(CLUSTER).is_some_and(|of| of.endpoints.len() >= endpoints as usize));
        retired_counters::retire(&host, &keys, slot_id).expect("alone");
    }
    let left = retired_counters::gather(&host, &keys, 0, Time::ZERO).counts;
    let left = left.upstream(CLUSTER).expect("counted");
    assert_eq!(left.totals.policy, 11 * (101_000 + 1_000));
    assert_eq!(left.endpoints.len(), MAX_ENDPOINTS);
    assert!((0..10).all(|endpoint| left.endpoints[&endpoint].counters.requests == 101_000 + 1_000));
}

#[test]
fn more_upstreams_than_are_remembered_cost_only_the_least_used() {
    let mut counts = Counts::default();
    for cluster in 0..2 * MAX_UPSTREAMS as u64 {
        counts.upstreams.entry(cluster).or_default().totals.policy = cluster;
    }
    counts.keep_the_most_used();
    assert_eq!(counts.upstreams.len(), MAX_UPSTREAMS);
    assert!(counts.upstreams.keys().all(|cluster| *cluster >= MAX_UPSTREAMS as u64));
    assert_eq!(Counts::decode(&counts.encode()), Some(counts));
}
