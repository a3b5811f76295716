//! Events of load balancers: the functions that Envoy calls. It looks for them only where a cluster names the module as
//! its policy. Each catches panics.

use core::ffi::c_void;
use core::ptr::null;
use std::sync::Arc;

use crate::abi::{EnvoyBuffer, LbHandle, PolicyHandle, RequestContext};
use crate::guard::guarded;
use crate::lb::{Face, Policy};

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_lb_config_new(
    config: *mut c_void,
    _name: EnvoyBuffer,
    text: EnvoyBuffer,
) -> *const c_void {
    // SAFETY: Envoy passes it in this event.
    let text = unsafe { text.bytes() };
    let policy = guarded(|| Policy::of(PolicyHandle(config), text), || None);
    policy.map_or(null(), |policy| Arc::into_raw(Arc::new(policy)).cast())
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_lb_config_destroy(policy: *const c_void) {
    if policy.is_null() {
        return;
    }
    // SAFETY: Envoy returns the pointer from `config_new`, once.
    let policy = unsafe { Arc::from_raw(policy.cast::<Policy>()) };
    guarded(|| drop(policy), || ());
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_lb_new(policy: *const c_void, lb: *mut c_void) -> *const c_void {
    let policy = policy.cast::<Policy>();
    if policy.is_null() {
        return null();
    }
    // SAFETY: `config_new` gave away one reference count, so there is at least one.
    let policy = unsafe {
        Arc::increment_strong_count(policy);
        Arc::from_raw(policy)
    };
    guarded(|| Box::into_raw(Box::new(Face::new(policy, LbHandle(lb)))).cast_const().cast(), null)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_lb_destroy(face: *const c_void) {
    if face.is_null() {
        return;
    }
    // SAFETY: Envoy returns the pointer from `lb_new`, once.
    let face = unsafe { Box::from_raw(face.cast_mut().cast::<Face>()) };
    guarded(|| drop(face), || ());
}

/// # Safety
/// The pointer must come from `lb_new` and not be destroyed yet.
unsafe fn face<'a>(pointer: *const c_void) -> Option<&'a Face> {
    // SAFETY: guaranteed by the caller. All other references are shared as well: mutable state is in cells.
    unsafe { pointer.cast::<Face>().as_ref() }
}

/// Writes the priority and the index among its healthy hosts; returns whether there is one.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_lb_choose_host(
    lb: *mut c_void,
    pointer: *const c_void,
    context: *mut c_void,
    priority: *mut u32,
    index: *mut u32,
) -> bool {
    // SAFETY: Envoy passes the pointer from `lb_new`.
    let Some(face) = (unsafe { face(pointer) }) else { return false };
    let choose = || face.choose(LbHandle(lb), RequestContext(context));
    let Some((at, healthy)) = guarded(choose, || None) else { return false };
    // SAFETY: Envoy passes two valid places.
    unsafe {
        *priority = at;
        *index = healthy;
    }
    true
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_lb_on_host_membership_update(
    lb: *mut c_void,
    pointer: *const c_void,
    _added: usize,
    _removed: usize,
) {
    // SAFETY: Envoy passes the pointer from `lb_new`.
    if let Some(face) = unsafe { face(pointer) } {
        guarded(|| face.update(LbHandle(lb)), || ());
    }
}
