//! This worker's request rate, and the budget for explorations.

use super::ProbeShard;
use super::probes::DUTY_S;
use crate::estimate::Epochs;
use crate::policy::Home;
use crate::time::{LostTime, Time};

/// Time constant of the request rate, seconds.
const RATE_OVER_S: f64 = 5.0;
/// Fraction of the requests that may explore, however many endpoints are slow.
const EXPLORING_SHARE: f32 = 0.01;
/// Request rate from which a worker has a request for each of its turns to probe, per second.
const OFTEN: f64 = 1.0 / DUTY_S as f64;
/// Request rate of a worker that has had no request for half a minute, per second.
const NEXT_TO_NONE: f64 = 1e-3;
/// Maximum number of unused explorations that are saved up.
const SAVED_EXPLORATIONS: f32 = 4.0;

/// The peers that balance this cluster.
#[derive(Clone, Copy, Debug, Default)]
struct Peers {
    /// Those before this worker in their common order.
    before: PeersOnASide,
    /// Those behind it.
    behind: PeersOnASide,
}

#[derive(Clone, Copy, Debug, Default)]
struct PeersOnASide {
    /// How many there are.
    count: u32,
    /// How many have had requests lately.
    busy: u32,
    /// How many of these have had few to this cluster, and next to none.
    few: u32,
    none: u32,
    /// Their requests per second.
    rate: f32,
}

/// This worker's requests to the cluster.
#[derive(Debug)]
pub(super) struct Traffic {
    /// Picks since the last refresh.
    picks: u32,
    /// Smoothed request rate, per second.
    pub rate: f64,
    /// Request rate between the last two refreshes, per second.
    latest_rate: f64,
    /// Total number of picks; wraps.
    pub requests: u32,
    explorations: f32,
    pub refreshed: Time,
    /// When this worker began to send: an endpoint that it has sent nothing counts as silent since then.
    pub began: Time,
    /// When the first request to the cluster was noticed; zero until then.
    pub first: Time,
    /// Number of workers that carry traffic, including this one.
    pub workers: u32,
    /// Requests of all workers that awaited an answer at the latest refresh.
    pub in_flight: f64,
    /// Mean time that they had waited, seconds; 0 without any.
    pub waited_s: f64,
    /// The place of this one among them, from 0.
    pub rank: u32,
    /// The peers.
    peers: Peers,
    /// Epochs by which unanswered requests are divided by age.
    pub epochs: Epochs,
    /// The latest lost time.
    pub lost: LostTime,
}

impl Traffic {
    /// No requests before `now`.
    pub fn since(now: Time) -> Traffic {
        let explorations = SAVED_EXPLORATIONS;
        let epochs = Epochs { current: now, before: now };
        Traffic {
            picks: 0,
            rate: 0.0,
            latest_rate: 0.0,
            requests: 0,
            explorations,
            refreshed: now,
            began: now,
            first: Time::ZERO,
            workers: 1,
            in_flight: 0.0,
            waited_s: 0.0,
            rank: 0,
            peers: Peers::default(),
            epochs,
            lost: LostTime::default(),
        }
    }

    /// Counts a request, whether or not it is left to Envoy.
    pub fn pick(&mut self) {
        self.picks += 1;
    }

    /// Counts a request that is not left to Envoy, which adds to the exploration budget.
    pub fn request(&mut self) {
        self.requests = self.requests.wrapping_add(1);
        self.explorations = (self.explorations + EXPLORING_SHARE).min(SAVED_EXPLORATIONS);
    }

    /// Takes one exploration from the budget; returns whether it allowed one.
    pub fn explores(&mut self) -> bool {
        let affordable = self.explorations >= 1.0;
        if affordable {
            self.explorations -= 1.0;
        }
        affordable
    }

    /// Clears the peers before they are merged anew.
    pub fn forget_peers(&mut self) {
        self.peers = Peers::default();
    }

    /// Merges a peer with its rate, per second; `before` says whether it comes before this worker in their common order,
    /// `busy` whether it has had requests lately.
    pub fn merge_peer(&mut self, rate: f32, before: bool, busy: bool) {
        let Peers { before: first, behind } = &mut self.peers;
        let side = if before { first } else { behind };
        side.count += 1;
        side.busy += u32::from(busy);
        side.few += u32::from(busy && f64::from(rate) < OFTEN);
        side.none += u32::from(busy && f64::from(rate) < NEXT_TO_NONE);
        side.rate += rate.max(0.0);
    }

    /// This worker's part of the work on this cluster, where `shard` is its part among all of `peers` peers. Some of them
    /// may balance other clusters alone, as those of a plugin of the same name on another listener: what would be theirs
    /// would be left undone.
    pub fn divided(&self, shard: ProbeShard, peers: u32) -> ProbeShard {
        let Peers { before, behind } = self.peers;
        if before.count + behind.count >= peers {
            return shard;
        }
        ProbeShard {
            rank: before.busy,
            workers: 1 + before.busy + behind.busy,
            is_reporter: before.count == 0,
        }
    }

    /// Whether this worker has less than a request for each of its turns to probe.
    pub fn is_sparse(&self) -> bool {
        self.rate < OFTEN
    }

    /// This worker's part of the probes, where `shard` is its part of the work on this cluster. The others may be busy with
    /// other clusters: they have no request to probe with, and in their turns nothing would be probed. Those with few
    /// requests probe whenever they can.
    pub fn on_duty(&self, shard: ProbeShard) -> ProbeShard {
        let Peers { before, behind } = self.peers;
        let absent = |side: PeersOnASide| if self.is_sparse() { side.none } else { side.few };
        let workers = shard.workers.saturating_sub(absent(before) + absent(behind)).max(1);
        ProbeShard { rank: shard.rank.saturating_sub(absent(before)).min(workers - 1), workers, ..shard }
    }

    /// This worker's home.
    pub fn home(&self) -> Home {
        let Peers { before, behind } = self.peers;
        let (before, behind) = (before.rate, behind.rate);
        let own = self.own_rate() as f32;
        let all = before + own + behind;
        if before + behind <= 0.0 || !all.is_finite() {
            return Home::default();
        }
        Home { from: before / all, width: own / all }
    }

    /// A lost time does not lower the rate, and nothing was tested in it.
    pub fn lose_time(&mut self, lost: LostTime) {
        self.lost = lost;
        for time in [&mut self.refreshed, &mut self.began, &mut self.first] {
            *time = lost.shift(*time);
        }
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.lost = LostTime::default();
        (self.began, self.first) = (self.began.min(now), self.first.min(now));
        let Epochs { current, before } = self.epochs;
        self.epochs = Epochs { current: current.min(now), before: before.min(now) };
    }

    /// This worker's requests per second, smoothed. Corrects for the smoothed rate starting at zero, which would
    /// underestimate a worker's first seconds.
    pub fn own_rate(&self) -> f64 {
        let seen = 1.0 - (-self.refreshed.seconds_since(self.began) / RATE_OVER_S).exp();
        if seen > 0.0 { self.rate / seen } else { 0.0 }
    }

    /// Time in which requests were sent to an endpoint that joined at `joined` and has seen `waited` requests to others
    /// since its last one, seconds.
    #[inline(never)]
    pub fn tested_s(&self, joined: Time, waited: u32, now: Time) -> f64 {
        now.seconds_since(self.first.max(joined)) - f64::from(waited) / self.own_rate()
    }

    /// Estimated requests per second of all workers, assuming that each gets as many as this one.
    pub fn rate_of_all(&self) -> f64 {
        self.own_rate() * f64::from(self.workers)
    }

    /// Estimated requests per second of all workers, assuming that each gets as many as this one: the smoothed rate, or
    /// the latest if that is higher.
    pub fn pace(&self) -> f64 {
        self.rate.max(self.latest_rate) * f64::from(self.workers)
    }

    /// Updates the rate; returns the seconds since the last call.
    pub fn refresh(&mut self, now: Time) -> f64 {
        let seconds = now.seconds_since(core::mem::replace(&mut self.refreshed, now));
        if self.first == Time::ZERO && self.requests > 0 {
            self.first = now;
        }
        if seconds > 0.0 {
            let rate = f64::from(core::mem::take(&mut self.picks)) / seconds;
            self.latest_rate = rate;
            self.rate += (rate - self.rate) * (seconds / RATE_OVER_S).min(1.0);
        }
        seconds
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn one_request_in_a_hundred_explores() {
        let mut traffic = Traffic::since(Time(1));
        let explored = (0..1000).filter(|_| {
            traffic.request();
            traffic.explores()
        });
        let explored = explored.count();
        assert!((12..=14).contains(&explored), "{explored}: four saved up, ten earned");
    }

    #[test]
    fn the_rate_follows_in_some_seconds() {
        let mut traffic = Traffic::since(Time(1));
        for second in 1..=30 {
            (0..50).for_each(|_| traffic.pick());
            assert!((traffic.refresh(Time(1).after_secs(f64::from(second))) - 1.0).abs() < 1e-6);
        }
        assert!((traffic.rate - 50.0).abs() < 0.5, "{}", traffic.rate);
        assert_eq!(traffic.refresh(Time(1)), 0.0, "the clock stepped back");
    }

    #[test]
    fn homes_lie_side_by_side_and_are_as_wide_as_the_parts_of_the_requests() {
        for rates in [vec![50, 50], vec![90, 0, 10], vec![7, 1, 1, 1, 30], vec![12]] {
            let workers = rates.iter().map(|rate| {
                let mut traffic = Traffic::since(Time(1));
                (0..*rate).for_each(|_| traffic.pick());
                traffic.refresh(Time(1).after_secs(1.0));
                traffic
            });
            let mut workers: Vec<Traffic> = workers.collect();
            let own: Vec<f32> = workers.iter().map(|worker| worker.own_rate() as f32).collect();
            for (at, worker) in workers.iter_mut().enumerate() {
                let peers = own.iter().enumerate().filter(|(peer, _)| *peer != at);
                peers.for_each(|(peer, rate)| worker.merge_peer(*rate, peer < at, true));
            }
            let all: f32 = own.iter().sum();
            let mut end = 0.0;
            for (worker, own) in workers.iter().zip(&own) {
                let home = worker.home();
                if rates.len() == 1 {
                    assert_eq!(home, Home::default(), "there are no others");
                    continue;
                }
                assert!((home.width - own / all).abs() < 1e-5 && (home.from - end).abs() < 1e-5, "{home:?}");
                end = home.from + home.width;
            }
            workers.iter_mut().for_each(Traffic::forget_peers);
            assert!(workers.iter().all(|worker| worker.home() == Home::default()));
        }
    }

    #[test]
    fn work_is_divided_among_those_that_balance_the_cluster() {
        let of_all = ProbeShard { rank: 2, workers: 4, is_reporter: false };
        let mut traffic = Traffic::since(Time(1));
        assert_eq!(traffic.divided(of_all, 0), of_all, "it takes no part");
        let alone = ProbeShard { rank: 0, workers: 1, is_reporter: true };
        assert_eq!(traffic.divided(of_all, 3), alone, "three peers, none of which balances it");
        traffic.merge_peer(1.0, false, true);
        let first = ProbeShard { rank: 0, workers: 2, is_reporter: true };
        assert_eq!(traffic.divided(of_all, 3), first);
        traffic.merge_peer(0.0, true, false);
        let second = ProbeShard { rank: 0, workers: 2, is_reporter: false };
        assert_eq!(traffic.divided(of_all, 3), second, "one without requests has none to probe with");
        traffic.merge_peer(1.0, true, true);
        assert_eq!(traffic.divided(of_all, 3), of_all, "all of them do");
    }

    #[test]
    fn a_few_explorations_are_saved_up_and_a_count_may_wrap() {
        let mut traffic = Traffic::since(Time(1));
        traffic.requests = u32::MAX - 5000;
        (0..10_000).for_each(|_| traffic.request());
        assert_eq!(traffic.requests, 4999);
        assert_eq!((0..100).filter(|_| traffic.explores()).count(), 4);
    }
}
