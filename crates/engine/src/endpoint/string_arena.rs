//! Many short strings in one allocation.

/// Strings, each after one byte that holds its length.
#[derive(Clone, Debug, Default)]
pub(super) struct StringArena(String);

impl StringArena {
    /// Adds a string of less than 128 bytes, as every address is; returns its offset.
    pub fn add(&mut self, text: &str) -> u32 {
        let at = self.0.len() as u32;
        self.0.push(char::from(text.len() as u8 & 0x7f));
        self.0.push_str(text);
        at
    }

    /// The string at offset `at`.
    pub fn get(&self, at: u32) -> &str {
        let start = (at as usize).saturating_add(1);
        self.0.get(start..start.saturating_add(self.bytes(at).len())).unwrap_or_default()
    }

    /// The string at offset `at` as bytes, without the check for character boundaries.
    pub fn bytes(&self, at: u32) -> &[u8] {
        let behind = self.0.as_bytes().get(at as usize..).unwrap_or_default();
        let text = behind.split_first().and_then(|(length, text)| text.get(..usize::from(*length)));
        text.unwrap_or_default()
    }

    /// Releases spare capacity.
    pub fn done(mut self) -> StringArena {
        self.0.shrink_to_fit();
        self
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn gives_back_what_was_added() {
        let mut texts = StringArena::default();
        let longest = "[fe80:1111:2222:3333:4444:5555:6666:7777%4294967295]:65535";
        let added = ["127.0.0.1:80", "", longest, "[::1]:8080"].map(|text| (texts.add(text), text));
        let texts = texts.done();
        assert!(added.iter().all(|(at, text)| texts.get(*at) == *text));
        assert_eq!(texts.get(u32::MAX), "");
    }
}
