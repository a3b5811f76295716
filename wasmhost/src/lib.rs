//! A small stateful proxy-wasm host for tests: the real `.wasm`, several workers, a fake clock, fuel counted.
//!
//! A [`Process`] stands for one Envoy: its shared data, clock, metrics, clusters and log. A [`Vm`] stands for one
//! worker thread with its own copy of the [`Module`]; roots are plugin configurations, [`Request`]s are streams.
//! Nothing happens by itself: the test moves the clock, fires ticks and answers HTTP calls.
//!
//! Hostcalls behave as in Envoy's host, including its pitfalls: a header map outside its phase is a bad argument (and
//! recorded in [`Vm::out_of_phase`]), a compare-and-swap on an absent key succeeds, a failed HTTP call has no headers.
//! A trap fails the test at once with the guest's last log lines, unless [`Vm::tolerate_traps`] was called; then the VM
//! is dead and further callbacks skip it, as with `failure_policy: FAIL_OPEN`.
//!
//! ```
//! use wasmhost::{Action, Module, Process};
//! let module = Module::parse(r#"(module
//!     (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
//!     (memory (export "memory") 1)
//!     (data (i32.const 0) "x-guest")
//!     (func (export "proxy_abi_version_0_2_1"))
//!     (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
//!         (drop (call $add (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 2) (i32.const 5)))
//!         (i32.const 0)))"#)?;
//! let process = Process::new(1);
//! let worker = process.vm(&module)?;
//! let root = worker.start_root("guest", "{}")?;
//! let mut request = worker.request(root, &[(":path", "/")]);
//! assert_eq!(request.headers_phase(), Action::Continue);
//! assert_eq!(request.header("x-guest").as_deref(), Some("guest"));
//! assert_eq!(request.hostcalls("proxy_add_header_map_value"), 1);
//! request.finish();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod abi;
mod calls;
mod contexts;
mod core;
mod cost;
mod guest;
mod headers;
mod hostcalls;
mod metrics;
mod module;
mod process;
mod property;
mod random;
mod request;
mod shared_data;
mod stream;
mod vm;
mod wasi;

pub use abi::{Action, Level};
pub use calls::HttpCall;
pub use contexts::Death;
pub use cost::{Cost, Trap};
pub use headers::Headers;
pub use module::{LoadError, Module};
pub use process::{LogLine, Process, SharedProcess};
pub use property::PropertyValue;
pub use request::Request;
pub use stream::LocalResponse;
pub use vm::{Refused, Root, Vm};
