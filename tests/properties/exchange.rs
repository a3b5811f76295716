//! Reports between workers survive encoding and decoding; arbitrary bytes in shared data do no harm.

use std::cell::RefCell;
use std::collections::BTreeMap;

use engine::autoscale::scaler::{Below, Period};
use engine::autoscale::{Division, Scaler, Trend};

use engine::endpoint::{Absence, Absences, AnnouncedHealth};
use engine::estimate::InFlightReport;
use engine::policy::Request;
use engine::rng::Rng;
use engine::time::Time;
use engine::{Balancer, Decision, Failure, Outcome};
use evenkeel::discovery::discovered;
use evenkeel::discovery::found::Found;
use evenkeel::discovery::merge::Sources;
use evenkeel::discovery::source::{Origin, Source};
use evenkeel::host::{Call, CallError, Host, SharedError};
use evenkeel::sharing::lease::{self, Candidate, Holder};
use evenkeel::sharing::snapshot::{Fit, PollStats, Samples, Snapshot, Value};
use evenkeel::sharing::{registry, scaling, worker_report};
use proptest::collection::vec;
use proptest::prelude::*;

fn s(seconds: u64) -> Time {
    Time((1_800_000_000 + seconds) * 1_000_000_000)
}

/// A host with shared data only.
#[derive(Default)]
struct Shared(RefCell<BTreeMap<String, (Vec<u8>, u32)>>);

impl Shared {
    fn put(&self, key: &str, value: Vec<u8>) {
        let mut entries = self.0.borrow_mut();
        let version = entries.get(key).map_or(1, |(_, version)| version + 1);
        entries.insert(key.into(), (value, version));
    }
}

impl Host for Shared {
    fn now(&self) -> Time {
        s(0)
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.0.borrow().get(key).cloned()
    }

    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
        let current = self.0.borrow().get(key).map(|(_, version)| *version);
        if version.is_some_and(|version| current.is_some_and(|current| current != version)) {
            return Err(SharedError::Conflict);
        }
        self.put(key, value.into());
        Ok(())
    }

    fn call(&self, _call: &Call<'_>) -> Result<u32, CallError> {
        Err(CallError::UnknownCluster)
    }

    fn log(&self, _level: log::Level, _message: &str) {}
}

/// Arbitrary bytes, half of them with the current version number, so that decoders get past it.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), vec(prop_oneof![any::<u8>(), Just(0), Just(0xff)], 0..400)).prop_map(
        |(ours, mut bytes)| {
            if let (true, Some(first)) = (ours, bytes.first_mut()) {
                *first = evenkeel::sharing::VERSION;
            }
            bytes
        },
    )
}

fn engine() -> Balancer {
    let json = r#"{"upstreams":[
        {"cluster":"web","endpoints":{"static":["10.0.0.1:80","10.0.0.2:80","10.0.0.3:80"]}},
        {"cluster":"api","endpoints":{"static":["10.0.1.1:80","[2001:db8::1]:80"]}}]}"#;
    Balancer::new(&config::parse(json.as_bytes()).expect("accepted"), s(0))
}

fn holds(shared: &Shared, id: u64, now: Time) -> bool {
    let me = Candidate { id, configuration: 1, since: s(0), busy: false };
    lease::hold(shared, "lease", me, now) == Holder::Me
}

fn found() -> impl Strategy<Value = Found> {
    let address = (any::<std::net::IpAddr>(), any::<u16>()).prop_map(std::net::SocketAddr::from);
    let condition = prop::sample::select(vec![
        AnnouncedHealth::Serving,
        AnnouncedHealth::Degraded,
        AnnouncedHealth::Unhealthy,
        AnnouncedHealth::Draining,
    ]);
    let weight = prop::option::of(1e-3f64..1e6);
    let locality = (".{0,20}", prop::option::of(0f64..4e9));
    (address, weight, ".{0,20}", locality, prop::option::of(0u32..1000), ".{0,20}", condition).prop_map(
        |(address, weight, zone, (locality, locality_weight), priority, version, condition)| Found {
            address,
            weight,
            zone,
            locality,
            locality_weight,
            priority,
            version,
            condition,
        },
    )
}

fn source() -> impl Strategy<Value = Source> {
    let absent = vec((any::<std::net::IpAddr>(), any::<u16>(), any::<u64>(), any::<u32>()), 0..5);
    let absent = absent.prop_map(|absent| {
        let absence = |(ip, port, since, answers)| Absence {
            address: std::net::SocketAddr::new(ip, port),
            since: Time(since),
            answers,
        };
        Absences::reported(absent.into_iter().map(absence).collect(), 7.0)
    });
    let told = (any::<[u64; 4]>(), any::<u32>(), 0f64..1.0, any::<[bool; 4]>());
    (vec(found(), 0..20), told, ".{0,200}", ".{0,100}", absent).prop_map(
        |(
            found,
            (
                [answered, answers, failures, question],
                skipped,
                unsteerable,
                [named_any, subsets, outage, alone],
            ),
            error,
            examples,
            absences,
        )| {
            Source {
                found,
                last_success: Time(answered),
                answers,
                failures,
                error,
                outage,
                alone,
                skipped,
                examples,
                unsteerable,
                subsets,
                question,
                absences,
                named_any,
            }
        },
    )
}

/// Runs requests with these outcomes; some stay in flight.
fn live(engine: &mut Balancer, outcomes: &[(bool, u8)], seed: u64) {
    let mut rng = Rng::new(seed);
    for (step, (api, outcome)) in outcomes.iter().enumerate() {
        let now = s(0).after_secs(step as f64 * 0.01);
        let upstream = usize::from(*api);
        let Decision::Steer(candidates) = engine.pick(upstream, Request::wanting(1), now, &mut rng) else {
            continue;
        };
        let first = candidates.first().expect("somebody");
        let handle = engine.started(upstream, first, now).expect("a handle");
        let outcome = match outcome % 5 {
            0 => continue,
            1 => Outcome::Failed(Failure::Status5xx),
            2 => Outcome::Cancelled,
            _ => Outcome::Good,
        };
        let then = now.after_secs(0.02);
        engine.record_response(&handle, outcome, then);
        engine.finished(&handle, then);
    }
}

/// Asserts that every decision of `engine` names endpoints of the fleet.
fn decides(engine: &mut Balancer) -> Result<(), TestCaseError> {
    let mut rng = Rng::new(1);
    for upstream in 0..2 {
        for _ in 0..5 {
            let Decision::Steer(candidates) = engine.pick(upstream, Request::wanting(2), s(9), &mut rng)
            else {
                return Err(TestCaseError::fail("no endpoint is eligible"));
            };
            let fleet = engine.upstream(upstream).expect("configured").fleet();
            prop_assert!(candidates.first().is_some());
            prop_assert!(candidates.as_slice().iter().all(|index| fleet.get(*index).is_some()));
        }
    }
    Ok(())
}

/// Any state that scaling may have reached by `s(9)`.
fn scaler() -> impl Strategy<Value = Scaler> {
    let time = || (0..9u64).prop_map(s);
    let amount = || 0.0..1e6f64;
    let period = (time(), any::<u32>(), amount(), amount());
    let below = (time(), any::<u32>(), any::<u32>());
    let shown = prop::option::of(amount());
    let desired = prop::option::of(1..u32::MAX);
    let division = (any::<u32>(), any::<u32>()).prop_map(|(loaded, standby)| Division { loaded, standby });
    (shown, desired, time(), period, any::<u32>(), below, vec(amount(), 0..6), division).prop_map(
        |(shown, desired, sampled, period, above, below, trend, division)| {
            let (began, samples, demand, known) = period;
            let (since, periods, most) = below;
            Scaler {
                shown,
                desired,
                sampled,
                period: Period { began, samples, demand, known },
                above,
                below: Below { since, periods, most },
                trend: Trend::of(trend),
                division,
            }
        },
    )
}

proptest! {
    #![proptest_config(crate::seeded(400))]

    #[test]
    fn what_scaling_has_come_to_survives_the_journey(web in scaler(), api in scaler()) {
        let (mut from, mut to) = (engine(), engine());
        for (at, scaler) in [&web, &api].into_iter().enumerate() {
            from.upstream_mut(at).expect("configured").set_scaler(scaler.clone());
        }
        scaling::apply(&scaling::encode(&from), &mut to, s(9));
        prop_assert_eq!(to.upstream(0).expect("configured").scaler(), &web);
        prop_assert_eq!(to.upstream(1).expect("configured").scaler(), &api);
    }

    #[test]
    fn whatever_stands_for_scaling_is_survived(mut bytes in bytes(), cut in any::<prop::sample::Index>()) {
        let mut told = engine();
        let mut whole = scaling::encode(&told);
        whole.truncate(cut.index(whole.len() + 1));
        whole.append(&mut bytes.clone());
        for bytes in [&bytes, &whole] {
            scaling::apply(bytes, &mut told, s(9));
            scaling::apply_slots([bytes.as_slice()].into_iter(), &mut told);
            told.scale_replicas(s(9));
            for upstream in told.upstreams() {
                prop_assert!(upstream.pressure().is_none_or(|pressure| pressure >= 0.0));
                prop_assert!(upstream.desired_replicas().is_none_or(|desired| desired > 0));
            }
        }
        decides(&mut told)?;
        bytes.clear();
    }

    #[test]
    fn worker_report_roundtrip_is_exact(
        outcomes in vec(any::<(bool, u8)>(), 0..150),
        seed: u64,
    ) {
        let (mut here, mut there) = (engine(), engine());
        live(&mut here, &outcomes, seed);
        let bytes = worker_report::encode(&here, true, s(5));
        prop_assert_eq!(worker_report::published(&bytes), Some((s(5), true)));
        prop_assert_eq!(worker_report::merge(&bytes, false, &mut there), Some(()));
        for (mine, theirs) in here.upstreams().iter().zip(there.upstreams()) {
            for (index, _) in mine.fleet().iter() {
                let (told, knows) = (mine.endpoint(index).expect("mine"), theirs.endpoint(index).expect("theirs"));
                let (read, written) = (knows.others().in_flight, told.report(s(5)));
                prop_assert!((read.mean_age - written.mean_age).abs() <= 1e-5 * written.mean_age);
                prop_assert_eq!(read, InFlightReport { mean_age: read.mean_age, ..written });
                prop_assert_eq!(knows.others_evidence(), told.health.local());
                prop_assert_eq!(f64::from(knows.others().error_ratio), told.errors.ratio());
                let centre = told.latency.estimate().map(f64::ln);
                match (knows.others().latency.centre(), centre) {
                    (Some((read, _)), Some(written)) => prop_assert!((read - written).abs() < 1e-6),
                    (read, written) => prop_assert!(read.is_none() && written.is_none()),
                }
            }
        }
    }

    #[test]
    fn a_slot_cut_short_is_noticed(outcomes in vec(any::<(bool, u8)>(), 0..40), cut: prop::sample::Index) {
        let mut here = engine();
        live(&mut here, &outcomes, 1);
        let bytes = worker_report::encode(&here, true, s(5));
        let mut there = engine();
        prop_assert_eq!(worker_report::merge(&bytes[..cut.index(bytes.len())], false, &mut there), None);
        there.tick(engine::ProbeShard::ALONE, s(6));
        decides(&mut there)?;
    }

    #[test]
    fn any_bytes_for_a_slot_leave_an_engine_that_decides(
        whole in bytes(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..30),
        outcomes in vec(any::<(bool, u8)>(), 0..40),
    ) {
        let mut here = engine();
        live(&mut here, &outcomes, 2);
        let mut damaged = worker_report::encode(&here, true, s(5));
        damage.iter().for_each(|(at, byte)| { let at = at.index(damaged.len()); damaged[at] = *byte });
        let mut there = engine();
        for bytes in [&whole, &damaged, &damaged] {
            worker_report::published(bytes);
            worker_report::merge(bytes, false, &mut there);
            there.tick(engine::ProbeShard { rank: 1, workers: 3, is_reporter: false }, s(6));
            decides(&mut there)?;
        }
        // Nonsense is gone as soon as it is no longer reported.
        there.forget_others(s(7));
        there.tick(engine::ProbeShard::ALONE, s(7));
        live(&mut there, &[(false, 3); 30], 3);
        decides(&mut there)?;
    }

    #[test]
    fn a_snapshot_survives_the_journey(
        counts: [u64; 2],
        error in ".{0,300}",
        failing in vec(any::<u64>(), 0..9),
        signals in vec((0u8..4, 0u8..4, any::<u64>(), vec((any::<u64>(), -1e300f64..1e300), 0..20)), 0..8),
        now: u64,
    ) {
        let [polls, failures] = counts;
        let stats = PollStats {
            polls,
            failures,
            last_success: Time(polls),
            last_error: error.clone(),
            pause_s: failures as f32,
            failing,
        };
        let mut snapshot = Snapshot { stats, ..Snapshot::default() };
        for (cluster, signal, at, values) in signals {
            let value = |(endpoint, value)| Value { endpoint, value, age_s: 0.5 };
            let fit = Fit { series: at as u32, matched: 1, problem: error.clone() };
            let samples = Samples { at: Time(at), fit, values: values.into_iter().map(value).collect() };
            snapshot.put(&cluster.to_string(), &signal.to_string(), samples);
        }
        let bytes = snapshot.encode();
        prop_assert_eq!(Snapshot::decode(&bytes), Some(snapshot.clone()));
        prop_assert!((0..bytes.len()).all(|cut| Snapshot::decode(&bytes[..cut]).is_none()));
        snapshot.not_after(Time(now));
        prop_assert!(snapshot.signals.iter().all(|(_, samples)| samples.at <= Time(now)));
    }

    #[test]
    fn any_bytes_for_a_snapshot_are_refused_or_finite(bytes in bytes()) {
        if let Some(snapshot) = Snapshot::decode(&bytes) {
            let values = snapshot.signals.iter().flat_map(|(_, samples)| &samples.values);
            prop_assert!(values.into_iter().all(|value| value.value.is_finite() && value.age_s >= 0.0));
            let mut engine = engine();
            snapshot.apply(&mut engine);
            engine.tick(engine::ProbeShard::ALONE, s(6));
            decides(&mut engine)?;
        }
    }

    #[test]
    fn sources_roundtrip(
        sources in vec((any::<u64>(), any::<bool>(), source()), 0..5),
        cut: prop::sample::Index,
        huge: prop::sample::Index,
    ) {
        let sources: Vec<_> = sources
            .into_iter()
            .map(|(cluster, envoy, source)| {
                ((cluster, if envoy { Origin::Envoy } else { Origin::Prometheus }), source)
            })
            .collect();
        let mut bytes = discovered::encode(sources.iter().map(|(key, source)| (*key, source)));
        prop_assert_eq!(discovered::decode(&bytes), Some(sources));
        prop_assert_eq!(discovered::decode(&bytes[..cut.index(bytes.len())]), None);
        // Counts and lengths larger than the rest of the data.
        let at = huge.index(bytes.len().saturating_sub(4).max(1));
        let end = (at + 4).min(bytes.len());
        bytes[at..end].fill(0xff);
        discovered::decode(&bytes);
    }

    #[test]
    fn arbitrary_bytes_of_sources_are_refused_or_usable(bytes in bytes()) {
        for (_, source) in discovered::decode(&bytes).unwrap_or_default() {
            prop_assert!(source.found.len() <= config::MAX_ENDPOINTS);
            prop_assert!(source.found.iter().all(|f| f.weight.is_none_or(|w| w.is_finite() && w > 0.0)));
            let merged = Sources { envoy: Some(&source.found), known_to_envoy_only: true, ..Sources::default() }.merge();
            let mut engine = engine();
            let upstream = engine.upstream_mut(0).expect("configured");
            upstream.set_fleet(&merged.specs, s(1));
            engine.tick(engine::ProbeShard::ALONE, s(2));
        }
    }

    #[test]
    fn one_worker_gets_the_lease_over_any_bytes(damage in vec(bytes(), 1..6), seed: u64) {
        let shared = Shared::default();
        let mut rng = Rng::new(seed);
        let mut second = 0;
        for bytes in damage {
            shared.put("lease", bytes);
            for _ in 0..12 {
                second += 1;
                let first = 1 + u64::from(rng.below(2));
                let holders = [first, 3 - first].map(|id| holds(&shared, id, s(second)));
                prop_assert!(holders != [true, true]);
            }
            let settled = [1, 2].map(|id| holds(&shared, id, s(second)));
            prop_assert!(settled[0] != settled[1], "{settled:?}");
        }
    }

    #[test]
    fn all_workers_enter_the_registry_over_any_bytes(damage in bytes(), ids in vec(any::<u64>(), 1..20)) {
        let shared = Shared::default();
        shared.put("workers", damage);
        ids.iter().for_each(|id| _ = registry::update(&shared, "workers", *id, true, s(1)));
        let listed = registry::update(&shared, "workers", ids[0], true, s(2)).live;
        prop_assert!(ids.iter().all(|id| listed.iter().any(|slot_id| slot_id.id == *id)));
        prop_assert!(listed.is_sorted());
        let mut slot_ids: Vec<u32> = listed.iter().map(|slot_id| slot_id.number).collect();
        slot_ids.sort_unstable();
        prop_assert!(slot_ids.windows(2).all(|pair| pair[0] < pair[1]), "two with one number: {:?}", slot_ids);
    }
}
