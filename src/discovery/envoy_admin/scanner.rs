//! A JSON reader for bodies that are too large to hold: it skips most in parts, and reads only the values that are
//! wanted.
//!
//! Most of a response is counters. In skipped text only brackets and strings are looked at; a wanted value is small,
//! held in one piece and read by serde.

use core::fmt;
use core::ops::Range;

use serde::de::{DeserializeOwned, DeserializeSeed};

use crate::discovery::json::{Fields, Object};
use crate::host::Body;

/// Bytes of the body that are read at a time.
const PART: usize = 256 << 10;
/// The largest value that is held, bytes; none that is wanted is larger.
const MAX_HELD: usize = 64 << 10;

/// Why a body cannot be read.
#[derive(Debug)]
pub(super) struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A body, read from beginning to end.
pub(super) struct Scanner<'b> {
    body: &'b dyn Body,
    /// The part of the body in memory.
    window: Vec<u8>,
    /// The position of the next part in the body.
    next: usize,
    /// The position in the window.
    at: usize,
    /// The position in the window where the value being held begins.
    held: Option<usize>,
}

impl<'b> Scanner<'b> {
    pub fn new(body: &'b dyn Body) -> Scanner<'b> {
        Scanner { body, window: Vec::new(), next: 0, at: 0, held: None }
    }

    /// Calls `field` for each field of an object with one of these names, which has to read its value; skips the
    /// others. `null` counts as an empty object.
    pub fn object(
        &mut self,
        names: &[&'static str],
        field: &mut dyn FnMut(&mut Self, &'static str) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        if self.opens(b'{', "an object")? {
            let mut first = true;
            while self.goes_on(&mut first, b'}')? {
                let name = self.name(names)?;
                self.expect(b':', "a colon")?;
                match name {
                    Some(name) => field(self, name)?,
                    None => self.skip()?,
                }
            }
        }
        Ok(())
    }

    /// Calls `element` for each element of an array, which has to read it; `null` counts as an empty array.
    pub fn array(
        &mut self,
        element: &mut dyn FnMut(&mut Self) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        if self.opens(b'[', "an array")? {
            let mut first = true;
            while self.goes_on(&mut first, b']')? {
                element(self)?;
            }
        }
        Ok(())
    }

    /// Reads a value.
    pub fn value<T: DeserializeOwned>(&mut self) -> Result<T, Unreadable> {
        let value = self.hold()?;
        serde_json::from_slice(self.window.get(value).unwrap_or_default())
            .map_err(|error| self.unreadable(&format!("{error}")))
    }

    /// Reads an object into `to`.
    pub fn read(&mut self, to: &mut dyn Fields) -> Result<(), Unreadable> {
        let value = self.hold()?;
        let mut input = serde_json::Deserializer::from_slice(self.window.get(value).unwrap_or_default());
        let read = Object(to).deserialize(&mut input).and_then(|()| input.end());
        read.map_err(|error| self.unreadable(&format!("{error}")))
    }

    /// Skips a value, to the end that its brackets and strings show.
    pub fn skip(&mut self) -> Result<(), Unreadable> {
        match self.peek()? {
            b'"' | b'{' | b'[' => self.nested(),
            b'-' | b'0'..=b'9' | b'a'..=b'z' => self.word(),
            _ => Err(self.unreadable("expected a value")),
        }
    }

    /// Checks that nothing follows.
    pub fn end(&mut self) -> Result<(), Unreadable> {
        match self.next_byte()? {
            None => Ok(()),
            Some(_) => Err(self.unreadable("something follows")),
        }
    }

    fn opens(&mut self, bracket: u8, what: &str) -> Result<bool, Unreadable> {
        match self.peek()? {
            byte if byte == bracket => {
                self.at += 1;
                Ok(true)
            }
            b'n' => self.value::<()>().map(|()| false),
            _ => Err(self.unreadable(&format!("expected {what}"))),
        }
    }

    /// Whether another element follows; reads up to its beginning.
    fn goes_on(&mut self, first: &mut bool, bracket: u8) -> Result<bool, Unreadable> {
        if self.peek()? == bracket {
            self.at += 1;
            return Ok(false);
        }
        if !core::mem::take(first) {
            self.expect(b',', "a comma")?;
        }
        Ok(true)
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), Unreadable> {
        if self.peek()? != byte {
            return Err(self.unreadable(&format!("expected {what}")));
        }
        self.at += 1;
        Ok(())
    }

    /// A field's name if it is one of these, compared as printed: the names that matter need no escapes.
    fn name(&mut self, names: &[&'static str]) -> Result<Option<&'static str>, Unreadable> {
        if self.peek()? != b'"' {
            return Err(self.unreadable("expected a name"));
        }
        let quoted = self.hold()?;
        let found = match self.window.get(quoted) {
            Some([b'"', name @ .., b'"']) => names.iter().find(|known| known.as_bytes() == name),
            _ => None,
        };
        Ok(found.copied())
    }

    /// Skips a value and keeps the whole of it in the window; returns its range there.
    fn hold(&mut self) -> Result<Range<usize>, Unreadable> {
        self.peek()?;
        self.held = Some(self.at);
        let skipped = self.skip();
        let from = self.held.take().unwrap_or(self.at);
        skipped.map(|()| from..self.at)
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<u8, Unreadable> {
        self.next_byte()?.ok_or_else(|| self.cut_off())
    }

    fn next_byte(&mut self) -> Result<Option<u8>, Unreadable> {
        loop {
            let rest = self.window.get(self.at..).unwrap_or_default();
            if let Some(blank) = rest.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\t' | b'\r')) {
                self.at += blank;
                return Ok(self.window.get(self.at).copied());
            }
            self.at = self.window.len();
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// Skips a string, an object or an array.
    fn nested(&mut self) -> Result<(), Unreadable> {
        let mut nesting = Nesting::default();
        loop {
            let rest = self.window.get(self.at..).unwrap_or_default();
            match nesting.pass(rest) {
                Ok(length) => {
                    self.at += length;
                    return Ok(());
                }
                Err(so_far) => nesting = so_far,
            }
            self.at = self.window.len();
            if !self.more()? {
                return Err(self.cut_off());
            }
        }
    }

    /// Skips a number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<(), Unreadable> {
        loop {
            let rest = self.window.get(self.at..).unwrap_or_default();
            let ends =
                |byte: &u8| !matches!(byte, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z');
            if let Some(length) = rest.iter().position(ends) {
                self.at += length;
                return Ok(());
            }
            self.at = self.window.len();
            if !self.more()? {
                return Ok(());
            }
        }
    }

    /// Replaces the part that has been read by the next one; returns whether there was one.
    fn more(&mut self) -> Result<bool, Unreadable> {
        let from = self.held.unwrap_or(self.at).min(self.window.len());
        if self.window.len() - from > MAX_HELD {
            return Err(self.unreadable(&format!("a value of more than {MAX_HELD} bytes")));
        }
        self.window.drain(..from);
        self.at -= from;
        self.held = self.held.map(|_| 0);
        let part = self.body.part(self.next, PART);
        self.next += part.len();
        let more = !part.is_empty();
        if self.window.is_empty() {
            self.window = part;
        } else {
            self.window.extend_from_slice(&part);
        }
        Ok(more)
    }

    fn cut_off(&self) -> Unreadable {
        self.unreadable("cut off")
    }

    fn unreadable(&self, what: &str) -> Unreadable {
        Unreadable(format!("{what}, before byte {}", self.next - self.window.len() + self.at))
    }
}

/// The position within a skipped value: depth of brackets, and whether inside a string.
#[derive(Clone, Copy, Debug, Default)]
struct Nesting {
    depth: u32,
    /// Every byte 1 inside a string, otherwise 0.
    in_string: u64,
    escaped: bool,
}

impl Nesting {
    /// Skips a value: `Ok` with its length in bytes, `Err` with the position after all of them. Sixteen megabytes may
    /// pass through here while Envoy's thread does nothing else, so it takes eight bytes at a time, without a branch
    /// for each.
    fn pass(mut self, bytes: &[u8]) -> Result<usize, Nesting> {
        let (words, rest) = bytes.as_chunks::<8>();
        for (at, word) in words.iter().enumerate() {
            match self.word(u64::from_le_bytes(*word)) {
                Some(after) => self = after,
                None => {
                    if let Some(within) = self.each(word) {
                        return Ok(8 * at + within);
                    }
                }
            }
        }
        self.each(rest).map(|within| 8 * words.len() + within).ok_or(self)
    }

    /// The position after eight bytes; `None` if they need a closer look, because the value may end in them or some are
    /// escaped.
    #[inline]
    fn word(self, word: u64) -> Option<Nesting> {
        // 1 in each byte that is such a character.
        let quotes = same(word, b'"');
        // `[` and `{` differ in one bit, and so do `]` and `}`.
        let opens = same(word | repeated(0x20), b'{');
        let closes = same(word | repeated(0x20), b'}');
        // The number of quotes up to each byte: odd is inside a string, if the word began outside.
        let within = quotes.wrapping_mul(repeated(1)) ^ self.in_string;
        let opens = (opens & !within).count_ones();
        let closes = (closes & !within).count_ones();
        if self.depth <= closes || self.escaped || same(word, b'\\') != 0 {
            return None;
        }
        // `in_string` of the word's last byte.
        let in_string = (within >> 56 & 1).wrapping_mul(repeated(1));
        Some(Nesting { depth: self.depth + opens - closes, in_string, escaped: false })
    }

    /// The same byte by byte: the number of bytes until the value ends, if it does. Rarely needed, and kept out of the
    /// loop over words.
    #[cold]
    #[inline(never)]
    fn each(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            let within = self.in_string != 0;
            match byte {
                _ if core::mem::take(&mut self.escaped) => {}
                b'\\' if within => self.escaped = true,
                b'"' => self.in_string ^= repeated(1),
                b'{' | b'[' if !within => self.depth = self.depth.saturating_add(1),
                b'}' | b']' if !within => self.depth = self.depth.saturating_sub(1),
                _ => continue,
            }
            if self.depth == 0 && self.in_string == 0 {
                return Some(at + 1);
            }
        }
        None
    }
}

const fn repeated(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// 1 in each byte of `word` that equals `byte`, an ASCII character, and 0 in the others.
#[inline]
fn same(word: u64, byte: u8) -> u64 {
    let differs = word ^ repeated(byte);
    // The addition carries into the highest bit of every byte with a lower bit set, and never out of a byte.
    let differs = (differs & repeated(0x7f)).wrapping_add(repeated(0x7f)) | differs;
    !differs >> 7 & repeated(1)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// A body that returns this many bytes at a time, however many are asked for.
    struct Slow<'b>(&'b [u8], usize);

    impl Body for Slow<'_> {
        fn size(&self) -> usize {
            self.0.len()
        }

        fn part(&self, from: usize, most: usize) -> Vec<u8> {
            self.0.part(from, most.min(self.1))
        }
    }

    /// The fields `want`, as text, of an object with others.
    fn wanted(json: &[u8], at_a_time: usize) -> Result<Vec<String>, Unreadable> {
        let (body, mut found) = (Slow(json, at_a_time), Vec::new());
        let mut scanner = Scanner::new(&body);
        scanner.object(&["want"], &mut |scanner, _| {
            found.push(scanner.value::<serde_json::Value>()?.to_string());
            Ok(())
        })?;
        scanner.end().map(|()| found)
    }

    #[test]
    fn what_is_wanted_is_found_wherever_a_part_ends() {
        let json = br#" { "a": "\\", "wan": [{"want": 1}, "]}\"{", [[]], {}], "want": {"x": [1, "}"]} ,
            "b":-1.5e+3, "\"want": null, "want": "\u00fc\"" , "c": true, "want":7}  "#;
        for at_a_time in 1..json.len() + 1 {
            let found = wanted(json, at_a_time).unwrap();
            assert_eq!(found, [r#"{"x":[1,"}"]}"#, r#""ü\"""#, "7"], "{at_a_time}");
        }
        for cut in 0..json.len() - 3 {
            assert!(wanted(&json[..cut], 7).is_err(), "{cut}");
        }
    }

    #[test]
    fn eight_bytes_at_a_time_are_as_one_by_one() {
        let mut random = engine::rng::Rng::new(7);
        let characters = b"\"\"\"{}[]{}[]\\ az\n\x02\x5a\x5c\x7a\xfb\xfd\x82";
        let mut ended = 0;
        for _ in 0..20_000 {
            let mut one = || characters[random.below(characters.len() as u32) as usize];
            let bytes: Vec<u8> = (0..40).map(|_| one()).collect();
            let begins = Nesting { depth: random.below(4), ..Nesting::default() };
            let mut slow = begins;
            let one_by_one = slow.each(&bytes);
            match begins.pass(&bytes) {
                Ok(length) => assert_eq!(Some(length), one_by_one, "{:?}", String::from_utf8_lossy(&bytes)),
                Err(fast) => {
                    assert_eq!(one_by_one, None);
                    assert_eq!(
                        (fast.depth, fast.in_string, fast.escaped),
                        (slow.depth, slow.in_string, slow.escaped)
                    );
                }
            }
            ended += usize::from(one_by_one.is_some());
        }
        assert!((2_000..18_000).contains(&ended), "{ended}");
    }

    #[test]
    fn null_is_an_empty_object_and_other_types_are_faults() {
        assert!(wanted(b"null", 9).unwrap().is_empty());
        for (json, part) in [
            ("7", "expected an object, before byte 0"),
            ("nil", "expected"),
            ("{\"a\" 1}", "expected a colon, before byte 5"),
            ("{\"a\":1 \"b\":2}", "expected a comma, before byte 7"),
            ("{\"a\":1,}", "expected a name, before byte 7"),
            ("{\"a\":<}", "expected a value, before byte 5"),
            ("{\"want\":1x}", "at line 1"),
            ("{\"a\":[", "cut off, before byte 6"),
            ("{} x", "something follows, before byte 3"),
        ] {
            let error = wanted(json.as_bytes(), 9).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn a_value_may_be_passed_over_however_large_and_held_only_if_it_is_small() {
        let long = "x".repeat(3 * PART);
        let deep = "[".repeat(3 * PART);
        let close = "]".repeat(3 * PART);
        let json = format!(r#"{{"a":"{long}","b":{deep}{close},"want":1}}"#);
        assert_eq!(wanted(json.as_bytes(), PART).unwrap(), ["1"]);
        let error = wanted(format!(r#"{{"want":"{long}"}}"#).as_bytes(), PART).unwrap_err();
        assert!(error.to_string().contains("more than 65536 bytes"), "{error}");
        // Nested values that are held are read by serde, which has a depth limit of its own.
        assert!(wanted(format!(r#"{{"want":{}{}}}"#, &deep[..999], &close[..999]).as_bytes(), 9).is_err());
    }
}
