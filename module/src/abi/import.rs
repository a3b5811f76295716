//! Functions that Envoy 1.38, 1.39 and 1.40 all provide.

use core::ffi::{c_char, c_void};

use super::{Buffer, EnvoyBuffer, Header};

type Stream = *mut c_void;
type Config = *mut c_void;
type Scheduler = *mut c_void;
type Extension = *mut c_void;

unsafe extern "C" {
    pub fn envoy_dynamic_module_callback_log(level: u32, message: Buffer);
    pub safe fn envoy_dynamic_module_callback_log_enabled(level: u32) -> bool;
    pub safe fn envoy_dynamic_module_callback_get_concurrency() -> u32;

    pub fn envoy_dynamic_module_callback_http_get_header(
        stream: Stream,
        map: u32,
        name: Buffer,
        value: *mut EnvoyBuffer,
        nth: usize,
        count: *mut usize,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_http_set_header(
        stream: Stream,
        map: u32,
        name: Buffer,
        value: Buffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_http_add_header(
        stream: Stream,
        map: u32,
        name: Buffer,
        value: Buffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_http_get_body_chunks_size(stream: Stream, body: u32) -> usize;
    pub fn envoy_dynamic_module_callback_http_get_body_chunks(
        stream: Stream,
        body: u32,
        chunks: *mut EnvoyBuffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
        stream: Stream,
        attribute: u32,
        value: *mut EnvoyBuffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_http_filter_get_attribute_int(
        stream: Stream,
        attribute: u32,
        value: *mut u64,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_http_get_cluster_name(
        stream: Stream,
        name: *mut EnvoyBuffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_http_set_upstream_override_host(
        stream: Stream,
        host: Buffer,
        strict: bool,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_http_set_filter_state_bytes(
        stream: Stream,
        key: Buffer,
        value: Buffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_http_get_filter_state_bytes(
        stream: Stream,
        key: Buffer,
        value: *mut EnvoyBuffer,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_http_send_response(
        stream: Stream,
        status: u32,
        headers: *mut Header,
        count: usize,
        body: Buffer,
        details: Buffer,
    );

    pub fn envoy_dynamic_module_callback_http_filter_config_scheduler_new(config: Config) -> Scheduler;
    pub fn envoy_dynamic_module_callback_http_filter_config_scheduler_delete(scheduler: Scheduler);
    pub fn envoy_dynamic_module_callback_http_filter_config_scheduler_commit(
        scheduler: Scheduler,
        event: u64,
    );
    pub fn envoy_dynamic_module_callback_http_filter_config_http_callout(
        config: Config,
        id: *mut u64,
        cluster: Buffer,
        headers: *mut Header,
        count: usize,
        body: Buffer,
        timeout_ms: u64,
    ) -> u32;

    pub fn envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(
        extension: Extension,
    );
    pub fn envoy_dynamic_module_callback_bootstrap_extension_register_admin_handler(
        extension: Extension,
        prefix: Buffer,
        help: Buffer,
        removable: bool,
        mutates: bool,
    ) -> bool;
    pub fn envoy_dynamic_module_callback_bootstrap_extension_admin_set_response(
        extension: Extension,
        body: Buffer,
    );

    pub fn envoy_dynamic_module_callback_http_filter_config_define_counter(
        config: Config,
        name: Buffer,
        labels: *mut Buffer,
        count: usize,
        id: *mut usize,
    ) -> u32;
    pub fn envoy_dynamic_module_callback_http_filter_config_define_gauge(
        config: Config,
        name: Buffer,
        labels: *mut Buffer,
        count: usize,
        id: *mut usize,
    ) -> u32;
    pub fn envoy_dynamic_module_callback_http_filter_config_define_histogram(
        config: Config,
        name: Buffer,
        labels: *mut Buffer,
        count: usize,
        id: *mut usize,
    ) -> u32;
    pub fn envoy_dynamic_module_callback_http_filter_increment_counter(
        stream: Stream,
        id: usize,
        labels: *mut Buffer,
        count: usize,
        value: u64,
    ) -> u32;
    pub fn envoy_dynamic_module_callback_http_filter_set_gauge(
        stream: Stream,
        id: usize,
        labels: *mut Buffer,
        count: usize,
        value: u64,
    ) -> u32;
    pub fn envoy_dynamic_module_callback_http_filter_record_histogram_value(
        stream: Stream,
        id: usize,
        labels: *mut Buffer,
        count: usize,
        value: u64,
    ) -> u32;
}

unsafe extern "C" {
    /// From the C library.
    #[cfg_attr(feature = "own-dlsym", link_name = "evenkeel_test_dlsym")]
    pub fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}
