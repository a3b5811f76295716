//! The C interface of load balancers, beside that of the HTTP filter: `source/extensions/dynamic_modules/abi/abi.h`, and
//! `source/extensions/load_balancing_policies/dynamic_modules` for what Envoy does with an answer.
//!
//! A host has two indices in its priority: one among all hosts, by which Envoy is asked about it, and one among the
//! healthy ones, which is what a choice consists of. The latter shifts when the health of any host changes.

mod import;

use core::ffi::c_void;
use core::ptr::null_mut;

use super::{Buffer, EnvoyBuffer, SUCCESS};

/// A configuration of the load-balancing policy, valid until Envoy has destroyed it.
#[derive(Clone, Copy)]
pub struct PolicyHandle(pub *mut c_void);

// SAFETY: Envoy counts from any of its threads.
unsafe impl Send for PolicyHandle {}
// SAFETY: as for `Send`.
unsafe impl Sync for PolicyHandle {}

impl PolicyHandle {
    /// Defines a counter without labels, while the configuration is being created: some versions of Envoy keep the
    /// label of every count for the life of the process.
    pub fn define_counter(self, name: &str) -> Option<usize> {
        let mut id = 0;
        // SAFETY: the configuration is alive; Envoy reads the name and writes to a valid place.
        let result = unsafe {
            import::envoy_dynamic_module_callback_lb_config_define_counter(
                self.0,
                Buffer::of(name.as_bytes()),
                null_mut(),
                0,
                &mut id,
            )
        };
        (result == SUCCESS).then_some(id)
    }

    /// Adds one to a counter.
    pub fn count(self, id: usize) {
        // SAFETY: the configuration is alive.
        let _unknown_counters_show_nothing = unsafe {
            import::envoy_dynamic_module_callback_lb_config_increment_counter(self.0, id, null_mut(), 0, 1)
        };
    }
}

/// The load balancer of one cluster on one thread, valid while one of its events runs.
#[derive(Clone, Copy)]
pub struct LbHandle(pub *mut c_void);

/// Where a host's address is looked up.
#[derive(Clone, Copy)]
pub enum Hosts {
    /// Among all hosts of the priority.
    All,
    /// Among its healthy hosts.
    Healthy,
    /// Among the healthy hosts of a locality.
    Locality(usize),
}

impl LbHandle {
    /// The cluster's name.
    pub fn cluster_name(self) -> Vec<u8> {
        let mut name = EnvoyBuffer::NONE;
        // SAFETY: Envoy writes to a valid place; what it wrote is copied at once.
        unsafe {
            import::envoy_dynamic_module_callback_lb_get_cluster_name(self.0, &mut name);
            name.bytes().to_vec()
        }
    }

    /// Number of priorities.
    pub fn priorities(self) -> u32 {
        // SAFETY: a query without side effects.
        let count = unsafe { import::envoy_dynamic_module_callback_lb_get_priority_set_size(self.0) };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Number of hosts there.
    pub fn count(self, priority: u32, of: Hosts) -> usize {
        // SAFETY: queries without side effects.
        unsafe {
            match of {
                Hosts::All => import::envoy_dynamic_module_callback_lb_get_hosts_count(self.0, priority),
                Hosts::Healthy => {
                    import::envoy_dynamic_module_callback_lb_get_healthy_hosts_count(self.0, priority)
                }
                Hosts::Locality(at) => {
                    import::envoy_dynamic_module_callback_lb_get_locality_host_count(self.0, priority, at)
                }
            }
        }
    }

    /// Reads the address of the host at `index` there.
    pub fn address<R>(
        self,
        priority: u32,
        of: Hosts,
        index: usize,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let mut address = EnvoyBuffer::NONE;
        let to = &raw mut address;
        // SAFETY: Envoy writes to a valid place.
        let found = unsafe {
            match of {
                Hosts::All => {
                    import::envoy_dynamic_module_callback_lb_get_host_address(self.0, priority, index, to)
                }
                Hosts::Healthy => import::envoy_dynamic_module_callback_lb_get_healthy_host_address(
                    self.0, priority, index, to,
                ),
                Hosts::Locality(at) => import::envoy_dynamic_module_callback_lb_get_locality_host_address(
                    self.0, priority, at, index, to,
                ),
            }
        };
        // SAFETY: Envoy's host owns the text and changes no hosts during an event.
        found.then(|| read(unsafe { address.bytes() }))
    }

    /// Weight of the healthy host at `index`.
    pub fn weight(self, priority: u32, index: usize) -> u32 {
        // SAFETY: a query without side effects.
        unsafe { import::envoy_dynamic_module_callback_lb_get_healthy_host_weight(self.0, priority, index) }
    }

    /// Number of localities of a priority.
    pub fn localities(self, priority: u32) -> usize {
        // SAFETY: a query without side effects.
        unsafe { import::envoy_dynamic_module_callback_lb_get_locality_count(self.0, priority) }
    }

    /// Weight of a locality, 0 without one.
    pub fn locality_weight(self, priority: u32, locality: usize) -> u32 {
        // SAFETY: a query without side effects.
        unsafe { import::envoy_dynamic_module_callback_lb_get_locality_weight(self.0, priority, locality) }
    }

    /// Reads region, zone and sub-zone of the host at `index` among all of its priority.
    pub fn locality<R>(self, priority: u32, index: usize, read: impl FnOnce([&[u8]; 3]) -> R) -> Option<R> {
        let [mut region, mut zone, mut sub_zone] = [EnvoyBuffer::NONE; 3];
        // SAFETY: Envoy writes to three valid places.
        let found = unsafe {
            import::envoy_dynamic_module_callback_lb_get_host_locality(
                self.0,
                priority,
                index,
                &mut region,
                &mut zone,
                &mut sub_zone,
            )
        };
        // SAFETY: as for `address`.
        found.then(|| read(unsafe { [region.bytes(), zone.bytes(), sub_zone.bytes()] }))
    }
}

/// The request that a host is chosen for, valid while that event runs.
#[derive(Clone, Copy)]
pub struct RequestContext(pub *mut c_void);

impl RequestContext {
    /// Whether the retry policy wants another host than the one at `index` among all of its priority; never for a first
    /// attempt.
    pub fn excludes(self, lb: LbHandle, priority: u32, index: usize) -> bool {
        // SAFETY: a query without side effects, which Envoy also answers without a request.
        unsafe {
            import::envoy_dynamic_module_callback_lb_context_should_select_another_host(
                lb.0, self.0, priority, index,
            )
        }
    }

    /// Reads the host that a filter has named by a call and Envoy did not take; none on a retry.
    pub fn named_host<R>(self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if self.0.is_null() {
            return None;
        }
        let (mut address, mut strict) = (EnvoyBuffer::NONE, false);
        // SAFETY: Envoy writes to two valid places.
        let found = unsafe {
            import::envoy_dynamic_module_callback_lb_context_get_override_host(
                self.0,
                &mut address,
                &mut strict,
            )
        };
        // SAFETY: the stream owns the text.
        found.then(|| read(unsafe { address.bytes() }))
    }

    /// The `nth` value of a request header.
    pub fn header(self, name: &str, nth: usize) -> Option<Vec<u8>> {
        if self.0.is_null() {
            return None;
        }
        let (mut value, mut count) = (EnvoyBuffer::NONE, 0);
        // SAFETY: Envoy writes to two valid places.
        let found = unsafe {
            import::envoy_dynamic_module_callback_lb_context_get_downstream_header(
                self.0,
                Buffer::of(name.as_bytes()),
                &mut value,
                nth,
                &mut count,
            )
        };
        // SAFETY: the header map owns the text; it is copied at once.
        found.then(|| unsafe { value.bytes() }.to_vec())
    }
}
