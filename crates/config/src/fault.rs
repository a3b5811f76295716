//! Faults of a configuration, one line each, safe to log.

use core::cell::{Cell, RefCell};
use core::fmt;
use std::borrow::Cow;

use crate::constraints::Notes;
use crate::printable::printable;
use crate::search::split_once;

/// The highest number of faults that are listed: a broken template can cause thousands, and a hundred are enough to
/// begin.
const MAX_LISTED: usize = 100;
/// The longest part of a value or key that is shown, characters.
const MAX_SHOWN: usize = 60;

/// A fault of a configuration. Its `Display` is a single printable line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its JSON path: `$.upstreams[0].health.fail_after`.
    pub path: String,
    /// The value found: `found "3" (a string)`, `unknown field`, `missing`.
    pub found: String,
    /// The allowed values; empty if there is nothing to say.
    pub allowed: String,
    /// How to fix it, if that can be guessed.
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

/// The faults found so far, shared by all nodes of a configuration.
#[derive(Default)]
pub(super) struct Faults {
    listed: RefCell<Vec<Fault>>,
    unlisted: Cell<usize>,
    notes: Notes,
}

impl Faults {
    /// Adds the fault that `fault` returns; beyond the limit it is only counted and not called.
    pub fn add(&self, fault: impl FnOnce() -> Fault) {
        if self.listed.borrow().len() < MAX_LISTED {
            let fault = fault();
            self.listed.borrow_mut().push(fault);
        } else {
            self.unlisted.set(self.unlisted.get().saturating_add(1));
        }
    }

    /// The same, with a list for constraints.
    #[cfg_attr(target_family = "wasm", allow(dead_code))]
    pub fn noting(notes: Notes) -> Self {
        Faults { notes, ..Faults::default() }
    }

    /// The list of constraints.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The recorded constraints, and the faults.
    #[cfg_attr(target_family = "wasm", allow(dead_code))]
    pub fn into_notes(mut self) -> (Notes, Vec<Fault>) {
        (core::mem::take(&mut self.notes), self.into_list())
    }

    /// The listed faults, with the number of the others as a last one.
    pub fn into_list(self) -> Vec<Fault> {
        let mut list = self.listed.into_inner();
        if let more @ 1.. = self.unlisted.get() {
            let found = format!("{more} more faults");
            list.push(Fault { path: "$".into(), found, allowed: String::new(), hint: None });
        }
        list
    }
}

/// `text` in quotes, safe to log.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(&without_credentials(text), MAX_SHOWN))
}

/// `text` without user name and password, the part before the `@` of an address.
fn without_credentials(text: &str) -> Cow<'_, str> {
    let Some(at) = text.rfind('@') else { return Cow::Borrowed(text) };
    let (before, after) = text.split_at(at);
    let begins = split_once(before, "://").map_or(0, |(scheme, _)| scheme.len() + 3);
    Cow::Owned(format!("{}(not shown){after}", before.get(..begins).unwrap_or_default()))
}

/// The step of a JSON path to `key`.
///
/// A key that is no plain name is cut at its first blank or colon: a configuration with `{"authorization: Bearer …":
/// ""}` has put a secret where only a name belongs.
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
