//! Who goes on: one member of a crew runs at a time, and at each access to shared data a plan says which.

use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use engine::rng::Rng;

/// What happens at an access to shared data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This member goes on.
    Goes(usize),
    /// The member that came to it dies.
    Dies,
}

/// Says who goes on, so that a run can be repeated.
#[derive(Clone, Debug)]
pub enum Plan {
    /// One of all schedules.
    Search(Search),
    /// A random one: at each access any member goes on with probability one in four, and the one that came to it dies with
    /// this probability.
    Drawn(Rng, f64),
}

impl Plan {
    /// Whether the turn may be taken, or a member die, at an access to this key.
    fn has_a_choice_at(&self, key: &str) -> bool {
        match self {
            Plan::Search(search) => search.only.is_none_or(|only| only(key)),
            Plan::Drawn(..) => true,
        }
    }

    /// `current` has come to an access to shared data; `None` if a member has just ended.
    fn next(&mut self, current: Option<usize>, racing: &[usize]) -> Next {
        match self {
            Plan::Search(search) => search.next(current, racing),
            Plan::Drawn(rng, deaths) => match current {
                Some(_) if rng.unit() < *deaths => Next::Dies,
                Some(current) if rng.unit() < 0.75 => Next::Goes(current),
                _ => Next::Goes(racing[rng.below(racing.len() as u32) as usize]),
            },
        }
    }
}

/// All schedules, depth first, that take the turn from a member at most so often before it ends, and in which one
/// member dies at most once.
#[derive(Clone, Debug, Default)]
pub struct Search {
    preemptions: usize,
    mortal: Option<usize>,
    /// The keys at whose accesses there is a choice; at all without it.
    only: Option<fn(&str) -> bool>,
    /// What was chosen wherever there was a choice, and the number of options there.
    path: Vec<(usize, usize)>,
    // Of the current run:
    depth: usize,
    preempted: usize,
    died: bool,
}

impl Search {
    /// The first schedule with at most so many preemptions, in which `mortal` may die, each at an access to one of these
    /// keys.
    pub fn new(preemptions: usize, mortal: Option<usize>, only: Option<fn(&str) -> bool>) -> Search {
        Search { preemptions, mortal, only, ..Search::default() }
    }

    fn next(&mut self, current: Option<usize>, racing: &[usize]) -> Next {
        let mut options: Vec<Next> = current.into_iter().map(Next::Goes).collect();
        if current.is_none() || self.preempted < self.preemptions {
            options.extend(
                racing.iter().filter(|other| Some(**other) != current).map(|other| Next::Goes(*other)),
            );
        }
        if current.is_some() && current == self.mortal && !self.died {
            options.push(Next::Dies);
        }
        if options.len() == 1 {
            return options[0];
        }
        if self.depth == self.path.len() {
            self.path.push((0, options.len()));
        }
        let (chosen, known) = self.path[self.depth];
        assert_eq!(known, options.len(), "a schedule is the same when it is repeated");
        self.depth += 1;
        let next = options[chosen];
        self.died |= next == Next::Dies;
        self.preempted += usize::from(next != Next::Dies && current.is_some_and(|c| next != Next::Goes(c)));
        next
    }

    /// The schedule after this one, which was run; `None` after the last.
    pub fn following(mut self) -> Option<Search> {
        while let Some((chosen, options)) = self.path.pop() {
            if chosen + 1 < options {
                self.path.push((chosen + 1, options));
                return Some(Search { depth: 0, preempted: 0, died: false, ..self });
            }
        }
        None
    }
}

#[derive(Default)]
struct Race {
    plan: Option<Plan>,
    racing: Vec<usize>,
    turn: Option<usize>,
}

/// Whose turn it is. Without a plan everyone passes.
#[derive(Default)]
pub struct Turns {
    race: Mutex<Race>,
    changed: Condvar,
    /// The number of requests that all members have begun.
    pub begun: AtomicU64,
}

impl Turns {
    fn race(&self) -> MutexGuard<'_, Race> {
        self.race.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a race of these members.
    pub fn begin(&self, mut plan: Plan, racing: Vec<usize>) {
        let Next::Goes(first) = plan.next(None, &racing) else { unreachable!("no member to die") };
        *self.race() = Race { plan: Some(plan), racing, turn: Some(first) };
    }

    /// Ends the race; returns its plan.
    pub fn end(&self) -> Plan {
        self.race().plan.take().expect("a race")
    }

    /// Waits for the first turn of a member.
    pub fn enter(&self, me: usize) {
        self.wait(self.race(), me);
    }

    fn wait(&self, mut race: MutexGuard<'_, Race>, me: usize) {
        while race.turn != Some(me) {
            race = self.changed.wait(race).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A member has come to an access to this key of shared data; returns whether it lives on.
    pub fn pass(&self, me: usize, key: &str) -> bool {
        let mut race = self.race();
        let Race { plan, racing, .. } = &mut *race;
        let Some(plan) = plan.as_mut().filter(|plan| plan.has_a_choice_at(key)) else { return true };
        match plan.next(Some(me), racing) {
            Next::Goes(next) if next == me => {}
            Next::Goes(next) => {
                race.turn = Some(next);
                self.changed.notify_all();
                self.wait(race, me);
            }
            Next::Dies => return false,
        }
        true
    }

    /// A member has done its part, or died.
    pub fn leave(&self, me: usize) {
        let mut race = self.race();
        race.racing.retain(|other| *other != me);
        let Race { plan, racing, turn } = &mut *race;
        *turn = None;
        if let (Some(plan), false) = (plan, racing.is_empty()) {
            let Next::Goes(next) = plan.next(None, racing) else { unreachable!("no member to die") };
            *turn = Some(next);
        }
        self.changed.notify_all();
    }
}
