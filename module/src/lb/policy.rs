//! A configuration of the load-balancing policy: which filter's engine it asks, and the counters of its choices.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi::PolicyHandle;
use crate::{host, left};

/// How a host was chosen: by the engine, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The engine.
    Engine,
    /// The fallback, because no plugin has the filter's name, or several have and none is named.
    NoPlugin,
    /// The fallback, because the plugin balances no cluster of this name.
    NoUpstream,
    /// The fallback, because the engine leaves the request to Envoy: no endpoint is eligible, observe mode, the guard.
    Left,
    /// The fallback, because Envoy could use none of the endpoints that the engine named.
    Refused,
    /// The fallback, because the worker was not to be had.
    Busy,
    /// The fallback, after a panic.
    Panic,
    /// None, because no host is healthy.
    None,
}

impl By {
    const ALL: [By; 8] =
        [By::Engine, By::NoPlugin, By::NoUpstream, By::Left, By::Refused, By::Busy, By::Panic, By::None];

    /// The counter's name. The reason is a part of it: [`PolicyHandle::define_counter`].
    fn counter(self) -> &'static str {
        match self {
            By::Engine => "evenkeel.lb_engine_total",
            By::NoPlugin => "evenkeel.lb_fallback_no_plugin_total",
            By::NoUpstream => "evenkeel.lb_fallback_no_upstream_total",
            By::Left => "evenkeel.lb_fallback_left_total",
            By::Refused => "evenkeel.lb_fallback_refused_total",
            By::Busy => "evenkeel.lb_fallback_busy_total",
            By::Panic => "evenkeel.lb_fallback_panic_total",
            By::None => "evenkeel.lb_no_healthy_host_total",
        }
    }
}

/// A configuration of the policy.
pub struct Policy {
    handle: PolicyHandle,
    /// `filter_name` of the HTTP filter; `None` for the only one.
    filter: Option<String>,
    counters: [Option<usize>; By::ALL.len()],
    /// Whether the log says that there is no plugin.
    told: AtomicBool,
}

impl Policy {
    /// A policy of this text, the name of a filter or nothing; `None` if it is refused.
    pub fn of(handle: PolicyHandle, text: &[u8]) -> Option<Policy> {
        let refused = |why: &str| {
            host::log(log::Level::Error, &format!("configuration refused: lb_policy_config: {why}"));
            None
        };
        let Ok(text) = core::str::from_utf8(text) else { return refused("it is no text") };
        let text = text.trim();
        if text.starts_with(['{', '"', '[']) {
            return refused(
                "found JSON; allowed is a StringValue with the filter_name of the HTTP filter, or nothing if there is only one",
            );
        }
        let counters = By::ALL.map(|by| handle.define_counter(by.counter()));
        left::POLICIES.fetch_add(1, Ordering::Relaxed);
        let filter = (!text.is_empty()).then(|| text.to_owned());
        Some(Policy { handle, filter, counters, told: AtomicBool::new(false) })
    }

    /// `filter_name` of the HTTP filter, if it is given.
    pub fn filter(&self) -> Option<&str> {
        self.filter.as_deref()
    }

    /// Counts a choice for this cluster.
    pub fn count(&self, by: By, cluster: &str) {
        if let Some(Some(counter)) = self.counters.get(by as usize) {
            self.handle.count(*counter);
        }
        if by == By::NoPlugin && !self.told.swap(true, Ordering::Relaxed) {
            let sought = match &self.filter {
                Some(name) => format!("no HTTP filter of this module has the filter_name {name}"),
                None => "not exactly one HTTP filter of this module is there to be asked".to_owned(),
            };
            let message = format!("evenkeel: cluster {cluster}: {sought}: hosts are drawn at random");
            host::log(log::Level::Warn, &message);
        }
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        left::POLICIES.fetch_sub(1, Ordering::Relaxed);
    }
}
