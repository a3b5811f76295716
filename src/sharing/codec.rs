//! Encoding of shared data: little-endian fields in a row. A reader that runs out of bytes returns `None`.

use engine::time::Time;

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// An empty buffer that begins with the codec version.
    pub fn versioned() -> Writer {
        Writer(vec![super::VERSION])
    }

    /// Like [`Writer::versioned`], with capacity for `size` bytes in all.
    pub fn versioned_for(size: usize) -> Writer {
        let mut bytes = Vec::with_capacity(size);
        bytes.push(super::VERSION);
        Writer(bytes)
    }

    /// Appends raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends a `u32`.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends a `u64`.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends an `f32`.
    pub fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }

    /// Appends an `f64`.
    pub fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }

    /// Appends a point in time.
    pub fn time(&mut self, time: Time) {
        self.u64(time.0);
    }

    /// Appends text with its length. Text beyond 64 KiB is cut at a character boundary.
    pub fn text(&mut self, text: &str) {
        let most = text.len().min(usize::from(u16::MAX));
        let cut = (0..=most).rev().find_map(|at| text.get(..at)).unwrap_or_default();
        self.u32(cut.len() as u32);
        self.bytes(cut.as_bytes());
    }
}

/// Takes fields from a buffer; `None` as soon as one is missing. Methods that a tick calls thousands of times are
/// inlined.
#[derive(Clone, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// A reader after the codec version; `None` if that is not [`VERSION`](super::VERSION).
    pub fn versioned(bytes: &'a [u8]) -> Option<Reader<'a>> {
        match bytes.split_first()? {
            (&super::VERSION, rest) => Some(Reader(rest)),
            _ => None,
        }
    }

    /// The next `N` bytes.
    #[inline(always)]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next `u16`.
    #[inline(always)]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next `u32`.
    #[inline(always)]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next `u64`.
    #[inline(always)]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `f32`, which must be finite.
    #[inline(always)]
    pub fn f32(&mut self) -> Option<f32> {
        self.u32().map(f32::from_bits).filter(|v| v.is_finite())
    }

    /// The next `f64`, which must be finite.
    pub fn f64(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits).filter(|v| v.is_finite())
    }

    /// The next point in time.
    #[inline(always)]
    pub fn time(&mut self) -> Option<Time> {
        self.u64().map(Time)
    }

    /// The next text.
    pub fn text(&mut self) -> Option<&'a str> {
        let len = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        core::str::from_utf8(head).ok()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn reads_back_what_was_written_and_nothing_beyond() {
        let mut w = Writer::versioned();
        w.u32(7);
        w.u64(8);
        w.f32(1.5);
        w.f64(-2.5);
        w.time(Time(9));
        w.text("añb");
        let mut r = Reader::versioned(&w.0).unwrap();
        assert_eq!((r.u32(), r.u64(), r.f32(), r.f64()), (Some(7), Some(8), Some(1.5), Some(-2.5)));
        assert_eq!((r.time(), r.text(), r.u32()), (Some(Time(9)), Some("añb"), None));
    }

    #[test]
    fn what_is_cut_is_text_still() {
        let long = "ü".repeat(usize::from(u16::MAX));
        let mut w = Writer::default();
        w.text(&long);
        w.u32(7);
        let mut r = Reader(&w.0);
        assert_eq!(r.text(), long.get(..usize::from(u16::MAX) - 1));
        assert_eq!(r.u32(), Some(7));
    }

    #[test]
    fn refuses_other_versions_and_numbers_that_are_none() {
        assert!(Reader::versioned(&[]).is_none());
        assert!(Reader::versioned(&[99, 0, 0]).is_none());
        let mut w = Writer::default();
        w.f32(f32::NAN);
        assert_eq!(Reader(&w.0).f32(), None);
        let mut text = Writer::default();
        text.u32(u32::MAX);
        assert_eq!(Reader(&text.0).text(), None);
    }

    #[test]
    fn a_number_that_is_none_is_refused_in_both_sizes() {
        for none in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut w = Writer::default();
            w.f64(none);
            w.f32(none as f32);
            assert_eq!((Reader(&w.0[..8]).f64(), Reader(&w.0[8..]).f32()), (None, None), "{none}");
        }
    }
}
