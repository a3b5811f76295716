//! The proxy-wasm adapter: the only code that knows the ABI, and it decides nothing.

mod abi;
mod attempt;
mod dispatch;
mod host;
mod root;
mod stream;
mod wire;
