//! Code shared by the tests of several crates.
//!
//! [`arbitrary`] makes JSON of any shape for property tests of parsers.

pub mod arbitrary;
