//! The decoder: a value in the configuration that knows its path and reports its faults.
//!
//! Reading continues after a fault with a default in place of the refused value, so that one run finds all faults.

use hashbrown::HashSet;

use super::fault::{Fault, Faults, quoted, step_to};
use super::tree::Tree;
use crate::constraints::Constraint;
use crate::suggest::nearest;

static NOTHING_GIVEN: Tree = Tree::Object(Vec::new());

/// A value in the configuration, and its path.
#[derive(Clone)]
pub(super) struct Node<'t> {
    path: String,
    tree: &'t Tree,
    secret: bool,
    faults: &'t Faults,
}

impl<'t> Node<'t> {
    pub fn root(tree: &'t Tree, faults: &'t Faults) -> Self {
        Node { path: "$".into(), tree, secret: false, faults }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tree(&self) -> &'t Tree {
        self.tree
    }

    /// The same value, marked as secret: faults show neither it nor anything below it.
    pub fn secret(self) -> Self {
        Node { secret: true, ..self }
    }

    /// Reports that this value is not allowed.
    pub fn refuse(&self, allowed: &str, hint: Option<String>) {
        self.report(false, allowed, hint);
    }

    /// Reports that this value has the wrong type.
    pub fn mistyped(&self, allowed: &str, hint: Option<String>) {
        self.report(true, allowed, hint);
    }

    fn report(&self, with_kind: bool, allowed: &str, hint: Option<String>) {
        let (kind, shown) = match self.tree {
            Tree::Null => ("null", None),
            Tree::Boolean(value) => ("a boolean", Some(value.to_string())),
            Tree::Number(value) => ("a number", Some(value.to_string())),
            Tree::Text(value) => ("a string", Some(quoted(value))),
            Tree::Array(items) if items.is_empty() => ("an empty array", None),
            Tree::Array(_) => ("an array", None),
            Tree::Object(_) => ("an object", None),
        };
        self.faults.add(|| Fault {
            path: self.path.clone(),
            found: match shown {
                Some(_) if self.secret => format!("found {kind} (not shown)"),
                Some(shown) if with_kind => format!("found {shown} ({kind})"),
                Some(shown) => format!("found {shown}"),
                None => format!("found {kind}"),
            },
            allowed: allowed.into(),
            // The part before an `@` may be a password.
            hint: hint.filter(|hint| !self.secret && !hint.contains('@')),
        });
    }

    /// Records a constraint on this value.
    pub fn ask(&self, question: impl FnOnce() -> Constraint) {
        self.faults.notes().add(&self.path, question);
    }

    /// Reads true or false; anything else is a fault.
    pub fn boolean(&self) -> Option<bool> {
        self.ask(|| Constraint::Boolean);
        if let Tree::Boolean(value) = self.tree {
            return Some(*value);
        }
        self.mistyped("true or false", None);
        None
    }

    /// Reads text; anything else is a fault. The caller checks whether it `fits`.
    pub fn text(&self, allowed: &str, fits: &dyn Fn(&str) -> bool) -> Option<&'t str> {
        self.text_like(allowed, None, fits)
    }

    /// Reads text that the caller checks against `pattern` at least; anything else is a fault.
    pub fn text_like(
        &self,
        allowed: &str,
        pattern: Option<&'static str>,
        fits: &dyn Fn(&str) -> bool,
    ) -> Option<&'t str> {
        self.ask(|| Constraint::Text { allowed: allowed.into(), pattern });
        self.any_text(allowed, fits)
    }

    /// Reads text without recording a constraint. For a number the hint puts it in quotes, if the caller accepts that:
    /// `fits` is for the hint alone.
    pub fn any_text(&self, allowed: &str, fits: &dyn Fn(&str) -> bool) -> Option<&'t str> {
        match self.tree {
            Tree::Text(text) => return Some(text),
            Tree::Number(number) => {
                let meant = number.to_string();
                self.mistyped(allowed, fits(&meant).then(|| did_you_mean(&meant)));
            }
            _ => self.mistyped(allowed, None),
        }
        None
    }

    /// Reads one of the names of `choices`, and returns its value.
    pub fn one_of<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let names: Vec<&'static str> = choices.iter().map(|(name, _)| *name).collect();
        choices.get(self.place_in(&names)?).map(|(_, value)| *value)
    }

    /// Reads one of `names`, and returns its place among them.
    #[inline(never)]
    fn place_in(&self, names: &[&'static str]) -> Option<usize> {
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let allowed = quoted.join(", ");
        self.ask(|| Constraint::Choice(names.to_vec()));
        let given = self.any_text(&allowed, &|text| names.contains(&text))?;
        let found = names.iter().position(|name| *name == given);
        if found.is_none() {
            let meant = nearest(given, names);
            self.refuse(&allowed, meant.map(did_you_mean));
        }
        found
    }

    /// Whether the value is an array.
    pub fn is_array(&self) -> bool {
        matches!(self.tree, Tree::Array(_))
    }

    /// Reads an array of at most `most` items.
    pub fn items(&self, most: usize, what: &str) -> Vec<Node<'t>> {
        self.ask(|| Constraint::Array(most));
        let allowed = || format!("an array of at most {most} {what}");
        let Tree::Array(items) = self.tree else {
            self.mistyped(&allowed(), None);
            return Vec::new();
        };
        if items.len() > most {
            self.faults.add(|| Fault {
                path: self.path.clone(),
                found: format!("found {} {what}", items.len()),
                allowed: allowed(),
                hint: None,
            });
            return Vec::new();
        }
        let item = |(index, tree)| self.below(format!("[{index}]"), tree);
        items.iter().enumerate().map(item).collect()
    }

    /// Reads an object with any keys; duplicate keys are faults.
    pub fn entries(&self, most: usize, allowed: &str) -> Vec<(&'t str, Node<'t>)> {
        self.ask(|| Constraint::Map(most));
        let Tree::Object(pairs) = self.tree else {
            self.mistyped(allowed, None);
            return Vec::new();
        };
        if pairs.len() > most {
            self.refuse(&format!("{allowed}, at most {most} of them"), None);
            return Vec::new();
        }
        self.report_duplicates(pairs);
        pairs.iter().map(|(key, tree)| (key.as_str(), self.below(step_to(key), tree))).collect()
    }

    /// Reads an object; fields other than `allowed` are faults.
    pub fn fields(&self, allowed: &'static [&'static str]) -> Fields<'t> {
        self.ask(|| Constraint::Object(allowed));
        let Tree::Object(given) = self.tree else {
            self.mistyped("an object", None);
            return Fields { node: self.clone(), readable: false };
        };
        self.report_duplicates(given);
        for (key, _) in given.iter().filter(|(key, _)| !allowed.contains(&key.as_str())) {
            self.faults.add(|| Fault {
                path: self.path.clone() + &step_to(key),
                found: "unknown field".into(),
                allowed: allowed.join(", "),
                hint: nearest(key, allowed).map(did_you_mean),
            });
        }
        Fields { node: self.clone(), readable: true }
    }

    fn report_duplicates(&self, pairs: &[(String, Tree)]) {
        let mut seen = HashSet::with_capacity(pairs.len());
        for (key, _) in pairs.iter().filter(|(key, _)| !seen.insert(key.as_str())) {
            self.faults.add(|| Fault {
                path: self.path.clone() + &step_to(key),
                found: "duplicate key".into(),
                allowed: "each key once".into(),
                hint: None,
            });
        }
    }

    /// The value of field `name`, if this is an object that has it.
    pub fn child(&self, name: &str) -> Option<Node<'t>> {
        let Tree::Object(pairs) = self.tree else { return None };
        let (_, tree) = pairs.iter().find(|(key, _)| key == name)?;
        Some(self.below(step_to(name), tree))
    }

    fn below(&self, step: String, tree: &'t Tree) -> Node<'t> {
        Node { path: self.path.clone() + &step, tree, secret: self.secret, faults: self.faults }
    }
}

/// An object read by field names.
pub(super) struct Fields<'t> {
    node: Node<'t>,
    readable: bool,
}

impl<'t> Fields<'t> {
    /// The path of field `name`, given or not.
    pub fn path_of(&self, name: &str) -> String {
        self.node.path.clone() + &step_to(name)
    }

    /// The field `name`, if it is given.
    pub fn get(&self, name: &str) -> Option<Node<'t>> {
        self.node.child(name)
    }

    /// The field `name`; its absence is a fault.
    pub fn require(&self, name: &str, allowed: &str) -> Option<Node<'t>> {
        self.node.faults.notes().add(&self.path_of(name), || Constraint::Given);
        let found = self.get(name);
        if found.is_none() {
            self.report_missing(name, allowed);
        }
        found
    }

    /// Reports that `name` is missing. If there is no object at all, that fault is enough.
    pub fn report_missing(&self, name: &str, allowed: &str) {
        if self.readable {
            self.node.faults.add(|| Fault {
                path: self.path_of(name),
                found: "missing".into(),
                allowed: allowed.into(),
                hint: None,
            });
        }
    }

    /// The field `name` as `read` returns it; `None` if it is absent or refused.
    pub fn read<T>(&self, name: &str, read: impl FnOnce(&Node<'t>) -> Option<T>) -> Option<T> {
        read(&self.get(name)?)
    }

    /// The object at `name`, or an empty one, so that defaults are in one place.
    pub fn section(&self, name: &str, allowed: &'static [&'static str]) -> Fields<'t> {
        let node = self.get(name);
        node.unwrap_or_else(|| self.node.below(step_to(name), &NOTHING_GIVEN)).fields(allowed)
    }
}

/// The hint that names the likely meaning.
pub(super) fn did_you_mean(name: &str) -> String {
    format!("did you mean \"{name}\"?")
}
