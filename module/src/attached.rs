//! A configuration of Envoy's with what evenkeel has for it. Several of them, as of several listeners, share a plugin
//! where their text is the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel::worker::aside::{Aside, TICK_MS};

use crate::abi::Answer;
use crate::host::Process;
use crate::plugin::Plugin;
use crate::stats::Defined;

/// One of Envoy's configurations.
pub struct Attached {
    /// The workers and what goes with them.
    pub plugin: Arc<Plugin>,
    /// Its metrics.
    pub defined: Defined,
    /// What is said and done where its text was refused, and Envoy's environment asks to stand aside.
    pub aside: Option<Mutex<Aside>>,
}

impl Attached {
    /// Envoy for a worker: `calls` only on the main thread.
    pub fn process(&self, calls: Option<usize>) -> Process<'_> {
        let calls = calls.map(|worker| (&self.plugin.calls, worker));
        Process { defined: &self.defined, series: &self.plugin.series, calls }
    }

    /// Does to what stands aside what it has to.
    pub fn aside<R>(&self, act: impl FnOnce(&Aside) -> R) -> Option<R> {
        let aside = self.aside.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(act(&aside))
    }

    /// Time passes; on the main thread.
    pub fn tick(&self) {
        let _nothing_to_say = self.aside(|aside| aside.tick(&self.process(None)));
        let period = self.plugin.tick(self).unwrap_or(Duration::from_millis(TICK_MS));
        self.plugin.pace(period);
    }

    /// An answer to one of its calls; on the main thread.
    pub fn answered(&self, id: u64, answer: &Answer<'_>) {
        self.plugin.answered(self, id, answer);
    }
}
