//! One of Envoy's filter configurations with its plugin. Several configurations, such as those of several listeners,
//! share a plugin if their text is the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel::worker::aside::{Aside, TICK_MS};

use crate::abi::Answer;
use crate::host::Process;
use crate::plugin::Plugin;
use crate::stats::Defined;

/// One of Envoy's filter configurations.
pub struct Attached {
    /// Workers, calls and pacer.
    pub plugin: Arc<Plugin>,
    /// Its metrics.
    pub defined: Defined,
    /// Set if the configuration was refused and the environment asks to stand aside rather than be rejected.
    pub aside: Option<Mutex<Aside>>,
    /// Whether a later configuration is in the place of one that was refused.
    replaced: AtomicBool,
}

impl Attached {
    /// A configuration with its plugin, not attached yet; with `aside` if it was refused.
    pub fn new(plugin: Arc<Plugin>, defined: Defined, aside: Option<Aside>) -> Attached {
        Attached { plugin, defined, aside: aside.map(Mutex::new), replaced: AtomicBool::new(false) }
    }

    /// From now on the faults of a refused configuration are not repeated: they are no longer those of the latest one.
    pub fn replace(&self) {
        self.replaced.store(true, Ordering::Relaxed);
    }

    /// The host of a worker; with `calls`, the worker's index, it can send calls, on the main thread only.
    pub fn process(&self, calls: Option<usize>) -> Process<'_> {
        let calls = calls.map(|worker| (&self.plugin.calls, worker));
        Process { defined: &self.defined, series: &self.plugin.series, calls }
    }

    /// Runs `act` on the refused configuration, if there is one.
    pub fn aside<R>(&self, act: impl FnOnce(&Aside) -> R) -> Option<R> {
        let aside = self.aside.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(act(&aside))
    }

    /// Runs a tick; on the main thread.
    pub fn tick(&self) {
        if !self.replaced.load(Ordering::Relaxed) {
            let _nothing_to_say = self.aside(|aside| aside.tick(&self.process(None)));
        }
        let period = self.plugin.tick(self).unwrap_or(Duration::from_millis(TICK_MS));
        self.plugin.pace(period);
    }

    /// Delivers the answer to a call; on the main thread.
    pub fn answered(&self, id: u64, answer: &Answer<'_>) {
        self.plugin.answered(self, id, answer);
    }
}
