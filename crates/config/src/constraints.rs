//! The reader's requirements for each value, recorded while it reads.
//!
//! The JSON Schema is made from these records, so that names, ranges and choices are in the reader alone. The filter
//! records nothing: on WebAssembly this is compiled out.

use core::cell::RefCell;
use core::time::Duration;

use super::fault::Faults;
use super::kinds::Bounds;
use super::node::Node;
use super::tree::Tree;
use super::{Fault, root};

/// A requirement for a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// An object with only these fields.
    Object(&'static [&'static str]),
    /// An object with any keys, at most this many.
    Map(usize),
    /// An array of at most this many items.
    Array(usize),
    /// True or false.
    Boolean,
    /// `true`, or absent.
    True,
    /// A number within bounds.
    Number(Bounds),
    /// A whole number from the first to the second.
    Whole(u32, u32),
    /// A duration from the first to the second.
    Duration(Duration, Duration),
    /// Text: what is allowed as a fault says it, and a regular expression (ECMA 262) if there is one.
    Text {
        /// Description of the allowed text, as in a fault.
        allowed: String,
        /// A pattern that all allowed text matches.
        pattern: Option<&'static str>,
    },
    /// One of these names.
    Choice(Vec<&'static str>),
    /// Present: the value is required.
    Given,
}

/// The records of one reading; none are kept without a list.
#[derive(Default)]
pub(super) struct Notes(Option<RefCell<Vec<(String, Constraint)>>>);

impl Notes {
    /// Records a constraint on the value at `path`; without a list `question` is not even called.
    pub fn add(&self, path: &str, question: impl FnOnce() -> Constraint) {
        // Known at compile time, so none of it gets into the filter.
        if cfg!(target_family = "wasm") {
            return;
        }
        if let Some(notes) = &self.0 {
            notes.borrow_mut().push((path.to_owned(), question()));
        }
    }
}

/// The constraints that reading `json` meets, each with the path of its value and in the order of reading, and the
/// faults found. Both are empty if `json` is not JSON.
#[cfg_attr(target_family = "wasm", allow(dead_code))]
pub fn questions(json: &[u8]) -> (Vec<(String, Constraint)>, Vec<Fault>) {
    let Ok(tree) = Tree::read(json) else { return Default::default() };
    let faults = Faults::noting(Notes(Some(RefCell::default())));
    root::read(&Node::root(&tree, &faults));
    let (notes, faults) = faults.into_notes();
    (notes.0.map(RefCell::into_inner).unwrap_or_default(), faults)
}
