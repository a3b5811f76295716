//! The cost of a callback, and traps.

use std::collections::BTreeMap;
use std::fmt;

/// The cost of one callback: the same on every machine for the same module and input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The exported function, for example `proxy_on_request_headers`.
    pub callback: &'static str,
    /// Interpreter fuel: roughly one unit per instruction, without the work inside hostcalls.
    pub fuel: u64,
    /// Number of allocations in guest memory by the host.
    pub allocations: u64,
    /// Hostcalls by name.
    pub hostcalls: BTreeMap<&'static str, u64>,
}

/// A callback that did not return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// The VM that ended with it.
    pub vm: usize,
    /// The exported function that was running.
    pub callback: &'static str,
    /// The interpreter's message.
    pub message: String,
    /// The guest's log during that callback; a panic's message comes last.
    pub logged: Vec<String>,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VM {} trapped in {}: {}", self.vm, self.callback, self.message)?;
        self.logged.iter().try_for_each(|line| write!(f, "\n  guest: {line}"))
    }
}

impl std::error::Error for Trap {}
