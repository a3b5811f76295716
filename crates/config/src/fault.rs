//! What is wrong with a configuration, one line a fault, safe to write to a log.

use core::cell::{Cell, RefCell};
use core::fmt;
use std::borrow::Cow;

use crate::constraints::Notes;
use crate::printable::printable;

/// A broken template can make thousands of faults; a log needs enough to start mending.
const MAX_LISTED: usize = 100;
/// Longer values and keys are cut when they are shown.
const MAX_SHOWN: usize = 60;

/// One thing that is wrong with a configuration. Its `Display` is a single printable line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON path: `$.upstreams[0].health.fail_after`.
    pub path: String,
    /// What stands there: `found "3" (a string)`, `unknown field`, `missing`.
    pub found: String,
    /// What may stand there; empty where that says nothing.
    pub allowed: String,
    /// How to mend it, where that can be guessed.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.found)?;
        if !self.allowed.is_empty() {
            write!(f, ", allowed: {}", self.allowed)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Fault {}

/// Collects faults while decoding goes on; shared by all nodes of one configuration.
#[derive(Default)]
pub(super) struct Faults {
    listed: RefCell<Vec<Fault>>,
    unlisted: Cell<usize>,
    notes: Notes,
}

impl Faults {
    /// Adds what `fault` makes; past the limit it is only counted, and not even made.
    pub fn add(&self, fault: impl FnOnce() -> Fault) {
        if self.listed.borrow().len() < MAX_LISTED {
            let fault = fault();
            self.listed.borrow_mut().push(fault);
        } else {
            self.unlisted.set(self.unlisted.get().saturating_add(1));
        }
    }

    /// The same, with a notebook for what is asked.
    #[cfg_attr(target_family = "wasm", allow(dead_code))]
    pub fn noting(notes: Notes) -> Self {
        Faults { notes, ..Faults::default() }
    }

    /// Where questions are noted.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// What was noted, beside what was listed.
    #[cfg_attr(target_family = "wasm", allow(dead_code))]
    pub fn into_notes(mut self) -> (Notes, Vec<Fault>) {
        (core::mem::take(&mut self.notes), self.into_list())
    }

    /// All that was listed, and how many were not.
    pub fn into_list(self) -> Vec<Fault> {
        let mut list = self.listed.into_inner();
        if let more @ 1.. = self.unlisted.get() {
            let found = format!("{more} more faults");
            list.push(Fault { path: "$".into(), found, allowed: String::new(), hint: None });
        }
        list
    }
}

/// `text` in quotes, fit for a line of a log.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(&without_credentials(text), MAX_SHOWN))
}

/// `text` without what stands before the `@` of an address, which is a user's name and password.
fn without_credentials(text: &str) -> Cow<'_, str> {
    let Some(at) = text.rfind('@') else { return Cow::Borrowed(text) };
    let (before, after) = text.split_at(at);
    let begins = before.find("://").map_or(0, |at| at + 3);
    Cow::Owned(format!("{}(not shown){after}", before.get(..begins).unwrap_or_default()))
}

/// The step of a JSON path that leads to `key`.
///
/// A key that is no plain name is shown up to its first blank or colon: someone who writes
/// `{"authorization: Bearer …": ""}` has put a secret where only a name belongs.
pub(super) fn step_to(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !key.is_empty() && key.len() <= MAX_SHOWN && key.chars().all(plain) {
        return format!(".{key}");
    }
    match key.split_once(|c: char| c == ':' || c.is_whitespace()) {
        Some((name, _)) if !name.is_empty() => format!("[{}…]", quoted(name)),
        Some(_) => "[\"…\"]".into(),
        None => format!("[{}]", quoted(key)),
    }
}
