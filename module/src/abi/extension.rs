//! The bootstrap extension, of which only the handler under Envoy's admin interface is used.

use core::ffi::c_void;

use super::{Buffer, import};

/// Envoy's bootstrap extension.
#[derive(Clone, Copy)]
pub struct ExtensionHandle(pub *mut c_void);

impl ExtensionHandle {
    /// Lets Envoy go on: it starts no worker before each of its extensions has said so.
    pub fn initialized(self) {
        // SAFETY: it is being configured.
        unsafe {
            import::envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(self.0)
        };
    }

    /// Asks for the admin interface's requests to this path, with any query; returns whether there will be any.
    pub fn answer_admin(self, path: &str, help: &str) -> bool {
        let (path, help) = (Buffer::of(path.as_bytes()), Buffer::of(help.as_bytes()));
        let (removable, mutates) = (true, false);
        // SAFETY: see `abi`; the extension lives as long as its events come.
        unsafe {
            import::envoy_dynamic_module_callback_bootstrap_extension_register_admin_handler(
                self.0, path, help, removable, mutates,
            )
        }
    }

    /// Sets the body of the answer to the admin request of the current event.
    pub fn respond(self, body: &[u8]) {
        // SAFETY: see `abi`; Envoy copies the body.
        unsafe {
            import::envoy_dynamic_module_callback_bootstrap_extension_admin_set_response(
                self.0,
                Buffer::of(body),
            )
        };
    }
}
