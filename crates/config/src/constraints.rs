//! What the reader asks of each place of a configuration, noted while it reads.
//!
//! The JSON Schema is made of these notes, so that names, ranges and choices stand in the reader alone. The filter itself
//! notes nothing: on WebAssembly the notes are compiled out.

use core::cell::RefCell;
use core::time::Duration;

use super::Fault;
use super::fault::Faults;
use super::kinds::Bounds;
use super::node::Node;
use super::root;
use super::tree::Tree;

/// What a value has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// An object with these fields and no others.
    Object(&'static [&'static str]),
    /// An object with free keys, at most so many.
    Map(usize),
    /// An array of at most so many.
    Array(usize),
    /// True or false.
    Boolean,
    /// True, or nothing at all.
    True,
    /// A number within bounds.
    Number(Bounds),
    /// A whole number from the first to the second.
    Whole(u32, u32),
    /// A duration from the first to the second.
    Duration(Duration, Duration),
    /// Text, in the words of the fault that other text gets, and as a regular expression (ECMA 262) where there is one.
    Text {
        /// What is allowed, in words.
        allowed: String,
        /// What at least has to match.
        pattern: Option<&'static str>,
    },
    /// One of these.
    Choice(Vec<&'static str>),
    /// Something: it must not be left out.
    Given,
}

/// The notes of one reading.
#[derive(Default)]
pub(super) struct Notes(Option<RefCell<Vec<(String, Constraint)>>>);

impl Notes {
    /// Notes a question about the value at `path`; without a notebook it is not even put.
    pub fn add(&self, path: &str, question: impl FnOnce() -> Constraint) {
        // Known when this is compiled, so nothing of it gets into the filter.
        if cfg!(target_family = "wasm") {
            return;
        }
        if let Some(notes) = &self.0 {
            notes.borrow_mut().push((path.to_owned(), question()));
        }
    }
}

/// The questions that reading `json` raises, each with the path of the value that it is about, in the order of reading;
/// and the faults found. None of either where `json` is no JSON.
#[cfg_attr(target_family = "wasm", allow(dead_code))]
pub fn questions(json: &[u8]) -> (Vec<(String, Constraint)>, Vec<Fault>) {
    let Ok(tree) = Tree::read(json) else { return Default::default() };
    let faults = Faults::noting(Notes(Some(RefCell::default())));
    root::read(&Node::root(&tree, &faults));
    let (notes, faults) = faults.into_notes();
    (notes.0.map(RefCell::into_inner).unwrap_or_default(), faults)
}
