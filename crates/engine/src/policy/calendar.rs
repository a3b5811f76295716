//! The next turn in constant time: a calendar queue (Brown, "Calendar queues: a fast O(1) priority queue implementation
//! for the simulation event set problem", CACM 31(10), 1988).
//!
//! Turns are kept by day. A year has as many days as there are turns, and a day is as long as the mean distance between
//! turns: a day has about one turn, and turns of later years are skipped. The order is that of a sorted list.

/// End of a day's linked list.
const NONE: u32 = u32::MAX;

/// Next turn of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Time of the turn, ≥ 0.
    pub due: f64,
    /// Number of turns per unit of time, > 0.
    pub share: f32,
    /// The endpoint's index.
    pub index: u32,
    /// Next turn in the list of the same day.
    next: u32,
}

impl Turn {
    /// A turn that recurs `share` times per unit of time.
    pub fn new(due: f64, share: f32, index: u32) -> Turn {
        Turn { due, share, index, next: NONE }
    }
}

/// Recurring turns, the earliest first.
#[derive(Debug, Default)]
pub struct Calendar {
    turns: Vec<Turn>,
    /// First turn of each day; a power of two many.
    days: Vec<u32>,
    days_per_time: f64,
    today: u64,
}

impl Calendar {
    /// Replaces all turns, and starts at time 0; `most` is the capacity to reserve.
    pub fn fill(&mut self, turns: impl Iterator<Item = Turn>, most: usize) {
        self.turns.clear();
        self.turns.reserve_exact(most);
        self.turns.extend(turns);
        self.days.clear();
        self.days.resize(self.turns.len().next_power_of_two(), NONE);
        self.days_per_time = self.turns.iter().map(|turn| f64::from(turn.share)).sum();
        self.today = 0;
        for at in 0..self.turns.len() as u32 {
            self.enter(at);
        }
    }

    /// Shifts every turn by the fraction `part`, 0..1, of its own period, wrapping at a period. Time has to be 0.
    /// Called once per policy; linear in the number of turns.
    pub fn turn_by(&mut self, part: f64) {
        self.days.fill(NONE);
        for at in 0..self.turns.len() as u32 {
            if let Some(turn) = self.turns.get_mut(at as usize) {
                let share = f64::from(turn.share);
                turn.due = (turn.due * share + part).fract() / share;
            }
            self.enter(at);
        }
    }

    /// All turns, unordered.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Takes the earliest turn and schedules the endpoint's next one a period later.
    pub fn next(&mut self) -> Option<Turn> {
        // A year without turns is due to rounding, or to shares that differ very much.
        for _ in 0..=self.days.len() {
            if let Some(turn) = self.take_today() {
                return Some(turn);
            }
            self.today += 1;
        }
        let first = self.turns.iter().map(|turn| turn.due).reduce(f64::min)?;
        self.today = self.day(first);
        self.take_today()
    }

    /// Takes the earliest turn of the current day in this year.
    fn take_today(&mut self) -> Option<Turn> {
        let mut earliest: Option<(u32, Turn)> = None;
        let (mut before, mut before_earliest) = (NONE, NONE);
        let mut at = self.first(self.today);
        while let Some(turn) = self.turns.get(at as usize) {
            let sooner = earliest.is_none_or(|(_, than)| (turn.due, turn.index) < (than.due, than.index));
            if sooner && self.day(turn.due) <= self.today {
                (earliest, before_earliest) = (Some((at, *turn)), before);
            }
            (before, at) = (at, turn.next);
        }
        let (at, turn) = earliest?;
        let link = match self.turns.get_mut(before_earliest as usize) {
            Some(before) => &mut before.next,
            None => self.first_mut(self.today)?,
        };
        *link = turn.next;
        self.turns.get_mut(at as usize)?.due += 1.0 / f64::from(turn.share);
        self.enter(at);
        Some(turn)
    }

    fn enter(&mut self, at: u32) {
        let Some(day) = self.turns.get(at as usize).map(|turn| self.day(turn.due)) else { return };
        let Some(first) = self.first_mut(day) else { return };
        let next = core::mem::replace(first, at);
        if let Some(turn) = self.turns.get_mut(at as usize) {
            turn.next = next;
        }
    }

    fn day(&self, due: f64) -> u64 {
        (due * self.days_per_time) as u64
    }

    fn first(&self, day: u64) -> u32 {
        self.days.get(self.of_the_year(day)).copied().unwrap_or(NONE)
    }

    fn first_mut(&mut self, day: u64) -> Option<&mut u32> {
        let day = self.of_the_year(day);
        self.days.get_mut(day)
    }

    fn of_the_year(&self, day: u64) -> usize {
        (day & (self.days.len() as u64).wrapping_sub(1)) as usize
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::rng::Rng;

    fn filled(shares: &[f32]) -> Calendar {
        let mut calendar = Calendar::default();
        let turn = |(index, share): (u32, &f32)| Turn::new(0.3 / f64::from(*share), *share, index);
        calendar.fill((0..).zip(shares).map(turn), shares.len());
        calendar
    }

    #[test]
    fn takes_turns_as_a_sorted_list_would() {
        let mut rng = Rng::new(7);
        for endpoints in [1, 2, 3, 10, 257] {
            for steepness in [0.0, 3.0, 12.0] {
                let shares: Vec<f32> =
                    (0..endpoints).map(|_| (steepness * rng.unit()).exp() as f32 * 1e-3).collect();
                let mut calendar = filled(&shares);
                let mut sorted: Vec<(f64, u32)> = calendar.turns().iter().map(|t| (t.due, t.index)).collect();
                for _ in 0..2000 {
                    let first = *sorted.iter().min_by(|a, b| a.partial_cmp(b).unwrap()).unwrap();
                    sorted[first.1 as usize].0 += 1.0 / f64::from(shares[first.1 as usize]);
                    let turn = calendar.next().unwrap();
                    assert_eq!((turn.due, turn.index), first, "{endpoints} endpoints, e^{steepness}");
                }
            }
        }
    }

    #[test]
    fn an_empty_calendar_has_no_turn() {
        assert_eq!(filled(&[]).next(), None);
    }
}
