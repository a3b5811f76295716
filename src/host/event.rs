//! Log lines: a sentence for people, or a JSON object for log collectors.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::host::{Call, CallError, Host, MetricKind, SharedError};
use engine::time::Time;

/// An event for the log.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its severity.
    pub level: log::Level,
    /// Its name, for searching and alerting.
    pub name: &'static str,
    /// The sentence.
    pub message: &'a str,
    /// The values in the sentence.
    pub fields: &'a [(&'static str, Field<'a>)],
}

/// A value of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    /// Text.
    Text(&'a str),
    /// A whole number.
    Whole(u64),
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// Unknown: left out of the JSON.
    Unknown,
}

impl<'a> Field<'a> {
    /// A text, or [`Field::Unknown`].
    pub fn text(text: Option<&'a str>) -> Field<'a> {
        text.map_or(Field::Unknown, Field::Text)
    }

    /// A number, or [`Field::Unknown`] if there is none or it is not finite.
    pub fn number(number: Option<f64>) -> Field<'a> {
        number.filter(|number| number.is_finite()).map_or(Field::Unknown, Field::Number)
    }
}

impl Event<'_> {
    /// The event as a JSON object on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut map = output.serialize_map(None)?;
        map.serialize_entry("event", self.name)?;
        map.serialize_entry("level", &self.level.as_str().to_ascii_lowercase())?;
        for (name, value) in self.fields {
            match value {
                Field::Text(text) => map.serialize_entry(name, text)?,
                Field::Whole(number) => map.serialize_entry(name, number)?,
                Field::Number(number) => map.serialize_entry(name, number)?,
                Field::Flag(flag) => map.serialize_entry(name, flag)?,
                Field::Unknown => {}
            }
        }
        map.serialize_entry("message", self.message)?;
        map.end()
    }
}

/// A host that logs events as JSON.
pub struct InJson<'a>(pub &'a dyn Host);

impl Host for InJson<'_> {
    fn now(&self) -> Time {
        self.0.now()
    }

    fn wall(&self) -> Time {
        self.0.wall()
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.0.shared_get(key)
    }

    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
        self.0.shared_set(key, value, version)
    }

    fn call(&self, call: &Call<'_>) -> Result<u32, CallError> {
        self.0.call(call)
    }

    fn node_zone(&self) -> Option<String> {
        self.0.node_zone()
    }

    fn environment(&self, variable: &str) -> Option<String> {
        self.0.environment(variable)
    }

    fn log(&self, level: log::Level, message: &str) {
        self.0.log(level, message);
    }

    fn log_event(&self, event: &Event<'_>) {
        self.0.log(event.level, &event.json());
    }

    fn metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        self.0.metric(kind, name)
    }

    fn count(&self, metric: u32, by: u64) {
        self.0.count(metric, by);
    }

    fn record(&self, metric: u32, value: u64) {
        self.0.record(metric, value);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn an_event_is_one_object_on_one_line() {
        let event = Event {
            level: log::Level::Warn,
            name: "ejected",
            message: "line\nbreak \"quoted\"",
            fields: &[
                ("upstream", Field::Text("we\u{1b}b")),
                ("cost_ms", Field::number(Some(f64::NAN))),
                ("status", Field::Whole(503)),
                ("eligible", Field::Flag(false)),
            ],
        };
        assert_eq!(
            event.json(),
            r#"{"event":"ejected","level":"warn","upstream":"we\u001bb","status":503,"eligible":false,"message":"line\nbreak \"quoted\""}"#
        );
    }

    /// A host that answers everything and writes down what it was asked.
    #[derive(Default)]
    struct Plain(core::cell::RefCell<Vec<String>>);

    impl Host for Plain {
        fn now(&self) -> Time {
            Time(7)
        }

        fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            Some((key.into(), 3))
        }

        fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
            self.0.borrow_mut().push(format!("{key} {value:?} {version:?}"));
            Err(SharedError::Conflict)
        }

        fn call(&self, call: &Call<'_>) -> Result<u32, CallError> {
            self.0.borrow_mut().push(call.path.into());
            Ok(5)
        }

        fn node_zone(&self) -> Option<String> {
            Some("zone".into())
        }

        fn environment(&self, variable: &str) -> Option<String> {
            Some(variable.into())
        }

        fn log(&self, level: log::Level, message: &str) {
            self.0.borrow_mut().push(format!("{level} {message}"));
        }

        fn metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
            self.0.borrow_mut().push(format!("{kind:?} {name}"));
            Some(9)
        }

        fn count(&self, metric: u32, by: u64) {
            self.0.borrow_mut().push(format!("{metric} by {by}"));
        }

        fn record(&self, metric: u32, value: u64) {
            self.0.borrow_mut().push(format!("{metric} is {value}"));
        }
    }

    /// A method of the trait that is left out here would be its default, and the token, the zone or the stats would be gone.
    #[test]
    fn a_host_with_a_json_log_is_otherwise_the_same() {
        let plain = Plain::default();
        let host = InJson(&plain);
        assert_eq!((host.now(), host.shared_get("k")), (Time(7), Some((b"k".to_vec(), 3))));
        assert_eq!(host.shared_set("k", b"v", Some(4)), Err(SharedError::Conflict));
        let (timeout, headers) = (core::time::Duration::from_secs(1), &[]);
        let call = Call { cluster: "c", authority: "a", path: "/p", headers, form: None, timeout };
        assert_eq!(host.call(&call), Ok(5));
        assert_eq!(host.node_zone().as_deref(), Some("zone"));
        assert_eq!(host.environment("TOKEN").as_deref(), Some("TOKEN"));
        assert_eq!(host.metric(MetricKind::Gauge, "m"), Some(9));
        host.count(9, 2);
        host.record(9, 3);
        host.log(log::Level::Warn, "plain");
        host.log_event(&Event { level: log::Level::Info, name: "n", message: "m", fields: &[] });
        let asked = [
            "k [118] Some(4)",
            "/p",
            "Gauge m",
            "9 by 2",
            "9 is 3",
            "WARN plain",
            r#"INFO {"event":"n","level":"info","message":"m"}"#,
        ];
        assert_eq!(*plain.0.borrow(), asked);
    }
}
