//! JSON as a tree that keeps the order of keys and duplicates, which `serde_json::Value` would silently drop.

use core::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Number;

use super::fault::{Fault, step_to};

/// The highest number of steps in a syntax error's path; deeper ones are left out.
const MAX_STEPS: usize = 12;

/// A JSON value.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Null,
    Boolean(bool),
    Number(Number),
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// Parses `json`; the fault has the position of the syntax error.
    pub fn read(json: &[u8]) -> Result<Tree, Fault> {
        let mut steps = Vec::new();
        let mut input = serde_json::Deserializer::from_slice(json);
        let read = serde::de::DeserializeSeed::deserialize(Reader { steps: &mut steps }, &mut input);
        read.and_then(|tree| input.end().map(|()| tree)).map_err(|error| Fault {
            path: path(&steps),
            found: format!("found invalid JSON: {error}"),
            allowed: String::new(),
            hint: matches!(byte_at(json, error.line(), error.column()), Some(b'/' | b'#'))
                .then(|| "JSON has no comments".into()),
        })
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => output.serialize_unit(),
            Tree::Boolean(value) => output.serialize_bool(*value),
            Tree::Number(value) => value.serialize(output),
            Tree::Text(value) => output.serialize_str(value),
            Tree::Array(items) => output.collect_seq(items),
            Tree::Object(pairs) => output.collect_map(pairs.iter().map(|(key, value)| (key, value))),
        }
    }
}

enum Step {
    Key(String),
    Index(usize),
}

fn path(steps: &[Step]) -> String {
    let mut path = String::from("$");
    for step in steps.iter().take(MAX_STEPS) {
        match step {
            Step::Key(key) => path += &step_to(key),
            Step::Index(index) => path += &format!("[{index}]"),
        }
    }
    if steps.len() > MAX_STEPS {
        path.push('…');
    }
    path
}

fn byte_at(json: &[u8], line: usize, column: usize) -> Option<u8> {
    let line = json.split(|byte| *byte == b'\n').nth(line.checked_sub(1)?)?;
    line.get(column.checked_sub(1)?).copied()
}

/// A visitor that tracks its path, so that a syntax error has one. serde_json limits the depth to 128.
struct Reader<'p> {
    steps: &'p mut Vec<Step>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Reader<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Tree, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Boolean(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Number::from_f64(value).map_or(Tree::Null, Tree::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        loop {
            self.steps.push(Step::Index(items.len()));
            let item = array.next_element_seed(Reader { steps: self.steps })?;
            self.steps.pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Tree::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Tree, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = object.next_key::<String>()? {
            self.steps.push(Step::Key(key.clone()));
            let value = object.next_value_seed(Reader { steps: self.steps })?;
            self.steps.pop();
            pairs.push((key, value));
        }
        Ok(Tree::Object(pairs))
    }
}
