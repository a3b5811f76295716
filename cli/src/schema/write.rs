//! Places as a JSON Schema (draft 7, which every editor supports).

use config::{Bounds, Constraint};
use serde_json::{Map, Value, json};

use super::contradictions;
use super::defaults::Defaults;
use super::described::{Descriptions, bare};
use super::explore::Places;

/// The pattern of a duration, as the reader accepts it: a decimal number and a unit.
const DURATION: &str = r"^[0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h)$";

/// The schema of the whole configuration.
pub fn schema(places: &Places) -> Value {
    let writer = Writer { places, defaults: Defaults::new(), descriptions: Descriptions::new() };
    let mut schema = Map::new();
    schema.insert("$schema".into(), json!("http://json-schema.org/draft-07/schema#"));
    schema.insert("title".into(), json!("evenkeel's plugin configuration"));
    schema.append(&mut writer.place("$"));
    Value::Object(schema)
}

struct Writer<'p> {
    places: &'p Places,
    defaults: Defaults,
    descriptions: Descriptions,
}

impl Writer<'_> {
    fn place(&self, path: &str) -> Map<String, Value> {
        let mut schema = Map::new();
        let Some(place) = self.places.get(path) else { return schema };
        let meaning = self.descriptions.of(path).map(|described| bare(described.meaning));
        let mut said: Vec<String> =
            meaning.map(|meaning| capital(meaning.trim_end_matches('.'))).into_iter().collect();
        let mut alternatives = Vec::new();
        for question in &place.questions {
            let (kind, words) = self.kind(path, question);
            said.extend(words);
            alternatives.push(kind);
        }
        if place.null {
            alternatives.push(as_map(json!({ "type": "null" })));
        }
        if let [only] = alternatives.as_slice() {
            schema = only.clone();
        } else {
            schema.insert("anyOf".into(), alternatives.into_iter().map(Value::Object).collect());
        }
        if let Some(default) = self.defaults.of(path) {
            schema.insert("default".into(), default.clone());
        }
        if !said.is_empty() {
            schema.insert("description".into(), json!(said.join(". ")));
        }
        schema
    }

    /// The schema of one kind of value, and words for what a schema cannot express.
    fn kind(&self, path: &str, question: &Constraint) -> (Map<String, Value>, Option<String>) {
        let (schema, words) = match question {
            Constraint::Object(fields) => (self.object(path, fields), None),
            Constraint::Map(most) => {
                let items = self.place(&format!("{path}.*"));
                (json!({ "type": "object", "maxProperties": most, "additionalProperties": items }), None)
            }
            Constraint::Array(most) => {
                let not_empty = self.places.get(path).is_some_and(|place| place.not_empty);
                let items = self.place(&format!("{path}[]"));
                let mut array = json!({ "type": "array", "maxItems": most, "items": items });
                if not_empty {
                    array["minItems"] = json!(1);
                }
                (array, None)
            }
            Constraint::Boolean => (json!({ "type": "boolean" }), None),
            Constraint::True => (json!({ "const": true }), None),
            Constraint::Number(bounds) => (number(*bounds), None),
            Constraint::Whole(low, high) => {
                (json!({ "type": "integer", "minimum": low, "maximum": high }), None)
            }
            Constraint::Duration(low, high) => {
                let words = format!(
                    "A duration such as \"250ms\" or \"5s\", from {} to {}",
                    longest(*low),
                    longest(*high)
                );
                (json!({ "type": "string", "pattern": DURATION }), Some(words))
            }
            Constraint::Text { allowed, pattern } => {
                let mut text = json!({ "type": "string" });
                if let Some(pattern) = pattern {
                    text["pattern"] = json!(pattern);
                }
                (text, Some(capital(allowed)))
            }
            Constraint::Choice(names) => (json!({ "enum": names }), None),
            Constraint::Given => (json!({}), None),
        };
        (as_map(schema), words)
    }

    fn object(&self, path: &str, fields: &[&str]) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in fields {
            let below = format!("{path}.{field}");
            properties.insert((*field).to_owned(), Value::Object(self.place(&below)));
            if self.places.get(&below).is_some_and(|place| place.required) {
                required.push(*field);
            }
        }
        let mut object =
            as_map(json!({ "type": "object", "additionalProperties": false, "properties": properties }));
        if !required.is_empty() {
            object.insert("required".into(), json!(required));
        }
        if let Some(more) = contradictions::of(path) {
            object.append(&mut as_map(more));
        }
        Value::Object(object)
    }
}

fn number(bounds: Bounds) -> Value {
    match bounds {
        Bounds::FromTo(low, high) => json!({ "type": "number", "minimum": low, "maximum": high }),
        Bounds::AboveUpTo(low, high) => json!({ "type": "number", "exclusiveMinimum": low, "maximum": high }),
        Bounds::Above(low) => json!({ "type": "number", "exclusiveMinimum": low }),
    }
}

/// A duration in hours if it is whole hours, otherwise as Rust prints it.
pub fn longest(duration: std::time::Duration) -> String {
    match duration.as_secs() {
        _ if duration.is_zero() => "0s".into(),
        seconds if seconds > 0 && seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        _ => format!("{duration:?}"),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn as_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
