//! Tests of the host with guests in WebAssembly text.

mod guest;
mod lifecycle;
mod metering;
mod requests;
mod shared;
mod strict;
