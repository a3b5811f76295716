//! The proxy-wasm adapter: the only code that names `proxy_wasm`, and it decides nothing.

mod attempt;
mod host;
mod root;
mod stream;

use proxy_wasm::traits::RootContext;
use proxy_wasm::types::LogLevel;

#[allow(unsafe_code)] // the entry macro exports C symbols
mod entry {
    use super::*;

    proxy_wasm::main! {{
        proxy_wasm::set_log_level(LogLevel::Info);
        proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> { Box::new(root::Root::default()) });
    }}
}
