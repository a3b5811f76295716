//! One worker's VM and its plugin configurations.

use crate::contexts::{Gate, RootContext};
use crate::core::Core;
use crate::cost::{Cost, Trap};
use crate::headers::Headers;
use crate::request::Request;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// One worker thread's copy of the module.
#[derive(Debug)]
pub struct Vm {
    pub(crate) id: usize,
    pub(crate) core: Rc<RefCell<Core>>,
}

/// A plugin configuration that a VM has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    vm: usize,
    pub(crate) context: u32,
}

/// A plugin configuration that the guest has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Log lines of the guest while it refused.
    pub logged: Vec<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration refused")?;
        self.logged.iter().try_for_each(|line| write!(f, "\n  guest: {line}"))
    }
}

impl std::error::Error for Refused {}

impl Vm {
    /// The number that logs, traps and calls use for this VM.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Creates a root context with this configuration, as Envoy does for a new plugin or a changed configuration. Where
    /// there is one with this name and text already, a filter of another listener or of a configuration that drains, it is that
    /// one's, and the guest is told nothing.
    ///
    /// Envoy tries a configuration in a throwaway VM first; a test that cares does so with a VM of its own.
    pub fn start_root(&self, name: &str, configuration: &str) -> Result<Root, Refused> {
        let mut core = self.core.borrow_mut();
        let process = core.contexts().process.clone();
        let logged_before = process.lock().logs.len();
        let like = core.contexts().root_like(name, configuration);
        if core.trap.is_none()
            && let Some(context) = like
            && let Some(root) = core.contexts().roots.get_mut(&context).filter(|root| root.accepted)
        {
            root.holders += 1;
            return Ok(Root { vm: self.id, context });
        }
        // One that was refused is there still, and is created once more.
        let context = like.unwrap_or_else(|| core.contexts().next_context());
        let root = RootContext {
            name: name.to_owned(),
            configuration: configuration.to_owned(),
            accepted: false,
            holders: 1,
            tick_period: None,
        };
        core.contexts().roots.insert(context, root);

        core.contexts().plugin_configuration = Some(configuration.as_bytes().to_vec());
        core.call("proxy_on_context_create", context, &[context, 0]);
        let configuration = core.contexts().plugin_configuration.take();
        let mut accepted = core.call("proxy_on_vm_start", context, &[context, 0]) != Some(0);
        if accepted {
            let size = configuration.as_ref().map_or(0, Vec::len) as u32;
            core.contexts().plugin_configuration = configuration;
            accepted = core.call("proxy_on_configure", context, &[context, size]) != Some(0);
            core.contexts().plugin_configuration = None;
        }
        if accepted && core.trap.is_none() {
            core.contexts().roots.get_mut(&context).into_iter().for_each(|root| root.accepted = true);
            return Ok(Root { vm: self.id, context });
        }
        let process = process.lock();
        Err(Refused {
            logged: process.logs[logged_before..].iter().map(|line| line.message.clone()).collect(),
        })
    }

    /// Hands a configuration to a root that has one, as Envoy does where two listeners load the same plugin; whether the
    /// guest accepts it.
    pub fn configure_again(&self, root: Root, configuration: &str) -> bool {
        let context = self.own(root);
        let mut core = self.core.borrow_mut();
        core.contexts().plugin_configuration = Some(configuration.as_bytes().to_vec());
        let size = configuration.len() as u32;
        let accepted = core.call("proxy_on_configure", context, &[context, size]) != Some(0);
        core.contexts().plugin_configuration = None;
        accepted && core.trap.is_none()
    }

    /// Removes a configuration, if no other filter has it; false if the guest asked to wait, in which case nothing is deleted.
    ///
    /// In Envoy streams keep their configuration alive, so all of them must have finished.
    pub fn stop_root(&self, root: Root) -> bool {
        let context = self.own(root);
        let mut core = self.core.borrow_mut();
        if let Some(root) = core.contexts().roots.get_mut(&context).filter(|root| root.holders > 1) {
            root.holders -= 1;
            return true;
        }
        let live = core.contexts().streams.values().filter(|(parent, _)| *parent == context).count();
        assert_eq!(live, 0, "{live} streams of this root are not finished");
        if core.call("proxy_on_done", context, &[context]) == Some(0) {
            return false;
        }
        core.call("proxy_on_delete", context, &[context]);
        core.forget(context);
        true
    }

    /// Fires the timer once, if the guest has asked for one.
    pub fn tick(&self, root: Root) {
        let context = self.own(root);
        if self.tick_period(root).is_some() {
            self.core.borrow_mut().call("proxy_on_tick", context, &[context]);
        }
    }

    /// The tick period that the guest has asked for.
    pub fn tick_period(&self, root: Root) -> Option<Duration> {
        let context = self.own(root);
        self.core.borrow_mut().contexts().roots.get(&context)?.tick_period
    }

    /// Creates a stream with these request headers; the guest sees it with the first phase.
    pub fn request(&self, root: Root, headers: &[(&str, &str)]) -> Request {
        self.request_of(root, Headers::new(headers))
    }

    /// Creates a stream with request headers whose values need not be text.
    pub fn request_of(&self, root: Root, headers: Headers) -> Request {
        Request::new(self.core.clone(), self.own(root), headers)
    }

    /// Has the guest pass `gate` with the key before each access to shared data. If that returns false the VM ends there,
    /// and the test's call unwinds with [`Death`](crate::Death).
    pub fn gate(&self, gate: Rc<dyn Fn(&str) -> bool>) {
        self.core.borrow_mut().contexts().gate = Some(Gate(gate));
    }

    /// Puts a root among the upstream filters of a cluster: a call to the cluster runs them before the hostcall
    /// returns.
    pub fn filter_upstream(&self, root: Root, cluster: &str) {
        let context = self.own(root);
        self.core.borrow_mut().contexts().upstream_filters.insert(cluster.to_owned(), context);
    }

    /// Runs any callback with any arguments, even impossible ones.
    pub fn callback(&self, callback: &'static str, arguments: &[u32]) -> Option<u32> {
        let context = arguments.first().copied().unwrap_or(0);
        self.core.borrow_mut().call(callback, context, arguments)
    }

    /// What the guest has asked for that Envoy refuses, ignores or does not survive: header maps outside their phases, a
    /// second answer, headers that cannot be sent.
    pub fn out_of_phase(&self) -> Vec<String> {
        self.core.borrow_mut().contexts().out_of_phase.clone()
    }

    /// From now on a trap does not fail the test: the VM is dead and callbacks skip it.
    pub fn tolerate_traps(&self) {
        self.core.borrow_mut().tolerate_traps = true;
    }

    /// The trap that ended this VM.
    pub fn trap(&self) -> Option<Trap> {
        self.core.borrow().trap.clone()
    }

    /// Whether a trap has ended this VM.
    pub fn is_dead(&self) -> bool {
        self.trap().is_some()
    }

    /// Fuel used by all callbacks so far.
    pub fn fuel(&self) -> u64 {
        self.core.borrow().fuel
    }

    /// Number of times that the guest has used a hostcall so far.
    pub fn hostcalls(&self, name: &str) -> u64 {
        self.core.borrow().hostcalls.get(name).copied().unwrap_or(0)
    }

    /// The cost of the latest callback.
    pub fn last_cost(&self) -> Cost {
        self.core.borrow().last_cost.clone()
    }

    /// The size of the guest's memory, bytes; it never shrinks.
    pub fn memory_bytes(&self) -> u64 {
        self.core.borrow().memory_bytes()
    }

    fn own(&self, root: Root) -> u32 {
        assert_eq!(root.vm, self.id, "this root belongs to another VM");
        root.context
    }
}
