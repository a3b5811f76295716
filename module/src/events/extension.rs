//! Events of the bootstrap extension: the functions that Envoy calls, all on its main thread. It looks for them only where
//! its bootstrap names the module. Each catches panics.

use core::ffi::c_void;

use crate::abi::{EnvoyBuffer, ExtensionHandle};
use crate::admin;
use crate::guard::guarded;

/// Envoy's own handle is all that the extension consists of.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_bootstrap_extension_config_new(
    extension: *mut c_void,
    _name: EnvoyBuffer,
    text: EnvoyBuffer,
) -> *const c_void {
    // SAFETY: Envoy passes it in this event.
    let text = unsafe { text.bytes() };
    guarded(|| admin::configure(text), || ());
    ExtensionHandle(extension).initialized();
    extension
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_bootstrap_extension_new(
    extension: *const c_void,
    _running: *mut c_void,
) -> *const c_void {
    extension
}

/// Before that, Envoy may have no admin interface yet.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_bootstrap_extension_server_initialized(
    _running: *mut c_void,
    extension: *const c_void,
) {
    guarded(|| admin::register(ExtensionHandle(extension.cast_mut())), || ());
}

/// A request to the admin interface; returns the status.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_bootstrap_extension_admin_request(
    extension: *mut c_void,
    _pointer: *const c_void,
    method: EnvoyBuffer,
    path: EnvoyBuffer,
    _body: EnvoyBuffer,
) -> u32 {
    // SAFETY: Envoy passes both in this event.
    let (method, path) = unsafe { (method.bytes(), path.bytes()) };
    let answer = || {
        let (status, body) = admin::answer(method, path);
        ExtensionHandle(extension).respond(&body);
        status
    };
    guarded(answer, || 500)
}

/// Envoy ends once `done` has been called.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_bootstrap_extension_shutdown(
    _running: *mut c_void,
    _extension: *const c_void,
    done: Option<extern "C" fn(*mut c_void)>,
    context: *mut c_void,
) {
    if let Some(done) = done {
        done(context);
    }
}

unused! {
    envoy_dynamic_module_on_bootstrap_extension_config_destroy(*const c_void);
    envoy_dynamic_module_on_bootstrap_extension_destroy(*const c_void);
    envoy_dynamic_module_on_bootstrap_extension_worker_thread_initialized(*mut c_void, *const c_void);
    envoy_dynamic_module_on_bootstrap_extension_drain_started(*mut c_void, *const c_void);
    envoy_dynamic_module_on_bootstrap_extension_config_scheduled(*mut c_void, *const c_void, u64);
    envoy_dynamic_module_on_bootstrap_extension_http_callout_done(
        *mut c_void, *const c_void, u64, u32, *const c_void, usize, *const c_void, usize
    );
    envoy_dynamic_module_on_bootstrap_extension_timer_fired(*mut c_void, *const c_void, *mut c_void);
    envoy_dynamic_module_on_bootstrap_extension_file_changed(*mut c_void, *const c_void, EnvoyBuffer, u32);
    envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update(*mut c_void, *const c_void, EnvoyBuffer);
    envoy_dynamic_module_on_bootstrap_extension_cluster_removal(*mut c_void, *const c_void, EnvoyBuffer);
    envoy_dynamic_module_on_bootstrap_extension_listener_add_or_update(*mut c_void, *const c_void, EnvoyBuffer);
    envoy_dynamic_module_on_bootstrap_extension_listener_removal(*mut c_void, *const c_void, EnvoyBuffer);
}
