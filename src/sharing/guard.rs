//! The guard's records: each worker's counts of both arms, and the lease holder's conclusion. The conclusion is
//! complete, with capital and today's counts, so that the next lease holder continues with the same evidence instead of
//! a new chance of a false alarm.

use super::codec::{Reader, Writer};
use engine::Balancer;
use engine::guard::capital::Capital;
use engine::guard::evidence::Evidence;
use engine::guard::histogram::BUCKETS;
use engine::guard::state::{FIGURES, FIRST_PAUSE_S, Recent};
use engine::guard::{Arms, Finding, Guard, Tally};
use engine::time::Time;

const FINDINGS: [Finding; 4] = [Finding::Open, Finding::Better, Finding::Mixed, Finding::Worse];

/// The counts of one worker for one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// The cluster's identity.
    pub cluster: u64,
    /// The holdout in force while they were counted.
    pub holdout: f64,
    /// The counts of both arms, since the worker began.
    pub arms: Arms,
}

/// This worker's counts, for clusters that have any.
pub fn counted(engine: &Balancer) -> Vec<Counted> {
    let of = |upstream: &engine::Cluster| {
        let (holdout, arms) = upstream.arms()?;
        (arms.requests() > 0).then(|| Counted { cluster: upstream.hash(), holdout, arms: arms.clone() })
    };
    engine.upstreams().iter().filter_map(of).collect()
}

/// Encodes for shared data.
pub fn encode_counted(counted: &[Counted], now: Time) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.time(now);
    for Counted { cluster, holdout, arms } in counted {
        w.u64(*cluster);
        w.f64(*holdout);
        write_arms(&mut w, arms);
    }
    w.0
}

/// Reads shared data up to the first malformed field: only `wanted` clusters and each only once, so that memory is
/// bounded by the number of clusters, however many the bytes contain.
pub fn decode_counted(bytes: &[u8], wanted: impl Fn(u64) -> bool) -> Vec<Counted> {
    let mut all: Vec<Counted> = Vec::new();
    let Some(mut r) = Reader::versioned(bytes) else { return all };
    let _written = r.time();
    while let (Some(cluster), Some(holdout), Some(arms)) = (r.u64(), r.f64(), read_arms(&mut r)) {
        if wanted(cluster) && all.iter().all(|counted| counted.cluster != cluster) {
            all.push(Counted { cluster, holdout, arms });
        }
    }
    all
}

fn write_arms(w: &mut Writer, arms: &Arms) {
    for tally in [&arms.steered, &arms.held_out] {
        w.u64(tally.failures);
        w.u32(tally.latency.filled().count() as u32);
        for (bucket, count) in tally.latency.filled() {
            w.u32(bucket as u32);
            w.u64(count);
        }
    }
}

fn read_arms(r: &mut Reader<'_>) -> Option<Arms> {
    Some(Arms { steered: read_tally(r)?, held_out: read_tally(r)? })
}

fn read_tally(r: &mut Reader<'_>) -> Option<Tally> {
    let mut tally = Tally { failures: r.u64()?, ..Tally::default() };
    let filled = r.u32().filter(|filled| *filled as usize <= BUCKETS)?;
    for _ in 0..filled {
        let bucket = r.u32().filter(|bucket| (*bucket as usize) < BUCKETS)?;
        tally.latency.add(bucket as usize, r.u64()?);
    }
    Some(tally)
}

/// Writes the guards, by cluster.
pub fn encode<'a>(guards: impl Iterator<Item = (u64, &'a Guard)>) -> Vec<u8> {
    let mut w = Writer::versioned();
    for (cluster, guard) in guards {
        w.u64(cluster);
        w.f64(guard.holdout);
        [guard.began, guard.at, guard.aside_until, guard.steers_since].iter().for_each(|time| w.time(*time));
        w.f64(guard.pause_s);
        w.u32(guard.asides);
        w.u32(FINDINGS.iter().position(|finding| *finding == guard.finding).unwrap_or(0) as u32);
        w.u64(guard.day);
        for Evidence { worse, better, worse_at, better_at } in &guard.evidence {
            w.time(*worse_at);
            w.time(*better_at);
            for capital in [worse, better] {
                w.f64(capital.paid_s);
                capital.logs.iter().for_each(|log| w.f64(*log));
            }
        }
        write_arms(&mut w, &guard.today);
    }
    w.0
}

/// Reads the guards up to the first malformed field, without those whose values are impossible.
pub fn decode(bytes: &[u8], now: Time) -> Vec<(u64, Guard)> {
    let mut all = Vec::new();
    let Some(mut r) = Reader::versioned(bytes) else { return all };
    while let (Some(cluster), Some(guard)) = (r.u64(), read_guard(&mut r)) {
        all.extend(guard.checked(now).map(|guard| (cluster, guard)));
    }
    all
}

fn read_guard(r: &mut Reader<'_>) -> Option<Guard> {
    let holdout = r.f64()?;
    let (began, at, aside_until, steers_since) = (r.time()?, r.time()?, r.time()?, r.time()?);
    let (pause_s, asides) = (r.f64()?, r.u32()?);
    let finding = FINDINGS.get(r.u32()? as usize).copied()?;
    let day = r.u64()?;
    let mut evidence = [Evidence::default(); FIGURES];
    for figure in &mut evidence {
        (figure.worse_at, figure.better_at) = (r.time()?, r.time()?);
        for capital in [&mut figure.worse, &mut figure.better] {
            *capital = read_capital(r)?;
        }
    }
    let today = read_arms(r)?;
    let recent = Recent::default();
    Some(Guard {
        holdout,
        began,
        at,
        evidence,
        aside_until,
        steers_since,
        pause_s,
        first_pause_s: FIRST_PAUSE_S,
        asides,
        finding,
        day,
        today,
        recent,
    })
}

fn read_capital(r: &mut Reader<'_>) -> Option<Capital> {
    let mut capital = Capital { paid_s: r.f64()?, ..Capital::default() };
    for log in &mut capital.logs {
        *log = r.f64()?;
    }
    Some(capital)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use engine::guard::Arm;

    fn arms() -> Arms {
        let mut arms = Arms::default();
        (0..300).for_each(|n| arms.count(Arm::Steered, Some(n)));
        arms.count(Arm::HeldOut, None);
        arms
    }

    #[test]
    fn counts_survive_the_journey_and_no_cut_is_taken_for_more() {
        let counted = vec![Counted { cluster: 7, holdout: 0.01, arms: arms() }];
        let bytes = encode_counted(&counted, Time(5));
        assert_eq!(decode_counted(&bytes, |cluster| cluster == 7), counted);
        assert_eq!(decode_counted(&bytes, |cluster| cluster == 8), []);
        let twice = [&bytes[..], &bytes[9..]].concat();
        assert_eq!(decode_counted(&twice, |_| true), counted);
        (0..bytes.len()).for_each(|cut| assert_eq!(decode_counted(&bytes[..cut], |_| true), [], "{cut}"));
    }

    #[test]
    fn a_conclusion_survives_the_journey_and_hostile_numbers_do_not() {
        let now = Time(1_800_000_000 * 1_000_000_000);
        let mut guard = Guard::new(0.01, now);
        guard.take(&arms(), now.after_secs(1.0));
        guard.recent = Recent::default();
        guard.aside_until = now.after_secs(600.0);
        let bytes = encode([(7, &guard)].into_iter());
        assert_eq!(decode(&bytes, now.after_secs(1.0)), [(7, guard.clone())]);
        (0..bytes.len()).for_each(|cut| assert_eq!(decode(&bytes[..cut], now), [], "{cut}"));
        let mut certain = guard.clone();
        certain.evidence[0].worse.logs[3] = 1e300;
        let mut for_ever = guard.clone();
        for_ever.aside_until = Time(u64::MAX);
        for_ever.pause_s = 1e300;
        let read = decode(&encode([(7, &certain), (8, &for_ever)].into_iter()), now);
        assert_eq!(read.len(), 1);
        assert!(read[0].1.aside_until.seconds_since(now) <= 601.0 && read[0].1.pause_s <= 6.0 * 3600.0);
        guard.holdout = 0.7;
        assert_eq!(decode(&encode([(7, &guard)].into_iter()), now), []);
    }
}
