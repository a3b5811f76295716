//! The proxy-wasm adapter: the only code that knows the ABI. It decides nothing. Start with `dispatch`.

mod abi;
mod attempt;
mod dispatch;
mod host;
mod root;
mod stream;
mod wire;
