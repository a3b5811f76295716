//! Who gets a single request next: the sick to be verified, the exiled to be explored; and which worker sends it.

use super::{GOOD_MULTIPLE, Upstream};
use crate::config::RuleAction;
use crate::fleet::Condition;
use crate::health::State;
use crate::known::{Known, NOISE_S};
use crate::random;
use crate::time::Time;

/// A slow endpoint is explored after this many requests to the upstream without one to it: a tenth of what a p99
/// would notice …
const REQUESTS_PER_EXPLORATION: f64 = 1000.0;
/// … but neither sooner, nor later than this, seconds.
const EXPLORE_AFTER_S: [f64; 2] = [2.5, 12.0];
/// Each exploration in vain lengthens the pause by this factor …
const EXPLORE_GROWTH: f64 = 1.3;
/// … up to this, seconds, unless it was longer from the start.
const EXPLORE_AT_MOST_S: f64 = 6.0;
/// An endpoint that has waited for this many times the mean pause between two requests to it is left out.
const LEFT_OUT_GAPS: f64 = 20.0;
/// The sick wait for their turn, the mean pause between two requests to an endpoint, and the slow for so many: many
/// proxies with few requests each would otherwise send them more than their fair share.
const TURNS_PER_EXPLORATION: f64 = 4.0;
/// Rates below this count as this, requests/s, or small fleets with little traffic would wait for minutes.
const LEAST_RATE: f64 = 10.0;
/// Duty to probe an endpoint goes from worker to worker at this pace, seconds.
const DUTY_S: u64 = 2;
/// A latency that lies this many standard errors above the typical one is certainly higher: sixteen times it after
/// two answers, twice after thirty.
const CERTAIN_ERRORS: f64 = 8.0;

/// Which part of the common work is this worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    /// This worker's place among those that carry traffic.
    pub rank: u32,
    /// How many there are, at least 1.
    pub workers: u32,
    /// Whether it is this one that counts and tells what all of them conclude alike.
    pub tells: bool,
}

impl Duty {
    /// A worker on its own.
    pub const ALONE: Duty = Duty { rank: 0, workers: 1, tells: true };

    fn covers(self, hash: u64, now: Time) -> bool {
        let turn = now.0 / (DUTY_S * 1_000_000_000);
        random::mix(hash ^ turn) % u64::from(self.workers.max(1)) == u64::from(self.rank)
    }
}

/// A group with less of the requests than this is not explored: it is there for others, not for these.
pub(super) const WORTH_EXPLORING: f64 = 0.01;

/// How sure it is that `member` is slow, 0.1..=1: whoever was condemned on little evidence is looked at again the
/// sooner.
fn certainty(member: Known<'_>, typical: f64) -> f64 {
    let errors = member.deviation(typical).map_or(CERTAIN_ERRORS, |(deviation, error)| deviation / error);
    (errors / CERTAIN_ERRORS).clamp(0.1, 1.0)
}

impl Upstream {
    /// Who gets a single request next: the sick to be verified, the exiled to be explored.
    pub(super) fn schedule(&mut self, duty: Duty, now: Time) {
        self.lanes.iter_mut().for_each(|lane| lane.due.clear());
        let rate = self.rate * f64::from(duty.workers);
        for at in 0..self.groups.len() {
            self.schedule_group(at, rate, duty, now);
        }
    }

    /// The same for one group. One that gets no requests gets none to explore it either, but its sick are verified:
    /// whether it can take over must be known before it has to.
    fn schedule_group(&mut self, at: usize, rate: f64, duty: Duty, now: Time) {
        let Some(group) = self.groups.get(at) else { return };
        let Some(lane) = self.lanes.get_mut(group.key.lane) else { return };
        let idle = group.load < WORTH_EXPLORING;
        let explores = group.policy.exiles() && !idle;
        let rate = rate * self.split.share(group.key.lane) * group.load;
        let pause = (REQUESTS_PER_EXPLORATION / rate.max(1e-3)).clamp(EXPLORE_AFTER_S[0], EXPLORE_AFTER_S[1]);
        let left_out = LEFT_OUT_GAPS * group.pool.everybody().len() as f64 / rate.max(1e-3);
        let turn = group.pool.everybody().len() as f64 / rate.max(LEAST_RATE);
        let (typical, health) = (group.typical, &self.config.health);
        for index in group.pool.everybody().iter().copied() {
            let Some(identity) = self.fleet.identities().get(index as usize) else { continue };
            let Some(member) = self.members.get_mut(index as usize) else { continue };
            // Whoever was condemned elsewhere is looked after there, and whoever is spared is not to be disturbed.
            let elsewhere = member.condition.condemned() || (self.spared > 0 && !member.eligible);
            // What a hung one already owes is why it is looked at.
            let hung = member.health.state() == State::Hung;
            if (self.told.of(index, member).awaiting() > 0 && !hung)
                || (elsewhere && member.condition != Condition::Serving)
            {
                continue;
            }
            let again = member.exploration.take_look_again();
            let member = self.told.of(index, member);
            // What a rule took out for its own measurements shows only by requests that these have changed.
            let ruled_out = !member.eligible && member.ruled == Some(RuleAction::Eject);
            let still_slow = ruled_out || f64::from(member.expected) > GOOD_MULTIPLE * typical + NOISE_S;
            let state = member.health.state();
            let silence = now.seconds_since(member.quiet_since().max(self.began).max(member.health.joined()));
            let due = if hung {
                !member.eligible && silence >= member.health.look_after_s(health).max(turn)
            } else if state != State::Healthy {
                let its_turn = idle || state == State::Recovering || silence >= turn;
                (idle || !member.eligible) && now >= member.health.next_probe(health) && its_turn
            } else if idle || (!explores && !ruled_out) {
                false
            } else if again {
                still_slow
            } else {
                let growth = EXPLORE_GROWTH.powi(i32::from(member.exploration.in_vain().min(16)));
                let growth = growth * certainty(member, typical);
                let longest = pause.max(EXPLORE_AT_MOST_S);
                let pause = (pause * growth).min(longest).max(TURNS_PER_EXPLORATION * turn);
                // Not only the slow: where most were slow together, slow is typical, and all of them are left
                // without traffic once one has healed.
                silence > pause && (still_slow || silence > left_out)
            };
            // Who began to look again goes on, so that the same worker sees the answers in a row.
            if due && (again || duty.covers(*identity, now)) {
                lane.due.push(index);
            }
        }
    }
}
