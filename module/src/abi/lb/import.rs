//! Functions for load balancers that Envoy provides.

use core::ffi::c_void;

use super::super::{Buffer, EnvoyBuffer};

type Lb = *mut c_void;
type Context = *mut c_void;
type Config = *mut c_void;

unsafe extern "C" {
    pub fn envoy_dynamic_module_callback_lb_get_cluster_name(lb: Lb, name: *mut EnvoyBuffer);
    pub fn envoy_dynamic_module_callback_lb_get_priority_set_size(lb: Lb) -> usize;
    pub fn envoy_dynamic_module_callback_lb_get_hosts_count(lb: Lb, priority: u32) -> usize;
    pub fn envoy_dynamic_module_callback_lb_get_healthy_hosts_count(lb: Lb, priority: u32) -> usize;
    pub fn envoy_dynamic_module_callback_lb_get_host_address(
        lb: Lb,
        priority: u32,
        index: usize,
        address: *mut EnvoyBuffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_lb_get_healthy_host_address(
        lb: Lb,
        priority: u32,
        index: usize,
        address: *mut EnvoyBuffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_lb_get_healthy_host_weight(
        lb: Lb,
        priority: u32,
        index: usize,
    ) -> u32;
    pub fn envoy_dynamic_module_callback_lb_get_host_locality(
        lb: Lb,
        priority: u32,
        index: usize,
        region: *mut EnvoyBuffer,
        zone: *mut EnvoyBuffer,
        sub_zone: *mut EnvoyBuffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_lb_get_locality_count(lb: Lb, priority: u32) -> usize;
    pub fn envoy_dynamic_module_callback_lb_get_locality_host_count(
        lb: Lb,
        priority: u32,
        locality: usize,
    ) -> usize;
    pub fn envoy_dynamic_module_callback_lb_get_locality_host_address(
        lb: Lb,
        priority: u32,
        locality: usize,
        index: usize,
        address: *mut EnvoyBuffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_lb_get_locality_weight(
        lb: Lb,
        priority: u32,
        locality: usize,
    ) -> u32;

    pub fn envoy_dynamic_module_callback_lb_context_should_select_another_host(
        lb: Lb,
        context: Context,
        priority: u32,
        index: usize,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_lb_context_get_override_host(
        context: Context,
        address: *mut EnvoyBuffer,
        strict: *mut bool,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_lb_context_get_downstream_header(
        context: Context,
        name: Buffer,
        value: *mut EnvoyBuffer,
        nth: usize,
        count: *mut usize,
    ) -> bool;

    pub fn envoy_dynamic_module_callback_lb_config_define_counter(
        config: Config,
        name: Buffer,
        labels: *mut Buffer,
        count: usize,
        id: *mut usize,
    ) -> u32;
    pub fn envoy_dynamic_module_callback_lb_config_increment_counter(
        config: Config,
        id: usize,
        labels: *mut Buffer,
        count: usize,
        value: u64,
    ) -> u32;
}
