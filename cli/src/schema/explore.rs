//! Explores the configuration: finds every place by recording which constraints the reader meets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use config::{Constraint, Fault, questions};
use serde_json::{Map, Value, json};

/// The key that stands for any key of an object with free keys.
const ANY_KEY: &str = "x";

/// The constraints on a place. In its path `[]` stands for any index and `.*` for any key.
#[derive(Debug, Default)]
pub struct Place {
    /// The kinds of values that are allowed here.
    pub questions: Vec<Constraint>,
    /// Whether a value is required.
    pub required: bool,
    /// Whether null counts as absent.
    pub null: bool,
    /// Whether an empty array is refused in every context.
    pub not_empty: bool,
}

/// All places, by path.
pub type Places = BTreeMap<String, Place>;

/// Explores all places.
pub fn places() -> Places {
    let mut explorer = Explorer::default();
    explorer.todo.push_back("$".into());
    while let Some(path) = explorer.todo.pop_front() {
        explorer.visit(&path);
    }
    // Visit each again, now that all of its siblings are known.
    for path in explorer.places.keys().cloned().collect::<Vec<_>>() {
        explorer.visit(&path);
    }
    explorer.places
}

/// The parent of a place and the last step to it.
pub fn split(path: &str) -> Option<(&str, &str)> {
    if let Some(parent) = path.strip_suffix("[]") {
        return Some((parent, "[]"));
    }
    path.rsplit_once('.')
}

#[derive(Default)]
struct Explorer {
    places: Places,
    todo: VecDeque<String>,
    seen: BTreeSet<String>,
}

impl Explorer {
    /// Puts values of every kind at `path`, in each of its contexts.
    fn visit(&mut self, path: &str) {
        let contexts = self.contexts(path);
        let (mut null, mut empty) = (false, false);
        for context in &contexts {
            for value in [json!(null), json!("x"), json!(1), json!(true), json!({}), json!([null]), json!([])]
            {
                let mut tree = context.clone();
                put(&mut tree, path, value.clone());
                let faults = self.ask(&tree);
                let refused = faults.iter().any(|fault| general(&self.places, &fault.path) == path);
                null |= value.is_null() && !refused;
                empty |= value == json!([]) && !refused;
            }
        }
        let place = self.places.entry(path.to_owned()).or_default();
        place.null = null;
        place.not_empty =
            !empty && place.questions.iter().any(|question| matches!(question, Constraint::Array(_)));
    }

    /// The smallest configuration, and it with each choice and each object that can be a sibling of `path`.
    fn contexts(&self, path: &str) -> Vec<Value> {
        let least =
            json!({ "upstreams": [{ "cluster": "web", "endpoints": { "static": ["10.0.0.1:80"] } }] });
        let mut contexts = vec![least.clone()];
        let Some((parent, _)) = split(path).filter(|(_, step)| *step != "[]") else { return contexts };
        for (sibling, place) in &self.places {
            if sibling == path || split(sibling).is_none_or(|(other, _)| other != parent) {
                continue;
            }
            for question in &place.questions {
                let values: Vec<Value> = match question {
                    Constraint::Choice(names) => names.iter().map(|name| json!(name)).collect(),
                    Constraint::Object(_) => vec![json!({})],
                    _ => continue,
                };
                for value in values {
                    let mut context = least.clone();
                    put(&mut context, sibling, value);
                    contexts.push(context);
                }
            }
        }
        contexts
    }

    /// Lets the reader read `tree`, and records the constraints that it meets.
    fn ask(&mut self, tree: &Value) -> Vec<Fault> {
        let (asked, faults) = questions(tree.to_string().as_bytes());
        let mut texts = BTreeSet::new();
        for (path, question) in asked {
            let path = general(&self.places, &path);
            // A second text constraint at a place is the stricter one for values that are not empty.
            if matches!(question, Constraint::Text { .. }) && !texts.insert(path.clone()) {
                continue;
            }
            self.learn(path, question);
        }
        faults
    }

    fn learn(&mut self, path: String, question: Constraint) {
        let below: Vec<String> = match &question {
            Constraint::Object(fields) => fields.iter().map(|field| format!("{path}.{field}")).collect(),
            Constraint::Map(_) => vec![format!("{path}.*")],
            Constraint::Array(_) => vec![format!("{path}[]")],
            _ => Vec::new(),
        };
        for place in below {
            if self.seen.insert(place.clone()) {
                self.todo.push_back(place);
            }
        }
        let place = self.places.entry(path).or_default();
        if question == Constraint::Given {
            place.required = true;
        } else if !place.questions.contains(&question) {
            place.questions.push(question);
        }
    }
}

/// The general path of a place: `$.a[0].x` is `$.a[].*` if `$.a[]` has free keys.
fn general(places: &Places, path: &str) -> String {
    let free = |place: &str| {
        let questions = places.get(place).map(|place| place.questions.as_slice()).unwrap_or_default();
        questions.iter().any(|question| matches!(question, Constraint::Map(_)))
    };
    let mut steps = path.split('.');
    let mut place = steps.next().unwrap_or_default().to_owned();
    for step in steps {
        let (name, indices) = step.split_at(step.find('[').unwrap_or(step.len()));
        let name = if free(&place) { "*" } else { name };
        place = format!("{place}.{name}{}", "[]".repeat(indices.matches('[').count()));
    }
    place
}

/// Puts `value` at a place, and creates what leads there.
fn put(tree: &mut Value, path: &str, value: Value) {
    let Some((parent, step)) = split(path) else {
        *tree = value;
        return;
    };
    let holder = reach(tree, parent);
    if step == "[]" {
        *holder = Value::Array(vec![value]);
        return;
    }
    if !holder.is_object() {
        *holder = Value::Object(Map::new());
    }
    holder[if step == "*" { ANY_KEY } else { step }] = value;
}

fn reach<'t>(tree: &'t mut Value, path: &str) -> &'t mut Value {
    let Some((parent, step)) = split(path) else { return tree };
    let holder = reach(tree, parent);
    if step == "[]" {
        if holder.as_array().is_none_or(Vec::is_empty) {
            *holder = json!([null]);
        }
        return &mut holder[0];
    }
    if !holder.is_object() {
        *holder = Value::Object(Map::new());
    }
    &mut holder[if step == "*" { ANY_KEY } else { step }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_that_the_reader_looks_at_is_found_and_asked_about() {
        let places = places();
        for path in [
            "$.mode",
            "$.steering.candidates",
            "$.prometheus.headers.*",
            "$.upstreams[].endpoints.static[].weight",
            "$.upstreams[].policy.in_flight_weight",
            "$.upstreams[].policy.signal",
            "$.upstreams[].affinity.cookie",
            "$.upstreams[].split.*",
            "$.upstreams[].rules[].when",
            "$.status.path",
        ] {
            assert!(places.contains_key(path), "{path}: {:#?}", places.keys());
        }
        for (path, place) in &places {
            assert!(!place.questions.is_empty(), "nothing is asked of {path}");
        }
    }

    #[test]
    fn what_only_something_else_makes_meaningful_is_asked_beside_that() {
        let places = places();
        assert!(matches!(
            places["$.upstreams[].policy.latency_max_ms"].questions[..],
            [Constraint::Number(_)]
        ));
        assert_eq!(places["$.upstreams[].policy"].questions.len(), 2);
        assert_eq!(places["$.upstreams[].endpoints.static[]"].questions.len(), 2);
    }

    #[test]
    fn null_and_emptiness_are_tried() {
        let places = places();
        let with = |what: fn(&Place) -> bool| -> Vec<&str> {
            places.iter().filter(|(_, place)| what(place)).map(|(path, _)| path.as_str()).collect()
        };
        assert!(with(|place| place.null).contains(&"$.upstreams[].failover.safe_endpoint"));
        assert!(!with(|place| place.null).contains(&"$.mode"));
        assert!(with(|place| place.not_empty).contains(&"$.upstreams"));
        assert!(!with(|place| place.not_empty).contains(&"$.upstreams[].endpoints.static"));
    }

    #[test]
    fn paths_are_made_general() {
        let places = places();
        for (path, place) in [
            ("$", "$"),
            ("$.upstreams[12].split.v1", "$.upstreams[].split.*"),
            ("$.upstreams[0].endpoints.static[3].weight", "$.upstreams[].endpoints.static[].weight"),
        ] {
            assert_eq!(general(&places, path), place);
        }
    }
}
