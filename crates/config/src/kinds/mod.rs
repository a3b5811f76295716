//! Kinds of single values: each says what it allows, and suggests what was meant.

mod address;
mod duration;
mod header;
mod number;
mod text;

pub(super) use duration::shown as duration_shown;
pub(super) use header::{forbidden_to_set, is_token};
pub use number::Bounds;
