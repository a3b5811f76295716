//! Workers that run at the same time: between any two accesses to shared data another worker may go on, as on Envoy's
//! threads.
//!
//! Each worker of a [`crew`] has a thread of its own, of which one runs at a time. At each access to shared data,
//! the only thing that workers both read and write, a [plan](turns) says who goes on, so each run can be repeated.
//! Metrics are only added to, or written by the leader, so their order does not matter.
//!
//! - [`small`]: two or three workers, a few ticks long, in **every** schedule with one, two or three changes of turn
//!   before a worker ends its part (each test says how many). Where a worker may die, it dies at every access of every
//!   such schedule.
//! - [`random`]: three or four workers with everything that can happen to them, in random schedules: a few seeds here,
//!   many in `make trials`.
//!
//! What holds at every moment: no panic and no trap, at most one of three endpoints out, and a status page that counts
//! no request twice. What holds after the last fault is in [`all_is_well`]. The lease allows one worker to poll; another
//! polls only once the lease has run out or is taken from it, and then the former sends at most what it had decided on
//! before its next maintenance, a quarter of a second later.
//!
//! Not covered: orders that need more changes of turn than that in small worlds, other than by chance; what a worker that
//! dies had counted since its last maintenance, which is lost; and the module's own store and atomics, which have no
//! gate: its workers are the same code as here, over a store that is as atomic call by call.

mod crew;
mod random;
mod small;
mod turns;

use testbed::serde_json::Value;

use crate::scene::{config, ms};
use crate::world::{Answer, World};
use crew::{Crew, Sent};

/// The highest percentage of endpoints that may be ejected.
const MAX_EJECTED: u64 = 34;
const ANSWER: &[u8] = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

/// A configuration with everything that workers share; `slow_start` makes it differ from another one.
fn everything(slow_start: usize) -> String {
    with(&format!(
        r#""policy":"round_robin","autoscale":{{}},"signals":[{{"name":"queue","query":"queue","max":100}}],
           "slow_start":"{slow_start}s","health":{{"max_ejected_percent":{MAX_EJECTED},"ejection":"1s"}}"#
    ))
}

/// A configuration with a guard, which holds every fourth request out.
fn guarded() -> String {
    with(r#""policy":"round_robin","guard":{"holdout_percent":25}"#)
}

fn with(upstream: &str) -> String {
    let root = r#""prometheus":{"cluster":"prometheus","interval":"1s","timeout":"500ms"},"status":{"path":"/_evenkeel"}"#;
    config(3, upstream, root)
}

/// Lets so many half seconds pass, in each of which each member ticks and serves a request; returns which members poll.
fn pass<W: World + 'static>(crew: &mut Crew<W>, halves: usize) -> Vec<usize> {
    let mut askers = Vec::new();
    for _ in 0..halves {
        crew.world.advance(ms(500));
        for member in 0..crew.len() {
            let asked = crew.on(member, |member| {
                if member.plugin.is_some() {
                    member.tick();
                    member.serve();
                }
                member.answer(&Answer::Http(200, ANSWER))
            });
            askers.extend(vec![member; asked]);
        }
    }
    askers
}

/// What holds seven seconds after the last fault: one member polls for all; nothing is in flight; every endpoint is
/// eligible; all members agree. `lost` is how many requests may have died with their worker, uncounted.
fn all_is_well<W: World + 'static>(crew: &mut Crew<W>, lost: u64) {
    crew.each(|member| member.finish_all());
    pass(crew, 8);
    let askers = pass(crew, 6);
    assert!(
        askers.len() >= 2 && askers.iter().all(|asker| *asker == askers[0]),
        "one polls for all: {askers:?}"
    );
    for _ in 0..2 {
        crew.world.advance(ms(300));
        crew.each(|member| member.tick());
    }
    let sent = crew.each(|member| member.sent);
    let sum = |of: fn(&Sent) -> u64| sent.iter().map(of).sum::<u64>();
    let views = crew.each(|member| member.plugin.map(|_| (member.status(), member.counted())));
    let views: Vec<_> = views.into_iter().flatten().collect();
    let states = |view: &Value| {
        let endpoints = view["endpoints"].as_array().expect("endpoints");
        endpoints.iter().map(|of| (of["state"].clone(), of["eligible"].clone())).collect::<Vec<_>>()
    };
    for (status, counted) in &views {
        assert_eq!(status["in_flight"].as_u64(), Some(0), "{status}");
        assert_eq!(status["eligible"].as_u64(), Some(3), "{status}");
        assert_eq!(states(status), states(&views[0].0));
        assert_eq!(*counted, views[0].1, "all show the same");
    }
    let (requests, failures) = views[0].1;
    let reasons = ["policy", "probe", "overflow", "fallback", "unsteerable", "safe_endpoint"];
    let of_reason = |reason: &&str| {
        let name = format!("evenkeel.upstream=.=web;.;reason=.={reason};.;fleet_decisions_total");
        crew.world.counter(&name).unwrap_or(0)
    };
    let decisions = reasons.iter().map(of_reason).sum::<u64>();
    for (what, counted, there_were) in [
        ("requests", requests, sum(|of| of.ended)),
        ("failures", failures, sum(|of| of.failed)),
        ("decisions in Envoy's stats", decisions, sum(|of| of.begun)),
    ] {
        let least = there_were.saturating_sub(lost);
        assert!((least..=there_were).contains(&counted), "{counted} of {there_were} {what} are counted");
    }
}
