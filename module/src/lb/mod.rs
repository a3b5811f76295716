//! The load-balancing face: a cluster that names this module as its policy asks here for a host at every attempt that
//! no call has named one for, so at each retry.
//!
//! ```text
//! Envoy ─▶ abi::lb::events ─▶ Face: one for each cluster and thread
//!            ask: the worker's engine names endpoints, best first ─▶ table: Envoy's host of that address, if it is
//!                 healthy, its priority carries load, and the retry policy does not exclude it
//!            otherwise draw: a random healthy host by weight
//! ```
//!
//! The face has no state of the engine's: it finds the worker of its thread by the filter's name.

mod loads;
mod policy;
mod table;

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use engine::rng::Rng;
use evenkeel::host::Bytes;
use evenkeel::request::KeySource;
use evenkeel::request::again::Again;

use self::loads::Loads;
pub use self::policy::{By, Policy};
use self::table::Table;
use crate::abi::{Hosts, LbHandle, RequestContext};
use crate::guard::guarded;
use crate::plugin::{self, Plugin};
use crate::{clock, left, registry};

/// Number of random hosts that are drawn before the following ones are tried in order.
const DRAWS: usize = 4;
/// Number of hosts that are tried in order.
const MAX_WALK: usize = 16;

/// A choice: the priority, and the index among its healthy hosts.
pub type Choice = (u32, u32);

/// The load balancer of one cluster on one thread.
pub struct Face {
    policy: Arc<Policy>,
    cluster: String,
    table: RefCell<Table>,
    rng: RefCell<Rng>,
    /// The plugin as of this state of the registry.
    plugin: RefCell<(u64, Weak<Plugin>)>,
}

impl Face {
    /// The face for this cluster.
    pub fn new(policy: Arc<Policy>, lb: LbHandle) -> Face {
        Face {
            policy,
            cluster: String::from_utf8_lossy(&lb.cluster_name()).into_owned(),
            table: RefCell::new(Table::of(lb)),
            rng: RefCell::new(Rng::new(RandomState::new().hash_one(clock::now().0))),
            plugin: RefCell::new((0, Weak::new())),
        }
    }

    /// Hosts were added, were removed or have changed.
    pub fn update(&self, lb: LbHandle) {
        let table = Table::of(lb);
        if let Ok(mut old) = self.table.try_borrow_mut() {
            *old = table;
        }
    }

    /// The host for an attempt; `None` where no host is healthy.
    pub fn choose(&self, lb: LbHandle, context: RequestContext) -> Option<Choice> {
        let asked = guarded(|| self.ask(lb, context), || Err(By::Panic));
        let (chosen, by) = match asked {
            Ok(choice) => (Some(choice), By::Engine),
            Err(by) => match guarded(|| self.draw(lb, context), || any(lb)) {
                None => (None, By::None),
                drawn => (drawn, by),
            },
        };
        self.policy.count(by, &self.cluster);
        chosen
    }

    /// The plugin whose filter the policy names.
    fn plugin(&self) -> Option<Arc<Plugin>> {
        let state = registry::state();
        let (of, known) = self.plugin.try_borrow().ok()?.clone();
        if of == state {
            return known.upgrade();
        }
        let plugin = registry::find(self.policy.filter(), &self.cluster);
        let weak = plugin.as_ref().map(Arc::downgrade).unwrap_or_default();
        *self.plugin.try_borrow_mut().ok()? = (state, weak);
        plugin
    }

    /// Asks the engine.
    fn ask(&self, lb: LbHandle, context: RequestContext) -> Result<Choice, By> {
        if context.named_host(|host| host == left::ADDRESS) == Some(true) {
            return Err(By::Left);
        }
        let plugin = self.plugin().ok_or(By::NoPlugin)?;
        if !plugin.by_call {
            return Err(By::Left);
        }
        let (Ok(table), Ok(mut rng)) = (self.table.try_borrow(), self.rng.try_borrow_mut()) else {
            return Err(By::Busy);
        };
        let loads = Loads::of(lb);
        let chosen = Cell::new(None);
        let takes = |address: &[u8]| {
            let host = table.find(lb, address).filter(|host| loads.of_priority(host.priority) > 0);
            let taken = host.filter(|host| !table.is_excluded(lb, context, (host.priority, host.healthy)));
            chosen.set(taken.map(|host| (host.priority, host.healthy)));
            taken.is_some()
        };
        let at = plugin::place(plugin.workers());
        let mut name = || {
            let mut slot = plugin.slot_beside_ticks(at)?;
            #[cfg(debug_assertions)]
            crate::guard::provoked(context.header("x-evenkeel-test-panic-again", 0).is_some());
            Some(slot.worker.name_again(&self.cluster, &Fields(context), clock::now(), &mut rng, takes))
        };
        let named = guarded(
            || name().ok_or(By::Busy),
            || {
                plugin.broke();
                Err(By::Panic)
            },
        );
        match named? {
            Again::Taken => chosen.get().ok_or(By::Refused),
            Again::Unmatched => Err(By::NoUpstream),
            Again::Left => Err(By::Left),
            Again::Refused => Err(By::Refused),
        }
    }

    /// Draws a healthy host by weight, of a priority by its load; one that the retry policy excludes only where no
    /// other is found.
    fn draw(&self, lb: LbHandle, context: RequestContext) -> Option<Choice> {
        let (Ok(table), Ok(mut rng)) = (self.table.try_borrow(), self.rng.try_borrow_mut()) else {
            return any(lb);
        };
        let loads = Loads::of(lb);
        let mut last = None;
        for _ in 0..DRAWS {
            let drawn = table.draw(lb, loads.draw(&mut rng)?, &mut rng)?;
            if !table.is_excluded(lb, context, drawn) {
                return Some(drawn);
            }
            last = Some(drawn);
        }
        let (priority, from) = last?;
        let count = u32::try_from(lb.count(priority, Hosts::Healthy)).unwrap_or(u32::MAX);
        let following = (1..count).take(MAX_WALK).map(|step| (priority, from.wrapping_add(step) % count));
        let mut free = following.filter(|choice| !table.is_excluded(lb, context, *choice));
        free.next().or(last)
    }
}

/// The first healthy host.
fn any(lb: LbHandle) -> Option<Choice> {
    (0..lb.priorities())
        .find(|priority| lb.count(*priority, Hosts::Healthy) > 0)
        .map(|priority| (priority, 0))
}

/// The request as far as the policy of a cluster sees it: not the client's address.
struct Fields(RequestContext);

impl KeySource for Fields {
    fn line(&self, name: &str) -> Option<Bytes> {
        self.0.header(name, 0).map(Bytes::from)
    }

    fn lines(&self, name: &str) -> Vec<Vec<u8>> {
        (0..).map_while(|nth| self.0.header(name, nth)).collect()
    }

    fn client(&self) -> Option<Bytes> {
        None
    }
}
