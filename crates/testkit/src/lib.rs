//! What the tests of several crates share.
//!
//! [`arbitrary`] makes JSON of any shape for property tests of what reads it.

pub mod arbitrary;
