//! JSON objects read field by field, without a tree of values.
//!
//! Receivers are trait objects: a generic one would have serde_json's code for values once more.

use core::fmt;
use std::borrow::Cow;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// A value could not be read. The reason is kept where its object is read.
#[derive(Debug)]
pub(crate) struct Unread;

/// The value of a field, to be read once: [`skip`](Value::skip) passes over it.
pub(crate) trait Value {
    fn skip(&mut self) -> Result<(), Unread>;
    fn text(&mut self) -> Result<String, Unread>;
    fn text_or_null(&mut self) -> Result<Option<String>, Unread>;
    fn flag(&mut self) -> Result<bool, Unread>;
    fn whole(&mut self) -> Result<u32, Unread>;
    fn number(&mut self) -> Result<f64, Unread>;
    /// The length of an array; `null` counts as an empty one.
    fn length(&mut self) -> Result<usize, Unread>;
    /// `[time, "value"]`
    fn point(&mut self) -> Result<Point, Unread>;
    /// The last of `[[time, "value"], …]`.
    fn last_point(&mut self) -> Result<Point, Unread>;
    fn object(&mut self, to: &mut dyn Fields) -> Result<(), Unread>;
    fn array(&mut self, to: &mut dyn Elements) -> Result<(), Unread>;
}

/// A receiver of an object's fields.
pub(crate) trait Fields {
    /// Takes the value of `key`, or skips it.
    fn field(&mut self, key: &str, value: &mut dyn Value) -> Result<(), Unread>;
}

/// A receiver of an array's elements: of the fields of each object, between `begin` and `end`.
pub(crate) trait Elements: Fields {
    fn begin(&mut self);
    fn end(&mut self);
    /// An element that is no object.
    fn bare(&mut self);
    /// What the array is, and what an element, for errors.
    fn expected(&self) -> [&'static str; 2];
}

/// Reads an object into its receiver, field by field; `null` counts as an empty object.
pub(crate) struct Object<'t>(pub &'t mut dyn Fields);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        let mut value = Next { object, error: None };
        while let Some(Key(key)) = value.object.next_key()? {
            if self.0.field(&key, &mut value).is_err() {
                return Err(value.error.unwrap_or_else(|| Error::custom("unread")));
            }
        }
        Ok(())
    }
}

/// The next value of an object, and why it could not be read.
struct Next<'de, A: MapAccess<'de>> {
    object: A,
    error: Option<A::Error>,
}

impl<'de, A: MapAccess<'de>> Next<'de, A> {
    fn read<T: Deserialize<'de>>(&mut self) -> Result<T, Unread> {
        let read = self.object.next_value();
        self.kept(read)
    }

    fn kept<T>(&mut self, read: Result<T, A::Error>) -> Result<T, Unread> {
        read.map_err(|error| {
            self.error = Some(error);
            Unread
        })
    }
}

impl<'de, A: MapAccess<'de>> Value for Next<'de, A> {
    fn skip(&mut self) -> Result<(), Unread> {
        self.read::<IgnoredAny>().map(|_| ())
    }

    fn text(&mut self) -> Result<String, Unread> {
        self.read()
    }

    fn text_or_null(&mut self) -> Result<Option<String>, Unread> {
        self.read()
    }

    fn flag(&mut self) -> Result<bool, Unread> {
        self.read()
    }

    fn whole(&mut self) -> Result<u32, Unread> {
        self.read()
    }

    fn number(&mut self) -> Result<f64, Unread> {
        self.read()
    }

    fn length(&mut self) -> Result<usize, Unread> {
        self.read::<Option<Vec<IgnoredAny>>>().map(|list| list.map_or(0, |list| list.len()))
    }

    fn point(&mut self) -> Result<Point, Unread> {
        self.read()
    }

    fn last_point(&mut self) -> Result<Point, Unread> {
        self.read().map(|LastPoint(point)| point)
    }

    fn object(&mut self, to: &mut dyn Fields) -> Result<(), Unread> {
        let read = self.object.next_value_seed(Object(to));
        self.kept(read)
    }

    fn array(&mut self, to: &mut dyn Elements) -> Result<(), Unread> {
        let read = self.object.next_value_seed(Array(to));
        self.kept(read)
    }
}

/// Reads an array into its receiver; `null` counts as an empty one, as some servers write it.
struct Array<'t>(&'t mut dyn Elements);

impl<'de> DeserializeSeed<'de> for Array<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Array<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [array, _] = self.0.expected();
        f.write_str(array)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(Element(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

struct Element<'t>(&'t mut dyn Elements);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, element] = self.0.expected();
        f.write_str(element)
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.0.bare();
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.0.bare();
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.0.bare();
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.0.bare();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        self.0.begin();
        Object(&mut *self.0).visit_map(object)?;
        self.0.end();
        Ok(())
    }
}

/// A key as it stands in the input; only an escaped one is copied.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}

/// `[time, "value"]`
#[derive(Clone, Copy, Default)]
pub(crate) struct Point {
    pub at: Option<f64>,
    pub value: Option<f64>,
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let (Number(at), Number(value)) = <(Number, Number)>::deserialize(input)?;
        Ok(Point { at, value })
    }
}

/// `[[time, "value"], …]`, oldest first; of an empty list there is no last point.
struct LastPoint(Point);

impl<'de> Deserialize<'de> for LastPoint {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_seq(LastPoint(Point::default()))
    }
}

impl<'de> Visitor<'de> for LastPoint {
    type Value = LastPoint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of points")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<LastPoint, A::Error> {
        let mut last = self;
        while let Some(point) = array.next_element()? {
            last = LastPoint(point);
        }
        Ok(last)
    }
}

/// A finite number, written as text so that NaN and infinities can be written too.
struct Number(Option<f64>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Number(None))
    }
}

impl Visitor<'_> for Number {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number in quotes")
    }

    fn visit_str<E>(self, text: &str) -> Result<Number, E> {
        Ok(Number(text.parse().ok().filter(|value: &f64| value.is_finite())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
        Ok(Number(Some(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
        Ok(Number(Some(value as f64)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
        Ok(Number(Some(value as f64)))
    }
}
