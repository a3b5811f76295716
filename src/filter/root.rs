//! The root context: one a worker and configuration.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::rc::{Rc, Weak};

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType};

use super::attempt::AttemptStream;
use super::host::Envoy;
use super::stream::HttpStream;
use crate::config::{self, Fault, Role};
use crate::host::{Body, Host};
use crate::worker::Worker;

thread_local! {
    /// The latest worker by plugin name: a new configuration is a new root context in the same VM, and what
    /// has been learnt must survive it.
    static LATEST: RefCell<Vec<(String, Weak<RefCell<Worker>>)>> = const { RefCell::new(Vec::new()) };
    /// Every worker that lives: an attempt may belong to a request of any.
    static WORKERS: RefCell<Vec<Weak<RefCell<Worker>>>> = const { RefCell::new(Vec::new()) };
    /// How many configurations have the filter among upstream filters.
    static FOLLOWING: Cell<usize> = const { Cell::new(0) };
}

/// Whether attempts can be followed.
pub fn following() -> bool {
    FOLLOWING.get() > 0
}

/// Looks through the workers of this thread, the latest first.
pub fn with_workers<R>(look: impl FnOnce(&mut dyn Iterator<Item = Rc<RefCell<Worker>>>) -> R) -> R {
    WORKERS.with_borrow(|workers| look(&mut workers.iter().rev().filter_map(Weak::upgrade)))
}

/// The root context; without a worker until it is configured, and for good among upstream filters.
#[derive(Default)]
pub struct Root {
    worker: Option<Rc<RefCell<Worker>>>,
    tick_period_ms: u64,
    follows: bool,
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.follows {
            FOLLOWING.set(FOLLOWING.get().saturating_sub(1));
        }
    }
}

/// The body of the answer that is being handed over, of so many bytes.
struct CallBody(usize);

impl Body for CallBody {
    fn size(&self) -> usize {
        self.0
    }

    fn part(&self, from: usize, most: usize) -> Vec<u8> {
        let most = most.min(self.0.saturating_sub(from));
        if most == 0 {
            return Vec::new();
        }
        let part = hostcalls::get_buffer(BufferType::HttpCallResponseBody, from, most);
        part.ok().flatten().unwrap_or_default()
    }
}

/// The plugin's name as Envoy knows it: it scopes what workers share.
fn plugin_name() -> String {
    let name = hostcalls::get_property(vec!["plugin_name"]).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&name).into_owned()
}

/// Whether the host took it.
fn set_tick_period(ms: u64) -> bool {
    hostcalls::set_tick_period(Duration::from_millis(ms)).is_ok()
}

fn seed() -> u64 {
    // Without entropy the workers still differ in time; randomness here spreads load, it guards nothing.
    getrandom::u64().unwrap_or_else(|_| crate::random::mix(Host::now(&Envoy).0))
}

fn refuse(faults: Vec<Fault>) -> bool {
    for fault in faults {
        Envoy.log(log::Level::Error, &format!("configuration refused: {fault}"));
    }
    false
}

impl Root {
    fn follow(&mut self, json: &[u8]) -> bool {
        match config::parse_upstream(json) {
            Ok(()) => {
                if !core::mem::replace(&mut self.follows, true) {
                    FOLLOWING.set(FOLLOWING.get() + 1);
                }
                true
            }
            Err(faults) => refuse(faults),
        }
    }

    fn take_over(&self, name: String, worker: &Rc<RefCell<Worker>>) {
        LATEST.with_borrow_mut(|latest| {
            latest.retain(|(_, old)| old.strong_count() > 0);
            let old = latest.iter().find(|(n, _)| *n == name).and_then(|(_, old)| old.upgrade());
            if let Some(old) = old
                && let (Ok(mut old), Ok(mut new)) = (old.try_borrow_mut(), worker.try_borrow_mut())
            {
                new.adopt(&mut old, Host::now(&Envoy));
            }
            latest.retain(|(n, _)| *n != name);
            latest.push((name, Rc::downgrade(worker)));
        });
    }
}

impl Context for Root {
    /// Envoy has taken the configuration away, and the last request on it is over.
    fn on_done(&mut self) -> bool {
        if let Some(mut worker) = self.worker.as_ref().and_then(|w| w.try_borrow_mut().ok()) {
            worker.end(&Envoy);
        }
        true
    }

    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _trailers: usize) {
        let Some(mut worker) = self.worker.as_ref().and_then(|w| w.try_borrow_mut().ok()) else { return };
        // A call that failed comes back without headers, and asking for one would panic in the SDK.
        let status = (headers > 0)
            .then(|| {
                hostcalls::get_map_value_bytes(proxy_wasm::types::MapType::HttpCallResponseHeaders, ":status")
            })
            .and_then(|status| status.ok().flatten())
            .and_then(|status| core::str::from_utf8(&status).ok()?.parse().ok());
        worker.call_answered(&Envoy, token, status, &CallBody(body_size));
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let json = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, size)
            .ok()
            .flatten()
            .unwrap_or_default();
        if config::role(&json) == Role::Upstream {
            return self.follow(&json);
        }
        let name = plugin_name();
        match Worker::configure(&Envoy, &json, &name, seed()) {
            Ok(worker) => {
                self.tick_period_ms = worker.tick_period_ms();
                let worker = Rc::new(RefCell::new(worker));
                self.take_over(name, &worker);
                WORKERS.with_borrow_mut(|workers| {
                    workers.retain(|old| old.strong_count() > 0);
                    workers.push(Rc::downgrade(&worker));
                });
                self.worker = Some(worker);
                set_tick_period(self.tick_period_ms)
            }
            Err(faults) => refuse(faults),
        }
    }

    fn on_tick(&mut self) {
        if let Some(mut worker) = self.worker.as_ref().and_then(|w| w.try_borrow_mut().ok()) {
            worker.tick(&Envoy);
            let period_ms = worker.tick_period_ms();
            if core::mem::replace(&mut self.tick_period_ms, period_ms) != period_ms {
                set_tick_period(period_ms);
            }
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match self.follows {
            true => Box::new(AttemptStream::default()),
            false => Box::new(HttpStream::new(self.worker.clone())),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
