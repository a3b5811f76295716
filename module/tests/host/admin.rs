//! Envoy's admin interface: the paths that the module asks for, and what it answers there.
#![allow(unsafe_code)]

use core::ffi::c_void;
use std::cell::RefCell;

use testbed::serde_json::{Value, json};

use crate::envoy::{Bytes, load};
use crate::scene::{Listener, said};

thread_local! {
    /// The path that was asked for.
    static PATH: RefCell<Option<String>> = const { RefCell::new(None) };
    static BODY: RefCell<String> = const { RefCell::new(String::new()) };
    static INITIALIZED: RefCell<u32> = const { RefCell::new(0) };
    static TAKEN: RefCell<bool> = const { RefCell::new(false) };
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_bootstrap_extension_register_admin_handler(
    _: *mut c_void,
    path: Bytes,
    help: Bytes,
    _removable: bool,
    mutates: bool,
) -> bool {
    assert!(!mutates && !help.text().is_empty());
    PATH.set(Some(path.text()));
    !TAKEN.with_borrow(|taken| *taken)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(_: *mut c_void) {
    INITIALIZED.with_borrow_mut(|times| *times += 1);
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_bootstrap_extension_admin_set_response(
    _: *mut c_void,
    body: Bytes,
) {
    BODY.set(body.text());
}

unsafe extern "C" {
    fn envoy_dynamic_module_on_bootstrap_extension_config_new(
        extension: *mut c_void,
        name: Bytes,
        text: Bytes,
    ) -> *const c_void;
    fn envoy_dynamic_module_on_bootstrap_extension_new(
        extension: *const c_void,
        running: *mut c_void,
    ) -> *const c_void;
    fn envoy_dynamic_module_on_bootstrap_extension_server_initialized(
        running: *mut c_void,
        extension: *const c_void,
    );
    fn envoy_dynamic_module_on_bootstrap_extension_admin_request(
        extension: *mut c_void,
        pointer: *const c_void,
        method: Bytes,
        path: Bytes,
        body: Bytes,
    ) -> u32;
    fn envoy_dynamic_module_on_bootstrap_extension_shutdown(
        running: *mut c_void,
        extension: *const c_void,
        done: Option<extern "C" fn(*mut c_void)>,
        context: *mut c_void,
    );
}

const EXTENSION: *mut c_void = 0x10 as *mut c_void;
const RUNNING: *mut c_void = 0x20 as *mut c_void;

/// Starts the extension with this configuration.
fn start(text: &str) -> *const c_void {
    load();
    // SAFETY: the events in Envoy's order, with its own handles.
    unsafe {
        let (name, text) = (Bytes::of(b"evenkeel"), Bytes::of(text.as_bytes()));
        let made = envoy_dynamic_module_on_bootstrap_extension_config_new(EXTENSION, name, text);
        assert!(!made.is_null(), "Envoy would not start");
        assert_eq!(INITIALIZED.take(), 1, "Envoy would wait before it starts its workers");
        let extension = envoy_dynamic_module_on_bootstrap_extension_new(made, RUNNING);
        assert!(!extension.is_null(), "Envoy would not start");
        envoy_dynamic_module_on_bootstrap_extension_server_initialized(RUNNING, extension);
        extension
    }
}

fn ask(method: &str, path: &str) -> (u32, String) {
    BODY.take();
    let (method, path) = (Bytes::of(method.as_bytes()), Bytes::of(path.as_bytes()));
    // SAFETY: all of it lives as long as the call.
    let status = unsafe {
        let none = Bytes::of(b"");
        envoy_dynamic_module_on_bootstrap_extension_admin_request(
            EXTENSION,
            EXTENSION.cast_const(),
            method,
            path,
            none,
        )
    };
    (status, BODY.take())
}

fn of(name: &str) -> Vec<String> {
    ["json", "config", "prometheus"].map(|format| format!("/evenkeel?format={format}&plugin={name}")).to_vec()
}

fn listed() -> Vec<String> {
    let (status, index) = ask("GET", "/evenkeel");
    assert_eq!(status, 200);
    index.lines().map(str::to_owned).collect()
}

#[test]
fn each_plugin_shows_what_its_page_has_without_a_path_of_its_own() {
    start("");
    assert_eq!(PATH.take().as_deref(), Some("/evenkeel"));
    let first = Listener::new("admin & one", &json!({}), &json!({}));
    let second = Listener::new("admin-two", &json!({}), &json!({}));
    (0..3).for_each(|_| drop(first.serve("200", &[])));
    for path in of("admin%20%26%20one").iter().chain(&of("admin-two")) {
        assert!(listed().contains(path), "{path}");
        let (status, body) = ask("GET", path);
        assert!(status == 200 && !body.is_empty(), "{path}: {status}");
        assert_eq!((ask("HEAD", path).0, ask("POST", path).0), (200, 405));
    }
    let requests = |name: &str| {
        let status: Value = testbed::serde_json::from_str(&ask("GET", &of(name)[0]).1).expect("JSON");
        let endpoints = status["upstreams"][0]["endpoints"].as_array().expect("endpoints");
        endpoints.iter().filter_map(|endpoint| endpoint["requests"].as_u64()).sum::<u64>()
    };
    assert_eq!((requests("admin%20%26%20one"), requests("admin-two")), (3, 0));
    drop(second);
    assert!(of("admin-two").iter().all(|path| !listed().contains(path) && ask("GET", path).0 == 404));
    // Which of several plugins is not guessed: the other tests have some.
    let _other = Listener::new("admin-three", &json!({}), &json!({}));
    for (method, path, status) in [
        ("GET", "/evenkeel?", 200),
        ("GET", "/evenkeel?x=1", 200),
        ("GET", "/evenkeel?format=json", 404),
        ("GET", "/evenkeel?format=json&plugin=", 404),
        ("GET", "/evenkeel?format=json&plugin=admin", 404),
        ("GET", "/evenkeel?format=html&plugin=admin-three", 400),
        ("GET", "/evenkeel?plugin=admin-three&format=json", 200),
        ("DELETE", "/evenkeel", 405),
    ] {
        assert_eq!(ask(method, path).0, status, "{method} {path}");
    }
}

#[test]
fn plugins_of_one_name_are_told_apart_by_a_cluster() {
    start("");
    let web = Listener::new("admin-shared", &json!({}), &json!({}));
    let api = Listener::new("admin-shared", &json!({}), &json!({"cluster": "admin api"}));
    drop(web.serve("200", &[]));
    let paths: Vec<String> = listed().into_iter().filter(|path| path.contains("admin-shared")).collect();
    let of_api: Vec<String> =
        of("admin-shared").iter().map(|path| format!("{path}&cluster=admin%20api")).collect();
    assert_eq!(paths.len(), 6, "{paths:?}");
    assert_eq!(paths[..3], of_api[..], "the latest first");
    let cluster = |path: &str| {
        let status: Value = testbed::serde_json::from_str(&ask("GET", path).1).expect("JSON");
        status["upstreams"][0]["cluster"].as_str().expect("a cluster").to_owned()
    };
    assert_eq!(cluster(&of_api[0]), "admin api");
    assert_ne!(cluster(&paths[3]), "admin api");
    assert_eq!(cluster(&of("admin-shared")[0]), "admin api", "the latest");
    assert_eq!(ask("GET", "/evenkeel?format=json&plugin=admin-shared&cluster=other").0, 404);
    drop(api);
    assert_ne!(cluster(&of("admin-shared")[0]), "admin api");
    // Of two that have a cluster in common, the earlier is named by the other one.
    let both = json!({"upstreams": [
        {"cluster": "web", "endpoints": {"static": ["10.0.0.1:80"]}},
        {"cluster": "admin more", "endpoints": {"static": ["10.0.0.2:80"]}},
    ]});
    let more = Listener::of("admin-common", &both.to_string());
    let less = Listener::new("admin-common", &json!({}), &json!({}));
    let named = format!("{}&cluster=admin%20more", of("admin-common")[0]);
    assert!(listed().contains(&named), "{:?}", listed());
    assert!(ask("GET", &named).1.contains("admin more"));
    drop((more, less));
    assert_eq!(listed().iter().filter(|path| path.contains("admin-shared")).count(), 3);
    // The next configuration of the same listener replaces its own, even while streams of that are left.
    let _next = Listener::new("admin-shared", &json!({"mode": "observe"}), &json!({}));
    assert_eq!(listed().iter().filter(|path| path.contains("admin-shared")).count(), 3);
}

#[test]
fn what_cannot_be_shown_or_used_is_said() {
    TAKEN.set(true);
    start("{}");
    assert_eq!(said("nothing at /evenkeel of Envoy's admin interface"), 1);
    assert_eq!(said("extension_config of the bootstrap extension is ignored"), 1);
}

#[test]
fn envoy_is_not_kept_from_ending() {
    extern "C" fn done(context: *mut c_void) {
        // SAFETY: it is the place that the test gave.
        unsafe { *context.cast::<bool>() = true };
    }
    let extension = start("");
    let mut ended = false;
    // SAFETY: the place lives as long as the call, in which `done` is called.
    unsafe {
        envoy_dynamic_module_on_bootstrap_extension_shutdown(
            RUNNING,
            extension,
            Some(done),
            (&raw mut ended).cast(),
        )
    };
    assert!(ended);
}
