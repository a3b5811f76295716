//! The host against guests written as text: what it promises to answer, it answers.

mod guest;
mod lifecycle;
mod metering;
mod requests;
mod shared;
