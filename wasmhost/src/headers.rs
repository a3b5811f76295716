//! Header maps as Envoy keeps them (lower-case names, in order of arrival, with repeats) and their wire form.

use std::fmt;

/// An ordered multimap from lower-case names to byte values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

/// Prints values as text, for failing tests.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs()).finish()
    }
}

impl Headers {
    /// Copies names and values.
    pub fn new(pairs: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        pairs.iter().for_each(|(name, value)| headers.add(name, value.as_bytes()));
        headers
    }

    /// The number of entries, repeats included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of `name`, as the guest would get it.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The first value of `name` as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let name = name.to_ascii_lowercase();
        self.0.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value.as_slice())
    }

    /// Every entry as text, in order.
    pub fn pairs(&self) -> Vec<(String, String)> {
        self.0
            .iter()
            .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
            .collect()
    }

    /// Appends a value, keeping those of the same name.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.to_ascii_lowercase(), value.to_vec()));
    }

    /// Removes every value of `name`.
    pub fn remove(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        self.0.retain(|(key, _)| *key != name);
    }

    /// Makes `value` the only value of `name`.
    pub fn replace(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.add(name, value);
    }

    /// Wire form: count, then the sizes of all names and values, then their bytes, each closed by a zero.
    pub(crate) fn encode(&self) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut bytes = (self.0.len() as u32).to_le_bytes().to_vec();
        for (name, value) in &self.0 {
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend((value.len() as u32).to_le_bytes());
        }
        for (name, value) in &self.0 {
            bytes.extend(name.as_bytes());
            bytes.push(0);
            bytes.extend(value);
            bytes.push(0);
        }
        bytes
    }

    /// Reads the wire form; malformed input yields an empty map, as in Envoy's host.
    pub(crate) fn decode(bytes: &[u8]) -> Headers {
        Headers::try_decode(bytes).unwrap_or_default()
    }

    fn try_decode(bytes: &[u8]) -> Option<Headers> {
        let number = |at: usize| -> Option<usize> {
            let word = bytes.get(at..at.checked_add(4)?)?;
            Some(u32::from_le_bytes(word.try_into().ok()?) as usize)
        };
        let count = number(0)?;
        let mut at = count.checked_mul(8)?.checked_add(4)?;
        let mut take = |size: usize| -> Option<&[u8]> {
            let field = bytes.get(at..at.checked_add(size)?)?;
            at += size + 1;
            Some(field)
        };
        let mut headers = Headers::default();
        for index in 0..count {
            let name = take(number(4 + index * 8)?)?;
            let value = take(number(8 + index * 8)?)?;
            headers.add(&String::from_utf8_lossy(name), value);
        }
        Some(headers)
    }
}

/// Whether a name is a token and a value ends no line.
pub(crate) fn is_sendable(name: &str, value: &str) -> bool {
    let token = name.strip_prefix(':').unwrap_or(name);
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let path_ends = name == ":path" && value.bytes().any(|byte| byte <= b' ' || byte == 0x7F);
    !token.is_empty() && token.bytes().all(is_token) && !value.contains(['\0', '\r', '\n']) && !path_ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_brings_everything_back_in_order() {
        let mut headers = Headers::new(&[(":path", "/"), ("accept", "a"), ("x-empty", ""), ("accept", "b")]);
        headers.add("x-bytes", &[0, 255, 7]);
        assert_eq!(Headers::decode(&headers.encode()), headers);
        assert_eq!(headers.all("Accept").count(), 2);
    }

    #[test]
    fn the_wire_form_is_the_one_of_the_abi() {
        let one = Headers::new(&[("ab", "c")]);
        assert_eq!(one.encode(), [1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, b'a', b'b', 0, b'c', 0]);
        assert_eq!(Headers::default().encode(), []);
    }

    #[test]
    fn truncated_or_lying_input_reads_as_empty() {
        let bytes = Headers::new(&[("name", "value")]).encode();
        for length in 0..bytes.len() - 1 {
            assert!(Headers::decode(&bytes[..length]).is_empty(), "cut at {length}");
        }
        assert!(Headers::decode(&[255; 64]).is_empty());
    }

    #[test]
    fn replace_leaves_one_value_and_remove_none() {
        let mut headers = Headers::new(&[("X-A", "1"), ("x-a", "2"), ("b", "3")]);
        headers.replace("x-A", b"4");
        assert_eq!(headers.pairs(), [("b".into(), "3".into()), ("x-a".into(), "4".into())]);
        headers.remove("X-a");
        assert_eq!(headers.get("x-a"), None);
    }
}
